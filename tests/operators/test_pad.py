"""Pad by negative amounts and with a value at run time; elements only move: all must be equal."""

from __future__ import annotations

import numpy as np
import pytest

from tests.onnx_models import Array
from tests.operators.node_cases import Case, check, fixed, run_cases

X = np.arange(24, dtype=np.float32).reshape(2, 3, 4)
VALUE = np.array(-7, np.float32)


def padded(x: Array, begin: list[int], end: list[int], value: float) -> Array:
    grown = [(max(b, 0), max(e, 0)) for b, e in zip(begin, end, strict=True)]
    out = np.pad(x, grown, constant_values=value)
    return out[
        tuple(
            slice(max(-b, 0), n - max(-e, 0)) for b, e, n in zip(begin, end, out.shape, strict=True)
        )
    ]


CASES = [
    Case(
        "a value at run time",
        "Pad",
        (X, fixed([0, 1, 2, 1, 0, 3]), VALUE),
        {},
        (padded(X, [0, 1, 2], [1, 0, 3], -7),),
    ),
    Case(
        "axes",
        "Pad",
        (X, fixed([2, 1, 0, 3]), VALUE, fixed([-1, 0])),
        {},
        (padded(X, [1, 0, 2], [3, 0, 0], -7),),
    ),
    Case(
        "less than nothing",
        "Pad",
        (X, fixed([0, -1, 2, 0, 1, -3])),
        {},
        (padded(X, [0, -1, 2], [0, 1, -3], 0),),
    ),
    Case(
        "less of a constant",
        "Pad",
        (X, fixed([0, -1, 0, 0, -1, 1]), fixed(5, "float32")),
        {},
        (padded(X, [0, -1, 0], [0, -1, 1], 5),),
    ),
    Case(
        "of bytes",
        "Pad",
        (X.astype(np.uint8), fixed([1, 0, 0, 0, 0, 0]), np.array(9, np.uint8)),
        {},
        (padded(X.astype(np.uint8), [1, 0, 0], [0, 0, 0], 9),),
    ),
    Case(
        "with a constant, by TVM",
        "Pad",
        (X, fixed([1, 0, 0, 0, 2, 0]), fixed(5, "float32")),
        {},
        (padded(X, [1, 0, 0], [0, 2, 0], 5),),
    ),
]


@pytest.fixture(scope="module")
def results() -> dict[str, list[Array]]:
    return run_cases(CASES)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_gives_what_numpy_gives(case: Case, results: dict[str, list[Array]]) -> None:
    check(case, results[str(case)])
