"""A border around bytes: numpy's `pad`, and nothing outside."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.kernels import shares
from tests.kernels.runner import run_kernel
from wasmgraph.assembler.scalar import scalarise
from wasmgraph.kernels.byte_padding import PadBytes

EXTENTS = st.lists(st.tuples(*[st.integers(0, 3)] * 2, st.integers(1, 5)), min_size=1, max_size=4)


def made(extents, gap):
    """A specification over rows that lie `gap` bytes apart, its source, and what it gives."""
    before, after, shape = zip(*extents, strict=True)
    rng = np.random.default_rng(sum(shape))
    stored = rng.integers(0, 256, (*shape[:-1], shape[-1] + gap)).astype(np.uint8)
    source = stored[..., : shape[-1]]
    spec = PadBytes(shape, source.strides, before, after, 131)
    padding = list(zip(before, after, strict=True))
    used = stored.reshape(-1)[: stored.size - gap]
    return spec, used, np.pad(source, padding, constant_values=131)


@settings(max_examples=60, deadline=None)
@given(EXTENTS, st.integers(0, 2), st.booleans())
def test_results_equal_numpy(extents, gap, scalar):
    spec, source, expected = made(extents, gap)
    function = spec.assemble("kernel")
    out = run_kernel(scalarise(function) if scalar else function, [source], expected.size, np.uint8)
    np.testing.assert_array_equal(out.reshape(expected.shape), expected)


@settings(max_examples=20, deadline=None)
@given(st.integers(2, 9), st.integers(1, 20), st.integers(0, 3), shares.COUNTS, shares.SEEDS)
def test_shares_write_what_the_whole_writes(rows, columns, border, count, seed):
    extents = [(border, border, rows), (1, 0, columns), (0, 0, 16)]
    spec, source, expected = made(extents, 0)
    shares.check_on(spec, count, [source], expected.size, seed)
