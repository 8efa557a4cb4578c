"""Verifying a quantised model allows what rounding decides, and no more."""

from __future__ import annotations

import numpy as np
import pytest

import wasmgraph
from tests.onnx_models import make_model, node
from tests.quantised.models import attention, quantised
from wasmgraph.quantisation_slack import quantisation_slack, quantises
from wasmgraph.verification import Operands, compare

SCALES = {"s": np.float32(0.5), "z": np.uint8(3)}
ROUND_TRIP = [node("QuantizeLinear", "x s z", "q"), node("DequantizeLinear", "q s z", "y")]


def test_a_compiled_model_is_verified(tmp_path):
    model = quantised(attention(), tmp_path, per_channel=True)
    report = wasmgraph.compile(model, tmp_path / "out.wasm")
    assert report.verification is not None
    assert report.verification.agrees
    assert report.verification.outputs[0].slack > 0


def test_one_step_is_allowed_where_an_output_is_quantised():
    model = make_model(ROUND_TRIP, {"x": (2,)}, {"y": (2,), "q": ("uint8", (2,))}, SCALES)
    values = {"y": np.ones(2, np.float32), "q": np.ones(2, np.uint8)}
    slack = quantisation_slack(model, values, values)
    assert slack["y"] == pytest.approx(0.5, rel=1e-4)
    assert slack["q"] == 1


def test_more_is_allowed_where_the_reference_does_not_agree_with_itself():
    model = make_model(ROUND_TRIP, {"x": (2,)}, {"y": (2,)}, SCALES)
    values = {"y": np.array([1, 2], np.float32)}
    slack = quantisation_slack(model, values, {"y": values["y"] + 1})
    assert slack == {"y": 1.0}


def test_the_nearer_of_the_reference_s_two_answers_counts():
    expected = {"y": np.array([1.0, 2.0], np.float32)}
    plain = {"y": np.array([1.0, 4.0], np.float32)}
    operands = Operands("m", {}, expected, {"y": 2.0}, plain=plain)
    for found, agrees, distance in ((0.0, True, 2.0), (4.5, True, 0.5), (6.5, False, 2.5)):
        array = np.array([1.0, found], np.float32)
        (output,) = operands.compare({"y": array}, rtol=0, atol=0)
        assert (output.agrees, output.max_abs) == (agrees, distance)


def test_nothing_is_allowed_where_weights_alone_are_quantised():
    nodes = [node("DequantizeLinear", "w s z", "f"), node("Add", "x f", "y")]
    weights = {**SCALES, "w": np.ones(2, np.uint8)}
    model = make_model(nodes, {"x": (2,)}, {"y": (2,)}, weights)
    assert not quantises(model)


def test_what_is_beyond_disagrees():
    expected = np.array([1.0, 2.0], np.float32)
    assert compare("y", expected + np.float32(0.5), expected, slack=0.5).agrees
    beyond = compare("y", expected + np.float32(0.6), expected, slack=0.5)
    assert not beyond.agrees
    assert "quantisation allows 0.5" in str(beyond)
    assert compare("q", np.array([3]), np.array([4]), slack=1).agrees
    assert not compare("q", np.array([2]), np.array([4]), slack=1).agrees
