"""How far outputs of a quantised model may lie apart without either being wrong.

Where a value lies in the middle between two steps, a rounding error decides which one it becomes.
One step of one layer is many of another after a few more layers, and onnxruntime does not agree
with itself then: with its optimiser and without, it rounds differently. So a graph may agree with
either, and may be as far from that as the two are apart.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from wasmgraph.runtime.base import Array

if TYPE_CHECKING:
    from onnx import GraphProto, ModelProto, NodeProto

_QUANTISING = ("QuantizeLinear", "DynamicQuantizeLinear", "QLinear", "QGemm")


def quantisation_slack(
    model: ModelProto | str | os.PathLike[str],
    expected: Mapping[str, Array],
    plain: Mapping[str, Array],
) -> dict[str, float]:
    """What may be between two elements of each output, besides other tolerances.

    Args:
        model: Or its file.
        expected: onnxruntime's outputs.
        plain: Its outputs without its optimiser.

    Returns:
        One step of an output that is quantised, or as far as onnxruntime is from itself if that is
        more.
    """
    nodes = _graph_of(model).node
    makers = {name: node for node in nodes for name in node.output}
    scales = {t.name: t for t in _graph_of(model).initializer}
    return {
        name: max(_step(makers.get(name), scales), _distance(array, plain[name]))
        for name, array in expected.items()
        if array.dtype.kind in "fiu"
    }


def quantises(model: ModelProto | str | os.PathLike[str]) -> bool:
    """Whether a model, or its file, quantises activations."""
    return any(node.op_type.startswith(_QUANTISING) for node in _graph_of(model).node)


def _graph_of(model: ModelProto | str | os.PathLike[str]) -> GraphProto:
    import onnx

    if isinstance(model, (str, os.PathLike)):
        model = onnx.load(model, load_external_data=False)
    return model.graph


def _step(node: NodeProto | None, scales: Mapping[str, object]) -> float:
    """One step of an output, 0 where it is not quantised."""
    from onnx import numpy_helper

    if node is None:
        return 0.0
    if node.op_type == "DequantizeLinear":
        scale = scales.get(node.input[1])
        if scale is None:
            return 0.0
        # A step of floats is only as exact as they are.
        return float(numpy_helper.to_array(scale).max()) * (1 + 1e-5)
    return 1.0 if node.op_type.startswith(_QUANTISING) else 0.0


def _distance(a: Array, b: Array) -> float:
    if a.size == 0 or a.shape != b.shape:
        return 0.0
    difference = np.abs(a.astype(np.float64) - b.astype(np.float64))
    return float(np.max(difference, initial=0.0, where=np.isfinite(difference)))
