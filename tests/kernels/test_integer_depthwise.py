"""Depthwise convolutions of integers equal numpy's bit by bit, and touch nothing but their own."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.kernels import shares
from tests.kernels.runner import run_kernel
from tests.kernels.test_integer_contraction import quantise, quantised
from wasmgraph.assembler.scalar import scalarise
from wasmgraph.kernels.chain import IDENTITY, Chain
from wasmgraph.kernels.integer_depthwise import (
    IntegerDepthwise,
    blocks_of_channels,
    pack_integer_depthwise,
)
from wasmgraph.kernels.typed import numbers_apart

PAIR = st.tuples(st.integers(1, 3), st.integers(1, 3))


def make(batch, size, channels, kernel, stride, dilation, is_signed, out):
    """A specification over a dense padded input, the input and the other operands."""
    height, width = (
        (n - 1) * s + (k - 1) * d + 1
        for n, s, k, d in zip(size, stride, kernel, dilation, strict=True)
    )
    chain = Chain(1, (quantise(out, zero=5),)) if out in ("int8", "uint8") else IDENTITY
    chain, numbers = numbers_apart(chain, out)
    spec = IntegerDepthwise(
        batch, *size, channels,
        height * width * channels, width * channels, channels,
        size[0] * size[1] * channels, size[1] * channels, channels,
        kernel, stride, dilation, is_signed, out, chain,
    )  # fmt: skip
    rng = np.random.default_rng(channels + height)
    low, high = (-128, 128) if is_signed else (0, 256)
    image = rng.integers(low, high, (batch, height, width, channels))
    image = image.astype(np.int8 if is_signed else np.uint8)
    weights = rng.integers(-128, 128, (channels, 1, *kernel)).astype(np.int8)
    bias = rng.integers(-1000, 1000, channels).astype(np.int32)
    multiplier = (rng.random(channels) * 1e-2).astype(np.float32)
    return spec, image, weights, bias, multiplier, numbers


def operands(spec, image, weights, bias, multiplier, numbers):
    vectors = [blocks_of_channels(bias)]
    if spec.out != "int32":
        vectors.append(blocks_of_channels(multiplier))
    if numbers.size:
        vectors.append(numbers)
    return [image, pack_integer_depthwise(weights), *vectors]


def reference(spec, image, weights, bias, multiplier, _):
    total = np.zeros((spec.batch, spec.out_h, spec.out_w, spec.channels), np.int64) + bias
    for i in range(spec.kernel[0]):
        for j in range(spec.kernel[1]):
            part = image[:, i * spec.dilation[0] :, j * spec.dilation[1] :]
            part = part[:, :: spec.stride[0], :: spec.stride[1]][:, : spec.out_h, : spec.out_w]
            total += part.astype(np.int64) * weights[:, 0, i, j]
    if spec.out == "int32":
        return total.astype(np.int32)
    scaled = total.astype(np.int32).astype(np.float32) * multiplier
    if spec.out == "float32":
        return scaled
    return quantised(scaled, quantise(spec.out, zero=5), spec.out)


@settings(max_examples=60, deadline=None)
@given(
    st.integers(1, 2),
    st.tuples(st.integers(1, 4), st.integers(1, 9)),
    st.integers(8, 30),
    st.tuples(st.integers(1, 5), st.integers(1, 5)),
    PAIR,
    PAIR,
    st.booleans(),
    st.sampled_from(["int8", "uint8", "int32", "float32"]),
    st.booleans(),
)
def test_results_equal_numpy(
    batch, size, channels, kernel, stride, dilation, is_signed, out, scalar
):
    made = make(batch, size, channels, kernel, stride, dilation, is_signed, out)
    expected = reference(*made)
    function = made[0].assemble("kernel")
    found = run_kernel(
        scalarise(function) if scalar else function, operands(*made), expected.nbytes, out
    )
    np.testing.assert_array_equal(found.reshape(expected.shape), expected)


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 4), st.integers(1, 9), st.integers(8, 20), shares.COUNTS, shares.SEEDS)
def test_shares_write_what_the_whole_writes(batch, height, channels, count, seed):
    made = make(batch, (height, 6), channels, (3, 3), (2, 1), (1, 1), False, "int8")
    shares.check_on(made[0], count, operands(*made), batch * height * 6 * channels, seed)
