"""Turns a normalised network into a dynamic program, or says which nodes stand in the way."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
from onnx import numpy_helper

from wasmgraph.assembler import write_object
from wasmgraph.bundle import ALIGNMENT, Bundle, Constant, Graph, SimdLevel, Source, Tensor
from wasmgraph.dynamic.constants import Constants
from wasmgraph.dynamic.fuse import Fusion
from wasmgraph.dynamic.liveness import with_liveness
from wasmgraph.dynamic.operators import converter_for
from wasmgraph.dynamic.program import Body, DynamicProgram, Node, all_nodes
from wasmgraph.dynamic.view import Array, NodeView, Unsupported, Value
from wasmgraph.errors import Obstacle, UnsupportedModelError
from wasmgraph.importer.network import Network, attributes, tensor_type
from wasmgraph.metadata import DTYPE_NBYTES

_MAX_PARAMS = 2**31 - 1

MORE_OPERATORS = "fixed shapes (--shape) support more operators"
"""The way out where a node has no dynamic operator."""


@dataclass(frozen=True)
class Converted:
    """A network as calls of the executor's operators.

    Attributes:
        slots: How many there are.
        body: The nodes; they free nothing yet.
        outputs: The values of its outputs.
        constants: With their names.
    """

    slots: int
    body: Body
    outputs: tuple[Value, ...]
    constants: tuple[tuple[Value, str], ...]


def convert(network: Network) -> Converted:
    """Find an operator for every node.

    Raises:
        UnsupportedModelError: lists every node that has none, once.
    """
    builder = _Builder(network)
    body, outputs = builder.whole()
    return Converted(builder.slots, body, tuple(outputs), tuple(builder.constants))


def build_bundle(
    network: Network,
    converted: Converted,
    output_shapes: Sequence[tuple[int | str, ...]],
    source: Source,
    simd: SimdLevel,
    producer: Mapping[str, str],
    *,
    winograd: bool = True,
    small_weights: bool = True,
) -> Bundle:
    """The bundle of a dynamic graph.

    Args:
        network: Normalised as far as open shapes allow.
        converted: Its nodes.
        output_shapes: With names for open axes.
        source: What it was compiled from.
        simd: What the executor's operators may use.
        producer: Versions, for the bundle.
        winograd: Whether Winograd's algorithm may be used.
        small_weights: Whether weights of products stay codes where the model has them so.

    Raises:
        UnsupportedModelError: its weights do not fit 32-bit memory.
    """
    body, kept, total = converted.body, converted.constants, converted.slots
    code, narrowed = b"", 0
    if simd != "none":
        blocks = [each for several in network.block_scaled.values() for each in several]
        known = Constants(converted.constants, converted.slots, blocks if small_weights else ())
        fusion = Fusion(known, winograd=winograd)
        body = fusion.body(body)
        read = _read(body)
        kept, total, narrowed = tuple(known.used(read)), known.slots, known.narrowed(read)
        code = write_object(fusion.functions())
    constants, params = _layout(kept, network.name)
    slots = tuple(value.slot for value, _ in kept)
    inputs = tuple(
        Tensor(value.name, str(_dtype(value)), open_axis_names(value), None)
        for value in network.inputs
    )
    graph = Graph(
        source=source,
        producer=producer,
        simd=simd,
        inputs=inputs,
        outputs=tuple(
            Tensor(name, value.dtype, tuple(shape), None)
            for name, value, shape in zip(
                network.output_names, converted.outputs, output_shapes, strict=True
            )
        ),
        constants=constants,
        kernels=(),
        steps=(),
        params_nbytes=len(params),
        wide_nbytes=len(params) + narrowed,
        io_nbytes=0,
        arena_nbytes=0,
        dynamic=DynamicProgram(total, slots, with_liveness(body, frozenset(slots))),
    )
    return Bundle(graph, code, params)


def _read(body: Body) -> set[int]:
    """What a body, or one inside of it, reads or gives."""
    nodes = list(all_nodes(body))
    given = {slot for node in nodes for inner in node.bodies for slot in inner.outputs}
    read = {slot for node in nodes for slot in node.inputs if slot is not None}
    return given | read | {*body.outputs}


def _layout(
    constants: Sequence[tuple[Value, str]], model: str
) -> tuple[tuple[Constant, ...], bytes]:
    """The constants, and their bytes one after the other."""
    entries, params = [], bytearray()
    for value, name in constants:
        array = value.constant
        assert array is not None
        params += bytes(-len(params) % ALIGNMENT)
        entries.append(Constant(name, array.dtype.name, array.shape, len(params)))
        # A constant without elements has an address too.
        params += array.tobytes() or b"\0"
    if len(params) > _MAX_PARAMS:
        raise UnsupportedModelError(
            f"{model} has {len(params) / 2**30:.1f} GiB of weights, "
            "32-bit memory holds less than 2 GiB of them"
        )
    return tuple(entries), bytes(params)


def _dtype(value: onnx.ValueInfoProto) -> np.dtype[Any]:
    known = tensor_type(value)
    assert known is not None  # `fix_shapes` has seen to it
    return known.dtype


@dataclass
class _Scope:
    """Values by name; those of the graph around it are seen too."""

    values: dict[str, Value] = field(default_factory=dict)
    nodes: list[Node] = field(default_factory=list)
    outer: _Scope | None = None

    def find(self, name: str) -> Value | None:
        scope: _Scope | None = self
        while scope is not None:
            if name in scope.values:
                return scope.values[name]
            scope = scope.outer
        return None


class _Builder:
    """Numbers the slots and collects nodes; a `wasmgraph.dynamic.view.Maker`."""

    def __init__(self, network: Network) -> None:
        self.network = network
        self.slots = 0
        self.constants: list[tuple[Value, str]] = []
        self._shared: dict[tuple[str, tuple[int, ...], bytes], Value] = {}
        self._scope = _Scope()
        self._obstacles: list[Obstacle] = []
        self._node = ""

    def whole(self) -> tuple[Body, list[Value]]:
        """The graph's own body and its outputs."""
        for value in self.network.inputs:
            self._scope.values[value.name] = self.new_value(str(_dtype(value)))
        inputs = [self._scope.values[name].slot for name in self.network.input_names]
        self._convert(self.network.nodes)
        for value in self.network.outputs:
            if value.type.WhichOneof("value") in ("sequence_type", "optional_type"):
                reason = "this output is not a tensor, which is all that a graph can give"
                self._obstacles.append(Obstacle(value.name, "", reason))
        outputs = [self._find(name) for name in self.network.output_names]
        if self._obstacles:
            raise UnsupportedModelError(
                f"{self.network.name} cannot be compiled with dynamic shapes:",
                hint=MORE_OPERATORS,
                obstacles=self._obstacles,
            )
        found = [value for value in outputs if value is not None]
        body = Body(tuple(self._scope.nodes), tuple(inputs), tuple(v.slot for v in found))
        return body, found

    def new_value(self, dtype: str) -> Value:
        self.slots += 1
        return Value(self.slots - 1, dtype)

    def constant(self, array: Array, name: str = "") -> Value:
        if array.dtype.name not in DTYPE_NBYTES:
            raise Unsupported(f"a constant of dtype {array.dtype.name} is not supported")
        array = np.ascontiguousarray(array).reshape(array.shape)
        key = (array.dtype.name, array.shape, array.tobytes())
        if key not in self._shared:
            known = self.new_value(array.dtype.name)
            self._shared[key] = Value(known.slot, known.dtype, array)
            self.constants.append((self._shared[key], name or f"constant {len(self.constants)}"))
        return self._shared[key]

    def add(
        self,
        operator: str,
        words: Sequence[int],
        inputs: Sequence[Value | None],
        outputs: Sequence[Value],
        bodies: Sequence[Any],
    ) -> None:
        numbers = tuple(int(word) for word in words)
        if any(not -(2**31) <= number < 2**31 for number in numbers):
            raise Unsupported("one of its attributes does not fit 32 bits")
        self._scope.nodes.append(
            Node(
                operator,
                numbers,
                tuple(None if value is None else value.slot for value in inputs),
                tuple(value.slot for value in outputs),
                (),
                tuple(bodies),
                self._node,
            )
        )

    def body(
        self, graph: onnx.GraphProto, inputs: Sequence[str | None]
    ) -> tuple[Body, list[Value]]:
        """A branch or loop body whose inputs have these dtypes."""
        node, self._scope = self._node, _Scope(outer=self._scope)
        try:
            for tensor in graph.initializer:
                array = np.asarray(numpy_helper.to_array(tensor))
                self._scope.values[tensor.name] = self.constant(array, tensor.name)
            slots = []
            for value, dtype in zip(graph.input, inputs, strict=True):
                self._scope.values[value.name] = self.new_value(dtype or str(_dtype(value)))
                slots.append(self._scope.values[value.name].slot)
            before = len(self._obstacles)
            self._convert(graph.node)
            if len(self._obstacles) > before:
                raise Unsupported("")
            outputs = []
            for value in graph.output:
                output = self._find(value.name)
                if output is None:
                    raise Unsupported(f"nothing computes its output {value.name!r}")
                outputs.append(output)
            nodes = tuple(self._scope.nodes)
            return Body(nodes, tuple(slots), tuple(v.slot for v in outputs)), outputs
        finally:
            assert self._scope.outer is not None
            self._node, self._scope = node, self._scope.outer

    def _find(self, name: str) -> Value | None:
        value = self._scope.find(name)
        if value is None and name in self.network.weights:
            return self.constant(self.network.weights[name], name)
        return value

    def _convert(self, nodes: Sequence[onnx.NodeProto]) -> None:
        unknown: set[str] = set()
        for index, node in enumerate(nodes):
            self._node = node.name or f"{node.op_type}#{index}"
            op = f"{node.domain}.{node.op_type}" if node.domain else node.op_type
            if any(name in unknown for name in node.input):
                # Only for want of an operator before it.
                unknown.update(node.output)
                if converter_for(node) is None:
                    self._obstacles.append(
                        Obstacle(self._node, op, "the operator is not supported")
                    )
                continue
            try:
                self._convert_node(node)
            except Unsupported as reason:
                unknown.update(node.output)
                if str(reason):
                    self._obstacles.append(Obstacle(self._node, op, str(reason)))

    def _convert_node(self, node: onnx.NodeProto) -> None:
        if node.op_type == "Constant" and not node.domain:
            self._scope.values[node.output[0]] = self.constant(_constant(node), node.output[0])
            return
        converter = converter_for(node)
        if converter is None:
            raise Unsupported("the operator is not supported where shapes are dynamic")
        inputs = []
        for name in node.input:
            value = self._find(name) if name else None
            if name and value is None:
                raise Unsupported(f"nothing computes its input {name!r}")
            inputs.append(value)
        opset = self.network.opsets.get(node.domain, 1)
        view = NodeView(
            node.op_type, attributes(node), tuple(inputs), len(node.output), opset, self
        )
        results = converter(view)
        for name, value in zip(node.output, results, strict=False):
            if name:
                self._scope.values[name] = value
        for name in node.output[len(results) :]:
            if name:
                raise Unsupported(f"its output {name!r} is not supported")


