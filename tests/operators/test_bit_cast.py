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


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_floats_of_16_bits_keep_their_bits(dtype: str) -> None:
    bits = np.array([0, 0x3F80, 0x4000, 1, 0x8000, 0xBC00], np.uint16)
    elem_type = onnx.helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
    nodes = [
        node("BitCast", "x", "half", to=elem_type),
        node("Neg", "half", "y"),
        node("BitCast", "y", "back", to=onnx.TensorProto.UINT16),
    ]
    outputs = {"y": (dtype, (6,)), "back": ("uint16", (6,))}
    model = make_model(nodes, {"x": ("uint16", (6,))}, outputs, opset=26)
    found = run_as_wasm(model, {"x": bits})
    np.testing.assert_array_equal(found["y"].view(np.uint16), bits ^ 0x8000)
    np.testing.assert_array_equal(found["back"], bits ^ 0x8000)


def test_no_kernel_is_called() -> None:
    bundle = compile_to_bundle(make_model(NODES, {"x": (2, 3)}, "y", SIGN, opset=26))
    assert not any("cast" in kernel.description for kernel in bundle.graph.kernels)
