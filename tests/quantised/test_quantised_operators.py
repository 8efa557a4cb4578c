"""Operators on quantised tensors agree with onnxruntime to one step, in one model per group."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest

from tests.onnx_models import Array, make_model, node, run_as_wasm
from tests.quantised.models import reference

RNG = np.random.default_rng(3)
MS = "com.microsoft"


def bytes_of(dtype: str, *shape: int) -> Array:
    info = np.iinfo(dtype)
    return RNG.integers(info.min, info.max + 1, shape).astype(dtype)


X, Z = bytes_of("uint8", 1, 6, 7, 5), bytes_of("uint8", 1, 6, 1, 5)
ROWS = bytes_of("int8", 4, 9)
WEIGHTS = {
    "sx": np.float32(0.05),
    "zx": np.uint8(120),
    "sz": np.float32(0.031),
    "zz": np.uint8(7),
    "sy": np.float32(0.043),
    "zy": np.uint8(131),
    "s1": np.float32(1 / 256),
    "z0": np.uint8(0),
    "sr": np.float32(0.02),
    "zr": np.int8(-11),
    "w": bytes_of("int8", 9, 5),
    "wt": bytes_of("int8", 5, 9),
    "sw": RNG.random(5).astype(np.float32) / 50,
    "zw": np.zeros(5, np.int8),
    "sw1": np.float32(0.013),
    "zw1": np.int8(3),
    "bias": RNG.integers(-900, 900, 5).astype(np.int32),
    "so": np.float32(0.09),
    "zo": np.int8(4),
    "filters": bytes_of("int8", 4, 6, 3, 3),
    "sf": RNG.random(4).astype(np.float32) / 40,
    "zf": np.zeros(4, np.int8),
    "fbias": RNG.integers(-5000, 5000, 4).astype(np.int32),
    "sc": np.float32(0.2),
    "fb": RNG.standard_normal(5).astype(np.float32),
}

NODES: dict[str, tuple[onnx.NodeProto, str]] = {
    "add": (node("QLinearAdd", "x sx zx z sz zz sy zy", "add", domain=MS), "uint8"),
    "mul": (node("QLinearMul", "x sx zx z sz zz sy zy", "mul", domain=MS), "uint8"),
    "sigmoid": (node("QLinearSigmoid", "x sx zx s1 z0", "sigmoid", domain=MS), "uint8"),
    "leaky": (node("QLinearLeakyRelu", "x sx zx sy zy", "leaky", domain=MS, alpha=0.1), "uint8"),
    "mean": (node("QLinearGlobalAveragePool", "x sx zx sy zy", "mean", domain=MS), "uint8"),
    "pool": (
        node(
            "QLinearAveragePool", "x sx zx sy zy", "pool", domain=MS,
            kernel_shape=[3, 2], strides=[2, 1], pads=[1, 0, 1, 1],
        ),
        "uint8",
    ),
    "concat": (
        node("QLinearConcat", "sy zy x sx zx z2 sz zz", "concat", domain=MS, axis=1),
        "uint8",
    ),
    "gemm": (
        node("QGemm", "r sr zr wt sw zw bias so zo", "gemm", domain=MS, transB=1, alpha=1.0),
        "int8",
    ),
    "gemm_float": (node("QGemm", "r sr zr w sw1 zw1 bias", "gemm_float", domain=MS), "float32"),
    "to_float": (
        node("MatMulIntegerToFloat", "r w sr sw zr zw fb", "to_float", domain=MS), "float32",
    ),
    "matmul": (node("QLinearMatMul", "r sr zr w sw1 zw1 so zo", "matmul"), "int8"),
    "conv": (
        node(
            "QLinearConv", "x sx zx filters sf zf sc zy fbias", "conv",
            pads=[1, 1, 1, 1], strides=[2, 1],
        ),
        "uint8",
    ),
    "conv_same": (
        node("QLinearConv", "x sx zx filters sf zf sc zy", "conv_same", auto_pad="SAME_LOWER"),
        "uint8",
    ),
}  # fmt: skip


@pytest.fixture(scope="module")
def results() -> tuple[dict[str, Array], dict[str, Array]]:
    """What all of them give as wasm, and in onnxruntime."""
    feeds = {"x": X, "z": Z, "z2": bytes_of("uint8", 1, 2, 7, 5), "r": ROWS}
    inputs = {name: (array.dtype.name, array.shape) for name, array in feeds.items()}
    outputs: Any = {name: (dtype, None) for name, (_, dtype) in NODES.items()}
    model = make_model([item for item, _ in NODES.values()], inputs, outputs, WEIGHTS)
    model.opset_import.append(onnx.helper.make_opsetid(MS, 1))
    return run_as_wasm(model, feeds), reference(model, feeds)


@pytest.mark.parametrize("name", NODES)
def test_contrib_and_qlinear_operators(results, name):
    found, expected = (each[name] for each in results)
    assert found.dtype == expected.dtype
    assert found.shape == expected.shape
    if found.dtype == np.float32:
        # Sums of integers are exact; scaling them rounds once or twice.
        np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-6)
        return
    difference = np.abs(found.astype(int) - expected.astype(int))
    # onnxruntime rounds ties of the pieces of a sum in its own way.
    assert difference.max() <= 1
    assert (difference > 0).mean() <= 0.02


def test_dynamic_quantisation():
    """What `quantize_dynamic` makes of a matrix product."""
    nodes = [
        node("DynamicQuantizeLinear", "x", "q s z"),
        node("MatMulInteger", "q w z zw1", "sums"),
        node("Cast", "sums", "floats", to=onnx.TensorProto.FLOAT),
        node("Mul", "s sw1", "scale"),
        node("Mul", "floats scale", "y"),
    ]
    weights = {name: WEIGHTS[name] for name in ("w", "sw1", "zw1")}
    model = make_model(nodes, {"x": (3, 4, 9)}, "y", weights)
    for x in (RNG.standard_normal((3, 4, 9)), np.abs(RNG.standard_normal((3, 4, 9)))):
        feeds = {"x": x.astype(np.float32)}
        found, expected = run_as_wasm(model, feeds)["y"], reference(model, feeds)["y"]
        step = 255 * float(WEIGHTS["sw1"]) * np.abs(x).max() / 255
        assert np.abs(found - expected).max() <= 2 * step


@pytest.mark.parametrize("dtype", ["int8", "uint8", "int16", "uint16"])
@pytest.mark.parametrize("kind", ["tensor", "axis", "blocks"])
def test_quantising_and_back(dtype, kind):
    """By parameters that are known, and by ones that are computed."""
    from onnx.reference import ReferenceEvaluator

    x = (RNG.standard_normal((2, 6, 4)) * 90).astype(np.float32)
    shape = {"tensor": (), "axis": (6,), "blocks": (2, 3, 4)}[kind]
    attrs: dict[str, Any] = {"blocks": {"axis": 1, "block_size": 2}}.get(kind, {"axis": 1})
    info = np.iinfo(dtype)
    operands = {
        "s": (RNG.random(shape) + 0.2).astype(np.float32),
        "z": RNG.integers(info.min // 2, info.max // 2, shape).astype(dtype),
    }
    nodes = [
        node("QuantizeLinear", "x s z", "q", **attrs),
        node("DequantizeLinear", "q s z", "y", **attrs),
    ]
    outputs: Any = {"q": (dtype, None), "y": ("float32", None)}
    inputs: dict[str, Any] = {"x": x.shape}
    known = make_model(nodes, inputs, outputs, operands, opset=21)
    inputs |= {name: (array.dtype.name, array.shape) for name, array in operands.items()}
    computed = make_model(nodes, inputs, outputs, opset=21)
    q, y = ReferenceEvaluator(known).run(None, {"x": x})
    for model, feeds in ((known, {"x": x}), (computed, {"x": x, **operands})):
        found = run_as_wasm(model, feeds)
        np.testing.assert_array_equal(found["q"], q)
        np.testing.assert_allclose(found["y"], y, rtol=1e-6)


@pytest.mark.parametrize(
    ("a", "b"),
    [((4,), (4, 3)), ((5, 4), (4,)), ((4,), (4,)), ((4,), (2, 4, 3)), ((2, 5, 4), (4,))],
)
@pytest.mark.parametrize("zeros", ["none", "known", "computed"])
def test_operands_of_one_axis_are_rows_and_columns(a, b, zeros):
    operands = {"a": bytes_of("int8", *a), "b": bytes_of("int8", *b)}
    points = {} if zeros == "none" else {"za": np.int8(5), "zb": np.int8(-3)}
    inputs = operands | ({"za": points["za"], "zb": points["zb"]} if zeros == "computed" else {})
    model = make_model(
        [node("MatMulInteger", " ".join(["a", "b", *points]), "y")],
        {name: ("int8", np.shape(array)) for name, array in inputs.items()},
        {"y": ("int32", None)},
        points if zeros == "known" else {},
    )
    left, right = (operands[name].astype(np.int32) for name in "ab")
    expected = np.matmul(left - points.get("za", 0), right - points.get("zb", 0))
    np.testing.assert_array_equal(run_as_wasm(model, inputs)["y"], expected)
