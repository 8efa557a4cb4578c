"""How a node test ends: passing, refused, wrong or in an error, and in which words."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from onnx.reference import ReferenceEvaluator

from tests.conformance.cases import Case, Operator
from tests.conformance.outcome import Outcome, generalised, run_case
from tests.onnx_models import CUSTOM_DOMAIN, make_model, node

X = np.arange(6, dtype=np.float32).reshape(2, 3)
NEG = make_model([node("Neg", "x", "y")], {"x": [2, 3]}, {"y": [2, 3]})


def case(model: onnx.ModelProto, *inputs: Any, expected: Any) -> Case:
    operator = Operator("ai.onnx", model.graph.node[0].op_type, 18)
    return Case("test_it", operator, model, inputs, (expected,), rtol=1e-3, atol=1e-7)


def test_the_expected_output_is_a_pass() -> None:
    outcome = run_case(case(NEG, X, expected=-X))
    assert outcome.passed
    assert (outcome.kind, outcome.reason, outcome.promoted) == ("pass", "", ())
    assert outcome.seconds > 0


@pytest.mark.parametrize(
    ("expected", "reason"),
    [
        (X, "output 0 differs: 83% of its elements, by up to 10"),
        (np.full_like(X, np.nan), "output 0 differs: 100% of its elements, by NaN or infinity"),
        (-X.T, "output 0 is float32[2, 3] instead of float32[3, 2]"),
        (-X.astype(np.float64), "output 0 is float32[2, 3] instead of float64[2, 3]"),
        ([-X], "output 0 is a ndarray instead of a list"),
    ],
)
def test_another_output_is_wrong_and_says_how_far(expected: Any, reason: str) -> None:
    outcome = run_case(case(NEG, X, expected=expected))
    assert (outcome.kind, outcome.reason) == ("wrong", reason)


@pytest.mark.parametrize(("off", "kind"), [(0.9e-3, "pass"), (1.2e-3, "wrong")])
def test_the_tolerance_is_the_tests_own(off: float, kind: str) -> None:
    assert run_case(case(NEG, X, expected=-X * np.float32(1 + off))).kind == kind


def test_an_unsupported_operator_is_refused_with_its_reason() -> None:
    alien = make_model(
        [
            node("Frob", "x", "y", domain=CUSTOM_DOMAIN),
            node("Grok", "y", "z", domain=CUSTOM_DOMAIN),
        ],
        {"x": [2, 3]},
        "z",
    )
    outcome = run_case(case(alien, X, expected=X))
    assert outcome.kind == "refused"
    first, second = outcome.reason.split("; ")
    assert first.startswith(f"{CUSTOM_DOMAIN}.Frob: ")
    assert second.startswith(f"{CUSTOM_DOMAIN}.Grok: ")


def test_an_invalid_model_is_an_error() -> None:
    invalid = make_model([node("Neg", "nothing", "y")], {"x": [2, 3]}, "y")
    outcome = run_case(case(invalid, X, expected=X))
    assert outcome.kind == "error"
    assert outcome.reason.startswith("ModelError: ")


def test_inputs_that_were_compiled_in_are_recorded() -> None:
    columns = np.arange(25, dtype=np.float32).reshape(1, 5, 5)
    image = make_model(
        [node("Col2Im", "x image block", "y")],
        {"x": [1, 5, 5], "image": ("int64", [2]), "block": ("int64", [2])},
        "y",
    )
    # Blocks of a row each: column i of the blocks is row i of the image.
    expected = columns.transpose(0, 2, 1)[:, None]
    outcome = run_case(case(image, columns, np.array([5, 5]), np.array([1, 5]), expected=expected))
    assert outcome.passed, outcome
    assert set(outcome.promoted) == {"image", "block"}
    assert not outcome.constant


def test_a_model_of_which_all_inputs_were_compiled_in_is_said_to_be_constant() -> None:
    names = ("bins", "length", "rate", "low", "high")
    kinds = ("int64", "int64", "int64", "float32", "float32")
    values = [np.array(v, k) for v, k in zip((8, 16, 8192, 0, 4096), kinds, strict=True)]
    model = make_model(
        [node("MelWeightMatrix", " ".join(names), "y")],
        {name: (kind, []) for name, kind in zip(names, kinds, strict=True)},
        "y",
    )
    (expected,) = ReferenceEvaluator(model).run(None, dict(zip(names, values, strict=True)))
    outcome = run_case(case(model, *values, expected=expected))
    assert outcome.passed, outcome
    assert outcome.constant


def test_reasons_of_one_kind_are_equal_without_names_and_numbers() -> None:
    one = "its output 'y' would be float32[2, 3] where ONNX has float32[1]: 3 of 4, 1.5e-3"
    other = "its output 'Z_1' would be float32[] where ONNX has float32[7]: 11 of 12, 20"
    assert generalised(one) == generalised(other)
    assert "float32" in generalised(one)
    assert generalised("has the dtype float8_e5m2") == "has the dtype float8"
    assert generalised("has the dtype uint2") == generalised("has the dtype int4")
    assert generalised("has the dtype bfloat16") == "has the dtype bfloat16"


def test_an_outcome_reads_as_its_kind_and_reason() -> None:
    assert str(Outcome("test_it", "pass")) == "pass"
    assert str(Outcome("test_it", "crash", "exit status 3")) == "crash: exit status 3"
