"""Matrix products and convolutions agree with numpy, and touch nothing but their own elements."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from tests.kernels.runner import FILL, UNTOUCHED, run_kernel
from wasmgraph.kernels.chain import IDENTITY, Chain, Step
from wasmgraph.kernels.contraction import BatchAxis, Contraction
from wasmgraph.kernels.operands import RowOperand
from wasmgraph.kernels.packing import pack_columns, packed_columns
from wasmgraph.kernels.rows import merge_axes
from wasmgraph.kernels.tiles import FUSED, SEPARATE, column_blocks

TILES = st.sampled_from([SEPARATE, FUSED])
RELU = Chain(1, (Step("relu", (0,)),))
RESIDUAL = Chain(2, (Step("add", (0, 1)), Step("relu", (2,))))
SCALE_AND_SHIFT = Chain(3, (Step("multiply", (0, 1)), Step("add", (3, 2))))

Axes = Sequence[tuple[int, int]]


def view(buffer: NDArray[Any], axes: Axes) -> NDArray[Any]:
    """A buffer seen through (extent, stride in elements) axes."""
    return np.lib.stride_tricks.as_strided(
        buffer, [n for n, _ in axes], [buffer.itemsize * s for _, s in axes]
    )


def span(axes: Axes) -> int:
    """Elements from the first to the last."""
    return 1 + sum((n - 1) * s for n, s in axes)


def check(spec: Contraction, rng: np.random.Generator) -> None:
    """Run a specification on random operands that end where their last element does."""
    batch = [axis.extent for axis in spec.batch]
    a_axes = [(x.extent, x.a) for x in spec.batch] + [*spec.rows, *spec.reduce]
    a = rng.standard_normal(span(a_axes)).astype(np.float32)
    exact_a = view(a.astype(np.float64), a_axes).reshape(*batch, spec.row_count, spec.depth)

    shared = [x.extent if x.b else 1 for x in spec.batch]
    b = rng.standard_normal((*shared, spec.depth, spec.columns)).astype(np.float32)
    b_steps = [x.b for x in spec.batch]
    if spec.b_row:
        b_axes = [*zip(shared, b_steps, strict=True), (spec.depth, spec.b_row), (spec.columns, 1)]
        b_buffer = np.full(span(b_axes), np.nan, np.float32)
        view(b_buffer, b_axes)[...] = b
    else:
        b_buffer = pack_columns(b, spec.tiles)
    inputs = [a, b_buffer]
    expected = exact_a @ b.astype(np.float64)
    magnitude = abs(exact_a) @ abs(b.astype(np.float64))
    if spec.has_bias:
        bias = rng.standard_normal(spec.columns).astype(np.float32)
        inputs.append(bias)
        expected, magnitude = expected + bias, magnitude + abs(bias)
    values = []
    for operand in spec.operands:
        axes = [*zip(batch, operand.batch, strict=True), (spec.row_count, operand.row)]
        axes.append((spec.columns, operand.column))
        inputs.append(rng.standard_normal(span(axes)).astype(np.float32))
        values.append(view(inputs[-1], axes))
    if spec.chain == RELU:
        expected = np.maximum(expected, 0)
    elif spec.chain == RESIDUAL:
        expected, magnitude = np.maximum(expected + values[0], 0), magnitude + abs(values[0])
    elif spec.chain == SCALE_AND_SHIFT:
        expected = expected * values[0] + values[1]
        magnitude = magnitude * abs(values[0]) + abs(values[1])

    out_axes = [(x.extent, x.out) for x in spec.batch]
    out_axes += [(spec.row_count, spec.out_row), (spec.columns, 1)]
    out = run_kernel(spec, inputs, 4 * span(out_axes))
    actual = view(out, out_axes).copy()
    # Every product and every addition rounds once, by at most 2**-24 of the sum of magnitudes.
    assert (abs(actual - expected) <= (spec.depth + 4) * 2.0**-24 * magnitude).all()
    view(out, out_axes)[...] = UNTOUCHED
    assert (out.view(np.uint8) == FILL).all(), "the kernel wrote between its rows"


def dense(rows: int, depth: int, columns: int, packed: bool = True, **others: Any) -> Contraction:
    """A plain matrix product."""
    reduce = ((depth, 1),)
    b_row = 0 if packed else columns
    return Contraction((), ((rows, depth),), columns, reduce, columns, b_row, **others)


@settings(max_examples=60, deadline=None)
@given(
    st.integers(1, 50),
    st.integers(1, 40),
    st.integers(1, 70),
    st.booleans(),
    st.booleans(),
    TILES,
    st.integers(0, 2**32 - 1),
)
def test_matrix_products_of_all_shapes(rows, depth, columns, packed, has_bias, tiles, seed):
    spec = dense(rows, depth, columns, packed, has_bias=has_bias, tiles=tiles)
    check(spec, np.random.default_rng(seed))


@pytest.mark.parametrize("columns", range(1, 71))
def test_all_numbers_of_columns(columns):
    check(dense(7, 9, columns, has_bias=True), np.random.default_rng(columns))
    check(dense(7, 9, columns, tiles=FUSED), np.random.default_rng(columns))
    check(dense(7, 9, columns, packed=False), np.random.default_rng(columns))


@pytest.mark.parametrize("rows", range(1, 51))
def test_all_numbers_of_rows(rows):
    for tiles in (SEPARATE, FUSED):
        check(dense(rows, 6, 22, chain=RELU, tiles=tiles), np.random.default_rng(rows))


def test_more_rows_than_fit_the_cache():
    check(dense(307, 700, 20, has_bias=True), np.random.default_rng(0))


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_strides_batches_and_operands(data):
    """Rows, reduction and batches with any strides; b with rows of any length; fused operands."""
    extent = st.integers(1, 6)
    stride = st.integers(0, 9)
    axes = st.lists(st.tuples(extent, stride), min_size=1, max_size=3).map(tuple)
    rows = data.draw(axes)
    reduce = data.draw(axes)
    if data.draw(st.booleans()):
        reduce = (*reduce[:-1], (data.draw(st.integers(1, 13)), 1))
    columns = data.draw(st.integers(1, 34))
    packed = data.draw(st.booleans())
    b_row = 0 if packed else columns + data.draw(st.integers(0, 5))
    tiles = data.draw(TILES)
    depth = int(np.prod([n for n, _ in reduce]))
    row_count = int(np.prod([n for n, _ in rows]))
    out_row = columns + data.draw(st.integers(0, 5))
    extents = data.draw(st.lists(st.integers(1, 3), max_size=2))
    b_step = depth * (b_row or packed_columns(columns, tiles))
    out_step = row_count * out_row
    batch: list[BatchAxis] = []
    for n in reversed(extents):
        has_b = data.draw(st.booleans())
        batch.insert(0, BatchAxis(n, data.draw(st.integers(0, 20)), b_step * has_b, out_step))
        b_step *= n if has_b else 1
        out_step *= n
    chain = data.draw(st.sampled_from([IDENTITY, RELU, RESIDUAL, SCALE_AND_SHIFT]))
    operands = tuple(
        RowOperand(
            tuple(data.draw(st.integers(0, 7)) for _ in extents),
            data.draw(st.integers(0, 40)),
            data.draw(st.integers(0, 1)),
        )
        for _ in range(chain.operands - 1)
    )
    spec = Contraction(
        tuple(batch), rows, out_row, reduce, columns, b_row, data.draw(st.booleans()), chain,
        operands, tiles,
    )  # fmt: skip
    check(spec, np.random.default_rng(data.draw(st.integers(0, 1000))))


@settings(max_examples=40, deadline=None)
@given(
    st.integers(1, 2),
    st.integers(1, 9),
    st.integers(1, 9),
    st.integers(1, 9),
    st.integers(1, 20),
    st.tuples(st.integers(1, 3), st.integers(1, 3)),
    st.integers(1, 2),
    st.integers(1, 2),
)
def test_a_convolution_of_a_padded_image(
    batch, out_h, out_w, channels, filters, kernel, stride, dilation
):
    """Rows are output pixels, the reduction is kernel rows, kernel columns and channels."""
    kh, kw = kernel
    height = (out_h - 1) * stride + (kh - 1) * dilation + 1
    width = (out_w - 1) * stride + (kw - 1) * dilation + 1
    row = width * channels
    rng = np.random.default_rng(height * width)
    image = rng.standard_normal((batch, height, width, channels)).astype(np.float32)
    weights = rng.standard_normal((kh, kw, channels, filters)).astype(np.float32)
    bias = rng.standard_normal(filters).astype(np.float32)
    rows = [(out_h, stride * row), (out_w, stride * channels)]
    if batch > 1:
        rows.insert(0, (batch, height * row))
    spec = Contraction(
        (),
        merge_axes(rows),
        filters,
        merge_axes([(kh, dilation * row), (kw, dilation * channels), (channels, 1)]),
        filters,
        has_bias=True,
    )
    packed = pack_columns(weights.reshape(-1, filters))
    out = run_kernel(spec, [image, packed, bias], 4 * batch * out_h * out_w * filters)
    actual = out.reshape(batch, out_h, out_w, filters)
    expected = np.zeros(actual.shape) + bias
    magnitude = abs(expected)
    for i in range(kh):
        for j in range(kw):
            part = image[:, i * dilation :, j * dilation :][:, ::stride, ::stride]
            part = part[:, :out_h, :out_w].astype(np.float64)
            expected = expected + part @ weights[i, j]
            magnitude = magnitude + abs(part) @ abs(weights[i, j])
    bound = (kh * kw * channels + 3) * 2.0**-24 * magnitude
    assert (abs(actual - expected) <= bound).all()


@settings(max_examples=100, deadline=None)
@given(st.integers(1, 400))
def test_blocks_cover_the_columns(columns):
    blocks = column_blocks(columns)
    assert sum(blocks) == -(-columns // 4)
    assert set(blocks) <= {1, 2, 3, 4}


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(st.integers(1, 4), st.integers(0, 6)), min_size=1, max_size=4))
def test_merged_axes_visit_the_same_elements(axes):
    """In the same order, too."""

    def places(axes):
        found = np.zeros(1, int)
        for extent, stride in axes:
            found = (found[:, None] + np.arange(extent) * stride).reshape(-1)
        return found.tolist()

    assert places(merge_axes(axes)) == places(axes)
