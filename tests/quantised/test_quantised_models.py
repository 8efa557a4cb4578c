"""Models from onnxruntime's quantiser run as integers and agree with onnxruntime.

An operator's result may be one step off where its value lies within a rounding error of the middle
between two steps; in networks this small that is rare, and does not grow.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from onnxruntime.quantization import QuantFormat, QuantType

from tests.onnx_models import run_as_wasm
from tests.quantised.models import (
    attention,
    convolutions,
    feeds_of,
    quantised,
    reference,
    with_quantised_outputs,
)
from wasmgraph.importer import import_model, load_model
from wasmgraph.kernels.lookup import Lookup
from wasmgraph.optimise import optimise

S8, U8 = QuantType.QInt8, QuantType.QUInt8
WAYS: dict[str, dict[str, Any]] = {
    "uint8, int8 weights": {"activation_type": U8, "weight_type": S8},
    "per channel": {"activation_type": U8, "weight_type": S8, "per_channel": True},
    "int8": {"activation_type": S8, "weight_type": S8, "per_channel": True},
    "uint8 weights": {"activation_type": U8, "weight_type": U8},
}
MAKERS = {"convolutions": convolutions, "attention": attention}


def calls(model: onnx.ModelProto) -> list[str]:
    """What the kernel calls of a model compute, in order."""
    return [call.description for call in optimise(import_model(load_model(model))).calls]


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("maker", MAKERS)
@pytest.mark.parametrize("form", [QuantFormat.QDQ, QuantFormat.QOperator], ids=["QDQ", "QOp"])
def test_outputs_agree_to_one_step(tmp_path, maker, way, form):
    model = quantised(MAKERS[maker](), tmp_path, quant_format=form, **WAYS[way])
    feeds = feeds_of(model, seed=9)
    expected = reference(model, feeds)["y"]
    found = run_as_wasm(model, feeds)["y"]
    steps = np.unique(np.diff(np.unique(expected)))
    one = steps[steps > 1e-6].min()
    assert np.abs(found - expected).max() <= 1.01 * one
    # Few are off at all.
    assert (np.abs(found - expected) > 0.5 * one).mean() <= 0.05


@pytest.mark.parametrize("maker", MAKERS)
@pytest.mark.parametrize("simd", ["simd128", "relaxed", "none"])
def test_every_quantised_tensor_agrees_to_one_step(tmp_path, maker, simd):
    model = quantised(MAKERS[maker](), tmp_path, **WAYS["per channel"])
    model = with_quantised_outputs(model)
    feeds = feeds_of(model, seed=5)
    expected = reference(model, feeds)
    found = run_as_wasm(model, feeds, simd=simd)
    for name in set(expected) - {"y"}:
        assert found[name].dtype == expected[name].dtype
        difference = np.abs(found[name].astype(int) - expected[name].astype(int))
        assert difference.max() <= 1, name
        assert (difference > 0).mean() <= 0.01, name


def test_threads_give_the_same(tmp_path):
    model = quantised(convolutions(), tmp_path, **WAYS["per channel"])
    feeds = feeds_of(model)
    plain, threaded = (run_as_wasm(model, feeds, threads=on)["y"] for on in (False, True))
    np.testing.assert_array_equal(threaded, plain)


def test_convolutions_hand_bytes_to_each_other(tmp_path):
    """Nothing is copied, and nothing converted, between them."""
    found = calls(quantised(convolutions(), tmp_path, **WAYS["per channel"]))
    products = [text for text in found if text.startswith("int8_")]
    assert len(products) == 5
    assert sum("depthwise" in text for text in products) == 1
    assert any("add" in text for text in products), "the residual is part of a convolution"
    inner = found[found.index(products[0]) + 1 : found.index(products[3])]
    others = {text for text in inner if not text.startswith("int8_")}
    assert others <= {"pad", "max_pool2d"}, inner


def test_a_gelu_between_products_is_a_table(tmp_path):
    model = quantised(attention(), tmp_path, **WAYS["per channel"])
    program = optimise(import_model(load_model(model)))
    assert sum(isinstance(call.kernel, Lookup) for call in program.calls) == 1


def test_weights_stay_bytes(tmp_path):
    """Their bytes are a fourth of the float model's, but for biases and what pads blocks."""
    model = convolutions()
    whole = sum(w.array.nbytes for w in program_of(model).weights.values())
    small = quantised(model, tmp_path, **WAYS["per channel"])
    stored = [w.array for w in program_of(small).weights.values()]
    assert sum(array.nbytes for array in stored if array.dtype == np.int8) < 0.3 * whole


def program_of(model: onnx.ModelProto) -> Any:
    return optimise(import_model(load_model(model)))
