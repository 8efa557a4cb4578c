"""Weights stored as halves or as int8 with scales: kernels compute what they would with float32."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from tests.kernels.runner import run_kernel
from tests.kernels.shares import COUNTS, SEEDS, check_on
from wasmgraph.assembler import Function
from wasmgraph.assembler.scalar import scalarise
from wasmgraph.kernels.chain import Chain, Step
from wasmgraph.kernels.contraction import BatchAxis, Contraction
from wasmgraph.kernels.operands import PixelOperand, RowOperand
from wasmgraph.kernels.packing import pack_columns, packed_columns
from wasmgraph.kernels.stored import Stored, emit_decoding
from wasmgraph.kernels.tiles import FUSED, SEPARATE
from wasmgraph.kernels.winograd import Winograd, padded_extent

SMALL = st.sampled_from(["float16", "int8"])
RESIDUAL = Chain(2, (Step("add", (0, 1)), Step("relu", (2,))))


def decoding(stored: Stored, depth: int, vectors: int) -> Function:
    """Parameters: source, scales with int8, target."""
    f = Function("decode", 2 + (stored == "int8"))
    source, *scales, target = f.params
    emit_decoding(f, stored, source, target, depth, vectors, scales[0] if scales else None)
    return f


def weights(
    stored: str, shape: tuple[int, ...], rng: np.random.Generator
) -> tuple[NDArray[Any], list[NDArray[Any]], NDArray[np.float32]]:
    """As stored, with their scales per column if they have any, and what they mean."""
    if stored == "float16":
        halves = rng.standard_normal(shape).astype(np.float16)
        return halves, [], halves.astype(np.float32)
    steps = rng.integers(-128, 128, shape).astype(np.int8)
    scales = rng.uniform(1e-3, 1, shape[-1]).astype(np.float32)
    return steps, [scales], steps * scales


def test_every_finite_half_is_decoded_exactly():
    """Subnormal numbers and both zeros among them."""
    halves = np.arange(65536, dtype=np.uint16).view(np.float16)
    out = run_kernel(decoding("float16", 65536 // 16, 4), [halves], 4 * 65536)
    finite = np.isfinite(halves)
    assert finite.sum() == 65536 - 2 * 1024
    assert out[finite].tobytes() == halves[finite].astype(np.float32).tobytes()


@settings(max_examples=40, deadline=None)
@given(SMALL, st.integers(1, 40), st.integers(1, 4), st.booleans(), SEEDS)
def test_blocks_of_all_sizes_are_decoded(stored, depth, vectors, scalar, seed):
    """With SIMD or without, nothing else is read or written."""
    small, scales, wide = weights(stored, (depth, 4 * vectors), np.random.default_rng(seed))
    function = decoding(stored, depth, vectors)
    out = run_kernel(scalarise(function) if scalar else function, [small, *scales], wide.nbytes)
    assert out.tobytes() == wide.tobytes()


def check(spec: Contraction, a_floats: int, rng: np.random.Generator, batches: int = 1) -> None:
    """A product gives the same bits as with the same weights in float32."""
    shape = (spec.depth, spec.columns) if batches == 1 else (batches, spec.depth, spec.columns)
    small, scales, wide = weights(spec.stored, shape, rng)
    a = rng.standard_normal(a_floats).astype(np.float32)
    bias = [rng.standard_normal(spec.columns).astype(np.float32)] * spec.has_bias
    others = [
        rng.standard_normal(spec.row_count * spec.columns).astype(np.float32) for _ in spec.operands
    ]
    nbytes = 4 * batches * spec.row_count * spec.out_row
    expected = run_kernel(
        replace(spec, stored="float32"), [a, pack_columns(wide, spec.tiles), *bias, *others], nbytes
    )
    packed_scales = [padded(s, spec) for s in scales]
    inputs = [a, pack_columns(small, spec.tiles), *packed_scales, *bias, *others]
    out = run_kernel(spec, inputs, nbytes, scratch_nbytes=spec.scratch_nbytes)
    assert out.tobytes() == expected.tobytes()


def padded(scales: NDArray[Any], spec: Contraction) -> NDArray[np.float32]:
    full = np.zeros(packed_columns(spec.columns, spec.tiles), np.float32)
    full[: spec.columns] = scales
    return full


def dense(rows: int, depth: int, columns: int, stored: Stored, **others: Any) -> Contraction:
    reduce = ((depth, 1),)
    return Contraction((), ((rows, depth),), columns, reduce, columns, stored=stored, **others)


@settings(max_examples=60, deadline=None)
@given(
    SMALL,
    st.integers(1, 50),
    st.integers(1, 40),
    st.integers(1, 70),
    st.booleans(),
    st.booleans(),
    st.sampled_from([SEPARATE, FUSED]),
    SEEDS,
)
def test_products_of_all_shapes(stored, rows, depth, columns, has_bias, adds, tiles, seed):
    """Few rows are decoded by the tile, more into scratch memory."""
    chain = {"chain": RESIDUAL, "operands": (RowOperand((), columns, 1),)} if adds else {}
    spec = dense(rows, depth, columns, stored, has_bias=has_bias, tiles=tiles, **chain)
    check(spec, rows * depth, np.random.default_rng(seed))


@pytest.mark.parametrize("stored", ["float16", "int8"])
def test_more_rows_than_fit_the_cache(stored):
    check(dense(307, 700, 20, stored), 307 * 700, np.random.default_rng(0))


@pytest.mark.parametrize("rows", [1, 9])
def test_a_batch_of_halves(rows):
    columns, depth = 22, 5
    b_step = depth * packed_columns(columns)
    batch = (BatchAxis(3, rows * depth, b_step, rows * columns),)
    spec = replace(dense(rows, depth, columns, "float16"), batch=batch)
    check(spec, 3 * rows * depth, np.random.default_rng(rows), batches=3)


def test_scratch_memory_holds_one_block_of_columns():
    assert dense(50, 40, 1000, "int8").scratch_nbytes == 4 * 40 * 16
    assert dense(50, 40, 1000, "float32").scratch_nbytes == 0
    # A single tile needs none; the parameter is there all the same.
    assert 0 < dense(2, 40, 1024, "float16").scratch_nbytes <= 64


@settings(max_examples=30, deadline=None)
@given(SMALL, COUNTS, st.integers(1, 60), st.integers(1, 300), st.booleans(), SEEDS)
def test_shares_write_what_the_whole_writes(stored, count, rows, columns, has_bias, seed):
    spec = dense(rows, 7, columns, stored, has_bias=has_bias)
    rng = np.random.default_rng(seed)
    small, scales, _ = weights(stored, (7, columns), rng)
    a, bias = (rng.standard_normal(n).astype(np.float32) for n in (rows * 7, columns))
    inputs = [a, pack_columns(small), *(padded(s, spec) for s in scales), *[bias] * has_bias]
    check_on(spec, count, inputs, 4 * rows * columns, seed)


def test_shares_are_of_columns_so_that_each_weight_is_decoded_once():
    shares = dense(600, 64, 256, "float16").shares(4)
    assert [share.kernel.columns for share in shares] == [64] * 4  # type: ignore[attr-defined]


@settings(max_examples=30, deadline=None)
@given(
    SMALL,
    st.integers(1, 2),
    st.integers(1, 9),
    st.sampled_from([4, 8, 20]),
    st.sampled_from([4, 12, 16, 32]),
    st.booleans(),
    st.booleans(),
    SEEDS,
)
def test_winograds_convolution(stored, batch, extent, channels, columns, has_bias, adds, seed):
    rng = np.random.default_rng(seed)
    row = extent * columns
    operands = (PixelOperand(extent * row, row, columns, 1),) if adds else ()
    spec = Winograd(
        batch,
        extent,
        extent,
        channels,
        columns,
        has_bias,
        *([RESIDUAL] if adds else []),
        operands=operands,
        stored=stored,
    )
    image = (batch, padded_extent(extent), padded_extent(extent), channels)
    x = rng.standard_normal(image).astype(np.float32)
    small, scales, wide = weights(stored, (9 * channels, columns), rng)
    others = [rng.standard_normal(columns).astype(np.float32)] * has_bias
    nbytes = 4 * batch * extent * row
    others += [rng.standard_normal(nbytes // 4).astype(np.float32)] * adds
    expected = run_kernel(
        replace(spec, stored="float32"),
        [x, pack_columns(wide), *others],
        nbytes,
        scratch_nbytes=spec.scratch_nbytes,
    )
    inputs = [x, pack_columns(small), *scales, *others]
    out = run_kernel(spec, inputs, nbytes, scratch_nbytes=spec.scratch_nbytes)
    assert out.tobytes() == expected.tobytes()


@settings(max_examples=20, deadline=None)
@given(SMALL, COUNTS, st.integers(1, 20), st.sampled_from([16, 32, 64]), SEEDS)
def test_shares_of_winograds_convolution(stored, count, extent, columns, seed):
    spec = Winograd(1, extent, extent, 8, columns, has_bias=True, stored=stored)
    rng = np.random.default_rng(seed)
    small, scales, _ = weights(stored, (72, columns), rng)
    x = rng.standard_normal((padded_extent(extent) ** 2, 8)).astype(np.float32)
    bias = rng.standard_normal(columns).astype(np.float32)
    inputs = [x, pack_columns(small), *scales, bias]
    check_on(spec, count, inputs, 4 * extent**2 * columns, seed)
