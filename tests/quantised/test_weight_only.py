"""Weights of a few bits with a scale per block, and activations of floats.

Agreement is asked to the tolerance of the other model tests: |a-b| <= 1e-4 + 1e-3|b|.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from click.testing import CliRunner

import wasmgraph
from tests.onnx_models import make_model, node
from tests.operators.foreign_cases import run_with_onnxruntime
from tests.quantised.weight_only import gated, quantised
from wasmgraph.cli import main
from wasmgraph.errors import UnsupportedModelError

FORMS = [
    ("QOperator", {"bits": 4, "block_size": 32, "is_symmetric": True}),
    ("QOperator", {"bits": 4, "block_size": 16, "is_symmetric": False}),
    ("QOperator", {"bits": 8, "block_size": 32, "is_symmetric": False}),
    ("QDQ", {"bits": 4, "block_size": 32, "is_symmetric": True}),
    ("QDQ", {"bits": 4, "block_size": 32, "is_symmetric": False}),
]


@pytest.mark.parametrize(("form", "options"), FORMS)
@pytest.mark.parametrize("is_open", [False, True])
def test_quantised_models_agree_with_onnxruntime(tmp_path, form, options, is_open):
    """With open axes, as language models have, and without; at two sizes where they are open."""
    opset = 21 if form == "QDQ" else 17
    shape = ("batch", "sequence", 96) if is_open else (2, 5, 96)
    model = quantised(gated(shape, opset), form, **options)
    out = tmp_path / "graph.wasm"
    wasmgraph.compile(model, out, verify=False)
    with wasmgraph.load(out) as graph:
        for extents in ((2, 5), (1, 1)) if is_open else ((2, 5),):
            x = np.random.default_rng(0).standard_normal((*extents, 96)).astype(np.float32)
            (expected,) = run_with_onnxruntime(model, {"x": x}).values()
            np.testing.assert_allclose(graph.run({"x": x})["y"], expected, rtol=1e-3, atol=1e-4)


def one_node(groups: np.ndarray[Any, Any] | None, dtype: str = "float32") -> onnx.ModelProto:
    """MatMulNBits of 64x16 with blocks of 32."""
    rng = np.random.default_rng(0)
    weights = {
        "w": rng.integers(0, 256, (16, 2, 16)).astype(np.uint8),
        "s": rng.normal(size=(16, 2), scale=0.05).astype(dtype),
    }
    operands = "x w s"
    if groups is not None:
        weights["g"] = groups.astype(np.int32)
        operands = ["x", "w", "s", "", "g"]
    model = make_model(
        [
            node(
                "MatMulNBits",
                operands,
                "y",
                domain="com.microsoft",
                K=64,
                N=16,
                bits=4,
                block_size=32,
            )
        ],
        {"x": (dtype, (3, 64))},
        {"y": (dtype, (3, 16))},
        weights,
    )
    model.opset_import.append(onnx.helper.make_opsetid("com.microsoft", 1))
    return model


def test_groups_in_another_order_are_refused(tmp_path):
    model = one_node(np.arange(64) % 2)
    path = tmp_path / "model.onnx"
    onnx.save(model, path)
    with pytest.raises(UnsupportedModelError, match="g_idx"):
        wasmgraph.compile(path, tmp_path / "graph.wasm")
    result = CliRunner().invoke(main, ["check", str(path)])
    assert result.exit_code == 4
    assert "g_idx" in result.output


def test_weights_that_are_no_constants_are_refused(tmp_path):
    model = one_node(None)
    weights = model.graph.initializer[0]
    port = onnx.helper.make_tensor_value_info("w", weights.data_type, weights.dims)
    model.graph.initializer.remove(weights)
    model.graph.input.append(port)
    with pytest.raises(UnsupportedModelError, match="has to be a constant"):
        wasmgraph.compile(model, tmp_path / "graph.wasm")


def test_weights_of_another_size_are_refused(tmp_path):
    model = one_node(None)
    weights = onnx.numpy_helper.to_array(model.graph.initializer[0])[:, :, :9]
    model.graph.initializer[0].CopyFrom(onnx.numpy_helper.from_array(weights, "w"))
    with pytest.raises(UnsupportedModelError, match="18 codes where 32 are expected"):
        wasmgraph.compile(model, tmp_path / "graph.wasm")


def test_halves_are_multiplied_in_float32(tmp_path):
    """onnxruntime's product of halves is what its weights decoded to float32 give, rounded."""
    model = one_node(None, "float16")
    wasmgraph.compile(model, tmp_path / "graph.wasm", verify=False)
    x = np.random.default_rng(1).standard_normal((3, 64)).astype(np.float16)
    with wasmgraph.load(tmp_path / "graph.wasm") as graph:
        y = graph.run({"x": x})["y"]
    single = one_node(None)
    single.graph.initializer[1].CopyFrom(
        onnx.numpy_helper.from_array(
            onnx.numpy_helper.to_array(model.graph.initializer[1]).astype(np.float32), "s"
        )
    )
    (expected,) = run_with_onnxruntime(single, {"x": x.astype(np.float32)}).values()
    assert y.dtype == np.float16
    # A half has 11 bits, and its last one may be rounded the other way.
    np.testing.assert_allclose(y.astype(np.float32), expected, rtol=2**-10, atol=1e-4)
