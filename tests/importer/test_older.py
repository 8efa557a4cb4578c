"""Operators as the first opsets have them, against what their specifications say."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from onnx.reference import ReferenceEvaluator

from tests.onnx_models import make_model, make_network, node, run_as_wasm
from wasmgraph.errors import ModelError, UnsupportedModelError
from wasmgraph.importer.network import network_to_proto
from wasmgraph.importer.normalise.older import separate_axes, write_opset_7
from wasmgraph.importer.normalise.upgrade import upgrade_opset
from wasmgraph.runtime.base import Array

RNG = np.random.default_rng(6)
X = RNG.standard_normal((2, 3, 4, 5)).astype(np.float32)
POSITIVE = np.abs(X) + 1
C = RNG.standard_normal(3).astype(np.float32)
D = RNG.standard_normal(5).astype(np.float32)
CHANNELS = C.reshape(3, 1, 1)
A, B = (RNG.standard_normal(shape).astype(np.float32) for shape in ((4, 6), (6, 5)))
VARIANCE = np.array([0.5, 1.0, 2.0], np.float32)
EACH = RNG.random((3, 4, 5)).astype(np.float32) + np.float32(0.5)
MEANS = {"s": C, "b": C, "m": C, "v": VARIANCE}
NORMAL = (X - CHANNELS) / np.sqrt(VARIANCE.reshape(3, 1, 1) + 1e-5) * CHANNELS + CHANNELS
EACH_NORMAL = (X - EACH) / np.sqrt(EACH + np.float32(1e-5)) * EACH + EACH
FLAT = X.reshape(2, -1)
WIDER = X.repeat(2, 2).repeat(3, 3)


def first(op: str, *inputs: str, **attrs: Any) -> onnx.NodeProto:
    """A node whose first output is y."""
    return node(op, inputs, "y", **attrs)


CASES: list[tuple[int, onnx.NodeProto, dict[str, Array], Array]] = [
    *(
        (opset, first(op, "x", "c", broadcast=1, axis=axis), {"c": C}, function(X, CHANNELS))
        for opset, axis in ((1, 1), (6, 1), (6, -3))
        for op, function in (("Add", np.add), ("Div", np.divide), ("Mul", np.multiply))
    ),
    (6, first("Sub", "x", "d", broadcast=1), {"d": D}, X - D),
    (6, first("Greater", "x", "c", broadcast=1, axis=1), {"c": C}, X > CHANNELS),
    (1, first("Less", "x", "c", broadcast=1, axis=1), {"c": C}, X < CHANNELS),
    (6, first("Pow", "positive", "c", broadcast=1, axis=1), {"c": C}, POSITIVE**CHANNELS),
    (6, first("PRelu", "x", "c"), {"c": C}, np.where(X < 0, X * CHANNELS, X)),
    (1, first("PRelu", "x", "c"), {"c": C[:1]}, np.where(X < 0, X * C[0], X)),
    (6, first("Gemm", "a", "b", "d", broadcast=1), {"b": B, "d": D}, A @ B + D),
    (
        1,
        first("BatchNormalization", "x", *MEANS, is_test=1, consumed_inputs=[0, 0, 0, 1, 1]),
        MEANS,
        NORMAL,
    ),
    (
        6,
        first("BatchNormalization", "x", *MEANS, is_test=1, spatial=0),
        dict.fromkeys(MEANS, EACH),
        EACH_NORMAL,
    ),
    (1, first("Dropout", "x", ratio=0.5), {}, X),
    (1, first("Relu", "x", consumed_inputs=[0]), {}, np.maximum(X, 0)),
    (1, first("Cast", "x", to="INT32"), {}, X.astype(np.int32)),
    (1, first("Concat", "x", "x"), {}, np.concatenate([X, X], 1)),
    (3, first("Concat", "x", "x", axis=2), {}, np.concatenate([X, X], 2)),
    (
        1,
        first("Pad", "x", paddings=[0, 0, 1, 2, 0, 0, 3, 0], value=1.5),
        {},
        np.pad(X, ((0, 0), (0, 0), (1, 3), (2, 0)), constant_values=1.5),
    ),
    (1, first("Reshape", "x", shape=[0, -1]), {}, X.reshape(2, -1)),
    (1, first("Split", "x", axis=3, split=[5]), {}, X),
    (1, first("Split", "x", "n", axis=2), {"n": np.array([4], np.float32)}, X),
    (
        1,
        first("Tile", "x", "n", "axis"),
        {"n": np.array([2], np.float32), "axis": np.array([3], np.float32)},
        np.concatenate([X, X], 3),
    ),
    (1, first("Upsample", "x", height_scale=2.0, width_scale=3.0, mode="nearest"), {}, WIDER),
    (11, first("Hardmax", "x"), {}, np.eye(60)[FLAT.argmax(1)].reshape(X.shape)),
    (11, first("Hardmax", "x", axis=3), {}, np.eye(5)[X.argmax(3)]),
]
INPUTS = {"x": X, "positive": POSITIVE, "a": A}


@pytest.mark.parametrize(("opset", "wrote", "weights", "expected"), CASES)
def test_means_what_it_meant(
    opset: int, wrote: onnx.NodeProto, weights: dict[str, Array], expected: Array
) -> None:
    name = wrote.input[0]
    network = make_network([wrote], {name: INPUTS[name].shape}, "y", weights, opset=opset)
    for step in (write_opset_7, separate_axes, upgrade_opset):
        step(network)
    (found,) = ReferenceEvaluator(network_to_proto(network)).run(None, {name: INPUTS[name]})
    # The same arithmetic in float32, in another order.
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("wrote", "weights", "expected"),
    [
        (first("PRelu", "x", "c"), {"c": C}, np.where(X < 0, X * CHANNELS, X)),
        (first("GlobalLpPool", "x", p=2.0), {}, np.sqrt((X * X).sum((2, 3), keepdims=True))),
    ],
)
def test_through_the_whole_path(
    wrote: onnx.NodeProto, weights: dict[str, Array], expected: Array
) -> None:
    model = make_model([wrote], {"x": X.shape}, "y", weights, opset=1)
    np.testing.assert_allclose(run_as_wasm(model, {"x": X})["y"], expected, rtol=1e-5)


def test_what_is_not_known_is_said() -> None:
    repeated = [node("Neg", "x", "n"), first("Tile", "x", "n", "a")]
    network = make_network(repeated, {"x": (1,)}, "y", {"a": np.zeros(1, np.float32)}, opset=1)
    with pytest.raises(UnsupportedModelError, match="'n' has to be a constant"):
        write_opset_7(network)
    network = make_network([first("GlobalLpPool", "x", p=2.5)], {"x": X.shape}, "y", opset=1)
    with pytest.raises(UnsupportedModelError, match=r"its norm 2\.5 is no whole number"):
        write_opset_7(network)


def test_a_name_that_is_no_data_type() -> None:
    model = make_model([first("Cast", "x", to="FLOAT9")], {"x": X.shape}, "y", opset=1)
    with pytest.raises(ModelError, match="casts to FLOAT9, which is no data type"):
        run_as_wasm(model, {"x": X})
