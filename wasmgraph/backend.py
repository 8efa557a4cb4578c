"""wasmgraph as an ONNX backend: what `onnx.backend.base.Backend` asks for, executed as wasm.

    import wasmgraph.backend
    prepared = wasmgraph.backend.prepare(model)
    [y] = prepared.run([x])

This is the interface of onnx's own conformance tests. A program that keeps its graphs should use
`wasmgraph.compile` and `wasmgraph.load`, which write a file and load it as often as it likes; here
every graph is compiled to a temporary file and is gone with the prepared model.

A graph has static shapes, so nothing is compiled before the first `run`: axes that the model leaves
open get the extents of the arrays given there, and other extents later are another graph.

Some operands must be known when compiling, since they decide how large a tensor is: the target
shape of a Reshape, the axes of a ReduceSum (`DECIDING_OPERANDS`). Where a model takes such an
operand as an input and is refused for it, the input's value in that run is compiled in ("promoted")
and another value later is another graph. `PreparedModel.promoted` names these inputs.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper, shape_inference
from onnx.backend.base import Backend, BackendRep, namedtupledict

import wasmgraph
from wasmgraph.bundle import SimdLevel
from wasmgraph.errors import InputError, UnsupportedModelError

_REDUCTIONS = (
    *("ReduceL1", "ReduceL2", "ReduceLogSum", "ReduceLogSumExp", "ReduceMax", "ReduceMean"),
    *("ReduceMin", "ReduceProd", "ReduceSum", "ReduceSumSquare"),
)

DECIDING_OPERANDS: Mapping[str, tuple[int, ...]] = {
    "AffineGrid": (1,),
    "BlackmanWindow": (0,),
    "CenterCropPad": (1,),
    "Col2Im": (1, 2),
    "ConstantOfShape": (0,),
    "CumProd": (1,),
    "CumSum": (1,),
    "DFT": (1, 2),
    "Dropout": (1, 2),
    "Expand": (1,),
    "HammingWindow": (0,),
    "HannWindow": (0,),
    "MaxUnpool": (2,),
    "MelWeightMatrix": (0, 1, 2, 3, 4),
    "OneHot": (1,),
    "Pad": (1, 3),
    "Range": (0, 1, 2),
    **dict.fromkeys(_REDUCTIONS, (1,)),
    "Reshape": (1,),
    "Resize": (1, 2, 3),
    "STFT": (1, 3),
    "Slice": (1, 2, 3, 4),
    "Split": (1,),
    "Squeeze": (1,),
    "Tile": (1,),
    "TopK": (1,),
    "Trilu": (1,),
    "Unsqueeze": (1,),
    "Upsample": (1,),
}
"""By ai.onnx operator, the operands that say how to compute and not what: shapes, axes, counts,
extents, modes. Data are never among them, not even where they decide the size of an output."""


@dataclass(frozen=True)
class Options:
    """How a prepared model is compiled and run.

    Attributes:
        simd: As in `wasmgraph.compile`.
        max_memory, timeout: As in `wasmgraph.load`.
        promote: Whether inputs that must be known when compiling are compiled in.
    """

    simd: SimdLevel = "simd128"
    max_memory: int | str | None = None
    timeout: float | str | None = None
    promote: bool = True


class PreparedModel(BackendRep):  # type: ignore[misc]  # onnx is not typed
    """A model that is compiled when it is first run, and again for other shapes."""

    def __init__(self, model: onnx.ModelProto, options: Options) -> None:
        self._model = model
        self._options = options
        self._graph: wasmgraph.Graph | None = None
        self._fits: object = None  # for which inputs
        self._promoted: tuple[str, ...] = ()
        weights = {tensor.name for tensor in model.graph.initializer}
        self._inputs = [value for value in model.graph.input if value.name not in weights]

    @property
    def promoted(self) -> tuple[str, ...]:
        """The inputs whose values are compiled in; known after the first run."""
        return self._promoted

    def run(self, inputs: Any, **_: Any) -> tuple[Any, ...]:
        """Run the model, under Wasmtime.

        Args:
            inputs: A value per graph input that is no initializer: in the model's order, or by
                name. A single array where there is one input.

        Returns:
            One array per output, in order; they can also be had by name (`result["y"]`).

        Raises:
            InputError: there are too many or too few inputs, or one has the wrong dtype or shape.
            UnsupportedModelError, ModelError, ToolchainError: the model cannot be compiled.
            InferenceError, MemoryLimitExceeded, RunTimeout: the run failed.
        """
        given = self._named(inputs)
        graph = self._graph_for(given)
        outputs = graph.run({name: given[name] for name in given if name not in self._promoted})
        return namedtupledict("Outputs", list(outputs))(*outputs.values())  # type: ignore[no-any-return]

    def _named(self, inputs: Any) -> dict[str, Any]:
        names = [value.name for value in self._inputs]
        if not isinstance(inputs, Mapping):
            values = list(inputs) if isinstance(inputs, (list, tuple)) else [inputs]
            if len(values) != len(names):
                raise InputError(
                    f"{self._model.graph.name} takes {len(names)} inputs, {len(values)} are given"
                )
            return dict(zip(names, values, strict=True))
        if set(inputs) != set(names):
            raise InputError(
                f"{self._model.graph.name} takes the inputs {', '.join(map(repr, names))}; "
                f"given are {', '.join(map(repr, inputs))}"
            )
        return dict(inputs)

    def _graph_for(self, given: Mapping[str, Any]) -> wasmgraph.Graph:
        if self._graph is None or self._fits != self._key(given):
            self._close()
            try:
                graph = self._compile(given)
            except UnsupportedModelError:
                deciding = deciding_inputs(self._model) if self._options.promote else ()
                if self._promoted or not deciding:
                    raise
                self._promoted = deciding
                graph = self._compile(given)
            self._graph, self._fits = graph, self._key(given)
        return self._graph

    def _key(self, given: Mapping[str, Any]) -> object:
        """What a graph depends on: the extents of open axes and the values compiled in."""
        values = [(name, np.asarray(given[name])) for name in self._promoted if name in given]
        contents = tuple((name, v.dtype.name, v.shape, v.tobytes()) for name, v in values)
        return tuple(self._open_shapes(given).items()), contents

    def _open_shapes(self, given: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
        return {
            value.name: np.shape(given[value.name])
            for value in self._inputs
            if value.name in given and value.name not in self._promoted and _has_open_axes(value)
        }

    def _compile(self, given: Mapping[str, Any]) -> wasmgraph.Graph:
        model = self._model
        if self._promoted:
            model = _with_weights(model, {name: given[name] for name in self._promoted})
        options = self._options
        with tempfile.TemporaryDirectory(prefix="wasmgraph-backend-") as folder:
            target = Path(folder) / "prepared.wasm"
            wasmgraph.compile(model, target, self._open_shapes(given), options.simd, verify=False)
            return wasmgraph.load(target, options.max_memory, options.timeout, cache=False)

    def _close(self) -> None:
        if self._graph is not None:
            self._graph.close()
        self._graph = None


class WasmgraphBackend(Backend):  # type: ignore[misc]  # onnx is not typed
    """The class that onnx's test runner takes."""

    @classmethod
    def prepare(cls, model: onnx.ModelProto, device: str = "CPU", **options: Any) -> PreparedModel:
        """A model to run; nothing is compiled yet.

        Args:
            model: With its weights inside.
            device: "CPU".
            options: The fields of `Options`.

        Raises:
            InputError: there is no such device.
        """
        if not cls.supports_device(device):
            raise InputError(f"there is no device {device!r}; graphs run on the CPU")
        return PreparedModel(model, Options(**options))

    @classmethod
    def run_model(
        cls, model: onnx.ModelProto, inputs: Any, device: str = "CPU", **options: Any
    ) -> tuple[Any, ...]:
        """Prepare a model and run it once; see `prepare` and `PreparedModel.run`."""
        return cls.prepare(model, device, **options).run(inputs)

    @classmethod
    def run_node(
        cls,
        node: onnx.NodeProto,
        inputs: Any,
        device: str = "CPU",
        outputs_info: Sequence[tuple[np.dtype[Any], tuple[int, ...]]] | None = None,
        *,
        opset_version: int | None = None,
        **options: Any,
    ) -> tuple[Any, ...]:
        """Run one operator on one array per input that is not left out.

        Args:
            node: The operator.
            inputs: In the node's order, or by name.
            device: "CPU".
            outputs_info: Dtype and shape of every output, where onnx cannot infer them.
            opset_version: Of the node's domain; by default the newest that onnx knows.
            options: The fields of `Options`.

        Raises:
            The errors of `PreparedModel.run`.
        """
        names = [name for name in node.input if name]
        given = (
            dict(inputs) if isinstance(inputs, Mapping) else dict(zip(names, inputs, strict=True))
        )
        model = _model_of_node(node, given, outputs_info, opset_version)
        return cls.run_model(model, given, device, **options)

    @classmethod
    def supports_device(cls, device: str) -> bool:
        """Whether graphs run there: "CPU", or "CPU:0"."""
        return device in ("CPU", "CPU:0")


