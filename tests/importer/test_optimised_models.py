"""Models as onnxruntime's optimiser writes them, and the operators that left ONNX long ago.

Agreement is asked to the tolerance of the other model tests: |a-b| <= 1e-4 + 1e-3|b|.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest

from tests.onnx_models import Array, make_model, node, run_as_wasm
from tests.operators.foreign_cases import run_with_onnxruntime
from wasmgraph.errors import UnsupportedModelError

RNG = np.random.default_rng(11)


def f32(*shape: int) -> Array:
    return (RNG.normal(size=shape) / 4).astype(np.float32)


def optimised(model: onnx.ModelProto, folder: Path, level: str = "EXTENDED") -> onnx.ModelProto:
    """What onnxruntime makes of a model."""
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.graph_optimization_level = getattr(ort.GraphOptimizationLevel, f"ORT_ENABLE_{level}")
    options.optimized_model_filepath = str(folder / "optimised.onnx")
    ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return onnx.load(folder / "optimised.onnx")


def convolutions() -> onnx.ModelProto:
    """Convolutions with an activation each."""
    return make_model(
        [
            node("Conv", "x w0 b0", "c0", pads=[1, 1, 1, 1]),
            node("Relu", "c0", "a0"),
            node("Conv", "a0 w1 b1", "c1", pads=[1, 1, 1, 1]),
            node("LeakyRelu", "c1", "a1", alpha=0.1),
            node("Conv", "a1 w2 b2", "c2", strides=[2, 2]),
            node("Clip", "c2 low high", "a2"),
            node("Conv", "a2 w3 b3", "c3"),
            node("HardSigmoid", "c3", "y", alpha=0.2, beta=0.5),
        ],
        {"x": (1, 3, 12, 12)},
        {"y": (1, 8, 5, 5)},
        {
            "w0": f32(8, 3, 3, 3),
            "w1": f32(8, 8, 3, 3),
            "w2": f32(8, 8, 3, 3),
            "w3": f32(8, 8, 1, 1),
            **{f"b{i}": f32(8) for i in range(4)},
            "low": np.float32(0),
            "high": np.float32(6),
        },
        opset=14,
    )


def transformer(opset: int) -> onnx.ModelProto:
    """One block as exporters write it: every normalisation and gelu in its parts."""
    nodes = [
        node("Add", "x places", "h"),
        *layer_norm("h", "n"),
        *[part for name in "qkv" for part in by_heads(name)],
        node("Transpose", "kh", "kt", perm=[0, 1, 3, 2]),
        node("MatMul", "qh kt", "scores"),
        node("Div", "scores root", "scaled"),
        node("Softmax", "scaled", "weights", axis=3),
        node("MatMul", "weights vh", "mixed"),
        node("Transpose", "mixed", "rows", perm=[0, 2, 1, 3]),
        node("Reshape", "rows flat", "merged"),
        node("MatMul", "merged wo", "out"),
        node("Add", "out bo", "projected"),
        node("Add", "n projected", "h2"),
        *layer_norm("h2", "n2"),
        node("MatMul", "n2 w1", "m1"),
        node("Add", "m1 b1", "m1b"),
        node("Div", "m1b sqrt2", "d"),
        node("Erf", "d", "e"),
        node("Add", "e one", "f"),
        node("Mul", "m1b f", "g"),
        node("Mul", "g half", "gelu"),
        node("MatMul", "gelu w2", "m2"),
        node("Add", "m2 b2", "m2b"),
        node("Add", "n2 m2b", "h3"),
        *layer_norm("h3", "y"),
    ]
    weights = {
        "places": f32(1, 6, 16),
        **{f"w{name}": f32(16, 16) for name in "qkvo"},
        **{f"b{name}": f32(16) for name in "qkvo2"},
        "w1": f32(16, 32),
        "b1": f32(32),
        "w2": f32(32, 16),
        "scale": 1 + f32(16),
        "shift": f32(16),
        "split": np.array([0, 0, 2, 8]),
        "flat": np.array([0, 0, 16]),
        **{
            name: np.float32(value)
            for name, value in {
                "root": 8**0.5,
                "sqrt2": 2**0.5,
                "one": 1,
                "half": 0.5,
                "two": 2,
                "epsilon": 1e-5,
            }.items()
        },
    }
    return make_model(nodes, {"x": (2, 6, 16)}, {"y": (2, 6, 16)}, weights, opset=opset)


def layer_norm(x: str, y: str) -> list[onnx.NodeProto]:
    return [
        node("ReduceMean", x, f"{y}_mean", axes=[-1]),
        node("Sub", [x, f"{y}_mean"], f"{y}_centred"),
        node("Pow", [f"{y}_centred", "two"], f"{y}_squares"),
        node("ReduceMean", f"{y}_squares", f"{y}_variance", axes=[-1]),
        node("Add", [f"{y}_variance", "epsilon"], f"{y}_sum"),
        node("Sqrt", f"{y}_sum", f"{y}_deviation"),
        node("Div", [f"{y}_centred", f"{y}_deviation"], f"{y}_normal"),
        node("Mul", [f"{y}_normal", "scale"], f"{y}_scaled"),
        node("Add", [f"{y}_scaled", "shift"], y),
    ]


def by_heads(name: str) -> list[onnx.NodeProto]:
    return [
        node("MatMul", f"n w{name}", f"{name}0"),
        node("Add", f"{name}0 b{name}", f"{name}1"),
        node("Reshape", f"{name}1 split", f"{name}2"),
        node("Transpose", f"{name}2", f"{name}h", perm=[0, 2, 1, 3]),
    ]


def agree(model: onnx.ModelProto, feeds: dict[str, Array]) -> None:
    expected = run_with_onnxruntime(model, feeds)
    for name, found in run_as_wasm(model, feeds).items():
        np.testing.assert_allclose(found, expected[name], rtol=1e-3, atol=1e-4)


def test_fused_convolutions(tmp_path: Path) -> None:
    model = optimised(convolutions(), tmp_path)
    assert {item.op_type for item in model.graph.node} == {"FusedConv"}
    agree(model, {"x": f32(1, 3, 12, 12)})


@pytest.mark.parametrize("opset", [12, 17])
def test_fused_transformer(opset: int, tmp_path: Path) -> None:
    """Opset 12 has no LayerNormalization; onnxruntime puts it there all the same."""
    model = optimised(transformer(opset), tmp_path)
    fused = {item.op_type for item in model.graph.node}
    assert {"SkipLayerNormalization", "LayerNormalization", "FusedMatMul"} <= fused
    assert fused & {"BiasGelu", "Gelu"}
    agree(model, {"x": f32(2, 6, 16)})


def test_layouts_of_one_processor_are_refused_with_the_way_out(tmp_path: Path) -> None:
    model = optimised(convolutions(), tmp_path, level="ALL")
    if not any(item.domain == "com.microsoft.nchwc" for item in model.graph.node):
        pytest.skip("onnxruntime has no layout of its own for this processor")
    with pytest.raises(UnsupportedModelError) as refused:
        run_as_wasm(model, {})
    assert all("ORT_ENABLE_EXTENDED" in item.reason for item in refused.value.obstacles)


@pytest.mark.parametrize("opset", [6, 9])
def test_operators_that_left_onnx(opset: int) -> None:
    """fns_mosaic of ../shared is made of them; onnxruntime has kept them."""
    nodes = [
        node("ImageScaler", "x", "a", scale=0.5, bias=[1.0, -2.0, 3.0]),
        node("Crop", "a", "b", border=[1, 2, 0, 1]),
        node("Affine", "b", "c", alpha=2.0, beta=0.25),
        node("ScaledTanh", "c", "d", alpha=1.5, beta=0.5),
        node("ParametricSoftplus", "d", "e", alpha=2.0, beta=0.75),
        node("Crop", "e", "y", border=[1, 0, 0, 0], scale=[3, 2]),
    ]
    model = make_model(nodes, {"x": (2, 3, 8, 7)}, {"y": (2, 3, 3, 2)}, opset=opset)
    agree(model, {"x": f32(2, 3, 8, 7)})


def test_upsample_before_opset_7() -> None:
    nodes = [node("Upsample", "x", "y", width_scale=2.0, height_scale=3.0, mode="nearest")]
    model = make_model(nodes, {"x": (1, 2, 2, 2)}, {"y": (1, 2, 6, 4)}, opset=6)
    x = f32(1, 2, 2, 2)
    found = run_as_wasm(model, {"x": x})["y"]
    np.testing.assert_array_equal(found, x.repeat(3, axis=2).repeat(2, axis=3))
