"""Weights of products that are stored as codes of 2, 4 or 8 bits, and how kernels decode them.

A packed block of columns (`packing`) is a run of records, one for each block of k that shares
scales: the scales of the columns, their zero points if these differ, then the codes. So all that a
product reads of its weights comes in order.

Codes stand in 32-bit words, one per column: 16, 8 or 4 neighbouring k, the first in the lowest
bits. A vector of words is four columns; a shift and a mask give four codes as 32-bit lanes.

A weight is (code - zero point) * scale, each operation rounded to float32, so it is the number that
the same model has as float32. Many rows have a block of columns decoded once; a tile that holds all
rows decodes some k at a time and multiplies with them (`tile_sums`).

Time over float32, blocks of 32 with zero points, 4 and 8 bits (CPU time of a run, minima of
alternating runs, one Zen 4 core with much other work beside it, Wasmtime 50, 2026-11-20): vit_tiny
1.00 and 0.97, minilm (128 tokens) 0.98 and 0.98. Twelve products with 2048x2048, which wait for
memory as float32, one row: 0.90 and 0.80, two: 0.95 and 0.86, four: 0.95 and 1.02. Two products,
whose float32 stay in the third-level cache of 32 MiB, one row: 1.1 to 1.3, two: 1.6, four: 1.2 to
1.4, sixteen: 1.1; a row or two do too little with what they decode.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from wasmgraph.assembler.function import (
    V128,
    Expr,
    Function,
    Local,
    binary,
    f32x4,
    i32,
    i32x4,
    load,
    load_lanes,
    unary,
)
from wasmgraph.kernels.block_scaled import BlockScaled
from wasmgraph.kernels.stored import NBYTES, Stored
from wasmgraph.kernels.tiles import LANES

_WORD_BITS = 32


@dataclass(frozen=True)
class BlockFormat:
    """How weights are stored.

    Attributes:
        bits: Of a code: 2, 4 or 8.
        block: How many k share a scale; the last block may be shorter.
        zeros: Zero points are "one" for all, or stand in every record as "bytes" or "floats".
        zero: The one.
    """

    bits: int
    block: int
    zeros: Literal["one", "bytes", "floats"] = "one"
    zero: float = 0.0

    @property
    def codes(self) -> int:
        """How many are in a word."""
        return _WORD_BITS // self.bits

    @property
    def zero_nbytes(self) -> int:
        """Of a column's zero point in a record."""
        return {"one": 0, "bytes": 1, "floats": 4}[self.zeros]

    @property
    def head_nbytes(self) -> int:
        """Of a column's scale and zero point in a record."""
        return 4 + self.zero_nbytes

    def codes_nbytes(self, depth: int) -> int:
        """Of a column's codes for so many k of one block."""
        return 4 * -(-depth // self.codes)

    def blocks(self, depth: int) -> Iterator[tuple[int, int]]:
        """(how many, of how many k) for the whole blocks and for a short one, where there are."""
        whole, rest = divmod(depth, self.block)
        return ((n, length) for n, length in ((whole, self.block), (1, rest)) if n and length)

    def column_nbytes(self, depth: int) -> int:
        """What one column takes."""
        return sum(
            count * (self.head_nbytes + self.codes_nbytes(length))
            for count, length in self.blocks(depth)
        )


def column_nbytes(stored: Stored | BlockFormat, depth: int) -> int:
    """What one column of packed weights takes."""
    if isinstance(stored, BlockFormat):
        return stored.column_nbytes(depth)
    return NBYTES[stored] * depth


def pack_blocks(
    weights: BlockScaled, panels: Sequence[int]
) -> tuple[BlockFormat, NDArray[np.uint8]]:
    """Pack b for a product: panel by panel of columns, in each the records.

    Args:
        weights: Columns that are missing in the last vector are zero.
        panels: How columns are cut: the vectors of each, as `column_blocks` gives them.
    """
    depth, columns = weights.codes.shape
    form = _format_of(weights)
    padded = ((0, 0), (0, sum(panels) * LANES - columns))
    codes, scales, zeros = (
        np.pad(array, padded) for array in (weights.codes, weights.scales, weights.zeros)
    )
    parts, start = [], 0
    for vectors in panels:
        panel = slice(start, start + vectors * LANES)
        start, k, number = panel.stop, 0, 0
        for count, length in form.blocks(depth):
            of = slice(number, number + count)
            cut = codes[k : k + count * length, panel].reshape(count, length, -1)
            heads = [scales[of, panel].astype("<f4")]
            if form.zeros != "one":
                dtype = np.uint8 if form.zeros == "bytes" else "<f4"
                heads.append(zeros[of, panel].astype(dtype))
            words = _words(cut, form)
            record = [np.ascontiguousarray(a).view(np.uint8) for a in (*heads, words)]
            parts.append(np.concatenate(record, axis=1).reshape(-1))
            k, number = k + count * length, number + count
    return form, np.concatenate(parts)


def _format_of(weights: BlockScaled) -> BlockFormat:
    block = min(weights.block, weights.codes.shape[0])
    first = float(weights.zeros[0, 0])
    if (weights.zeros == first).all():
        return BlockFormat(weights.bits, block, "one", first)
    are_bytes = (weights.zeros == np.clip(np.rint(weights.zeros), 0, 255)).all()
    return BlockFormat(weights.bits, block, "bytes" if are_bytes else "floats")


def _words(codes: NDArray[Any], form: BlockFormat) -> NDArray[Any]:
    """Codes [record, k, column] as words, [record, all of them]."""
    count, depth, columns = codes.shape
    missing = -depth % form.codes
    full = np.pad(codes, ((0, 0), (0, missing), (0, 0))).astype("<u4")
    full = full.reshape(count, -1, form.codes, columns)
    shifts = np.arange(0, _WORD_BITS, form.bits, dtype="<u4").reshape(-1, 1)
    return np.asarray(np.bitwise_or.reduce(full << shifts, axis=2)).reshape(count, -1)


def emit_block_decoding(
    f: Function, form: BlockFormat, source: Local, target: Local, depth: int, vectors: int
) -> None:
    """target[k, column] = the weights of one packed block of columns, as float32.

    Args:
        source: Its records.
        target: Has room for them all.
        depth: How many k.
        vectors: Of columns, in the block.
    """
    source, target = f.new(source), f.new(target)
    for count, length in form.blocks(depth):
        with f.repeat(count):
            codes = f.new(source + head_nbytes(form, vectors))
            emit_codes_decoding(f, form, source, codes, target, length, vectors)
            f.release(codes)
            f.set(source, source + record_nbytes(form, length, vectors))
            f.set(target, target + 4 * LANES * vectors * length)
    f.release(source, target)


def head_nbytes(form: BlockFormat, vectors: int) -> int:
    """What stands in a record before its codes."""
    return LANES * vectors * form.head_nbytes


def record_nbytes(form: BlockFormat, depth: int, vectors: int) -> int:
    """What a record of so many k takes."""
    return head_nbytes(form, vectors) + LANES * vectors * form.codes_nbytes(depth)


def emit_codes_decoding(
    f: Function,
    form: BlockFormat,
    head: Local,
    codes: Local,
    target: Local,
    depth: int,
    vectors: int,
) -> None:
    """The same of some k of a record.

    Args:
        head: The record.
        codes: The words from which on codes are decoded.
        depth: How many k.
    """
    codes, target = f.new(codes), f.new(target)
    has_zeros = form.zeros != "one"
    with (
        f.scratch(V128, vectors) as scales,
        f.scratch(V128, vectors if has_zeros else 0) as zeros,
    ):
        for j, scale in enumerate(scales):
            f.set(scale, load(head, 16 * j))
        for j, zero in enumerate(zeros):
            f.set(zero, _load_zeros(form, head, 16 * vectors, j))
        words, rest = divmod(depth, form.codes)
        factors = list(zip(scales, zeros if has_zeros else [None] * vectors, strict=True))
        with f.repeat(words):
            emit_words_decoding(f, form, codes, target, form.codes, factors)
            f.set(codes, codes + 16 * vectors)
            f.set(target, target + 16 * vectors * form.codes)
        emit_words_decoding(f, form, codes, target, rest, factors)
    f.release(codes, target)


def _load_zeros(form: BlockFormat, head: Local, start: int, j: int) -> Expr:
    """Those of the vector j of columns."""
    if form.zeros == "floats":
        return load(head, start + 16 * j)
    eight = unary("i16x8.extend_low_i8x16_u", load_lanes(head, start + 4 * j, 1))
    return unary("f32x4.convert_i32x4_s", unary("i32x4.extend_low_i16x8_u", eight))


def emit_words_decoding(
    f: Function,
    form: BlockFormat,
    codes: Local,
    target: Local,
    count: int,
    factors: Sequence[tuple[Local, Local | None]],
) -> None:
    """The first `count` codes of a vector of words per vector of columns.

    Args:
        factors: The scales of every vector, and its zero points where there is not one for all.
    """
    if not count:
        return
    vectors = len(factors)
    with f.scratch(V128, 1) as (word,):
        for j, (scale, zero) in enumerate(factors):
            f.set(word, load(codes, 16 * j))
            for k in range(count):
                number = unary("f32x4.convert_i32x4_s", _code(form, word, k))
                start: Expr = f32x4(form.zero) if zero is None else zero
                value = binary("f32x4.mul", binary("f32x4.sub", number, start), scale)
                f.store(target, value, 16 * (k * vectors + j))


def _code(form: BlockFormat, word: Expr, k: int) -> Expr:
    if k:
        word = binary("i32x4.shr_u", word, i32(form.bits * k))
    if k + 1 == form.codes:
        return word
    return binary("v128.and", word, i32x4((1 << form.bits) - 1))
