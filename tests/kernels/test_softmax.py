"""Softmax and its logarithm against float64."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.special
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tests.kernels.runner import FILL, Instance, run_kernel
from tests.kernels.strided import size_of, view_of
from wasmgraph.kernels.softmax import Softmax

# exp: 2.5 ULP; the argument's rounding: up to 2**-24 * |x - max| < 30 * 2**-24 here; the sum, the
# reciprocal and the product: another 4 ULP at most at these lengths.
RTOL = 5e-6


@st.composite
def specs(draw: st.DrawFn) -> Softmax:
    length = draw(st.one_of(st.integers(1, 9), st.integers(10, 70)))
    inner = draw(st.sampled_from([1, 1, 2, 3, 4, 7, 8, 13, 40]))
    gaps = st.sampled_from([0, 1, 5])
    axis = (length, 1, 1) if inner == 1 else (length, inner + draw(gaps), inner + draw(gaps))
    step, out_step = (max(length * s, inner) for s in axis[1:])
    outer: list[tuple[int, int, int]] = []
    for _ in range(draw(st.integers(0, 2))):
        extent = draw(st.integers(1, 4))
        step, out_step = step + draw(gaps), out_step + draw(gaps)
        outer.insert(0, (extent, step, out_step))
        step, out_step = step * extent, out_step * extent
    return Softmax(tuple(outer), axis, inner, draw(st.booleans()))


@settings(max_examples=60, deadline=None)
@given(specs())
@example(Softmax((), (1, 1, 1), 1))
@example(Softmax((), (1, 1, 1), 1, True))
@example(Softmax((), (1, 9, 9), 9))
@example(Softmax(((2, 3000, 3000),), (3000, 1, 1), 1))
@example(Softmax(((2, 1024, 1024),), (1024, 1, 1), 1, True))
def test_results_equal_scipy_and_gaps_stay_untouched(spec: Softmax) -> None:
    axes = [*spec.outer, spec.axis]
    shape = [a[0] for a in axes] + [spec.inner]
    strides, out_strides = ([a[t] for a in axes] + [1] for t in (1, 2))
    rng = np.random.default_rng(0)
    buffer = (4 * rng.standard_normal(size_of(shape, strides))).astype(np.float32)
    x = view_of(buffer, shape, strides).astype(np.float64)
    size = size_of(shape, out_strides)
    result = run_kernel(spec, [buffer], 4 * size)
    got = view_of(result, shape, out_strides)
    function = scipy.special.log_softmax if spec.log else scipy.special.softmax
    np.testing.assert_allclose(got, function(x, axis=-2), rtol=RTOL, atol=1e-6 * spec.log)
    rest = np.full(4 * size, FILL, np.uint8).view(np.float32)
    view_of(rest, shape, out_strides)[...] = got
    assert result.tobytes() == rest.tobytes()


def softmax(rows: list[list[float]], inner: int = 1, log: bool = False) -> np.ndarray:
    """The softmax of each row, by rows or, with copies of the rows side by side, by columns."""
    x = np.repeat(np.array(rows, np.float32)[:, :, None], inner, axis=2)
    count, length, _ = x.shape
    step = 1 if inner == 1 else inner
    spec = Softmax(((count, length * inner, length * inner),), (length, step, step), inner, log)
    got = run_kernel(spec, [x], x.nbytes).reshape(x.shape)
    for column in range(1, inner):
        np.testing.assert_array_equal(got[..., column], got[..., 0])
    return got[..., 0]


@pytest.mark.parametrize("inner", [1, 3])
def test_large_values_do_not_overflow(inner: int) -> None:
    np.testing.assert_array_equal(softmax([[3e38, 0, -3e38], [-1e30] * 3], inner)[0], [1, 0, 0])
    np.testing.assert_allclose(softmax([[-1e30] * 3], inner)[0], [1 / 3] * 3, rtol=1e-6)


@pytest.mark.parametrize("inner", [1, 3])
def test_masked_elements_are_exactly_zero(inner: int) -> None:
    got = softmax([[-np.inf, 1, -np.inf, 1, -np.inf]], inner)
    np.testing.assert_array_equal(got, [[0, 0.5, 0, 0.5, 0]])


@pytest.mark.parametrize("log", [False, True])
@pytest.mark.parametrize("inner", [1, 3])
@pytest.mark.parametrize("bad", [[np.nan, 1, 2, 3, 4], [1, 2, 3, 4, np.nan], [-np.inf] * 5])
def test_rows_without_a_softmax_are_nan_and_spoil_no_other(
    bad: list[float], inner: int, log: bool
) -> None:
    got = softmax([[1, 2, 3, 4, 5], bad, [1, 2, 3, 4, 5]], inner, log)
    assert np.isnan(got[1]).all()
    assert not np.isnan(got[[0, 2]]).any()


def test_logarithms_of_tiny_probabilities_are_finite() -> None:
    np.testing.assert_allclose(softmax([[0, -500]], log=True), [[0, -500]], rtol=1e-6)


def test_long_rows_sum_to_one() -> None:
    x = np.random.default_rng(0).standard_normal(100_000).astype(np.float32)
    got = run_kernel(Softmax((), (x.size, 1, 1), 1), [x], x.nbytes)
    assert abs(got.astype(np.float64).sum() - 1) < 2e-6


@pytest.mark.parametrize("inner", [1, 5])
def test_the_output_may_be_the_input(inner: int) -> None:
    x = np.random.default_rng(0).standard_normal((3, 20, inner)).astype(np.float32)
    step = 1 if inner == 1 else inner
    spec = Softmax(((3, 20 * inner, 20 * inner),), (20, step, step), inner)
    instance = Instance([spec.assemble("kernel")], 1)
    instance.memory[64 : 64 + x.nbytes] = x.view(np.uint8).reshape(-1)
    instance.call("kernel", 64, 64)
    got = instance.memory[64 : 64 + x.nbytes].view(np.float32).reshape(x.shape)
    np.testing.assert_allclose(got, scipy.special.softmax(x, axis=1), rtol=RTOL)


def test_a_kernel_is_small() -> None:
    assert len(Softmax(((12, 197, 197),), (197, 1, 1), 1).assemble("kernel").body()) < 2000
    assert len(Softmax((), (21, 1000, 1000), 1000).assemble("kernel").body()) < 3000
