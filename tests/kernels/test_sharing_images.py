"""Shares of kernels over images write together, bit by bit, what the whole one writes."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.kernels.images import GAPS, layout_of, windows
from tests.kernels.shares import COUNTS, ODD, RESIDUAL, SEEDS, SILU, check, check_on, parts
from wasmgraph.kernels.chain import IDENTITY
from wasmgraph.kernels.depthwise import Depthwise
from wasmgraph.kernels.operands import PixelOperand
from wasmgraph.kernels.pooling import Pool
from wasmgraph.kernels.resize import Resize, axis_table
from wasmgraph.kernels.sharing import Share
from wasmgraph.kernels.winograd import Winograd, applies, padded_extent

CHANNELS = st.one_of(st.integers(1, 40), st.sampled_from([48, 64, 80, 130, 136]))


@st.composite
def depthwise(draw: st.DrawFn) -> tuple[Depthwise, list[int]]:
    images, channels = draw(st.integers(1, 3)), draw(CHANNELS)
    rows, columns = draw(windows()), draw(windows())
    source = layout_of((images, rows.size, columns.size, channels), draw(GAPS))
    out = layout_of((images, rows.outputs, columns.outputs, channels), draw(GAPS))
    chain, number = draw(st.sampled_from([(IDENTITY, 0), (SILU, 0), (RESIDUAL, 1), (ODD, 2)]))
    channel_like = PixelOperand(0, 0, 0, 1), channels
    number_like = PixelOperand(0, 0, 0, 0), 1
    image_like = PixelOperand(out.batch, out.row, out.col, 1), out.size
    operands = [
        draw(st.sampled_from([image_like, channel_like, number_like])) for _ in range(number)
    ]
    has_bias = draw(st.booleans())
    spec = Depthwise(
        images, rows.size, columns.size, channels, source.batch, source.row, source.col,
        rows.outputs, columns.outputs, out.batch, out.row, out.col,
        rows.kernel, columns.kernel, rows.stride, columns.stride, rows.dilation, columns.dilation,
        rows.before, columns.before, has_bias, chain, tuple(o for o, _ in operands),
    )  # fmt: skip
    weights = -(-channels // 4) * 4 * spec.taps
    bias = [channels] if has_bias else []
    return spec, [source.size, weights, *bias, *(size for _, size in operands), out.size]


@settings(max_examples=80, deadline=None)
@given(depthwise(), COUNTS, SEEDS)
def test_depthwise(case, count, seed):
    spec, floats = case
    check(spec, count, floats, seed)


def same(size: int, channels: int, kernel: int = 3, stride: int = 1) -> Depthwise:
    """A square image with padding around it."""
    out = size // stride
    source = layout_of((1, size, size, channels))
    target = layout_of((1, out, out, channels))
    return Depthwise(
        1, size, size, channels, source.batch, source.row, source.col,
        out, out, target.batch, target.row, target.col,
        kernel, kernel, stride, stride, 1, 1, kernel // 2, kernel // 2, False,
    )  # fmt: skip


def test_depthwise_is_cut_along_its_channels_where_that_parts_cache_lines():
    shares = same(14, 256).shares(4)
    assert parts(shares, lambda k: (k.channels, k.out_h)) == [(64, 14)] * 4
    assert len({share.kernel for share in shares}) == 1
    assert parts(same(14, 264).shares(4), lambda k: (k.channels, k.out_h)) == [
        *[(264, 4)] * 2,
        *[(264, 3)] * 2,
    ]


def test_rows_of_windows_inside_the_image_are_equal_kernels():
    shares = same(112, 24, kernel=5).shares(8)
    assert parts(shares, lambda k: (k.out_h, k.in_h, k.pad_top)) == [
        (14, 16, 2),
        *[(14, 18, 0)] * 6,
        (14, 16, 0),
    ]
    assert len({share.kernel for share in shares}) == 3
    assert [share.offsets[0] // (4 * 112 * 24) for share in shares] == [0, *range(12, 110, 14)]


@st.composite
def pools(draw: st.DrawFn) -> tuple[Pool, list[int]]:
    images, channels = draw(st.integers(1, 3)), draw(CHANNELS)
    rows, columns = draw(windows(7)), draw(windows())
    source = layout_of((images, rows.size, columns.size, channels), draw(GAPS))
    out = layout_of((images, rows.outputs, columns.outputs, channels), draw(GAPS))
    spec = Pool(
        draw(st.sampled_from(["max", "average"])),
        images, rows.size, columns.size, channels, source.batch, source.row, source.col,
        rows.outputs, columns.outputs, out.batch, out.row, out.col,
        rows.kernel, columns.kernel, rows.stride, columns.stride, rows.dilation, columns.dilation,
        rows.before, columns.before,
        draw(st.integers(0, rows.after)), draw(st.integers(0, columns.after)), draw(st.booleans()),
    )  # fmt: skip
    return spec, [source.size, out.size]


@settings(max_examples=80, deadline=None)
@given(pools(), COUNTS, SEEDS)
def test_pooling(case, count, seed):
    spec, floats = case
    check(spec, count, floats, seed)


@st.composite
def resizes(draw: st.DrawFn) -> Resize:
    images, channels = draw(st.integers(1, 3)), draw(CHANNELS)
    source = (images, draw(st.integers(1, 8)), draw(st.integers(1, 8)), channels)
    target = draw(st.integers(1, 12)), draw(st.integers(1, 12))
    kind = draw(st.sampled_from(["nearest", "linear"]))
    a = layout_of(source, draw(GAPS))
    out = layout_of((images, *target, channels), draw(GAPS))
    rows = axis_table(source[1], target[0], None, kind)
    cols = axis_table(source[2], target[1], None, kind)
    return Resize(
        images, channels, source[1], source[2], a.batch, a.row, a.col,
        *target, out.batch, out.row, out.col, kind, rows, cols,
    )  # fmt: skip


@settings(max_examples=60, deadline=None)
@given(resizes(), COUNTS, SEEDS)
def test_resize(spec, count, seed):
    run_resize(spec, count, seed)


def run_resize(spec: Resize, count: int, seed: int) -> tuple[Share, ...]:
    size = [
        1 + sum((n - 1) * s for n, s in axes)
        for axes in (
            [(spec.batch, spec.in_batch), (spec.in_h, spec.in_row), (spec.in_w, spec.in_col),
             (spec.channels, 1)],
            [(spec.batch, spec.out_batch), (spec.out_h, spec.out_row), (spec.out_w, spec.out_col),
             (spec.channels, 1)],
        )
    ]  # fmt: skip
    image = np.random.default_rng(seed).standard_normal(size[0]).astype(np.float32)
    return check_on(spec, count, [image, *spec.tables()], 4 * size[1], seed)


def test_rows_of_a_resize_are_one_kernel_wherever_they_are_read():
    source, out = layout_of((1, 5, 5, 3)), layout_of((1, 16, 7, 3))
    rows, cols = axis_table(5, 16, None, "linear"), axis_table(5, 7, None, "linear")
    spec = Resize(
        1, 3, 5, 5, source.batch, source.row, source.col,
        16, 7, out.batch, out.row, out.col, "linear", rows, cols,
    )  # fmt: skip
    shares = run_resize(spec, 4, 0)
    assert parts(shares, lambda k: k.out_h) == [4] * 4
    assert len({share.kernel for share in shares}) == 1


def winograd_floats(spec: Winograd) -> list[int]:
    """Elements of the input, weights, bias, the operands and out."""
    source = spec.batch * padded_extent(spec.height) * padded_extent(spec.width) * spec.channels
    bias = [spec.columns] if spec.has_bias else []
    out = spec.batch * spec.height * spec.width * spec.columns
    operands = [out if operand.row else spec.columns for operand in spec.operands]
    return [source, 9 * spec.channels * spec.columns, *bias, *operands, out]


@st.composite
def winograds(draw: st.DrawFn) -> Winograd:
    height, width = draw(st.integers(1, 30)), draw(st.integers(1, 13))
    columns = draw(st.sampled_from([c for c in range(4, 100, 4) if applies(4, c)]))
    image = PixelOperand(height * width * columns, width * columns, columns, 1)
    chain, number = draw(st.sampled_from([(IDENTITY, 0), (SILU, 0), (RESIDUAL, 1), (ODD, 2)]))
    operands = tuple(
        draw(st.sampled_from([image, PixelOperand(0, 0, 0, 1), PixelOperand(0, 0, 0, 0)]))
        for _ in range(number)
    )
    return Winograd(
        draw(st.sampled_from([1, 1, 1, 2, 5])),
        height,
        width,
        draw(st.sampled_from([4, 8, 20])),
        columns,
        draw(st.booleans()),
        chain,
        operands,
    )


@settings(max_examples=60, deadline=None)
@given(winograds(), COUNTS, SEEDS)
def test_winograd(spec, count, seed):
    check(spec, count, winograd_floats(spec), seed)


@pytest.mark.parametrize(
    ("spec", "cut"),
    [
        (Winograd(6, 8, 8, 8, 32), "batch"),
        (Winograd(1, 60, 60, 32, 16), "height"),
        (Winograd(1, 14, 14, 64, 256), "columns"),
    ],
)
def test_winograd_is_cut_where_least_is_transformed_again(spec, cut):
    shares = check(spec, 4, winograd_floats(spec), 0)
    assert len(shares) > 1
    for field in ("batch", "height", "columns"):
        sizes = parts(shares, lambda k, field=field: getattr(k, field))
        whole = getattr(spec, field)
        assert sum(sizes) == whole if field == cut else sizes == [whole] * len(shares)


def test_every_share_of_winograd_has_scratch_memory_of_its_own():
    shares = Winograd(1, 14, 14, 64, 256).shares(4)
    ends = [share.offsets[-1] + share.kernel.scratch_nbytes for share in shares]
    assert all(share.offsets[-1] % 64 == 0 for share in shares)
    starts = [share.offsets[-1] for share in shares]
    assert all(end <= start for end, start in zip(ends, starts[1:], strict=False))
