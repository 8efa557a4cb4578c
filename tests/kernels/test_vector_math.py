"""The vectorised functions against float64, in units in the last place.

`python -m tests.kernels.test_vector_math` searches every float32, some five minutes per function.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator

import numpy as np
import pytest
import scipy.special
from numpy.typing import NDArray

from tests.kernels.runner import GUARD, PAGE, Instance, run_kernel
from wasmgraph.assembler import V128, Function
from wasmgraph.assembler.function import load, unary
from wasmgraph.kernels import vector_math
from wasmgraph.kernels.chain import Chain, Step
from wasmgraph.kernels.elementwise import Elementwise

Floats = NDArray[np.float32]

REFERENCES: dict[str, Callable[..., NDArray[np.float64]]] = {
    "exp": np.exp,
    "log": np.log,
    "sigmoid": scipy.special.expit,
    "tanh": np.tanh,
    "erf": scipy.special.erf,
}

# The largest errors the docstrings state.
ULP = {"exp": 2.3, "log": 0.9, "sigmoid": 3.6, "tanh": 2.6, "erf": 6.5}

SMALLEST_NORMAL = float(np.finfo(np.float32).smallest_normal)
CHUNK = 1 << 18


def kernel(op: str, count: int) -> Elementwise:
    return Elementwise((count,), (1,), ((1,),), Chain(1, (Step(op, (0,)),)))


def apply(op: str, x: Floats) -> Floats:
    return run_kernel(kernel(op, x.size), [x], x.nbytes)


def errors(op: str, x: Floats, y: Floats) -> NDArray[np.float64]:
    """How far y is from the function of x, in ULP of the float32 nearest to the true value."""
    with np.errstate(all="ignore"):
        true = REFERENCES[op](x.astype(np.float64))
        nearest = true.astype(np.float32)
        spacing = np.ldexp(1.0, np.maximum(np.frexp(nearest.astype(np.float64))[1] - 24, -149))
        error = np.abs(y.astype(np.float64) - true) / spacing
    error[np.isinf(nearest) & (y == nearest)] = 0.0
    error[np.isnan(true) & np.isnan(y)] = 0.0
    if op == "sigmoid":
        error[(np.abs(nearest) < SMALLEST_NORMAL) & (y == 0.0)] = 0.0
    return np.nan_to_num(error, nan=np.inf)


def sample() -> Floats:
    """Every sign and exponent with even and random mantissas, and what is rounded specially."""
    exponents = np.arange(512, dtype=np.uint32)[:, None] << 23
    even = np.arange(0, 1 << 23, (1 << 23) // 701, dtype=np.uint32)
    drawn = np.random.default_rng(0).integers(0, 1 << 23, (512, 1350), dtype=np.uint32)
    edges = np.array([0, 1, 2, (1 << 23) - 2, (1 << 23) - 1], np.uint32)
    bits = [(exponents + part).reshape(-1) for part in (even, drawn, edges)]
    # Where the functions are neither 0, 1 nor the identity.
    dense = np.random.default_rng(1).uniform(-105, 90, 200_000).astype(np.float32)
    return np.concatenate([*(b.view(np.float32) for b in bits), dense, dense / 16])


def searched(op: str, values: Iterator[Floats]) -> tuple[float, float]:
    """The largest error and where it is."""
    instance = Instance([kernel(op, CHUNK).assemble("kernel")], 2 * CHUNK * 4 // PAGE + 1)
    worst = (-1.0, 0.0)
    for chunk in values:
        x = np.resize(chunk, CHUNK)
        start, out = GUARD, GUARD + x.nbytes
        instance.memory[start:out] = x.view(np.uint8)
        instance.call("kernel", start, out)
        y = instance.memory[out : out + x.nbytes].view(np.float32)
        error = errors(op, x, y)
        index = int(np.argmax(error))
        worst = max(worst, (float(error[index]), float(x[index])))
    return worst


@pytest.mark.parametrize("op", REFERENCES)
def test_errors_stay_below_what_the_docstring_states(op: str) -> None:
    values = sample()
    chunks = (values[i : i + CHUNK] for i in range(0, values.size, CHUNK))
    error, where = searched(op, chunks)
    assert error <= ULP[op], f"{error} ULP at {where!r}"


@pytest.mark.parametrize(
    ("op", "x", "expected"),
    [
        ("exp", [-np.inf, -104.5, 0.0, -0.0, 88.8, np.inf], [0.0, 0.0, 1.0, 1.0, np.inf, np.inf]),
        ("log", [0.0, -0.0, 1.0, np.inf, -1.0], [-np.inf, -np.inf, 0.0, np.inf, np.nan]),
        ("sigmoid", [-np.inf, -1e4, 0.0, 1e4, np.inf], [0.0, 0.0, 0.5, 1.0, 1.0]),
        ("tanh", [-np.inf, -20.0, -0.0, 0.0, 20.0, np.inf], [-1.0, -1.0, -0.0, 0.0, 1.0, 1.0]),
        ("erf", [-np.inf, -5.0, -0.0, 0.0, 5.0, np.inf], [-1.0, -1.0, -0.0, 0.0, 1.0, 1.0]),
    ],
)
def test_special_values_are_exact(op: str, x: list[float], expected: list[float]) -> None:
    got = apply(op, np.array(x, np.float32))
    want = np.array(expected, np.float32)
    np.testing.assert_array_equal(got, want)
    np.testing.assert_array_equal(np.signbit(got[want == 0]), np.signbit(want[want == 0]))


@pytest.mark.parametrize("op", REFERENCES)
def test_nan_stays_nan(op: str) -> None:
    payloads = np.array([0x7FC00000, 0xFFC00000, 0x7FA00001, 0xFFFFFFFF], np.uint32)
    assert np.isnan(apply(op, payloads.view(np.float32))).all()


@pytest.mark.parametrize("op", ["tanh", "erf"])
def test_bounded_functions_never_leave_their_range(op: str) -> None:
    x = np.linspace(0.5, 12, 400_001, dtype=np.float32)
    assert (np.abs(apply(op, x)) <= 1.0).all()


def test_subnormal_exponentials_underflow_gradually() -> None:
    x = np.linspace(-103.9, -87.4, 10_001, dtype=np.float32)
    y = apply("exp", x)
    assert ((y > 0) & (y < SMALLEST_NORMAL)).all()


def test_the_exponential_of_softmax_agrees_with_exp_and_vanishes_below_normal_numbers() -> None:
    x = np.concatenate([-np.geomspace(1e-6, 200, 4096), [0.0, -0.0, -np.inf, np.nan]])
    x = x.astype(np.float32)
    f = Function("kernel", 2)
    source, out = f.params
    with f.repeat(x.size // 4):
        f.store(out, vector_math.exp_nonpositive(f, load(source)))
        f.set(source, source + 16)
        f.set(out, out + 16)
    y = run_kernel(f, [x], x.nbytes)
    normal = ~(x < np.float32(-87.3))
    assert (y[~normal] == 0.0).all()
    assert errors("exp", x[normal], y[normal]).max() <= ULP["exp"]


@pytest.mark.parametrize(("low", "high"), [(0.0, 6.0), (-1.0, 1.0)])
def test_clamp_keeps_nan(low: float, high: float) -> None:
    x = np.array([np.nan, -np.inf, -2.0, 0.5, 7.0, np.inf, low, high], np.float32)
    f = Function("kernel", 2)
    source, out = f.params
    with f.scratch(V128, 1) as (kept,):
        for offset in (0, 16):
            f.set(kept, vector_math.clamp(load(source, offset), low, high))
            f.store(out, unary("f32x4.neg", unary("f32x4.neg", kept)), offset)
    np.testing.assert_array_equal(run_kernel(f, [x], x.nbytes), np.clip(x, low, high))


def _every_float() -> Iterator[Floats]:
    for start in range(0, 1 << 32, CHUNK):
        yield np.arange(start, start + CHUNK, dtype=np.uint64).astype(np.uint32).view(np.float32)


if __name__ == "__main__":
    for name in sys.argv[1:] or REFERENCES:
        print(name, "{:.3f} ULP at {!r}".format(*searched(name, _every_float())), flush=True)
