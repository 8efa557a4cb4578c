"""Pooling agrees with numpy, and touches nothing but its own elements."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.kernels.images import GAPS, Window, layout_of, taps, windows
from tests.kernels.runner import run_kernel
from wasmgraph.kernels.pooling import Pool, separated


def check(
    op: str,
    batch: int,
    rows: Window,
    columns: Window,
    channels: int,
    gaps: tuple[tuple[int, int, int], ...] = ((0, 0, 0),) * 2,
    count_include_pad: bool = False,
    beyond: tuple[int, int] = (0, 0),
) -> None:
    """Compare one pooling with numpy.

    Args:
        beyond: How much of the padding at the bottom and right is the windows' overhang
            (ceil_mode) and not padding that counts.
    """
    rng = np.random.default_rng(batch + 7 * channels + 100 * rows.size + columns.size)
    source = layout_of((batch, rows.size, columns.size, channels), gaps[0])
    out = layout_of((batch, rows.outputs, columns.outputs, channels), gaps[1])
    buffer, images = source.random(rng)
    beyond = (min(beyond[0], rows.after), min(beyond[1], columns.after))
    spec = Pool(
        op, batch, rows.size, columns.size, channels, source.batch, source.row, source.col,
        rows.outputs, columns.outputs, out.batch, out.row, out.col,
        rows.kernel, columns.kernel, rows.stride, columns.stride, rows.dilation, columns.dilation,
        rows.before, columns.before, rows.after - beyond[0], columns.after - beyond[1],
        count_include_pad,
    )  # fmt: skip
    actual = out.written(run_kernel(spec, [buffer], 4 * out.size))

    if op == "max":
        expected = taps(images, rows, columns, -np.inf).max((0, 1))
        assert (actual == expected).all()
        return
    under = taps(images.astype(np.float64), rows, columns, 0.0)
    counted = np.ones_like(images[..., :1])
    if count_include_pad:
        shape = (
            rows.before + rows.size + rows.after - beyond[0],
            columns.before + columns.size + columns.after - beyond[1],
        )
        counted = np.ones((batch, *shape, 1), np.float32)
        padded_rows = Window(shape[0], rows.kernel, rows.stride, rows.dilation, 0, beyond[0])
        padded_columns = Window(
            shape[1], columns.kernel, columns.stride, columns.dilation, 0, beyond[1]
        )
        count = taps(counted, padded_rows, padded_columns, 0.0).sum((0, 1))
    else:
        count = taps(counted, rows, columns, 0.0).sum((0, 1))
    exists = np.broadcast_to(count > 0, actual.shape)
    count = np.maximum(count, 1)
    # One rounding per addition, one for the reciprocal, one for the product with it.
    bound = (rows.kernel * columns.kernel + 2) * 2.0**-24 * abs(under).sum((0, 1)) / count
    error = abs(actual - under.sum((0, 1)) / count)
    assert (error[exists] <= np.broadcast_to(bound, actual.shape)[exists]).all()


@settings(max_examples=60, deadline=None)
@given(
    st.sampled_from(["max", "average"]),
    st.integers(1, 2),
    windows(),
    windows(),
    st.integers(1, 40),
    st.tuples(GAPS, GAPS),
    st.booleans(),
    st.tuples(st.integers(0, 2), st.integers(0, 2)),
)
def test_agrees_with_numpy(op, batch, rows, columns, channels, gaps, count_include_pad, beyond):
    check(op, batch, rows, columns, channels, gaps, count_include_pad, beyond)


@pytest.mark.parametrize("op", ["max", "average"])
@pytest.mark.parametrize("channels", [1, 2, 3, 4, 5, 8, 13, 16, 17, 21, 32, 64])
def test_common_windows_with_all_numbers_of_channels(op, channels):
    check(op, 1, Window(14, 2, 2, 1, 0, 0), Window(14, 2, 2, 1, 0, 0), channels)
    check(op, 1, Window(13, 3, 2, 1, 1, 1), Window(13, 3, 2, 1, 1, 1), channels)
    check(op, 1, Window(9, 3, 1, 1, 1, 1), Window(9, 3, 1, 1, 1, 1), channels)


@pytest.mark.parametrize("op", ["max", "average"])
@pytest.mark.parametrize(
    ("rows", "columns"),
    [
        (Window(7, 7, 1, 1, 0, 0), Window(7, 7, 1, 1, 0, 0)),
        (Window(30, 30, 1, 1, 0, 0), Window(23, 23, 1, 1, 0, 0)),
        (Window(12, 13, 1, 1, 6, 6), Window(12, 13, 1, 1, 6, 6)),
        (Window(1, 1, 1, 1, 0, 0), Window(50, 12, 3, 1, 5, 5)),
        (Window(50, 12, 3, 1, 5, 5), Window(1, 1, 1, 1, 0, 0)),
    ],
    ids=["global", "large global", "large", "wide", "high"],
)
@pytest.mark.parametrize("channels", [3, 40])
def test_unusual_windows(op, rows, columns, channels):
    check(op, 1, rows, columns, channels)


def test_a_maximum_of_no_element_is_minus_infinity():
    check("max", 1, Window(2, 2, 1, 1, 4, 4), Window(2, 2, 1, 1, 4, 4), 6)


def test_a_maximum_ignores_nan():
    pixels = np.array([np.nan, -3.0, -2.0, np.nan], np.float32)
    spec = Pool("max", 1, 1, 4, 1, 4, 4, 1, 1, 3, 3, 3, 1, 1, 2, 1, 1, 1, 1, 0, 0, 0, 0, False)
    assert run_kernel(spec, [pixels], 12).tolist() == [-3.0, -2.0, -2.0]


@settings(max_examples=30, deadline=None)
@given(
    st.sampled_from(["max", "average"]),
    windows(),
    windows(),
    st.integers(1, 20),
    st.tuples(GAPS, GAPS),
    st.booleans(),
)
def test_two_steps_give_the_same(op, rows, columns, channels, gaps, count_include_pad):
    source = layout_of((2, rows.size, columns.size, channels), gaps[0])
    out = layout_of((2, rows.outputs, columns.outputs, channels), gaps[1])
    buffer, images = source.random(np.random.default_rng(channels))
    spec = Pool(
        op, 2, rows.size, columns.size, channels, source.batch, source.row, source.col,
        rows.outputs, columns.outputs, out.batch, out.row, out.col,
        rows.kernel, columns.kernel, rows.stride, columns.stride, rows.dilation, columns.dilation,
        rows.before, columns.before, rows.after, columns.after, count_include_pad,
    )  # fmt: skip
    across, down = separated(spec)
    at_once = out.written(run_kernel(spec, [buffer], 4 * out.size))
    between = run_kernel(across, [buffer], 8 * rows.size * columns.outputs * channels)
    in_steps = out.written(run_kernel(down, [between], 4 * out.size))
    if op == "max":
        assert (in_steps == at_once).all()
        return
    # Averages lie within the largest element, and each way rounds at most once per element.
    bound = (rows.kernel * columns.kernel + 6) * 2.0**-24 * abs(images).max()
    exists = np.isfinite(at_once)
    assert (abs(in_steps - at_once)[exists] <= 2 * bound).all()


def test_code_stays_small():
    for kernel, before in ((3, 1), (5, 2), (13, 6)):
        spec = Pool(
            "max", 1, 20, 20, 256, 102400, 5120, 256, 20, 20, 102400, 5120, 256,
            kernel, kernel, 1, 1, 1, 1, before, before, before, before, False,
        )  # fmt: skip
        assert len(spec.assemble("kernel").body()) < 3000
