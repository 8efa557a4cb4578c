"""Element-wise operators that are not TVM's; all must be equal to the reference."""

from __future__ import annotations

import numpy as np
import pytest

from tests.onnx_models import Array
from tests.operators.node_cases import Case, check, run_cases

RNG = np.random.default_rng(0)
X = RNG.normal(size=(3, 4)).astype(np.float32)
WHOLE = RNG.integers(-100, 100, (3, 4)).astype(np.int8)


def scalar(value: float, dtype: str = "float32") -> Array:
    return np.array(value, dtype)


CASES = [
    Case("bounds at run time", "Clip", (X, scalar(-0.5), scalar(0.5))),
    Case("crossed bounds at run time", "Clip", (X, scalar(0.5), scalar(-0.5))),
    Case("an upper bound at run time", "Clip", (X, None, scalar(0.1))),
    Case("integers", "Clip", (WHOLE, scalar(-5, "int8"), scalar(7, "int8"))),
    Case("a main diagonal", "EyeLike", (X,), {"dtype": 7}),
    Case("an upper diagonal", "EyeLike", (X,), {"k": 1, "dtype": 11}),
    Case("the input's dtype", "EyeLike", (WHOLE,), {"k": -1}),
]


@pytest.fixture(scope="module")
def results() -> dict[str, list[Array]]:
    return run_cases(CASES)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_gives_what_the_reference_gives(case: Case, results: dict[str, list[Array]]) -> None:
    check(case, results[str(case)])
