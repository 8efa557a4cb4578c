"""Small networks whose weights alone are quantised, by onnxruntime's own quantiser."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper

from tests.onnx_models import make_model, node

nbits = pytest.importorskip(
    "onnxruntime.quantization.matmul_nbits_quantizer", reason="onnxruntime quantises the models"
)
from onnxruntime.quantization import QuantFormat  # noqa: E402 - it may be missing


def gated(shape: tuple[Any, ...] = (2, 5, 96), opset: int = 17) -> onnx.ModelProto:
    """A gated block of a language model: three products of 96x128, 96x128 and 128x96, and a head.

    Args:
        shape: Of the input.
    """
    rng = np.random.default_rng(3)

    def random(*extents: int) -> np.ndarray[Any, np.dtype[np.float32]]:
        return (rng.standard_normal(extents) / np.sqrt(extents[0])).astype(np.float32)

    return make_model(
        [
            node("MatMul", "x up", "u"),
            node("Add", "u bias", "ub"),
            node("MatMul", "x gate", "g"),
            node("Sigmoid", "g", "s"),
            node("Mul", "g s", "silu"),
            node("Mul", "silu ub", "h"),
            node("MatMul", "h down", "d"),
            node("Add", "d x", "r"),
            node("MatMul", "r head", "y"),
        ],
        {"x": ("float32", shape)},
        {"y": ("float32", (*shape[:-1], 70))},
        {
            "up": random(96, 128),
            "bias": random(128),
            "gate": random(96, 128),
            "down": random(128, 96),
            "head": random(96, 70),
        },
        opset=opset,
    )


def quantised(model: onnx.ModelProto, form: str = "QOperator", **options: Any) -> onnx.ModelProto:
    """What the quantiser makes of it.

    Args:
        form: "QOperator", with MatMulNBits, or "QDQ", with DequantizeLinear.
        options: bits, block_size, is_symmetric and so on.
    """
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    config = nbits.DefaultWeightOnlyQuantConfig(quant_format=QuantFormat[form], **options)
    quantiser = nbits.MatMulNBitsQuantizer(copy, algo_config=config)
    quantiser.process()
    result: onnx.ModelProto = quantiser.model.model
    if form == "QDQ":
        # It names the domain that its other form needs, twice.
        del result.opset_import[:]
        result.opset_import.append(helper.make_opsetid("", 21))
    return result