prepare = WasmgraphBackend.prepare
run_model = WasmgraphBackend.run_model
run_node = WasmgraphBackend.run_node
supports_device = WasmgraphBackend.supports_device


def deciding_inputs(model: onnx.ModelProto) -> tuple[str, ...]:
    """The graph inputs that decide how an operator computes, by `DECIDING_OPERANDS`.

    An input counts where it is such an operand, or where the operand is computed from it, which
    only vectors and scalars of integers are taken for. Nothing is followed through Shape and Size,
    whose results are known without any value, nor into subgraphs.
    """
    weights = {tensor.name for tensor in model.graph.initializer}
    inputs = {value.name: value for value in model.graph.input if value.name not in weights}
    makers = {name: node for node in model.graph.node for name in node.output if name}
    deciding: set[str] = set()
    computing: list[str] = []
    for node in model.graph.node:
        if node.domain not in ("", "ai.onnx"):
            continue
        for index in DECIDING_OPERANDS.get(node.op_type, ()):
            name = node.input[index] if index < len(node.input) else ""
            (computing.append if name in makers else deciding.add)(name)
    seen: set[str] = set()
    while computing:
        name = computing.pop()
        maker = makers.get(name)
        if name in inputs and _is_small_integer(inputs[name]):
            deciding.add(name)
        elif maker is not None and name not in seen and maker.op_type not in ("Shape", "Size"):
            computing.extend(maker.input)
        seen.add(name)
    return tuple(name for name in inputs if name in deciding)


