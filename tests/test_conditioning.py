"""What rounding alone explains of a disagreement, and what it does not."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import numpy_helper

import wasmgraph
from tests.onnx_models import make_model, node
from wasmgraph.cli.tables import rounding_notes
from wasmgraph.conditioning import FACTOR, MOST, rounding_response, within_rounding
from wasmgraph.errors import VerificationError
from wasmgraph.reference import reference_outputs
from wasmgraph.runtime.base import TensorSpec
from wasmgraph.verification import compare, verify

WEIGHTS = np.random.default_rng(1).standard_normal((16, 16)).astype(np.float32)
OUTPUTS = (TensorSpec("y", "float32", (4, 16)),)


def product(offset: float, weights: NDArray[np.float32] = WEIGHTS) -> onnx.ModelProto:
    """The product of x + offset with weights, less its mean over the rows, and 100 times that: the
    larger the offset, the more of the digits are lost."""
    nodes = [
        node("Add", "x offset", "far"),
        node("MatMul", "far w", "p"),
        node("ReduceMean", "p axes", "mean"),
        node("Sub", "p mean", "d"),
        node("Mul", "d hundred", "y"),
    ]
    constants = {
        "offset": np.float32(offset),
        "w": weights,
        "axes": np.int64([0]),
        "hundred": np.float32(100),
    }
    return make_model(nodes, {"x": (4, 16)}, {"y": (4, 16)}, constants)


def exact(x: NDArray[np.float32], weights: NDArray[np.float32] = WEIGHTS) -> NDArray[np.float32]:
    """The outputs, without the offset, which the mean takes away again: to 1e-15 of them."""
    wide = x.astype(np.float64) @ weights.astype(np.float64)
    return (100 * (wide - wide.mean(axis=0))).astype(np.float32)


def measured(model: onnx.ModelProto, x: NDArray[np.float32]) -> tuple[NDArray, NDArray]:
    """onnxruntime's output, and how far rounding moves it."""
    expected = reference_outputs(model, {"x": x}, OUTPUTS)
    return expected["y"], rounding_response(model, {"x": x}, OUTPUTS, expected)["y"]


X = np.random.default_rng(2).random((4, 16)).astype(np.float32)


def test_a_model_that_amplifies_rounding_is_found_to() -> None:
    """The offset costs 9 of 24 bits: x is right to 2^-15, which 100 times a sum of 16 makes 0.02
    or so, and so far onnxruntime is from the exact outputs."""
    expected, response = measured(product(500.0), X)
    assert 0.01 < response[0] < 0.3
    assert np.all(np.diff(response) <= 0)
    assert not compare("y", exact(X), expected).agrees
    agreement = compare("y", exact(X), expected, response=response)
    assert agreement.agrees
    assert agreement.rounding == response[0]


def test_a_wrong_kernel_of_such_a_model_is_found_all_the_same() -> None:
    expected, response = measured(product(500.0), X)
    wrong = WEIGHTS.copy()
    wrong[3, 5] += 0.1
    agreement = compare("y", exact(X, wrong), expected, response=response)
    assert not agreement.agrees
    assert "which does not explain it" in str(agreement)


def test_a_model_that_amplifies_nothing_is_allowed_nothing() -> None:
    """Sums of 16 products of numbers below 4, times 100: a few hundred times 2^-23, times FACTOR,
    is about the absolute tolerance, and far below what a weight wrong by a thousandth does."""
    expected, response = measured(product(0.0), X)
    assert FACTOR * response[0] < 1e-3
    wrong = WEIGHTS.copy()
    wrong[3, 5] += 1e-3
    assert compare("y", exact(X), expected).agrees
    assert not compare("y", exact(X, wrong), expected, response=response).agrees


