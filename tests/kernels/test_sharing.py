"""Shares of a kernel write together, bit by bit, what the whole one writes, in any order."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from tests.kernels.images import GAPS, layout_of, windows
from tests.kernels.runner import FILL, PAGE, Instance
from tests.kernels.strided import extents, size_of, spaced
from wasmgraph.kernels.chain import IDENTITY, Chain, Step
from wasmgraph.kernels.contraction import BatchAxis, Contraction
from wasmgraph.kernels.depthwise import Depthwise
from wasmgraph.kernels.elementwise import Elementwise
from wasmgraph.kernels.operands import PixelOperand, RowOperand
from wasmgraph.kernels.pooling import Pool
from wasmgraph.kernels.sharing import Share, Shareable, balance, pieces

SILU = Chain(1, (Step("sigmoid", (0,)), Step("multiply", (0, 1))))
RESIDUAL = Chain(2, (Step("add", (0, 1)), Step("relu", (2,))))
ODD = Chain(3, (Step("multiply", (0, 1)), Step("subtract", (3, 2)), Step("tanh", (4,))))

COUNTS = st.integers(2, 8)
SEEDS = st.integers(0, 2**32 - 1)


def check(whole: Shareable, count: int, floats: Sequence[int], seed: int) -> tuple[Share, ...]:
    """Run a kernel and its shares, these in a random order, and compare all memory.

    Args:
        floats: float32 elements of each input, then of the output; of scratch memory, none.

    Returns:
        The shares.
    """
    rng = np.random.default_rng(seed)
    inputs = [rng.standard_normal(n).astype(np.float32) for n in floats[:-1]]
    return check_on(whole, count, inputs, 4 * floats[-1], seed)


def check_on(
    whole: Shareable, count: int, inputs: Sequence[NDArray[Any]], out_nbytes: int, seed: int
) -> tuple[Share, ...]:
    """The same on given inputs."""
    shares = whole.shares(count)
    assert 1 <= len(shares) <= count
    kernels = {share.kernel: f"share{i}" for i, share in enumerate(shares)}
    functions = [kernel.assemble(name) for kernel, name in kernels.items()]
    scratch = max(
        getattr(share.kernel, "scratch_nbytes", 0) + share.offsets[-1] for share in shares
    )
    has_scratch = getattr(whole, "scratch_nbytes", 0)
    sizes = [a.nbytes for a in inputs] + [out_nbytes]
    if has_scratch:
        sizes.append(max(scratch, has_scratch))
    starts = [64 + 128 * i + sum(-(-s // 64) * 64 for s in sizes[:i]) for i in range(len(sizes))]
    pages = -(-(starts[-1] + sizes[-1] + 64) // PAGE)
    instance = Instance([whole.assemble("whole"), *functions], pages)
    memory = instance.memory
    memory[:] = FILL
    for array, start in zip(inputs, starts, strict=False):
        memory[start : start + array.nbytes] = array.reshape(-1).view(np.uint8)
    before = memory.copy()
    instance.call("whole", *starts)
    kept = memory.size if not has_scratch else starts[-1]
    expected = memory[:kept].copy()
    memory[:] = before
    for index in np.random.default_rng(seed).permutation(len(shares)):
        share = shares[index]
        places = [a + b for a, b in zip(starts, share.offsets, strict=True)]
        instance.call(kernels[share.kernel], *places)
    assert memory[:kept].tobytes() == expected.tobytes()
    return shares


def strided(axes: Sequence[tuple[int, int]]) -> int:
    """Elements from the first to the last of (extent, stride) axes."""
    return size_of(*zip(*axes, strict=True)) if axes else 1


@given(st.integers(1, 300), st.integers(1, 9), st.integers(1, 20))
def test_pieces_cover_an_axis_in_order(extent: int, count: int, step: int) -> None:
    cut = pieces(extent, count, step)
    assert len(cut) <= count
    assert [first for first, _ in cut] == [sum(n for _, n in cut[:i]) for i in range(len(cut))]
    assert sum(length for _, length in cut) == extent
    assert len({length for _, length in cut[:-1]}) <= 1
    assert all(first % step == 0 for first, _ in cut)
    assert 0 < balance(cut, count) <= 1


CHAINS = {1: SILU, 2: RESIDUAL, 3: ODD}


@st.composite
def elementwise(draw: st.DrawFn) -> tuple[Elementwise, list[int]]:
    shape = draw(extents())
    operands = []
    for _ in range(draw(st.integers(1, 3))):
        strides = draw(spaced(shape))
        repeated = draw(st.lists(st.booleans(), min_size=len(shape), max_size=len(shape)))
        operands.append(tuple(0 if r else s for r, s in zip(repeated, strides, strict=True)))
    out = draw(spaced(shape))
    spec = Elementwise(shape, out, tuple(operands), CHAINS[len(operands)])
    return spec, [size_of(shape, s) for s in (*operands, out)]


@settings(max_examples=80, deadline=None)
@given(elementwise(), COUNTS, SEEDS)
def test_elementwise(case, count, seed):
    spec, floats = case
    check(spec, count, floats, seed)


def test_elementwise_of_one_row_is_cut_at_cache_lines():
    spec = Elementwise((1000,), (1,), ((1,),), SILU)
    shares = check(spec, 4, [1000, 1000], 0)
    assert [share.offsets for share in shares] == [(1024 * i,) * 2 for i in range(4)]
    assert len({share.kernel for share in shares}) == 2


def contraction_floats(spec: Contraction) -> list[int]:
    """Elements of a, b, bias, the operands and out."""
    batch = spec.batch
    a = [(x.extent, x.a) for x in batch] + [*spec.rows, *spec.reduce]
    depth = spec.depth
    packed = depth * -(-spec.columns // 4) * 4
    b_axes = [(x.extent, x.b) for x in batch]
    b = strided(b_axes) - 1 + packed
    if spec.b_row:
        b = strided([*b_axes, (depth, spec.b_row), (spec.columns, 1)])
    sizes = [strided(a), b]
    if spec.has_bias:
        sizes.append(strided([*((x.extent, x.bias) for x in batch), (spec.columns, 1)]))
    for operand in spec.operands:
        axes = [(x.extent, s) for x, s in zip(batch, operand.batch, strict=True)]
        sizes.append(
            strided([*axes, (spec.row_count, operand.row), (spec.columns, operand.column)])
        )
    out = [(x.extent, x.out) for x in batch]
    return [*sizes, strided([*out, (spec.row_count, spec.out_row), (spec.columns, 1)])]


@st.composite
def contractions(draw: st.DrawFn) -> Contraction:
    columns = draw(st.integers(1, 130))
    depth, inner = draw(st.integers(1, 9)), draw(st.integers(1, 9))
    rows: tuple[tuple[int, int], ...] = ((draw(st.integers(1, 60)), depth),)
    if draw(st.booleans()):
        rows = ((draw(st.integers(1, 14)), (inner + 2) * depth), (inner, depth))
    count = rows[0][0] * (inner if len(rows) > 1 else 1)
    out_row = columns + draw(st.integers(0, 3))
    b_row = draw(st.sampled_from([0, columns, columns + 3]))
    batch: tuple[BatchAxis, ...] = ()
    chain, operands = draw(st.sampled_from([(IDENTITY, 0), (SILU, 0), (RESIDUAL, 1), (ODD, 2)]))
    if draw(st.booleans()):
        a = draw(st.sampled_from([0, strided([*rows, (depth, 1)])]))
        b = draw(st.sampled_from([0, depth * (b_row or -(-columns // 4) * 4)]))
        extent, bias = draw(st.integers(1, 5)), draw(st.sampled_from([0, columns]))
        batch = (BatchAxis(extent, a, b, count * out_row, bias),)
    return Contraction(
        batch,
        rows,
        out_row,
        ((depth, 1),),
        columns,
        b_row,
        draw(st.booleans()),
        chain,
        tuple(
            RowOperand(
                tuple(draw(st.sampled_from([0, count * columns])) for _ in batch),
                draw(st.sampled_from([0, columns])),
                draw(st.integers(0, 1)),
            )
            for _ in range(operands)
        ),
    )


@settings(max_examples=80, deadline=None)
@given(contractions(), COUNTS, SEEDS)
def test_contraction(spec, count, seed):
    check(spec, count, contraction_floats(spec), seed)


def product(rows: int, columns: int, depth: int = 4) -> Contraction:
    return Contraction((), ((rows, depth),), columns, ((depth, 1),), columns, has_bias=True)


def parts(shares: Sequence[Share], measure: Callable[[Any], Any]) -> list[Any]:
    return [measure(share.kernel) for share in shares]


def test_contraction_with_many_rows_is_cut_along_them_into_whole_tiles():
    shares = product(1001, 64).shares(4)
    assert parts(shares, lambda k: (k.row_count, k.columns)) == [(252, 64)] * 3 + [(245, 64)]
    image = Contraction((), ((20, 99), (5, 1)), 48, ((4, 1),), 48)
    assert parts(image.shares(4), lambda k: k.rows[0][0]) == [6, 6, 6, 2]


@pytest.mark.parametrize("rows", [1, 49])
def test_contraction_with_few_rows_is_cut_along_blocks_of_columns(rows):
    shares = product(rows, 1000).shares(8)
    assert parts(shares, lambda k: (k.row_count, k.columns)) == [(rows, 128)] * 7 + [(rows, 104)]
    assert [share.offsets[1] for share in shares] == [4 * 4 * 128 * i for i in range(8)]


def test_contraction_is_cut_along_its_batches_first():
    batch = (BatchAxis(12, 40, 0, 80),)
    spec = Contraction(batch, ((10, 4),), 8, ((4, 1),), 8)
    assert parts(spec.shares(4), lambda k: k.batch[0].extent) == [3, 3, 3, 3]


def test_a_product_of_one_row_and_few_columns_stays_whole():
    spec = product(1, 16)
    assert spec.shares(8) == (Share(spec, (0, 0, 0, 0)),)


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
        *[(264, 4)] * 3,
        (264, 2),
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
