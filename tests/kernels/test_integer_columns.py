"""Packing at run time gives what packing when compiling gives, and the sums of the columns."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.kernels.runner import run_kernel_with_outputs
from tests.kernels.test_integer_contraction import random
from wasmgraph.assembler.scalar import scalarise
from wasmgraph.kernels.integer_columns import PackIntegerColumns
from wasmgraph.kernels.integer_packing import pack_integer_columns, per_column


@settings(max_examples=80, deadline=None)
@given(
    st.integers(1, 3),
    st.integers(1, 30),
    st.integers(1, 30),
    st.sampled_from(["int8", "uint8", "int16"]),
    st.integers(-128, 255),
    st.integers(-128, 255),
    st.booleans(),
    st.booleans(),
)
def test_columns_are_packed(batch, depth, columns, dtype, zero, a_zero, is_transposed, scalar):
    rng = np.random.default_rng(depth * columns)
    b = random(rng, dtype, (batch, depth, columns))
    stored = np.ascontiguousarray(b.swapaxes(-1, -2)) if is_transposed else b
    strides = (1, depth) if is_transposed else (columns, 1)
    spec = PackIntegerColumns(
        ((batch, depth * columns),), depth, columns, *strides, dtype, zero, a_zero
    )
    centred = (b.astype(np.int16) - zero).astype(np.int16)
    expected = pack_integer_columns(centred, ((depth, 1),))
    sums = per_column((-a_zero * centred.sum(axis=1, dtype=np.int32)).astype(np.int32), columns)
    function = spec.assemble("kernel")
    packed, bias = run_kernel_with_outputs(
        scalarise(function) if scalar else function, [stored], [expected.nbytes, sums.nbytes]
    )
    used = np.arange(sums.shape[-1]) < columns
    found = bias.view(np.int32).reshape(sums.shape)
    np.testing.assert_array_equal(found[:, used], sums[:, used])
    # What lies in columns that are not there is of no interest.
    present = pack_integer_columns(np.ones_like(centred), ((depth, 1),)) != 0
    found = packed.view(np.int16).reshape(expected.shape)
    np.testing.assert_array_equal(found[present], expected[present])
    odd = pack_odd(centred)
    np.testing.assert_array_equal(found[odd], 0)


def pack_odd(centred):
    """Where the second of a pair is missing, in columns that are there."""
    batch, depth, columns = centred.shape
    if depth % 2 == 0:
        return np.zeros(pack_integer_columns(centred, ((depth, 1),)).shape, bool)
    padded = np.zeros((batch, depth + 1, columns), np.int16)
    padded[:, -1] = 1
    return pack_integer_columns(padded, ((depth + 1, 1),)) != 0
