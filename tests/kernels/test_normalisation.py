"""Layer, instance and group normalisation against float64."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from tests.kernels.runner import FILL, run_kernel
from tests.kernels.strided import size_of, view_of
from wasmgraph.kernels.chain import IDENTITY, Chain, Step
from wasmgraph.kernels.normalisation import ChannelNorm, LayerNorm

# Of values around 1 with a deviation around 1: the mean and the differences from it are exact to a
# few 2**-24, and so is what follows, relative to values up to 5.
ATOL = 1e-5

GAPS = st.sampled_from([0, 0, 1, 6])

RELU = Chain(1, (Step("relu", (0,)),))


def normalised(x: NDArray[Any], axes: tuple[int, ...], epsilon: float) -> NDArray[np.float64]:
    x = x.astype(np.float64)
    mean, variance = x.mean(axes, keepdims=True), x.var(axes, keepdims=True)
    return (x - mean) / np.sqrt(variance + epsilon)


def check(
    spec: LayerNorm | ChannelNorm, shape: list[int], axes: list[tuple[int, int, int]], group: int
) -> None:
    """`axes` are all but the last axis, along which scale and shift lie."""
    rng = np.random.default_rng(0)
    strides, out_strides = ([a[t] for a in axes] + [1] for t in (1, 2))
    buffer = (1 + rng.standard_normal(size_of(shape, strides))).astype(np.float32)
    x = view_of(buffer, shape, strides)
    channels = shape[-1]
    vectors = [rng.uniform(0.5, 2, channels).astype(np.float32) for _ in range(2)]
    if isinstance(spec, LayerNorm):
        want = normalised(x, (-1,), spec.epsilon)
    else:
        grouped = x.reshape(*shape[:-1], channels // group, group)
        want = normalised(grouped, (-3, -1), spec.epsilon).reshape(shape)
    inputs = [buffer]
    if spec.has_scale:
        want = want * vectors[0]
        inputs.append(vectors[0])
    if spec.has_shift:
        want = want + vectors[1]
        inputs.append(vectors[1])
    if isinstance(spec, ChannelNorm) and spec.chain == RELU:
        want = np.maximum(want, 0)
    size = size_of(shape, out_strides)
    result = run_kernel(spec, inputs, 4 * size)
    got = view_of(result, shape, out_strides)
    np.testing.assert_allclose(got, want, atol=ATOL, rtol=1e-5)
    rest = np.full(4 * size, FILL, np.uint8).view(np.float32)
    view_of(rest, shape, out_strides)[...] = got
    assert result.tobytes() == rest.tobytes()


def dense_outside(
    draw: st.DrawFn, step: int, out_step: int, most: int
) -> tuple[tuple[int, int, int], ...]:
    outer: list[tuple[int, int, int]] = []
    for _ in range(draw(st.integers(0, most))):
        extent = draw(st.integers(1, 4))
        step, out_step = step + draw(GAPS), out_step + draw(GAPS)
        outer.insert(0, (extent, step, out_step))
        step, out_step = step * extent, out_step * extent
    return tuple(outer)


@st.composite
def layers(draw: st.DrawFn) -> LayerNorm:
    length = draw(st.one_of(st.integers(1, 9), st.integers(10, 200)))
    outer = dense_outside(draw, length, length, 3)
    return LayerNorm(outer, length, 1e-3, draw(st.booleans()), draw(st.booleans()))


@settings(max_examples=50, deadline=None)
@given(layers())
@example(LayerNorm(((3, 192, 192),), 192, 1e-6, True, True))
@example(LayerNorm(((2, 9001, 9001),), 9001, 1e-5, True, True))
def test_layer_normalisation_equals_numpy(spec: LayerNorm) -> None:
    check(spec, [*(a[0] for a in spec.outer), spec.length], list(spec.outer), 0)


@st.composite
def channelled(draw: st.DrawFn) -> ChannelNorm:
    group = draw(st.sampled_from([1, 1, 2, 3, 4, 5, 8, 12]))
    channels = group * draw(st.one_of(st.integers(1, 5), st.sampled_from([8, 17])))
    extent = draw(st.one_of(st.integers(1, 9), st.integers(10, 300)))
    positions = (extent, channels + draw(GAPS), channels + draw(GAPS))
    outer = dense_outside(draw, extent * positions[1], extent * positions[2], 2)
    flags = draw(st.booleans()), draw(st.booleans())
    chain = draw(st.sampled_from([IDENTITY, RELU]))
    return ChannelNorm(outer, positions, channels, group, 1e-3, *flags, chain)


@settings(max_examples=60, deadline=None)
@given(channelled())
@example(ChannelNorm((), (1, 1, 1), 1, 1, 1e-3, True, True))
@example(ChannelNorm((), (1500, 32, 32), 32, 32, 1e-5, True, True))
@example(ChannelNorm((), (2, 9000, 9000), 9000, 9000, 1e-5, True, False))
@example(ChannelNorm(((2, 12000, 12000),), (500, 24, 24), 24, 3, 1e-5, False, True))
def test_channel_normalisation_equals_numpy(spec: ChannelNorm) -> None:
    axes = [*spec.outer, spec.positions]
    check(spec, [*(a[0] for a in axes), spec.channels], axes, spec.group)


@pytest.mark.parametrize("group", [1, 4])
def test_big_images_far_from_zero_keep_their_accuracy(group: int) -> None:
    count, channels = 720 * 720, 4
    # A first stretch unlike the rest: what guesses the mean from it would lose digits.
    x = 100 + np.random.default_rng(0).standard_normal((count, channels)).astype(np.float32)
    x[:1000] = 0
    spec = ChannelNorm((), (count, channels, channels), channels, group, 1e-5, False, False)
    got = run_kernel(spec, [x], x.nbytes).reshape(x.shape)
    want = normalised(x.reshape(count, channels // group, group), (0, 2), 1e-5).reshape(x.shape)
    # The squared deviations' 4000 partial sums join one by one: a few 1e-6 relative.
    assert np.abs(got - want).max() < 2e-5 * np.abs(want).max()


@pytest.mark.parametrize("value", [0.0, 3.5, -1024.0])
def test_constant_input_becomes_the_shift(value: float) -> None:
    x = np.full((50, 6), value, np.float32)
    shift = np.arange(6, dtype=np.float32)
    rows = LayerNorm(((50, 6, 6),), 6, 1e-5, False, True)
    images = ChannelNorm((), (50, 6, 6), 6, 1, 1e-5, False, True)
    for spec in (rows, images):
        got = run_kernel(spec, [x, shift], x.nbytes).reshape(x.shape)
        np.testing.assert_array_equal(got, np.broadcast_to(shift, x.shape))


def test_nan_spoils_its_own_row_or_channel_only() -> None:
    x = np.random.default_rng(0).standard_normal((9, 6)).astype(np.float32)
    x[3, 2] = np.nan
    rows = run_kernel(LayerNorm(((9, 6, 6),), 6, 1e-5, False, False), [x], x.nbytes)
    assert (np.isnan(rows.reshape(9, 6)) == (np.arange(9) == 3)[:, None]).all()
    images = run_kernel(ChannelNorm((), (9, 6, 6), 6, 1, 1e-5, False, False), [x], x.nbytes)
    assert (np.isnan(images.reshape(9, 6)) == (np.arange(6) == 2)).all()


def test_a_kernel_is_small() -> None:
    assert len(LayerNorm(((197, 192, 192),), 192, 1e-6, True, True).assemble("k").body()) < 1500
    images = ChannelNorm((), (518400, 32, 32), 32, 1, 1e-5, True, True)
    assert len(images.assemble("kernel").body()) < 3000
