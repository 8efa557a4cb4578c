"""Compare a graph with the model it came from: the same inputs through Wasmtime and onnxruntime.

A disagreement is a result, not an exception: `verify` returns a report, which can raise.
onnxruntime is needed here and nowhere else.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from wasmgraph.agreement import ATOL, RTOL, OutputAgreement, compare
from wasmgraph.bundle import WeightFormat
from wasmgraph.errors import ModelError, ToolchainError, VerificationError
from wasmgraph.metadata import NARROW_DTYPES
from wasmgraph.quantisation_slack import quantisation_slack
from wasmgraph.runtime import Graph, load
from wasmgraph.runtime.base import Array, TensorSpec
from wasmgraph.runtime.dtypes import plain
from wasmgraph.runtime.inputs import check_inputs
from wasmgraph.tensors.extents import SIZES, made_up, with_shapes
from wasmgraph.tensors.random import UNIT_RANGE, random_inputs

if TYPE_CHECKING:
    from onnx import ModelProto


@dataclass(frozen=True)
class VerifyReport:
    """How a graph compares with its model.

    Attributes:
        graph, model: Which were compared.
        rtol, atol: An element agrees if |a - b| <= atol + rtol * |b|.
        seed: Of the random inputs, or None where inputs were given.
        outputs: One per output of the graph.
        rounded: As what the graph's weights were rounded; then `outputs` compares with the model
            with weights rounded likewise.
        cost: Then how far the outputs are from those of the model itself.
    """

    graph: str
    model: str
    rtol: float
    atol: float
    seed: int | None
    outputs: tuple[OutputAgreement, ...]
    rounded: WeightFormat | None = None
    cost: tuple[OutputAgreement, ...] = ()

    @property
    def agrees(self) -> bool:
        """Whether every output agrees."""
        return all(output.agrees for output in self.outputs)

    def to_json(self) -> dict[str, Any]:
        """For `json.dumps`."""
        return {
            "agrees": self.agrees,
            "graph": self.graph,
            "model": self.model,
            "rtol": self.rtol,
            "atol": self.atol,
            "seed": self.seed,
            "outputs": [output.to_json() for output in self.outputs],
            "rounded": self.rounded,
            "cost": [output.to_json() for output in self.cost],
        }

    def raise_if_disagree(self) -> None:
        """Raise VerificationError naming every output that disagrees, where and how far."""
        if self.agrees:
            return
        wrong = [str(output) for output in self.outputs if not output.agrees]
        raise VerificationError(
            f"{self.graph} disagrees with {self.model} beyond atol {self.atol:g} + rtol "
            f"{self.rtol:g} * |expected| in {len(wrong)} of {len(self.outputs)} outputs\n"
            + "\n".join(wrong),
            hint=None
            if self.seed is None
            else "the inputs were random: if the model expects floats of another range than "
            "[0, 1), rounding alone can be amplified this far; say which with --input-range",
        )


def verify(
    graph: Graph | str | os.PathLike[str],
    model: ModelProto | str | os.PathLike[str],
    inputs: Mapping[str, object] | None = None,
    *,
    seed: int = 0,
    input_range: tuple[float, float] = UNIT_RANGE,
    rtol: float = RTOL,
    atol: float = ATOL,
    timeout: float | str | None = None,
    threads: int = 1,
    shapes: Mapping[str, Sequence[int]] | None = None,
) -> VerifyReport:
    """Run a graph and the model it came from on the same inputs, and compare every output.

    Args:
        graph: A loaded graph, or a `.wasm` file.
        model: A model, or its file (external data beside it).
        inputs: An array per input name; None draws random ones (`tensors.random`).
        seed: Of the random inputs.
        input_range: In which random floats lie; a model trained on pixels of 0 to 255, say,
            amplifies rounding on inputs of 0 to 1.
        rtol, atol: Floats agree where |a - b| <= atol + rtol * |b|, or both are NaN, or both the
            same infinity. Of bfloat16 and narrower floats neighbours agree, too. Integers and bools
            agree where they are equal. Outputs of quantised models may be a step apart, or more
            where onnxruntime does not agree with itself: see `quantisation_slack`.
        timeout: Wall time for the graph's run, where `graph` is a file.
        threads: How many the run uses, likewise.
        shapes: Of random inputs with open axes, by name; by default some that suit the model.

    A graph whose weights were rounded (`compile`'s `weights`) must agree with the model with
    weights rounded likewise; the report says besides how far it is from the model itself.

    Raises:
        ToolchainError: onnxruntime is missing.
        ModelError: onnxruntime cannot load or run the model.
        LoadError, InputError, InferenceError, RunTimeout: from loading and running the graph.
    """
    if not isinstance(graph, Graph):
        with load(graph, timeout=timeout, threads=threads) as loaded:
            return verify(
                loaded,
                model,
                inputs,
                seed=seed,
                input_range=input_range,
                rtol=rtol,
                atol=atol,
                shapes=shapes,
            )
    if inputs is None:
        feeds, expected = _made_up(graph, model, shapes or {}, seed, input_range)
    else:
        arrays = check_inputs(graph.inputs, inputs)
        feeds = {
            spec.name: np.ascontiguousarray(array, dtype=spec.dtype).reshape(array.shape)
            for spec, array in zip(graph.inputs, arrays, strict=True)
        }
        expected = reference_outputs(model, feeds, graph.outputs)
    found = graph.run(feeds)
    rounded = graph.metadata.rounded
    reference = model
    cost: tuple[OutputAgreement, ...] = ()
    if rounded is not None:
        cost = _compared(found, expected, {}, rtol, atol)
        reference = _rounded(graph, model, rounded)
        expected = reference_outputs(reference, feeds, graph.outputs)
    slack = quantisation_slack(
        reference,
        expected,
        lambda: reference_outputs(reference, feeds, graph.outputs, optimised=False),
    )
    return VerifyReport(
        graph=str(graph.path),
        model=str(model) if isinstance(model, (str, os.PathLike)) else model.graph.name,
        rtol=rtol,
        atol=atol,
        seed=seed if inputs is None else None,
        outputs=_compared(found, expected, slack, rtol, atol),
        rounded=rounded,
        cost=cost,
    )


def _compared(
    found: Mapping[str, Array],
    expected: Mapping[str, Array],
    slack: Mapping[str, float],
    rtol: float,
    atol: float,
) -> tuple[OutputAgreement, ...]:
    return tuple(
        compare(name, found[name], expected[name], rtol=rtol, atol=atol, slack=slack.get(name, 0.0))
        for name in found
    )


def _rounded(
    graph: Graph, model: ModelProto | str | os.PathLike[str], weights: WeightFormat
) -> ModelProto:
    """The model with its weights rounded as the graph's were."""
    from wasmgraph.importer import load_model, rounded_model

    shapes = {spec.name: [int(n) for n in spec.shape] for spec in graph.inputs}
    loaded = load_model(Path(model) if isinstance(model, (str, os.PathLike)) else model)
    return rounded_model(loaded, shapes, weights)


def _made_up(
    graph: Graph,
    model: ModelProto | str | os.PathLike[str],
    shapes: Mapping[str, Sequence[int]],
    seed: int,
    input_range: tuple[float, float],
) -> tuple[dict[str, Array], dict[str, Array]]:
    """Random inputs and what onnxruntime makes of them.

    Open axes get 2 where they look like a batch, and else the first of `extents.SIZES` that
    onnxruntime can run the model at.
    """
    specs = with_shapes(graph.inputs, shapes)
    if all(spec.is_fixed for spec in specs):
        feeds = random_inputs(specs, seed, input_range)
        return feeds, reference_outputs(model, feeds, graph.outputs)
    reasons = []
    for size in SIZES:
        feeds = random_inputs(made_up(specs, size), seed, input_range)
        try:
            return feeds, reference_outputs(model, feeds, graph.outputs)
        except ModelError as error:
            reasons.append(error.message)
    raise ModelError(
        f"no size of {', '.join(map(str, SIZES))} for the open axes suits the model: {reasons[-1]}",
        hint="verify it at one that does: "
        + " ".join(f"--shape {spec.name}=..." for spec in specs if not spec.is_fixed),
    )


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


def reference_outputs(
    model: ModelProto | str | os.PathLike[str],
    inputs: Mapping[str, Array],
    outputs: tuple[TensorSpec, ...],
    *,
    optimised: bool = True,
) -> dict[str, Array]:
    """What onnxruntime computes, on the CPU, for the outputs named in `outputs`.

    Args:
        optimised: Whether its optimiser may rewrite the model.

    Raises:
        ToolchainError: onnxruntime is missing.
        ModelError: it cannot load or run the model, or the model is not the graph's.
    """
    onnxruntime = find_onnxruntime()
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # errors
    # Weights that are quantised without their activations: compute with floats, as the model says.
    # By default (level 4) onnxruntime quantises the activations, too.
    options.add_session_config_entry("session.qdq_matmulnbits_accuracy_level", "1")
    if not optimised:
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads = min(2, os.cpu_count() or 1)
    is_path = isinstance(model, (str, os.PathLike))
    name = str(model) if is_path else model.graph.name  # type: ignore[union-attr]
    if is_path and not Path(name).is_file():
        raise ModelError(f"{name} is not there")
    # By its path, so that onnxruntime finds external data beside it.
    source = name if is_path else model.SerializeToString()  # type: ignore[union-attr]
    providers = ["CPUExecutionProvider"]
    narrow = {spec.name: spec.dtype for spec in outputs if spec.dtype in NARROW_DTYPES}
    if narrow or any(array.dtype.name in NARROW_DTYPES for array in inputs.values()):
        model = _with_wide_ports(model)
        source = model.SerializeToString()
        inputs = {
            name: plain(array).astype(np.float32) if array.dtype.name in NARROW_DTYPES else array
            for name, array in inputs.items()
        }
    try:
        session = onnxruntime.InferenceSession(source, options, providers=providers)
        if _fixes_other_shapes(session, inputs):
            source = _with_input_shapes(model, inputs).SerializeToString()
            session = onnxruntime.InferenceSession(source, options, providers=providers)
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


def _with_input_shapes(
    model: ModelProto | str | os.PathLike[str], inputs: Mapping[str, Array]
) -> ModelProto:
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


def _with_wide_ports(model: ModelProto | str | os.PathLike[str]) -> ModelProto:
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
    name: str, session: Any, inputs: Mapping[str, Array], outputs: tuple[TensorSpec, ...]
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
