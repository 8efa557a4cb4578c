"""How far rounding alone moves a model's outputs: what two correct programs may differ by.

A model can amplify rounding, by subtracting what is nearly equal or dividing by what is nearly
zero, until onnxruntime's own outputs are further from the exact ones than the usual tolerances.
That is measured: onnxruntime runs the model again with every computed float32 times a random
number one ULP from 1 (Monte Carlo arithmetic: D. S. Parker, "Monte Carlo arithmetic", 1997; J.
Vignes, "A stochastic arithmetic for reliable scientific computation", 1993).

Compared are the largest differences of a graph with the largest of those runs, the second largest
with the second largest, and so on. So where a single element jumps, since it was rounded the other
way or two others changed places, that does not excuse the rest; and the outputs of a model which
hardly amplifies anything hardly move, so nothing more is allowed than without.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from wasmgraph.errors import ModelError
from wasmgraph.reference import find_onnxruntime, reference_outputs
from wasmgraph.runtime.base import Array, TensorSpec

if TYPE_CHECKING:
    from onnx import ModelProto, NodeProto

    Model: TypeAlias = ModelProto | str | os.PathLike[str]

FACTOR = 4
"""A graph may be so many times as far from onnxruntime as rounding moves that. A sum of n products
rounds n times, by up to half a ULP of its largest part, where a run below rounds each of them and
the sum once; and a graph sums in another order than onnxruntime, so that both err."""

MOST = 0.01
"""Of the largest element: where more had to be allowed, the inputs prove too little."""

RUNS = 3

_ULP = 2.0**-23

_EXACT = """
    Abs ArgMax ArgMin Cast CastLike Ceil CenterCropPad Clip Compress Concat Constant
    ConstantOfShape Crop DepthToSpace Dropout Expand EyeLike Flatten Floor Gather GatherElements
    GatherND GlobalMaxPool Identity IsInf IsNaN Max MaxPool MaxRoiPool MaxUnpool Min Neg NonZero
    OneHot Pad Range ReduceMax ReduceMin Relu Reshape ReverseSequence Round Scatter
    ScatterElements ScatterND Shape Sign Size Slice SpaceToDepth Split Squeeze Tile TopK Transpose
    Trilu Unique Unsqueeze Where
"""
"""Operators that copy, choose or count: they have nothing to round."""


def rounding_response(
    model: Model,
    feeds: Mapping[str, Array],
    outputs: Sequence[TensorSpec],
    expected: Mapping[str, Array],
) -> dict[str, Array]:
    """How far rounding moves each float32 output of a model.

    Args:
        model: Or its file.
        feeds: Inputs by name.
        outputs: Which outputs, and their dtypes.
        expected: onnxruntime's.

    Returns:
        By name, as many distances as the output has elements, the largest first: of every rank the
        largest of some runs, but at least the median, since few elements may lie close by chance.
        {} where onnxruntime cannot run the model so.

    Raises:
        ToolchainError: onnxruntime is missing.
    """
    moved: dict[str, Array] = {}
    try:
        names = _computed(model)
        for run in range(RUNS):
            found = reference_outputs(
                _with_noise(model, names, run), feeds, outputs, optimised=False
            )
            for name, array in expected.items():
                if array.dtype != np.float32 or found[name].shape != array.shape:
                    continue
                distances = _sorted_distances(found[name], array)
                moved[name] = np.maximum(moved.get(name, 0.0), distances)
    except ModelError:
        return {}
    return {name: np.maximum(d, np.median(d)) for name, d in moved.items() if d.size}


def within_rounding(found: Array, expected: Array, wrong: Array, response: Array) -> bool:
    """Whether rounding explains how far an output is from onnxruntime's.

    Args:
        found, expected: The outputs, float32 of one shape.
        wrong: Where they are beyond other tolerances, bools of that shape.
        response: Of the output, see `rounding_response`.
    """
    finite = np.isfinite(expected)
    if not np.all(np.isfinite(found) == finite) or not np.any(finite):
        return False
    with np.errstate(invalid="ignore"):
        distances = -np.sort(-np.abs(found[wrong].astype(np.float64) - expected[wrong]))
    allowed = FACTOR * response[: distances.size]
    largest = float(np.abs(expected[finite]).max())
    return bool(allowed[0] <= MOST * largest and np.all(distances <= allowed))


def _sorted_distances(a: Array, b: Array) -> Array:
    with np.errstate(invalid="ignore"):
        distances = np.abs(a.astype(np.float64) - b.astype(np.float64)).reshape(-1)
    return -np.sort(-np.where(np.isfinite(distances), distances, 0.0))


def _loaded(model: Model) -> ModelProto:
    """A copy, or the file's model with its external data."""
    import onnx

    if isinstance(model, (str, os.PathLike)):
        return onnx.load(model)
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    return copy


def _computed(model: Model) -> list[str]:
    """Names of the float32 inputs of a model and of what its nodes compute in float32, by
    onnxruntime's own inference of types, which knows operators that ONNX has dropped.

    Raises:
        ModelError: onnxruntime does not load the model.
    """
    import onnx

    proto = _loaded(model)
    weights = {tensor.name for tensor in proto.graph.initializer}
    names = [value.name for value in proto.graph.input if value.name not in weights]
    names += [name for node in proto.graph.node if _rounds(node) for name in node.output if name]
    known = {value.name for value in (*proto.graph.input, *proto.graph.output)}
    proto.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names if name not in known)
    onnxruntime = find_onnxruntime()
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    try:
        session = onnxruntime.InferenceSession(
            proto.SerializeToString(), options, providers=["CPUExecutionProvider"]
        )
    except Exception as error:  # onnxruntime's errors have no common base but this
        raise ModelError(f"onnxruntime cannot tell the types of its tensors: {error}") from error
    types = {port.name: port.type for port in (*session.get_inputs(), *session.get_outputs())}
    return [name for name in names if types.get(name) == "tensor(float)"]


def _rounds(node: NodeProto) -> bool:
    return node.op_type not in _EXACT.split()


def _with_noise(model: Model, names: Sequence[str], run: int) -> ModelProto:
    """A copy of a model in which these tensors are multiplied by numbers about one ULP from 1.

    Args:
        run: Other numbers for each.
    """
    from onnx.helper import make_node

    proto = _loaded(model)
    graph = proto.graph
    chosen = set(names)
    inputs = {value.name for value in graph.input} & chosen
    exact = {name: f"{name}/exact" for name in chosen - inputs}
    noisy_inputs = {name: f"{name}/noisy" for name in inputs}
    nodes: list[NodeProto] = []

    def add_noise(name: str, source: str, target: str) -> None:
        noise = f"{name}/noise"
        seed = float(run * len(names) + len(nodes))
        bounds = {"low": 1 - _ULP, "high": 1 + _ULP}
        nodes.append(make_node("RandomUniformLike", [source], [noise], seed=seed, **bounds))
        nodes.append(make_node("Mul", [source, noise], [target]))

    for name in sorted(inputs):
        add_noise(name, name, noisy_inputs[name])
    for node in graph.node:
        node.input[:] = [noisy_inputs.get(name, name) for name in node.input]
        made = [name for name in node.output if name in exact]
        node.output[:] = [exact.get(name, name) for name in node.output]
        nodes.append(node)
        for name in made:
            add_noise(name, exact[name], name)
    kept = [type(node).FromString(node.SerializeToString()) for node in nodes]
    del graph.node[:]
    graph.node.extend(kept)
    return proto
