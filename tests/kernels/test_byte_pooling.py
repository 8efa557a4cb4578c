"""Maxima of bytes equal numpy's, and nothing outside is touched."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.kernels import shares
from tests.kernels.runner import run_kernel
from wasmgraph.assembler.scalar import scalarise
from wasmgraph.kernels.byte_pooling import MaxPoolBytes

PAIR = st.tuples(st.integers(1, 3), st.integers(1, 3))


def made(batch, size, channels, window, stride, dilation, is_signed):
    height, width = (
        (n - 1) * s + (k - 1) * d + 1
        for n, s, k, d in zip(size, stride, window, dilation, strict=True)
    )
    spec = MaxPoolBytes(
        batch, *size, channels,
        height * width * channels, width * channels, channels,
        size[0] * size[1] * channels, size[1] * channels, channels,
        window, stride, dilation, is_signed,
    )  # fmt: skip
    rng = np.random.default_rng(channels)
    image = rng.integers(0, 256, (batch, height, width, channels)).astype(np.uint8)
    return spec, image.view(np.int8) if is_signed else image


@settings(max_examples=50, deadline=None)
@given(
    st.integers(1, 2),
    st.tuples(st.integers(1, 4), st.integers(1, 4)),
    st.integers(1, 40),
    PAIR,
    PAIR,
    PAIR,
    st.booleans(),
    st.booleans(),
)
def test_results_equal_numpy(batch, size, channels, window, stride, dilation, is_signed, scalar):
    spec, image = made(batch, size, channels, window, stride, dilation, is_signed)
    parts = [
        image[:, i * dilation[0] :, j * dilation[1] :][:, :: stride[0], :: stride[1]][
            :, : size[0], : size[1]
        ]
        for i in range(window[0])
        for j in range(window[1])
    ]
    expected = np.max(parts, axis=0)
    function = spec.assemble("kernel")
    out = run_kernel(
        scalarise(function) if scalar else function, [image], expected.size, image.dtype
    )
    np.testing.assert_array_equal(out.reshape(expected.shape), expected)


@settings(max_examples=15, deadline=None)
@given(st.integers(1, 9), st.integers(1, 20), shares.COUNTS, shares.SEEDS)
def test_shares_write_what_the_whole_writes(rows, channels, count, seed):
    spec, image = made(1, (rows, 5), channels, (3, 2), (2, 1), (1, 1), True)
    shares.check_on(spec, count, [image], rows * 5 * channels, seed)
