"""Element-wise operators that are not TVM's; all must be equal to the reference."""

from __future__ import annotations

import numpy as np
import pytest

from tests.onnx_models import Array
from tests.operators.node_cases import Case, check, run_cases

RNG = np.random.default_rng(0)
X = RNG.normal(size=(3, 4)).astype(np.float32)
WHOLE = RNG.integers(-100, 100, (3, 4)).astype(np.int8)
SIGNED = RNG.integers(-20, 20, (4, 3))
DIVISORS = np.array([-3, 5, 7])
SPECIAL = np.array(
    [
        [1, -1, 0, -0.0, np.inf, 5, -5, np.nan, 3],
        [np.inf, np.inf, 3, 3, 2, 0, -np.inf, 1, -np.inf],
    ],
    np.float32,
)
SHIFTED, SHIFTS = np.array([[1, 3, 200]]), np.array([[0], [1], [7], [64]])
BASES, EXPONENTS = RNG.integers(-5, 6, (5, 1)), np.array([0, 1, 2, 3, 5])


def scalar(value: float, dtype: str = "float32") -> Array:
    return np.array(value, dtype)


CASES = [
    Case("bounds at run time", "Clip", (X, scalar(-0.5), scalar(0.5))),
    Case("crossed bounds at run time", "Clip", (X, scalar(0.5), scalar(-0.5))),
    Case("an upper bound at run time", "Clip", (X, None, scalar(0.1))),
    Case("integers", "Clip", (WHOLE, scalar(-5, "int8"), scalar(7, "int8"))),
    *(
        Case(
            f"fmod {fmod} of {dtype}",
            "Mod",
            (SIGNED.astype(dtype), DIVISORS.astype(dtype)),
            {"fmod": fmod},
        )
        for fmod in (0, 1)
        for dtype in ("float32", "float64", "int8", "int32", "int64")
    ),
    Case("of unsigned", "Mod", (abs(SIGNED).astype(np.uint8), abs(DIVISORS).astype(np.uint8))),
    Case("by zero", "Mod", (WHOLE, scalar(0, "int8")), {}, (WHOLE * 0,)),
    Case("special floats", "Mod", tuple(SPECIAL)),
    Case("special floats fmod", "Mod", tuple(SPECIAL), {"fmod": 1}),
    *(
        Case(
            f"{direction} of {dtype}",
            "BitShift",
            (SHIFTED.astype(dtype), SHIFTS.astype(dtype)),
            {"direction": direction},
        )
        for direction in ("LEFT", "RIGHT")
        for dtype in ("uint8", "uint16", "uint32", "uint64")
    ),
    *(
        Case(f"{base} to {exponent}", "Pow", (BASES.astype(base), EXPONENTS.astype(exponent)))
        for base in ("int32", "int64")
        for exponent in ("int32", "int64", "float32", "uint8")
    ),
    *(Case(f"of {t}", "Sign", (abs(SIGNED).astype(t) // 10,)) for t in ("uint8", "uint64")),
    Case("of float32", "Sign", (X,)),
    Case("of bools", "Equal", (X > 0, X[1] > 0)),
    Case("of int16", "Equal", (SIGNED.astype(np.int16), DIVISORS.astype(np.int16))),
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
