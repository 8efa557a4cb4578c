"""What onnxruntime makes of a model: the reference that a graph is compared with.

onnxruntime is needed here and nowhere else.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from wasmgraph.errors import InferenceError, ModelError, ToolchainError
from wasmgraph.metadata import NARROW_DTYPES
from wasmgraph.runtime import Graph
from wasmgraph.runtime.base import Array, TensorSpec
from wasmgraph.runtime.dtypes import plain
from wasmgraph.tensors.extents import proposals, with_shapes
from wasmgraph.tensors.random import random_inputs
from wasmgraph.tensors.size_hints import hinted_sizes

if TYPE_CHECKING:
    from onnx import ModelProto

    Model: TypeAlias = ModelProto | str | os.PathLike[str]

Run: TypeAlias = Callable[[Mapping[str, Array]], dict[str, Array]]
"""Inputs by name to outputs by name."""

_TOO_SMALL = "its input is smaller than its window"
"""What graphs say then. ONNX has no place for the window, onnxruntime one that is cut off: where it
divides, it rounds numbers below 0 up."""

SEARCH_SECONDS = 60.0
"""Nothing more is tried after them, to find sizes that suit a model."""


def find_onnxruntime() -> Any:
    """The onnxruntime package.

    Raises:
        ToolchainError: it is not installed.
    """
    try:
        import onnxruntime
    except ImportError as error:
        raise ToolchainError(
            "verifying needs onnxruntime, which is not installed",
            hint="pip install 'wasmgraph[verify]'",
        ) from error
    return onnxruntime


def reference(
    model: Model, outputs: Sequence[TensorSpec], *, optimised: bool = True, quiet: bool = False
) -> Run:
    """onnxruntime on the CPU as a function of the model's inputs.

    Args:
        outputs: Which it gives, and their dtypes.
        optimised: Whether its optimiser may rewrite the model.
        quiet: Whether it keeps to itself what it has to say of inputs that do not suit the model.

    Returns:
        It raises ModelError where onnxruntime cannot load or run the model, or where the model is
        not the graph's.

    Raises:
        ToolchainError: onnxruntime is missing.
    """
    onnxruntime = find_onnxruntime()
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4 if quiet else 3  # fatal, or errors
    # Weights that are quantised without their activations: compute with floats, as the model says.
    # By default (level 4) onnxruntime quantises the activations, too.
    options.add_session_config_entry("session.qdq_matmulnbits_accuracy_level", "1")
    if not optimised:
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads = min(2, os.cpu_count() or 1)
    is_path = isinstance(model, (str, os.PathLike))
    name = str(model) if is_path else model.graph.name  # type: ignore[union-attr]
    narrow = {spec.name: spec.dtype for spec in outputs if spec.dtype in NARROW_DTYPES}
    sessions: list[Any] = []

    def opened(source: Any) -> Any:
        if isinstance(source, (str, os.PathLike)) and not Path(source).is_file():
            raise ModelError(f"{source} is not there")
        # By its path, so that onnxruntime finds external data beside it.
        given = (
            str(source) if isinstance(source, (str, os.PathLike)) else source.SerializeToString()
        )
        sessions[:] = [
            onnxruntime.InferenceSession(given, options, providers=["CPUExecutionProvider"])
        ]
        return sessions[0]

    def run(inputs: Mapping[str, Array]) -> dict[str, Array]:
        is_narrow = narrow or any(array.dtype.name in NARROW_DTYPES for array in inputs.values())
        source = _with_wide_ports(model) if is_narrow else model
        if is_narrow:
            inputs = {
                name: plain(array).astype(np.float32)
                if array.dtype.name in NARROW_DTYPES
                else array
                for name, array in inputs.items()
            }
        try:
            session = sessions[0] if sessions else opened(source)
            if _fixes_other_shapes(session, inputs):
                session = opened(_with_input_shapes(source, inputs))
            _check_names(name, session, inputs, outputs)
            names = [spec.name for spec in outputs]
            values = (_without_maps(value) for value in session.run(names, dict(inputs)))
            found = dict(zip(names, values, strict=True))
            return found | {name: found[name].astype(dtype) for name, dtype in narrow.items()}
        except ModelError:
            raise
        except Exception as error:  # onnxruntime's errors have no common base but this
            reason = str(error).strip().splitlines()[0]
            raise ModelError(f"onnxruntime cannot run {name}: {reason}") from error

    return run


def reference_outputs(
    model: Model,
    inputs: Mapping[str, Array],
    outputs: Sequence[TensorSpec],
    *,
    optimised: bool = True,
) -> dict[str, Array]:
    """What onnxruntime computes for the outputs named in `outputs`; see `reference`.

    Raises:
        ToolchainError: onnxruntime is missing.
        ModelError: it cannot load or run the model, or the model is not the graph's.
    """
    return reference(model, outputs, optimised=optimised)(inputs)


def made_up_inputs(
    model: Model,
    graph: Graph,
    shapes: Mapping[str, Sequence[int]],
    seed: int,
    input_range: tuple[float, float],
) -> tuple[dict[str, Array], dict[str, Array], dict[str, Array] | None]:
    """Random inputs for a graph, what onnxruntime makes of them, and what the graph does, if it
    had to be asked.

    Open axes get the first of `extents.proposals` that onnxruntime can run the model at, and that
    is not too small for one of its windows.

    Raises:
        ModelError: none of them suits it.
        InferenceError: the graph cannot run at the first that does.
    """
    specs, outputs = with_shapes(graph.inputs, shapes), graph.outputs
    if all(spec.is_fixed for spec in specs):
        feeds = random_inputs(specs, seed, input_range)
        return feeds, reference_outputs(model, feeds, outputs), None
    run = reference(model, outputs, quiet=True)
    began, reasons = time.monotonic(), []
    for proposal in proposals(specs, hinted_sizes(model), graph.metadata.bounds):
        feeds = random_inputs(proposal, seed, input_range)
        try:
            expected = run(feeds)
            return feeds, expected, graph.run(feeds)
        except ModelError as error:
            reasons.append(error.message)
        except InferenceError as error:
            if _TOO_SMALL not in error.message:
                raise
            reasons.append(error.message)
        if time.monotonic() - began > SEARCH_SECONDS:
            break
    raise ModelError(
        f"none of {len(reasons)} sizes that were tried for the open axes suits the model, "
        f"the first for this reason: {reasons[0]}",
        hint="verify it at one that does: "
        + " ".join(f"--shape {spec.name}=..." for spec in specs if not spec.is_fixed),
    )


def _without_maps(value: Any) -> Array:
    """What a ZipMap makes a sequence of maps of is a tensor in the graph: a row per map."""
    if isinstance(value, list) and all(isinstance(row, dict) for row in value):
        value = np.array([list(row.values()) for row in value], np.float32)
    return value  # type: ignore[no-any-return]


def _fixes_other_shapes(session: Any, inputs: Mapping[str, Array]) -> bool:
    """Whether the graph was compiled for extents that the model itself fixes otherwise."""
    return any(
        isinstance(dim, int) and dim != extent
        for item in session.get_inputs()
        if item.name in inputs
        for dim, extent in zip(item.shape, inputs[item.name].shape, strict=False)
    )


def _with_input_shapes(model: Model, inputs: Mapping[str, Array]) -> ModelProto:
    """A copy of the model that takes inputs of these shapes and claims nothing of other tensors."""
    import onnx

    copy = onnx.ModelProto()
    copy.CopyFrom(onnx.load(model) if isinstance(model, (str, os.PathLike)) else model)
    for value in copy.graph.input:
        if value.name in inputs:
            dims = inputs[value.name].shape
            elem_type = value.type.tensor_type.elem_type
            value.CopyFrom(onnx.helper.make_tensor_value_info(value.name, elem_type, dims))
    for value in copy.graph.output:
        value.type.tensor_type.ClearField("shape")
    del copy.graph.value_info[:]
    return copy


def _with_wide_ports(model: Model) -> ModelProto:
    """A copy with float32 in the place of every narrow input and output.

    onnxruntime takes no arrays of these dtypes in Python; every number of theirs is one of float32.
    """
    import onnx

    copy = onnx.ModelProto()
    copy.CopyFrom(onnx.load(model) if isinstance(model, (str, os.PathLike)) else model)
    graph, casts = copy.graph, {}
    for value in (*graph.input, *graph.output):
        tensor = value.type.tensor_type
        dtype = tensor.elem_type and onnx.helper.tensor_dtype_to_np_dtype(tensor.elem_type).name
        if dtype in NARROW_DTYPES:
            casts[value.name] = tensor.elem_type
            tensor.elem_type = onnx.TensorProto.FLOAT
    inner = {name: f"{name}/narrow" for name in casts}
    for node in graph.node:
        for names in (node.input, node.output):
            names[:] = [inner.get(name, name) for name in names]
    for tensor in graph.initializer:
        tensor.name = inner.get(tensor.name, tensor.name)
    given = {value.name for value in graph.input}
    for name, elem_type in casts.items():
        ends = ([name], [inner[name]]) if name in given else ([inner[name]], [name])
        to = elem_type if name in given else onnx.TensorProto.FLOAT
        cast = onnx.helper.make_node("Cast", *ends, to=to)
        graph.node.insert(0 if name in given else len(graph.node), cast)
    del graph.value_info[:]
    return copy


def _check_names(
    name: str, session: Any, inputs: Mapping[str, Array], outputs: Sequence[TensorSpec]
) -> None:
    required = {item.name for item in session.get_inputs()}
    optional = {item.name for item in session.get_overridable_initializers()}
    offered = {item.name for item in session.get_outputs()}
    problems = [f"it also takes {item!r}" for item in sorted(required - inputs.keys())]
    problems += [f"it takes no {item!r}" for item in sorted(inputs.keys() - required - optional)]
    problems += [f"it gives no {spec.name!r}" for spec in outputs if spec.name not in offered]
    if problems:
        raise ModelError(
            f"{name} is not the model of this graph: {'; '.join(problems)}",
            hint="verify a graph with the model that it was compiled from",
        )
