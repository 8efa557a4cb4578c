"""Winograd's convolution agrees with the direct one, to the accuracy that its docstring states."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from tests.kernels.runner import run_kernel
from wasmgraph.kernels.chain import IDENTITY, Chain, Step
from wasmgraph.kernels.operands import PixelOperand
from wasmgraph.kernels.packing import pack_columns
from wasmgraph.kernels.winograd import Winograd, applies, padded_extent

RESIDUAL = Chain(2, (Step("add", (0, 1)), Step("relu", (2,))))

COARSENESS = 2e-5
"""Relative to the sum of the products' magnitudes: about 100 roundings of float32 (6e-8) at worst,
each scaled by up to 8 x 4 in the transforms."""


def direct(x: NDArray[Any], w: NDArray[Any]) -> NDArray[np.float64]:
    """x [n, h + 2, w + 2, c] * w [3, 3, c, o] in float64."""
    height, width = x.shape[1] - 2, x.shape[2] - 2
    total = np.zeros((x.shape[0], height, width, w.shape[3]))
    for i in range(3):
        for j in range(3):
            window = x[:, i : i + height, j : j + width].astype(np.float64)
            total += window @ w[i, j].astype(np.float64)
    return total


def check(spec: Winograd, rng: np.random.Generator) -> None:
    n, h, w, c, o = spec.batch, spec.height, spec.width, spec.channels, spec.columns
    x = np.zeros((n, padded_extent(h), padded_extent(w), c), np.float32)
    image = rng.standard_normal((n, h + 2, w + 2, c)).astype(np.float32)
    x[:, : h + 2, : w + 2] = image
    weights = rng.standard_normal((3, 3, c, o)).astype(np.float32)
    inputs = [x, pack_columns(weights.reshape(9 * c, o))]
    expected = direct(image, weights)
    magnitude = direct(abs(image), abs(weights))
    if spec.has_bias:
        bias = rng.standard_normal(o).astype(np.float32)
        inputs.append(bias)
        expected += bias
    if spec.operands:
        other = rng.standard_normal((n, h, w, o)).astype(np.float32)
        inputs.append(other)
        expected = np.maximum(expected + other, 0)
    out = run_kernel(spec, inputs, 4 * expected.size, scratch_nbytes=spec.scratch_nbytes)
    error = abs(out.reshape(expected.shape) - expected)
    assert (error <= COARSENESS * magnitude + 1e-6).all(), (error / magnitude).max()


@given(
    batch=st.integers(1, 2),
    height=st.integers(1, 13),
    width=st.integers(1, 13),
    channels=st.sampled_from([4, 8, 20]),
    columns=st.sampled_from([4, 8, 12, 16, 24, 32]),
    has_bias=st.booleans(),
    has_residual=st.booleans(),
    seed=st.integers(0, 2**16),
)
@settings(max_examples=40, deadline=None)
def test_agrees_with_the_direct_convolution(
    batch: int,
    height: int,
    width: int,
    channels: int,
    columns: int,
    has_bias: bool,
    has_residual: bool,
    seed: int,
) -> None:
    operand = PixelOperand(height * width * columns, width * columns, columns, 1)
    spec = Winograd(
        batch,
        height,
        width,
        channels,
        columns,
        has_bias,
        RESIDUAL if has_residual else IDENTITY,
        (operand,) if has_residual else (),
    )
    check(spec, np.random.default_rng(seed))


@pytest.mark.parametrize(("height", "channels"), [(56, 64), (57, 64), (40, 128)])
def test_an_image_of_several_chunks(height: int, channels: int) -> None:
    spec = Winograd(1, height, 24, channels, 16, has_bias=True)
    check(spec, np.random.default_rng(height))


def test_several_chunks_whose_last_overlaps() -> None:
    spec = Winograd(2, 64, 40, 128, 16)
    assert spec.chunks > 1
    assert spec.tiles[0] % spec.chunk_rows, "the last chunk must overlap the one before it"
    check(spec, np.random.default_rng(0))


def test_unequal_blocks_are_refused() -> None:
    assert applies(8, 24)
    assert applies(64, 64)
    assert not applies(8, 20)
    assert not applies(6, 16)
