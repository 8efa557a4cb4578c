"""Shares of a kernel write together, bit by bit, what the whole one writes, in any order."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.kernels.shares import CHAINS, COUNTS, ODD, RESIDUAL, SEEDS, SILU, check, check_on, parts
from tests.kernels.strided import extents, size_of, spaced
from wasmgraph.kernels.chain import IDENTITY
from wasmgraph.kernels.contraction import BatchAxis, Contraction
from wasmgraph.kernels.copying import StridedCopy
from wasmgraph.kernels.elementwise import Elementwise
from wasmgraph.kernels.normalisation import ChannelNorm, LayerNorm
from wasmgraph.kernels.operands import RowOperand
from wasmgraph.kernels.padding import PadConstant
from wasmgraph.kernels.reduction import Reduction
from wasmgraph.kernels.sharing import Share, balance, on_two_threads, pieces
from wasmgraph.kernels.softmax import Softmax
from wasmgraph.kernels.thin import ThinContraction


def strided(axes: Sequence[tuple[int, int]]) -> int:
    """Elements from the first to the last of (extent, stride) axes."""
    return size_of(*zip(*axes, strict=True)) if axes else 1


@given(st.integers(1, 300), st.integers(1, 9), st.integers(1, 20))
def test_pieces_cover_an_axis_in_order(extent: int, count: int, step: int) -> None:
    cut = pieces(extent, count, step)
    assert len(cut) <= count
    assert [first for first, _ in cut] == [sum(n for _, n in cut[:i]) for i in range(len(cut))]
    assert sum(length for _, length in cut) == extent
    assert len({length for _, length in cut[:-1]}) <= 2
    assert list(cut) == sorted(cut, key=lambda piece: -piece[1])
    assert all(first % step == 0 for first, _ in cut)
    assert 0 < balance(cut, count) <= 1


@pytest.mark.parametrize(
    ("extent", "lengths"),
    [(24, [3] * 8), (28, [4, 4, 4, 4, 3, 3, 3, 3]), (31, [4] * 7 + [3]), (5, [1] * 5), (0, [])],
)
def test_pieces_suit_two_threads(extent, lengths):
    assert [length for _, length in pieces(extent, 8)] == lengths


def test_two_threads_take_the_next_piece_when_they_are_free():
    assert on_two_threads([4, 4, 3, 3]) == 7
    assert on_two_threads([2] * 7) == 8
    assert on_two_threads([5, 1, 1, 1]) == 5


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


def test_contraction_with_many_rows_is_cut_along_them_into_whole_tiles():
    shares = product(1001, 64).shares(4)
    assert parts(shares, lambda k: (k.row_count, k.columns)) == [(252, 64)] * 3 + [(245, 64)]
    image = Contraction((), ((20, 99), (5, 1)), 48, ((4, 1),), 48)
    assert parts(image.shares(4), lambda k: k.rows[0][0]) == [6, 6, 4, 4]


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


@st.composite
def thin(draw: st.DrawFn) -> tuple[ThinContraction, list[int]]:
    depth, columns = draw(st.integers(1, 20)), draw(st.integers(1, 2))
    rows: tuple[tuple[int, int], ...] = ((draw(st.integers(1, 90)), depth + 1),)
    if draw(st.booleans()):
        inner = draw(st.integers(1, 9))
        rows = ((draw(st.integers(1, 40)), (inner + 2) * depth), (inner, depth))
    out_row, has_bias = columns + draw(st.integers(0, 2)), draw(st.booleans())
    spec = ThinContraction(rows, out_row, ((depth, 1),), columns, has_bias, SILU)
    bias = [columns] if has_bias else []
    out = strided([(spec.row_count, out_row), (columns, 1)])
    return spec, [strided([*rows, (depth, 1)]), columns * depth, *bias, out]


@settings(max_examples=50, deadline=None)
@given(thin(), COUNTS, SEEDS)
def test_products_with_few_columns(case, count, seed):
    spec, floats = case
    check(spec, count, floats, seed)


@st.composite
def copies(draw: st.DrawFn) -> tuple[StridedCopy, int, int]:
    shape = draw(extents())
    item = draw(st.sampled_from([1, 2, 4, 8]))
    order = draw(st.permutations(range(len(shape))))

    def moved(strides: Sequence[int]) -> tuple[int, ...]:
        by_axis = dict(zip(order, strides, strict=True))
        return tuple(by_axis[axis] for axis in range(len(shape)))

    source = moved(draw(spaced([shape[axis] for axis in order])))
    if draw(st.booleans()):
        axis = draw(st.integers(0, len(shape) - 1))
        source = (*source[:axis], 0, *source[axis + 1 :])
    out = draw(spaced(shape))
    spec = StridedCopy(shape, source, out, item)
    return spec, item * size_of(shape, source), item * size_of(shape, out)


@settings(max_examples=80, deadline=None)
@given(copies(), COUNTS, SEEDS)
def test_copying(case, count, seed):
    spec, source, out = case
    inputs = np.random.default_rng(seed).integers(0, 256, source).astype(np.uint8)
    check_on(spec, count, [inputs], out, seed)


def test_a_copy_backwards_is_not_cut_along_what_runs_backwards():
    spec = StridedCopy((1000, 7), (-7, 1), (7, 1))
    assert len(spec.shares(4)) == 1


def test_a_transpose_is_cut_at_cache_lines():
    spec = StridedCopy((64, 100), (1, 64), (100, 1))
    assert parts(spec.shares(4), lambda k: k.shape) == [(16, 100)] * 4


@st.composite
def paddings(draw: st.DrawFn) -> tuple[PadConstant, list[int]]:
    shape = draw(extents())
    borders = st.lists(st.integers(0, 3), min_size=len(shape), max_size=len(shape))
    before, after = tuple(draw(borders)), tuple(draw(borders))
    source = draw(spaced(shape))
    out = np.prod([sum(n) for n in zip(before, shape, after, strict=True)])
    spec = PadConstant(shape, source, before, after, draw(st.sampled_from([0.0, -1.5])))
    return spec, [size_of(shape, source), int(out)]


@settings(max_examples=80, deadline=None)
@given(paddings(), COUNTS, SEEDS)
def test_padding(case, count, seed):
    spec, floats = case
    check(spec, count, floats, seed)


def test_padding_of_an_image_is_cut_along_its_rows():
    spec = PadConstant((1, 40, 40, 8), (12800, 320, 8, 1), (0, 1, 1, 0), (0, 1, 1, 0))
    shares = spec.shares(4)
    assert parts(shares, lambda k: (k.shape[1], k.before[1], k.after[1])) == [
        (10, 1, 0),
        (10, 0, 0),
        (10, 0, 0),
        (10, 0, 1),
    ]
    row = 4 * 42 * 8
    assert [share.offsets[1] for share in shares] == [0, 11 * row, 21 * row, 31 * row]


OUTER = st.lists(st.integers(1, 6), max_size=2)


@st.composite
def softmaxes(draw: st.DrawFn) -> tuple[Softmax, list[int]]:
    length, inner = draw(st.integers(1, 20)), draw(st.sampled_from([1, 1, 2, 16, 33, 90]))
    shape = (*draw(OUTER), length, inner)
    source, out = draw(spaced(shape)), draw(spaced(shape))
    if inner == 1:
        source, out = ((*draw(spaced(shape[:-1])), 1) for _ in range(2))
    axes = list(zip(shape, source, out, strict=True))
    spec = Softmax(tuple(axes[:-2]), axes[-2], inner, draw(st.booleans()))
    return spec, [size_of(shape, source), size_of(shape, out)]


@settings(max_examples=60, deadline=None)
@given(softmaxes(), COUNTS, SEEDS)
def test_softmax(case, count, seed):
    spec, floats = case
    check(spec, count, floats, seed)


@st.composite
def reductions(draw: st.DrawFn) -> tuple[Reduction, list[int]]:
    inner = draw(st.sampled_from([1, 1, 3, 32, 64, 100, 133, 300]))
    length = draw(st.integers(1, 40))
    shape = (*draw(OUTER), length, inner)
    source = draw(spaced(shape))
    if inner == 1:
        source = (*draw(spaced(shape[:-1])), 1)
    kept = (*shape[:-2], inner)
    out = draw(spaced(kept))
    op = draw(st.sampled_from(["sum", "mean", "max", "prod", "sum_square", "sum_abs"]))
    outer = tuple(zip(shape[:-2], source[:-2], out[:-1], strict=True))
    spec = Reduction(op, outer, ((length, source[-2]),), inner, SILU)
    return spec, [size_of(shape, source), size_of(kept, out)]


@settings(max_examples=60, deadline=None)
@given(reductions(), COUNTS, SEEDS)
def test_reduction(case, count, seed):
    spec, floats = case
    check(spec, count, floats, seed)


def test_reduction_to_one_element_stays_whole():
    spec = Reduction("sum", (), ((100_000, 1),), 1)
    assert spec.shares(8) == (Share(spec, (0, 0)),)


@st.composite
def normalisations(draw: st.DrawFn) -> tuple[LayerNorm | ChannelNorm, list[int]]:
    scale, shift = draw(st.booleans()), draw(st.booleans())
    if draw(st.booleans()):
        shape = (*draw(OUTER), draw(st.integers(1, 50)))
        source, out = draw(spaced(shape)), draw(spaced(shape))
        outer = tuple(zip(shape[:-1], source[:-1], out[:-1], strict=True))
        spec: LayerNorm | ChannelNorm = LayerNorm(outer, shape[-1], 1e-5, scale, shift)
    else:
        group = draw(st.sampled_from([1, 1, 1, 3, 8]))
        channels = group * draw(st.integers(1, 5))
        if group == 1:
            channels = draw(st.sampled_from([1, 31, 32, 64, 70, 128, 200]))
        shape = (*draw(OUTER), draw(st.integers(1, 300)), channels)
        source, out = draw(spaced(shape)), draw(spaced(shape))
        *outer_axes, positions, _ = zip(shape, source, out, strict=True)
        spec = ChannelNorm(tuple(outer_axes), positions, channels, group, 1e-5, scale, shift)
    vectors = [shape[-1]] * (scale + shift)
    return spec, [size_of(shape, source), *vectors, size_of(shape, out)]


@settings(max_examples=80, deadline=None)
@given(normalisations(), COUNTS, SEEDS)
def test_normalisation(case, count, seed):
    spec, floats = case
    check(spec, count, floats, seed)


def test_channels_of_an_instance_normalisation_are_cut_by_their_blocks():
    spec = ChannelNorm((), (3000, 128, 128), 128, 1, 1e-5, True, True)
    shares = check(spec, 4, [3000 * 128, 128, 128, 3000 * 128], 0)
    assert parts(shares, lambda k: k.channels) == [32] * 4