def _constant(node: onnx.NodeProto) -> Array:
    for name, value in attributes(node).items():
        if name == "value":
            return np.asarray(numpy_helper.to_array(value))
        if name in ("value_int", "value_ints"):
            return np.array(value, np.int64)
        if name in ("value_float", "value_floats"):
            return np.array(value, np.float32)
    raise Unsupported("a constant of this kind is not supported")


def open_axis_names(value: onnx.ValueInfoProto) -> tuple[int | str, ...]:
    """The shape of an input or output: a name for each axis whose extent is not known.

    An axis without a name is called after the tensor and its number; ("...",) stands for a shape
    of which not even the rank is known.
    """
    tensor = value.type.tensor_type
    if not tensor.HasField("shape"):
        return ("...",)
    return tuple(
        dim.dim_value
        if dim.HasField("dim_value") and dim.dim_value >= 0
        else (dim.dim_param or f"{value.name}:{axis}")
        for axis, dim in enumerate(tensor.shape.dim)
    )


def output_shapes(network: Network) -> list[tuple[int | str, ...]]:
    """What shape inference knows of the outputs' shapes, with the names of their axes."""
    from wasmgraph.importer.normalise.fold import inferred_proto

    graph = inferred_proto(network).graph
    known = {v.name: v for v in (*graph.input, *graph.value_info, *graph.output)}
    shapes = []
    for name in network.output_names:
        if name in network.weights:
            shapes.append(network.weights[name].shape)
        else:
            shapes.append(open_axis_names(known[name]))
    return shapes
