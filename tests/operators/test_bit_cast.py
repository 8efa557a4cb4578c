"""BitCast, which came with opset 26: the bytes stay, no kernel is called for it."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

from tests.onnx_models import compile_to_bundle, make_model, node, run_as_wasm

pytestmark = pytest.mark.skipif(onnx.defs.onnx_opset_version() < 26, reason="onnx has no BitCast")

NODES = [
    node("Transpose", "x", "turned"),
    node("BitCast", "turned", "bits", to=onnx.TensorProto.UINT32),
    node("BitwiseXor", "bits sign", "flipped"),
    node("BitCast", "flipped", "y", to=onnx.TensorProto.FLOAT),
]
SIGN = {"sign": np.array(1 << 31, np.uint32)}


def test_bytes_are_read_as_another_dtype() -> None:
    x = np.arange(6, dtype=np.float32).reshape(2, 3)
    model = make_model(NODES, {"x": (2, 3)}, "y", SIGN, opset=26)
    np.testing.assert_array_equal(run_as_wasm(model, {"x": x})["y"], -x.T)


def test_no_kernel_is_called() -> None:
    bundle = compile_to_bundle(make_model(NODES, {"x": (2, 3)}, "y", SIGN, opset=26))
    assert not any("cast" in kernel.description for kernel in bundle.graph.kernels)
