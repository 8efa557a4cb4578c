"""Products of one or two columns agree with numpy."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.kernels.runner import run_kernel
from wasmgraph.kernels.chain import IDENTITY, Chain, Step
from wasmgraph.kernels.rows import merge_axes
from wasmgraph.kernels.thin import ThinContraction

RELU = Chain(1, (Step("relu", (0,)),))


@given(
    height=st.integers(1, 9),
    width=st.integers(1, 9),
    taps=st.integers(1, 3),
    adjacent=st.integers(2, 40),
    columns=st.integers(1, 2),
    gap=st.integers(0, 2),
    has_bias=st.booleans(),
    chain=st.sampled_from([IDENTITY, RELU]),
    seed=st.integers(0, 2**16),
)
@settings(max_examples=60, deadline=None)
def test_agrees_with_numpy(
    height: int,
    width: int,
    taps: int,
    adjacent: int,
    columns: int,
    gap: int,
    has_bias: bool,
    chain: Chain,
    seed: int,
) -> None:
    """Rows of a convolution: `taps` kernel rows of `adjacent` values over a padded image."""
    rng = np.random.default_rng(seed)
    pitch = width + adjacent - 1
    image = rng.standard_normal((height + taps - 1) * pitch).astype(np.float32)
    weights = rng.standard_normal((columns, taps * adjacent)).astype(np.float32)
    spec = ThinContraction(
        rows=merge_axes([(height, pitch), (width, 1)]),
        out_row=columns + gap,
        reduce=merge_axes([(taps, pitch), (adjacent, 1)]),
        columns=columns,
        has_bias=has_bias,
        chain=chain,
    )
    rows = np.lib.stride_tricks.as_strided(
        image, (height, width, taps, adjacent), [4 * s for s in (pitch, 1, pitch, 1)]
    ).reshape(height * width, -1)
    expected = rows.astype(np.float64) @ weights.T.astype(np.float64)
    inputs = [image, weights]
    if has_bias:
        bias = rng.standard_normal(columns).astype(np.float32)
        inputs.append(bias)
        expected += bias
    if chain is RELU:
        expected = np.maximum(expected, 0)
    count = (height * width - 1) * (columns + gap) + columns
    before = np.full(count, 7, np.float32)
    out = run_kernel(spec, inputs, 4 * count, out_before=before)
    padded = np.concatenate([out, np.full(gap, 7, np.float32)]).reshape(-1, columns + gap)
    # 120 products of order 1 are rounded to 2**-24 each.
    np.testing.assert_allclose(padded[:, :columns], expected, rtol=1e-5, atol=1e-4)
    assert (padded[:, columns:] == 7).all(), "columns beside the output were written"
