"""Normalisations and reductions that TVM lacks, against onnx's reference evaluator.

Tolerances are a few units in the last place of float32 sums of tens of elements.
"""

from __future__ import annotations

import numpy as np
import pytest

from tests.onnx_models import Array
from tests.operators.node_cases import Case, check, fixed, run_cases

RNG = np.random.default_rng(0)
X = RNG.normal(size=(2, 3, 4, 5)).astype(np.float32)
CHANNELS = tuple(RNG.uniform(0.5, 2, 3).astype(np.float32) for _ in range(4))
ROWS = tuple(RNG.uniform(0.5, 2, (4, 5)).astype(np.float32) for _ in range(2))
EMPTY = np.zeros((2, 0, 3), np.float32)
DOUBLES = tuple(vector.astype(np.float64) for vector in CHANNELS[:2])
BOOLS = np.array([[True, False], [False, False], [True, True]])


def training(x: Array, scale: Array, bias: Array, mean: Array, var: Array) -> tuple[Array, ...]:
    """BatchNormalization's outputs in training mode, with a momentum of 0.7."""
    axes = tuple(axis for axis in range(x.ndim) if axis != 1)
    shape = (1, -1, *[1] * (x.ndim - 2))
    own_mean, own_var = x.mean(axes), x.var(axes)
    normal = (x - own_mean.reshape(shape)) / np.sqrt(own_var.reshape(shape) + np.float32(1e-5))
    y = normal * scale.reshape(shape) + bias.reshape(shape)
    return y, 0.7 * mean + 0.3 * own_mean, 0.7 * var + 0.3 * own_var


def of_one_group(x: Array, scale: Array, bias: Array) -> Array:
    """GroupNormalization where a group is a whole image."""
    axes, shape = (1, 2, 3), (-1, 1, 1)
    normal = (x - x.mean(axes, keepdims=True)) / np.sqrt(x.var(axes, keepdims=True) + 1e-5)
    return np.asarray(normal * scale.reshape(shape) + bias.reshape(shape))


def in_float32(arrays: tuple[Array, ...]) -> tuple[Array, ...]:
    return tuple(array.astype(np.float32) for array in arrays)


def integers(dtype: str) -> Array:
    return RNG.integers(0 if dtype.startswith("u") else -99, 99, (3, 4)).astype(dtype)


def of_nothing(op: str, value: float, dtype: str = "float32") -> Case:
    x = EMPTY.astype(dtype)
    expected = np.full((2, 1, 3), value).astype(dtype)
    return Case(f"of no {dtype}", op, (x, fixed([1])), {}, (expected,))


CASES = [
    Case("statistics at run time", "BatchNormalization", (X, *CHANNELS)),
    Case(
        "training",
        "BatchNormalization",
        (X, *CHANNELS),
        {"training_mode": 1, "momentum": 0.7},
        in_float32(training(X, *CHANNELS)),
        outputs=3,
    ),
    Case("in double precision", "InstanceNormalization", (X.astype(np.float64), *DOUBLES)),
    Case(
        "in double precision",
        "GroupNormalization",
        (X.astype(np.float64), *DOUBLES),
        {"num_groups": 1},
        (of_one_group(X.astype(np.float64), *DOUBLES),),
    ),
    Case("all outputs", "LayerNormalization", (X, *ROWS), {"axis": 2}, outputs=3),
    Case("without a bias", "LayerNormalization", (X, ROWS[0]), {"axis": -2}, outputs=3),
    Case("L2", "LpNormalization", (X,), {"axis": 1}),
    Case("L1 of either sign", "LpNormalization", (X,), {"p": 1}, (X / abs(X).sum(-1)[..., None],)),
    Case("of zeros", "LpNormalization", (X * 0,)),
    *(of_nothing(op, 0) for op in ("ReduceSum", "ReduceL1", "ReduceL2", "ReduceSumSquare")),
    *(of_nothing(op, -np.inf) for op in ("ReduceLogSum", "ReduceLogSumExp", "ReduceMax")),
    of_nothing("ReduceMin", np.inf),
    of_nothing("ReduceProd", 1),
    of_nothing("ReduceMax", -(2**31), "int32"),
    of_nothing("ReduceMin", 255, "uint8"),
    of_nothing("ReduceMin", True, "bool"),
    *(
        Case(f"of {t}", "ReduceMean", (integers(t), fixed([1])))
        for t in ("int32", "int64", "uint32")
    ),
    Case("of all integers", "ReduceMean", (RNG.integers(-99, 99, (3, 4)),), {"keepdims": 0}),
    Case("of bool", "ReduceMax", (BOOLS, fixed([1])), {"keepdims": 0}),
    Case("of all bools", "ReduceMin", (BOOLS,), {"keepdims": 0}),
    Case("of no axes", "ReduceMin", (BOOLS,), {"noop_with_empty_axes": 1}, (BOOLS,)),
]


@pytest.fixture(scope="module")
def results() -> dict[str, list[Array]]:
    return run_cases(CASES)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_gives_what_the_reference_gives(case: Case, results: dict[str, list[Array]]) -> None:
    check(case, results[str(case)], rtol=2e-6, atol=2e-6)
