"""What onnx's shape inference lets through and an operator of the library must never see."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest

from tests.onnx_models import make_model, node
from wasmgraph.errors import ModelError, UnsupportedModelError
from wasmgraph.importer import import_model, load_model


def zeros(*shape: int) -> Any:
    return np.zeros(shape, np.float32)


NODES: dict[str, tuple[onnx.NodeProto, dict[str, Any]]] = {
    "an axis beyond the last": (node("CumSum", "x a", "y"), {"a": np.array(4)}),
    "an axis before the first": (node("CumSum", "x a", "y"), {"a": np.array(-5)}),
    "an axis of a mean": (node("ReduceMean", "i a", "y"), {"a": np.array([9])}),
    "more than there are": (node("TopK", "x k", "y i"), {"k": np.array([9])}),
    "a transform of nothing": (node("DFT", "x n", "y"), {"n": np.array(0)}),
    "frames longer than the signal": (
        node("STFT", ["s", "step", "", "n"], "y"),
        {"step": np.array(1), "n": np.array(99)},
    ),
    "no step": (node("STFT", ["s", "zero", "", "n"], "y"), {"zero": np.array(0), "n": np.array(2)}),
    "groups that do not divide channels": (
        node("DeformConv", "odd w o", "y", group=2),
        {"w": zeros(2, 1, 1, 1), "o": zeros(1, 2, 4, 4)},
    ),
    "offsets of another shape": (
        node("DeformConv", "odd w o", "y"),
        {"w": zeros(2, 3, 1, 1), "o": zeros(1, 2, 3, 4)},
    ),
    "blocks that do not fill an image": (
        node("Col2Im", "columns image block", "y"),
        {"image": np.array([4, 4]), "block": np.array([2, 2])},
    ),
}


@pytest.mark.parametrize("what", NODES)
def test_is_refused(what: str) -> None:
    item, weights = NODES[what]
    inputs = {
        "x": (2, 4, 6, 1),
        "i": ("int32", (2, 3)),
        "s": (1, 20, 1),
        "odd": (1, 3, 4, 4),
        "columns": (1, 8, 5),
    }
    used = {name: port for name, port in inputs.items() if name in item.input}
    dtype = "int32" if "i" in item.input else "float32"
    model = make_model([item], used, {item.output[0]: (dtype, None)}, weights, opset=20)
    with pytest.raises((ModelError, UnsupportedModelError)):
        import_model(load_model(model))
