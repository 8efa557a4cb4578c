"""Weights stored as codes with scales per block: kernels compute what they would with float32."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.kernels.runner import run_kernel
from tests.kernels.shares import COUNTS, SEEDS, check_on
from wasmgraph.assembler import Function
from wasmgraph.assembler.scalar import scalarise
from wasmgraph.kernels.block_scaled import BlockScaled
from wasmgraph.kernels.block_stored import (
    BlockFormat,
    column_nbytes,
    emit_block_decoding,
    pack_blocks,
)
from wasmgraph.kernels.chain import Chain, Step
from wasmgraph.kernels.contraction import Contraction
from wasmgraph.kernels.operands import RowOperand
from wasmgraph.kernels.packing import pack_columns, packed_columns
from wasmgraph.kernels.tiles import FUSED, SEPARATE, column_blocks

BITS = st.sampled_from([2, 4, 8])
ZEROS = st.sampled_from(["one", "bytes", "floats"])
BLOCKS = st.one_of(st.integers(1, 40), st.sampled_from([16, 32, 64, 128, 256]))
RESIDUAL = Chain(2, (Step("add", (0, 1)), Step("relu", (2,))))


def weights(
    bits: int, block: int, zeros: str, shape: tuple[int, int], rng: np.random.Generator
) -> BlockScaled:
    """Random codes; scales of both signs, as quantisers without zero points have them."""
    depth, columns = shape
    per_block = (-(-depth // block), columns)
    points = {
        "one": np.full(per_block, rng.integers(0, 1 << bits)),
        "bytes": rng.integers(0, 1 << bits, per_block),
        "floats": rng.uniform(0, 1 << bits, per_block),
    }[zeros]
    return BlockScaled(
        rng.integers(0, 1 << bits, shape).astype(np.uint8),
        rng.normal(size=per_block).astype(np.float32),
        points.astype(np.float32),
        block,
        bits,
    )


@settings(max_examples=60, deadline=None)
@given(BITS, BLOCKS, ZEROS, st.integers(1, 300), st.integers(1, 4), st.booleans(), SEEDS)
def test_blocks_of_all_sizes_are_decoded(bits, block, zeros, depth, vectors, scalar, seed):
    """With SIMD or without: numpy's numbers, and nothing else is read or written."""
    made = weights(bits, block, zeros, (depth, 4 * vectors), np.random.default_rng(seed))
    form, packed = pack_blocks(made, [vectors])
    assert packed.nbytes == 4 * vectors * column_nbytes(form, depth)
    f = Function("decode", 2)
    emit_block_decoding(f, form, f.params[0], f.params[1], depth, vectors)
    wide = made.decoded()
    out = run_kernel(scalarise(f) if scalar else f, [packed], wide.nbytes)
    assert out.tobytes() == wide.tobytes()


def product(
    made: BlockScaled, rows: int, tiles: Any = SEPARATE, **others: Any
) -> tuple[Contraction, Any]:
    """A product of rows and these weights, and its b."""
    depth, columns = made.codes.shape
    form, packed = pack_blocks(made, column_blocks(columns, tiles))
    rows_of_a = ((rows, depth),)
    reduce = ((depth, 1),)
    spec = Contraction((), rows_of_a, columns, reduce, columns, stored=form, tiles=tiles, **others)
    return spec, packed


@settings(max_examples=80, deadline=None)
@given(
    st.tuples(BITS, BLOCKS, ZEROS),
    st.integers(1, 50),
    st.integers(1, 200),
    st.integers(1, 70),
    st.booleans(),
    st.booleans(),
    st.sampled_from([SEPARATE, FUSED]),
    SEEDS,
)
def test_products_of_all_shapes(form, rows, depth, columns, has_bias, adds, tiles, seed):
    """The same bits as with float32; few rows are decoded by the tile, bit by bit."""
    rng = np.random.default_rng(seed)
    made = weights(*form, (depth, columns), rng)
    chain = {"chain": RESIDUAL, "operands": (RowOperand((), columns, 1),)} if adds else {}
    spec, packed = product(made, rows, tiles, has_bias=has_bias, **chain)
    check(spec, packed, made, rng)


def check(spec: Contraction, packed: Any, made: BlockScaled, rng: np.random.Generator) -> None:
    a = rng.standard_normal(spec.row_count * spec.depth).astype(np.float32)
    bias = [rng.standard_normal(spec.columns).astype(np.float32)] * spec.has_bias
    others = [
        rng.standard_normal(spec.row_count * spec.columns).astype(np.float32) for _ in spec.operands
    ]
    nbytes = 4 * spec.row_count * spec.columns
    wide = pack_columns(made.decoded(), spec.tiles)
    expected = run_kernel(replace(spec, stored="float32"), [a, wide, *bias, *others], nbytes)
    inputs = [a, packed, *bias, *others]
    out = run_kernel(spec, inputs, nbytes, scratch_nbytes=spec.scratch_nbytes)
    assert out.tobytes() == expected.tobytes()


@pytest.mark.parametrize("bits", [2, 4, 8])
def test_more_rows_than_fit_the_cache(bits):
    rng = np.random.default_rng(0)
    made = weights(bits, 32, "bytes", (700, 20), rng)
    spec, packed = product(made, 307)
    check(spec, packed, made, rng)


def test_rows_whose_elements_are_not_adjacent():
    """a is read column by column, by a single tile and by many."""
    rng = np.random.default_rng(0)
    made = weights(4, 32, "bytes", (100, 20), rng)
    for rows in (1, 9):
        spec, packed = product(made, rows)
        check(replace(spec, rows=((rows, 1),), reduce=((100, rows),)), packed, made, rng)


@settings(max_examples=30, deadline=None)
@given(st.tuples(BITS, BLOCKS, ZEROS), COUNTS, st.integers(1, 60), st.integers(1, 300), SEEDS)
def test_shares_write_what_the_whole_writes(form, count, rows, columns, seed):
    rng = np.random.default_rng(seed)
    made = weights(*form, (37, columns), rng)
    spec, packed = product(made, rows, has_bias=True)
    a, bias = (rng.standard_normal(n).astype(np.float32) for n in (rows * 37, columns))
    check_on(spec, count, [a, packed, bias], 4 * rows * columns, seed)


def test_a_zero_point_for_all_is_not_stored():
    rng = np.random.default_rng(0)
    made = weights(4, 32, "one", (96, 16), rng)
    form, packed = pack_blocks(made, [4])
    assert form == BlockFormat(4, 32, "one", float(made.zeros[0, 0]))
    assert packed.nbytes == 16 * 3 * (4 + 16)
    varied = replace(made, zeros=np.arange(48, dtype=np.float32).reshape(3, 16) % 16)
    assert pack_blocks(varied, [4])[1].nbytes == 16 * 3 * (4 + 1 + 16)


def test_scratch_memory_of_one_tile_holds_what_it_decodes_at_once():
    made = weights(4, 32, "one", (400, 1000), np.random.default_rng(0))
    assert product(made, 2)[0].scratch_nbytes == 4 * 64 * 16
    assert product(made, 50)[0].scratch_nbytes == 4 * 400 * packed_columns(16)
