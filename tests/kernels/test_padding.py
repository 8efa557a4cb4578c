"""Padding with a constant agrees with numpy, and touches nothing but its own elements."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.kernels.runner import run_kernel
from wasmgraph.kernels.padding import PadConstant


def check(
    shape: tuple[int, ...],
    before: tuple[int, ...],
    after: tuple[int, ...],
    gaps: tuple[int, ...] = (),
    value: float = 0.0,
) -> None:
    strides = [1]
    for extent, gap in zip(shape[:0:-1], gaps or (0,) * len(shape), strict=False):
        strides.insert(0, strides[0] * extent + gap)
    size = 1 + sum((n - 1) * s for n, s in zip(shape, strides, strict=True))
    buffer = np.random.default_rng(size).standard_normal(size).astype(np.float32)
    source = np.lib.stride_tricks.as_strided(buffer, shape, [4 * s for s in strides])
    expected = np.pad(source, list(zip(before, after, strict=True)), constant_values=value)
    spec = PadConstant(shape, tuple(strides), before, after, value)
    actual = run_kernel(spec, [buffer], expected.nbytes)
    assert actual.tobytes() == expected.astype(np.float32).tobytes()


@st.composite
def problems(draw: st.DrawFn) -> tuple[tuple[int, ...], ...]:
    rank = draw(st.integers(1, 5))
    sides = st.tuples(*[st.sampled_from([0, 0, 0, 1, 2, 5])] * rank)
    extents = st.one_of(st.integers(1, 5), st.integers(1, 20))
    shape = draw(st.tuples(*[extents] * rank).filter(lambda s: np.prod(s) < 20000))
    gaps = st.one_of(st.just((0,) * rank), st.tuples(*[st.integers(0, 3)] * rank))
    return shape, draw(sides), draw(sides), draw(gaps)


@settings(max_examples=80, deadline=None)
@given(problems(), st.sampled_from([0.0, 0.0, -0.0, 1.5, float("-inf")]))
def test_agrees_with_numpy(problem, value):
    check(*problem, value)


@pytest.mark.parametrize("length", [1, 2, 3, 4, 5, 7, 15, 16, 63, 64, 65, 100, 127, 500])
@pytest.mark.parametrize("value", [0.0, 2.0])
def test_rows_and_borders_of_all_lengths(length, value):
    check((3, length), (1, 2), (0, 3), (1, 0), value)
    check((2, 5), (1, length), (1, length), (0, 0), value)


def test_an_image_in_nhwc_order():
    check((2, 7, 9, 6), (0, 1, 1, 0), (0, 1, 1, 0))
    check((1, 14, 14, 64), (0, 3, 2, 0), (0, 2, 3, 0))


def test_innermost_axes_of_extent_1_may_lie_apart():
    check((2, 1, 1), (0, 0, 0), (0, 0, 0), (0, 1, 0))
    check((3, 5, 1), (1, 1, 0), (0, 2, 0), (3, 1, 0))


def test_no_border_is_a_copy():
    check((3, 4, 5), (0, 0, 0), (0, 0, 0))
    check((3, 4, 5), (0, 0, 0), (0, 0, 0), (2, 3, 0))