def test_a_compiled_graph_is_verified_so_and_its_report_says_it(tmp_path: Path) -> None:
    path = tmp_path / "out.wasm"
    wasmgraph.compile(product(500.0), path, verify=False)
    close, other = product(500.0), product(500.0, WEIGHTS + np.eye(16, dtype=np.float32) / 10)
    with wasmgraph.load(path) as graph:
        for tensor in close.graph.initializer:
            if tensor.name == "offset":  # another order of the sums, as it were
                tensor.CopyFrom(numpy_helper.from_array(np.float32(501), "offset"))
        report = verify(graph, close, {"x": X})
        strict = verify(graph, close, {"x": X}, atol=1e-9)
        refused = verify(graph, other, {"x": X})
    (output,) = report.outputs
    assert report.agrees
    assert 0 < output.max_abs <= FACTOR * output.rounding
    assert json.loads(json.dumps(report.to_json()))["outputs"][0]["rounding"] == output.rounding
    assert "4 times that is allowed" in rounding_notes(report.outputs)["tolerance"]
    assert not strict.agrees
    assert not refused.agrees
    with pytest.raises(VerificationError, match="rounding alone moves"):
        refused.raise_if_disagree()


def test_nothing_is_said_where_nothing_had_to_be_allowed(tmp_path: Path) -> None:
    report = wasmgraph.compile(product(0.0), tmp_path / "out.wasm").verification
    assert report is not None
    assert report.outputs[0].rounding == 0
    assert rounding_notes(report.outputs) == {}


def test_one_element_that_jumps_does_not_excuse_the_others() -> None:
    expected = np.full(8, 100, np.float32)
    response = np.float64([0.2, *[1e-3] * 7])
    one, two = expected.copy(), expected.copy()
    one[3] += 0.5
    two[3:5] += 0.5
    for found, explained in ((one, True), (two, False)):
        assert within_rounding(found, expected, found != expected, response) is explained


def test_inputs_that_prove_too_little_excuse_nothing() -> None:
    """However far rounding moves it, no more than a share of the largest element is allowed."""
    expected = np.ones(4, np.float32)
    found = expected + np.float32(0.5 * MOST)
    wrong = np.ones(4, bool)
    assert within_rounding(found, expected, wrong, np.full(4, MOST / FACTOR))
    assert not within_rounding(found, expected, wrong, np.full(4, 1.01 * MOST / FACTOR))


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_what_is_not_finite_is_never_rounding(value: float) -> None:
    expected = np.ones(2, np.float32)
    found = np.float32([1, value])
    agreement = compare("y", found, expected, response=np.full(2, 1e-3))
    assert not agreement.agrees
    both = compare(
        "y", found + np.float32(1e-3), found, atol=1e-9, rtol=1e-9, response=np.full(2, 2e-3)
    )
    assert both.agrees


def test_integers_and_values_that_are_only_moved_do_not_respond() -> None:
    """x is rounded, as every input, but nothing after it; counts are no floats."""
    nodes = [node("Transpose", "x", "t"), node("Relu", "t", "y"), node("Shape", "y", "s")]
    model = make_model(nodes, {"x": (2, 4)}, {"y": (4, 2), "s": ("int64", (2,))})
    outputs = (TensorSpec("y", "float32", (4, 2)), TensorSpec("s", "int64", (2,)))
    feeds = {"x": np.ones((2, 4), np.float32)}
    expected = reference_outputs(model, feeds, outputs)
    response = rounding_response(model, feeds, outputs, expected)
    assert response.keys() == {"y"}
    assert 0 < response["y"].max() <= 2**-22


def test_operators_that_onnx_has_dropped_respond() -> None:
    nodes = [
        node("ImageScaler", "x", "a", scale=1.0, bias=[1000.0]),
        node("Crop", "a", "y", border=[0, 0, 1, 1]),
    ]
    model = make_model(nodes, {"x": (1, 1, 3, 3)}, {"y": (1, 1, 2, 2)}, opset=7)
    model.ir_version = 3
    outputs = (TensorSpec("y", "float32", (1, 1, 2, 2)),)
    feeds = {"x": np.ones((1, 1, 3, 3), np.float32)}
    expected = reference_outputs(model, feeds, outputs)
    # 1001 has a ULP of 6.1e-5.
    assert 6e-5 < rounding_response(model, feeds, outputs, expected)["y"][0] < 3e-4


def test_a_model_that_cannot_be_run_so_is_allowed_nothing() -> None:
    model = product(0.0)
    expected = reference_outputs(model, {"x": X}, OUTPUTS)
    broken = onnx.ModelProto.FromString(model.SerializeToString())
    broken.graph.node[0].op_type = "NoSuchOperator"
    assert rounding_response(broken, {"x": X}, OUTPUTS, expected) == {}
