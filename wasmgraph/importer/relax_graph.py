"""Build the Relax function from a normalised network, with TVM's converters and ours."""

from __future__ import annotations

import contextlib
import io
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from tvm import relax
from tvm.ir import GenericConst
from tvm.relax.frontend.onnx import onnx_frontend

from wasmgraph.errors import ModelError, Obstacle
from wasmgraph.importer.converters import find_converter
from wasmgraph.importer.converters.static import (
    constant,
    dtype_of,
    has_static_shape,
    shape_of,
)
from wasmgraph.importer.network import (
    Network,
    TensorType,
    all_inputs,
    attributes,
    tensor_type,
)
from wasmgraph.importer.provenance import marker
from wasmgraph.importer.support import unsupported, why_impossible
from wasmgraph.kernels.block_scaled import BlockScaled


@dataclass(frozen=True)
class RelaxGraph:
    """The model as Relax.

    Attributes:
        module: An IRModule whose `main` takes the graph inputs and returns a tuple of the outputs.
        inputs: (name, dtype, shape) of every parameter of `main`, in order. The dtype is the
            model's, where `main` has one that kernels know.
        outputs: (name, dtype, shape) of every field of the returned tuple, likewise.
        nodes: Names of the ONNX nodes, by the index that variables carry.
        weight_names: ONNX names of the large constants, by the address of their data.
        wide_nbytes: As in `Network`.
        block_scaled: What some of the constants were decoded from, in no order.
    """

    module: Any
    inputs: tuple[tuple[str, str, tuple[int, ...]], ...]
    outputs: tuple[tuple[str, str, tuple[int, ...]], ...]
    nodes: tuple[str, ...]
    weight_names: dict[int, str]
    wide_nbytes: Mapping[str, int]
    block_scaled: tuple[BlockScaled, ...] = ()


def build_relax(network: Network) -> RelaxGraph:
    """Convert a network whose nodes were checked by `reject_unsupported`.

    Raises:
        UnsupportedModelError: converters refuse nodes; every one of them is listed.
    """
    builder = _Builder(network)
    return builder.build()