def _is_small_integer(value: onnx.ValueInfoProto) -> bool:
    tensor = value.type.tensor_type
    if value.type.WhichOneof("value") != "tensor_type" or len(tensor.shape.dim) > 1:
        return False
    return tensor.elem_type in (onnx.TensorProto.INT32, onnx.TensorProto.INT64)


def _has_open_axes(value: onnx.ValueInfoProto) -> bool:
    if value.type.WhichOneof("value") != "tensor_type":
        return False
    tensor = value.type.tensor_type
    return not tensor.HasField("shape") or any(
        not dim.HasField("dim_value") for dim in tensor.shape.dim
    )


def _with_weights(model: onnx.ModelProto, values: Mapping[str, Any]) -> onnx.ModelProto:
    """A copy in which some inputs are initializers."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    kept = [value for value in model.graph.input if value.name not in values]
    del copy.graph.input[:]
    copy.graph.input.extend(kept)
    copy.graph.initializer.extend(
        numpy_helper.from_array(np.asarray(value), name) for name, value in values.items()
    )
    return copy


def _model_of_node(
    node: onnx.NodeProto,
    given: Mapping[str, Any],
    outputs_info: Sequence[tuple[np.dtype[Any], tuple[int, ...]]] | None,
    opset_version: int | None,
) -> onnx.ModelProto:
    def port(name: str, dtype: np.dtype[Any], shape: tuple[int, ...]) -> onnx.ValueInfoProto:
        return helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(dtype), shape)

    arrays = {name: np.asarray(value) for name, value in given.items()}
    inputs = [port(name, array.dtype, array.shape) for name, array in arrays.items()]
    names = [name for name in node.output if name]
    outputs = (
        [onnx.ValueInfoProto(name=name) for name in names]
        if outputs_info is None
        else [port(name, *info) for name, info in zip(names, outputs_info, strict=True)]
    )
    graph = helper.make_graph([node], node.op_type, inputs, outputs)
    newest = onnx.defs.onnx_opset_version()
    if node.domain not in ("", "ai.onnx"):
        newest = onnx.defs.get_schema(node.op_type, domain=node.domain).since_version
    opset = helper.make_opsetid(node.domain, opset_version or newest)
    return shape_inference.infer_shapes(helper.make_model(graph, opset_imports=[opset]))
