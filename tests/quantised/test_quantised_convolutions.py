"""Quantised convolutions of every shape agree with onnxruntime to one step, in one model."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tests.onnx_models import Array, make_model, node, run_as_wasm
from tests.quantised.models import reference

CASES: dict[str, tuple[tuple[int, ...], tuple[int, ...], dict[str, Any]]] = {
    "one axis": ((2, 3, 17), (5, 3, 4), {"pads": [2, 1], "strides": [2]}),
    "three axes": ((1, 3, 5, 6, 4), (4, 3, 2, 3, 2), {"pads": [0, 1, 1, 1, 1, 0]}),
    "dilated": ((1, 3, 12, 11), (7, 3, 3, 2), {"dilations": [2, 3], "pads": [1, 2, 0, 1]}),
    "grouped": ((2, 6, 7, 5), (9, 2, 3, 3), {"group": 3, "pads": [1, 1, 1, 1]}),
    "depthwise": ((2, 10, 9, 7), (10, 1, 3, 3), {"group": 10, "pads": [1, 1, 1, 1]}),
    "depthwise with a stride": ((1, 16, 9, 7), (16, 1, 5, 4), {"group": 16, "strides": [2, 3]}),
    "depthwise of few channels": ((1, 3, 6, 6), (3, 1, 3, 3), {"group": 3}),
    "two filters per channel": ((1, 4, 6, 6), (8, 1, 3, 3), {"group": 4}),
    "pointwise": ((1, 13, 4, 5), (21, 13, 1, 1), {}),
    "as large as the image": ((2, 2, 5, 4), (7, 2, 5, 4), {}),
    "SAME_UPPER": ((1, 2, 8, 7), (3, 2, 4, 3), {"auto_pad": "SAME_UPPER", "strides": [3, 2]}),
}
TYPES = (("uint8", "int8"), ("int8", "int8"), ("uint8", "uint8"))


@pytest.fixture(scope="module")
def results() -> tuple[dict[str, Array], dict[str, Array]]:
    """What all of them give as wasm, and in onnxruntime."""
    rng = np.random.default_rng(11)
    nodes, feeds, weights, outputs = [], {}, {}, {}
    for index, (shape, filters, attrs) in enumerate(CASES.values()):
        for kind, (x, w) in enumerate(TYPES):
            name = f"c{index}_{kind}"
            feeds[f"{name}x"] = rng.integers(0, 256, shape).astype(np.uint8).view(x)
            values = rng.integers(0, 256, filters).astype(np.uint8)
            # The last kind has filters that take more than 8 bits without their zero point.
            zero = np.uint8(90) if w == "uint8" else np.zeros(filters[0], np.int8)
            scales = rng.random(filters[0] if w == "int8" else ()).astype(np.float32) / 100
            depth = float(np.sqrt(np.prod(filters[1:])))
            weights |= {
                f"{name}sx": np.float32(0.05),
                f"{name}zx": np.array(17 if x == "int8" else 130, x),
                f"{name}w": values.view(w),
                f"{name}sw": scales,
                f"{name}zw": zero,
                f"{name}sy": np.float32(0.05 * scales.mean() * depth * 74**2 / 40),
                f"{name}zy": np.array(-5 if x == "int8" else 110, x),
                f"{name}b": rng.integers(-9000, 9000, filters[0]).astype(np.int32),
            }
            parts = ["x", "sx", "zx", "w", "sw", "zw", "sy", "zy", "b"]
            operands = [f"{name}{part}" for part in parts]
            nodes.append(node("QLinearConv", operands, [name], **attrs))
            outputs[name] = (x, None)
    inputs: Any = {name: (array.dtype.name, array.shape) for name, array in feeds.items()}
    model = make_model(nodes, inputs, outputs, weights)
    return run_as_wasm(model, feeds), reference(model, feeds)


@pytest.mark.parametrize("kind", range(len(TYPES)), ids=[f"{x} by {w}" for x, w in TYPES])
@pytest.mark.parametrize("case", CASES)
def test_convolutions_agree(results, case, kind):
    found, expected = (each[f"c{list(CASES).index(case)}_{kind}"] for each in results)
    assert found.dtype == expected.dtype
    assert len(np.unique(expected)) > min(20, expected.size // 2), "everything saturates"
    difference = np.abs(found.astype(int) - expected.astype(int))
    assert difference.max() <= 1
    assert (difference > 0).mean() <= 0.01