class _Builder:
    """One conversion: the block builder and the expressions so far."""

    def __init__(self, network: Network) -> None:
        self.network = network
        self.bb = relax.BlockBuilder()
        self.frontend = onnx_frontend.ONNXGraphImporter({}, "float32")
        self.frontend.bb = self.bb
        self.frontend.opset = network.opset
        self.values: dict[str, Any] = self.frontend._nodes
        self.obstacles: list[Obstacle] = []
        self.unknown: set[str] = set()  # tensors that a failed node left without a known shape
        self.weight_names: dict[int, str] = {}
        self.read = {name for node in network.nodes for name in all_inputs(node)}
        self.read.update(network.output_names)

    def build(self) -> RelaxGraph:
        network = self.network
        params = []
        for index, value in enumerate(network.inputs):
            known = tensor_type(value)
            assert known is not None
            assert known.shape is not None
            var = relax.Var(f"input{index}", relax.TensorType(known.shape, known.dtype.name))
            self.values[value.name] = var
            params.append(var)
        with _open_block_ended(self.bb), self.bb.function("main", params=params):
            with self.bb.dataflow():
                for index, node in enumerate(network.nodes):
                    self._convert(index, node)
                if self.obstacles:
                    raise unsupported(network, self.obstacles)
                outputs = [self._value(name) for name in network.output_names]
                result = self.bb.emit_output(relax.Tuple(outputs))
            self.bb.emit_func_output(result)
        return RelaxGraph(
            module=self.bb.get(),
            inputs=tuple(
                (value.name, network.declared.get(value.name, dtype_of(var)), shape_of(var))
                for value, var in zip(network.inputs, params, strict=True)
            ),
            outputs=tuple(
                (name, network.declared.get(name, dtype_of(expr)), shape_of(expr))
                for name, expr in zip(network.output_names, outputs, strict=True)
            ),
            nodes=tuple(node.name for node in network.nodes),
            weight_names=self.weight_names,
            wide_nbytes=network.wide_nbytes,
            block_scaled=tuple(w for several in network.block_scaled.values() for w in several),
        )

    def _value(self, name: str) -> Any:
        """The expression behind a tensor's name; weights become constants on first use."""
        if name not in self.values:
            if name not in self.network.weights:
                raise ModelError(f"{self.network.name}: nothing computes the tensor {name!r}")
            weight = constant(self.network.weights[name])
            self.weight_names[data_address(weight)] = name
            self.values[name] = weight
        return self.values[name]

    def _convert(self, index: int, node: onnx.NodeProto) -> None:
        if not self.unknown.isdisjoint(node.input):
            self._stand_in(node)  # nothing can be said of this one until the other is mended
            return
        inputs = [self._value(name) if name else None for name in node.input]
        own = find_converter(node, self.read)
        try:
            with _quiet():
                result = own(self.bb, inputs, attributes(node)) if own is not None else None
                if result is None:
                    result = self._convert_with_tvm(node, inputs)
                fields = _unpack(self.bb, result)
                named = [name for name in node.output if name]
                if len(fields) < len(node.output) and len(fields) < len(named):
                    raise NotImplementedError(
                        f"only {len(fields)} of its {len(node.output)} outputs can be computed"
                    )
                emitted = [self._emit(field, index) for field in fields[: len(node.output)]]
                self._check_types(node, emitted)
        except Exception as error:
            op = f"{node.domain}.{node.op_type}" if node.domain else node.op_type
            self.obstacles.append(Obstacle(node.name, op, self._reason(node, error)))
            self._stand_in(node)
            return
        for name, value in zip(node.output, emitted, strict=False):
            if name:
                self.values[name] = value

    def _check_types(self, node: onnx.NodeProto, values: list[Any]) -> None:
        """Refuse what a converter computes differently from what ONNX says of the outputs.

        TVM's converters are wrong here and there; a wrong shape or dtype shows it. Outputs that
        nobody reads do not matter.
        """
        for name, value in zip(node.output, values, strict=False):
            known = self.network.types.get(name)
            if name not in self.read or known is None or known.shape is None:
                continue
            expected = f"{known.dtype.name}{list(known.shape)}"
            found = f"{dtype_of(value)}{list(shape_of(value))}"
            if found != expected:
                raise NotImplementedError(
                    f"its output {name!r} would be {found} where ONNX has {expected}"
                )

    def _convert_with_tvm(self, node: onnx.NodeProto, inputs: list[Any]) -> Any:
        attrs = self.frontend._parse_attr(node.attribute)
        attrs["tvm_custom"] = {"name": node.name, "num_outputs": len(node.output)}
        operands = onnx_frontend.onnx_input()
        operands.extend(inputs)
        return self.frontend._convert_operator(node.op_type, operands, attrs, self.network.opset)

    def _emit(self, expr: Any, index: int) -> Any:
        expr = self.bb.normalize(expr)
        if isinstance(expr.ty, relax.ShapeType):
            return constant([int(extent) for extent in expr.values], "int64")
        if not has_static_shape(expr):
            raise NotImplementedError(DEPENDS_ON_DATA)
        if isinstance(expr, (GenericConst, relax.Var)):
            return expr
        # Shape inference does not know every tensor; this is the last look before kernels are made.
        reason = why_impossible(TensorType(np.dtype(dtype_of(expr)), shape_of(expr)))
        if reason is not None:
            raise NotImplementedError(reason)
        return self.bb.emit(expr, name_hint=marker(index))

    def _stand_in(self, node: onnx.NodeProto) -> None:
        """Placeholders for the outputs of a node that failed, so that later ones are tried too."""
        for name in node.output:
            known = self.network.types.get(name)
            if known is None or known.shape is None:
                self.unknown.add(name)
                self.values[name] = constant(0, "float32")
            else:
                zeros = relax.op.zeros(known.shape, known.dtype.name)
                self.values[name] = self.bb.emit(zeros)

    def _reason(self, node: onnx.NodeProto, error: Exception) -> str:
        if node.domain:  # onnx knows little of the shapes of others
            return _first_line(error)
        known = [self.network.types.get(name) for name in node.output if name]
        if any(kind is not None and kind.shape is None for kind in known):
            return DEPENDS_ON_DATA
        return _first_line(error)


DEPENDS_ON_DATA = "the shape of its output depends on values that are computed at run time"


def _unpack(bb: Any, result: Any) -> list[Any]:
    if isinstance(result, (tuple, list)):
        return list(result)
    if isinstance(result, relax.Tuple):
        return list(result.fields)
    result = bb.normalize(result)
    if isinstance(result.ty, relax.TupleType):
        var = bb.emit(result)
        return [relax.TupleGetItem(var, i) for i in range(len(result.ty.fields))]
    return [result]


def _first_line(error: Exception) -> str:
    """The first meaningful line of what a converter said."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    text = lines[0] if lines else type(error).__name__
    return text if len(text) < 300 else text[:300] + "…"


def data_address(weight: Any) -> int:
    """Where a Relax constant's bytes lie; passes keep it, so it identifies a weight."""
    view = np.from_dlpack(weight.value)  # .numpy() would copy
    return int(view.__array_interface__["data"][0])


@contextlib.contextmanager
def _open_block_ended(bb: Any) -> Iterator[None]:
    """End the block that TVM leaves open on an error; its destructor would print a warning."""
    try:
        yield
    except BaseException:
        with contextlib.suppress(Exception):
            bb._end_block()
        raise


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """TVM's converters print and warn; what matters comes as an exception."""
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        yield
