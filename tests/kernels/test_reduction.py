"""Reductions over any axes against numpy in float64, and how exact long sums are."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from tests.kernels.runner import FILL, run_kernel
from tests.kernels.strided import size_of, view_of
from wasmgraph.kernels.chain import IDENTITY, Chain, Step
from wasmgraph.kernels.reduction import Reduction

REFERENCES: dict[str, Callable[..., NDArray[Any]]] = {
    "sum": np.sum,
    "mean": np.mean,
    "max": np.max,
    "min": np.min,
    "prod": np.prod,
    "sum_square": lambda x, axis: np.sum(x * x, axis),
    "sum_abs": lambda x, axis: np.sum(np.abs(x), axis),
}

# Blocked sums of fewer than 10^5 terms: (128 + 8 + 25) roundings at most, each of half an ULP of a
# partial sum, which is at most the sum of absolute values.
SUM_TOLERANCE = 161 * 2.0**-24


def compare(spec: Reduction, x: NDArray[np.float32], got: NDArray[np.float32], axes: Any) -> None:
    exact = x.astype(np.float64)
    want = REFERENCES[spec.op](exact, axis=axes)
    if spec.op in ("max", "min"):
        np.testing.assert_array_equal(got, want)
    elif spec.op == "prod":
        # One rounding per factor; below 1e-38 numbers are subnormal.
        np.testing.assert_allclose(got, want, rtol=(spec.count + 1) * 2.0**-23, atol=1e-38)
    else:
        scale = np.sum(exact**2 if spec.op == "sum_square" else np.abs(exact), axis=axes)
        if spec.op == "mean":
            scale = scale / spec.count
        assert (np.abs(got - want) <= SUM_TOLERANCE * scale + 1e-30).all()


@st.composite
def specs(draw: st.DrawFn) -> Reduction:
    """Axes from the inside out, outer and reduced ones mixed, with gaps in both tensors."""
    op = draw(st.sampled_from(sorted(REFERENCES)))
    inner = draw(st.one_of(st.just(1), st.integers(2, 9), st.integers(30, 75)))
    step = inner + (draw(st.sampled_from([0, 1, 3])) if inner > 1 else 0)
    out_step = step
    outer: list[tuple[int, int, int]] = []
    reduced: list[tuple[int, int]] = []
    for place in range(draw(st.integers(1, 4))):
        extent = draw(st.one_of(st.integers(1, 5), st.integers(6, 40))) if place < 2 else 2
        if draw(st.booleans()):
            reduced.insert(0, (extent, step))
        else:
            outer.insert(0, (extent, step, out_step))
            out_step = out_step * extent + draw(st.sampled_from([0, 2]))
        step = step * extent + draw(st.sampled_from([0, 1]))
    return Reduction(op, tuple(outer), tuple(reduced or [(1, 1)]), inner)


@settings(max_examples=60, deadline=None)
@given(specs())
@example(Reduction("max", (), ((1, 1),), 1))
@example(Reduction("mean", ((3, 5000, 1),), ((5000, 1),), 1))
@example(Reduction("sum", ((2, 9100, 7),), ((1300, 7),), 7))
@example(Reduction("mean", (), ((49, 64),), 64))
@example(Reduction("min", ((5, 1, 1),), ((9, 5),), 1))
@example(Reduction("sum_abs", ((2, 30000, 1),), ((100, 300), (300, 1)), 1))
@example(Reduction("prod", ((4, 3, 1),), ((3, 1),), 1))
def test_reductions_equal_numpy_and_gaps_stay_untouched(spec: Reduction) -> None:
    outer, reduced = len(spec.outer), len(spec.reduced)
    shape = [a[0] for a in (*spec.outer, *spec.reduced)] + [spec.inner]
    strides = [a[1] for a in (*spec.outer, *spec.reduced)] + [1]
    rng = np.random.default_rng(0)
    buffer = rng.standard_normal(size_of(shape, strides)).astype(np.float32)
    x = view_of(buffer, shape, strides)
    out_shape = [a[0] for a in spec.outer] + [spec.inner]
    out_strides = [a[2] for a in spec.outer] + [1]
    size = size_of(out_shape, out_strides)
    result = run_kernel(spec, [buffer], 4 * size)
    got = view_of(result, out_shape, out_strides)
    compare(spec, x, got, tuple(range(outer, outer + reduced)))
    rest = np.full(4 * size, FILL, np.uint8).view(np.float32)
    view_of(rest, out_shape, out_strides)[...] = got
    assert result.tobytes() == rest.tobytes()


@pytest.mark.parametrize("op", ["sum", "mean", "sum_square", "sum_abs"])
@pytest.mark.parametrize("inner", [1, 3])
def test_long_sums_keep_their_accuracy(op: str, inner: int) -> None:
    count = 720 * 720
    x = np.random.default_rng(0).uniform(0.5, 1.5, (count, inner)).astype(np.float32)
    got = run_kernel(Reduction(op, (), ((count, inner),), inner), [x], 4 * inner)
    want = REFERENCES[op](x.astype(np.float64), axis=0)
    # Added up one by one, half a million numbers around 1 would be off by 1e-4.
    np.testing.assert_allclose(got, want, rtol=3e-6)


@pytest.mark.parametrize("op", REFERENCES)
@pytest.mark.parametrize("inner", [1, 6])
@pytest.mark.parametrize("count", [3, 50])
def test_one_nan_makes_the_result_nan_wherever_it_is(op: str, inner: int, count: int) -> None:
    spec = Reduction(op, (), ((count, inner),), inner)
    for place in range(count):
        x = np.ones((count, inner), np.float32)
        x[place, inner - 1] = np.nan
        got = run_kernel(spec, [x], 4 * inner)
        assert np.isnan(got[-1])
        assert not np.isnan(got[:-1]).any()


@pytest.mark.parametrize("op", ["max", "min"])
@pytest.mark.parametrize("inner", [1, 5])
def test_extrema_may_be_infinite(op: str, inner: int) -> None:
    for value in (np.inf, -np.inf):
        x = np.full((7, inner), value, np.float32)
        got = run_kernel(Reduction(op, (), ((7, inner),), inner), [x], 4 * inner)
        np.testing.assert_array_equal(got, x[0])


@pytest.mark.parametrize("inner", [1, 11])
def test_the_epilogue_is_applied_once_to_each_result(inner: int) -> None:
    chain = Chain(1, (Step("add_number", (0,), (1.0,)), Step("sqrt", (1,))))
    x = np.random.default_rng(0).uniform(0, 1, (40, inner)).astype(np.float32)
    spec = Reduction("sum_square", (), ((40, inner),), inner, chain)
    got = run_kernel(spec, [x], 4 * inner)
    np.testing.assert_allclose(got, np.sqrt(1 + np.sum(x.astype(np.float64) ** 2, 0)), rtol=1e-6)


def test_a_kernel_is_small() -> None:
    pool = Reduction("mean", (), ((49, 1280),), 1280, IDENTITY)
    assert len(pool.assemble("kernel").body()) < 900
    rows = Reduction("max", ((100, 197, 1),), ((197, 1),), 1)
    assert len(rows.assemble("kernel").body()) < 900
