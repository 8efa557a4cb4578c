"""Matrix products and convolutions of integers: rows times packed columns, exact in int32.

As in `contraction`, a convolution is a product whose rows start anywhere and whose reduction is
nested. Two neighbouring k are one step: i32x4.dot_i16x8_s multiplies eight 16-bit numbers and adds
them by pairs. Activations are widened as they are loaded and stay 8 bit in memory, and so do the
weights, but for one block of columns that is widened into scratch memory before its rows are worked
through. Zero points are no business of the kernel's: that of a goes into the bias, b has none.

Billions of multiplications and additions per second, tiles as in `tiles` (one Zen 4 core at 3.6
GHz, shared with other work; Wasmtime 50, 2026-11-20; in the same run, weights widened by every tile
and the contraction of floats):

    240x256x240     68 59 37        784x1152x128    77    20        3136x64x64      61 54 37
    196x1024x256    76 62 30        49x4608x512     60 65 16        12544x16x96     44 42 31
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from math import gcd, lcm

from wasmgraph.assembler import Function
from wasmgraph.kernels.chain import IDENTITY, Chain
from wasmgraph.kernels.contraction import BatchAxis
from wasmgraph.kernels.integer_assembly import assemble_contraction
from wasmgraph.kernels.integer_packing import packed_depth
from wasmgraph.kernels.operands import RowOperand
from wasmgraph.kernels.product_shares import WIDE
from wasmgraph.kernels.rows import Axes, count
from wasmgraph.kernels.sharing import Piece, Share, choose, pieces, whole
from wasmgraph.kernels.tiles import LANES, SEPARATE, column_blocks
from wasmgraph.kernels.typed import NBYTES

WIDEN_FROM = 16
WIDEN_UP_TO = 96 * 1024
"""Rows from which on a block of columns is widened once, not by every tile, and the bytes that it
may have then: it must stay near, and widening it must not cost more than it saves."""


@dataclass(frozen=True)
class TypedOperand:
    """An operand of the epilogue: where it lies, and its dtype."""

    place: RowOperand
    dtype: str


@dataclass(frozen=True)
class IntegerContraction:
    """out[row, column] = chain(multiplier[column] * (bias[column] + sum over k of a[row, k] * b[k,
    column]))

    The sum is of int32, which wraps; what follows is of float32. Strides are in elements; columns
    are adjacent in the output, and neighbours along the innermost axis of the reduction in a.

    Attributes:
        batch: Outermost first.
        rows: (extent, stride in a) per axis of rows, outermost first.
        out_row: Elements between rows of the output.
        reduce: (extent, stride in a) per axis of the reduction, outermost first.
        columns: How many.
        a: int8, uint8 or int16.
        b: int8 or int16, packed by `pack_integer_columns`.
        out: int32 (the sum, nothing follows), float32, or int8 and uint8, for which the chain ends
            in a "quantise" step.
        has_bias: Whether a vector of int32 is added first, as long as `per_column` makes it.
        one_scale: Whether all batches share the multipliers; else they lie like the bias.
        chain: What follows, from `typed.numbers_apart`: operand 0 is the scaled sum, the last ones
            are numbers.
        operands: The chain's operands between them.
    """

    batch: tuple[BatchAxis, ...]
    rows: Axes
    out_row: int
    reduce: Axes
    columns: int
    a: str
    b: str
    out: str
    has_bias: bool = False
    one_scale: bool = False
    chain: Chain = IDENTITY
    operands: tuple[TypedOperand, ...] = ()

    @property
    def is_scaled(self) -> bool:
        """Whether there is a vector of float32 multipliers, as long as `per_column` makes it."""
        return self.out != "int32"

    @property
    def row_count(self) -> int:
        """How many rows one batch has."""
        return count(self.rows)

    @property
    def scratch_nbytes(self) -> int:
        """Room for one block of columns of b that is widened before its rows are worked through."""
        nbytes = 2 * packed_depth(self.reduce) * LANES * max(column_blocks(self.columns))
        is_worth = self.row_count >= WIDEN_FROM and nbytes <= WIDEN_UP_TO
        return nbytes if self.b == "int8" and is_worth else 0

    @property
    def numbers(self) -> int:
        """How many numbers the chain reads."""
        return self.chain.operands - 1 - len(self.operands)

    def vector_steps(self, bias: int, multiplier: int) -> list[int]:
        """Those of the two that there are, and none for the numbers."""
        numbers = [0] * (self.numbers > 0)
        return [bias] * self.has_bias + [multiplier] * self.is_scaled + numbers

    @property
    def flops(self) -> int:
        """Multiplications and additions."""
        total = 2 * self.row_count * self.columns * count(self.reduce)
        for axis in self.batch:
            total *= axis.extent
        return total

    def assemble(self, name: str) -> Function:
        """Parameters: a, b, bias, multipliers, numbers (as far as there are any), operands, out.

        Scratch memory comes last, if it takes some.
        """
        return assemble_contraction(self, name)

    def shares(self, count: int) -> tuple[Share, ...]:
        """At most `count` products: of some batches, of rows, or of blocks of columns."""
        by_rows = (self._row_pieces(count), self._rows_share)
        by_columns = (self._column_pieces(count), self._columns_share)
        cuts: list[tuple[Sequence[Piece], Callable[[int, int], Share]]] = [
            (pieces(axis.extent, count), partial(self._batch_share, index))
            for index, axis in enumerate(self.batch)
        ]
        is_wide = self.columns >= WIDE * self.row_count
        cuts += [by_columns, by_rows] if is_wide else [by_rows, by_columns]
        parts, share = cuts[choose([parts for parts, _ in cuts], count)]
        if len(parts) == 1:
            parameters = 3 + len(self.vector_steps(0, 0)) + len(self.operands)
            return whole(self, parameters + (self.scratch_nbytes > 0))
        shares = tuple(share(first, length) for first, length in parts)
        size = self.scratch_nbytes
        if not size:
            return shares
        if not all(getattr(s.kernel, "scratch_nbytes", 0) for s in shares):
            return whole(self, len(shares[0].offsets) + 1)
        return tuple(replace(s, offsets=(*s.offsets, i * size)) for i, s in enumerate(shares))

    def _row_pieces(self, most: int) -> tuple[Piece, ...]:
        tile = lcm(*(SEPARATE.rows(size) for size in column_blocks(self.columns)))
        return pieces(self.rows[0][0], most, tile // gcd(tile, count(self.rows[1:])))

    def _column_pieces(self, most: int) -> tuple[Piece, ...]:
        """Pieces of columns whose blocks are blocks of the whole, too."""
        blocks = column_blocks(self.columns)
        cut, first = [], 0
        for start, length in pieces(len(blocks), most):
            part = blocks[start : start + length]
            columns = min(sum(part) * LANES, self.columns - first)
            if column_blocks(columns) != part:
                return ((0, self.columns),)
            cut.append((first, columns))
            first += columns
        return tuple(cut)

    def _batch_share(self, axis: int, first: int, length: int) -> Share:
        step = self.batch[axis]
        batch = (*self.batch[:axis], replace(step, extent=length), *self.batch[axis + 1 :])
        operands = [operand.place.batch[axis] for operand in self.operands]
        kernel = replace(self, batch=batch)
        scale = 0 if self.one_scale else step.bias
        vectors = self.vector_steps(step.bias, scale)
        return self._share(kernel, first, step.a, step.b, vectors, operands, step.out)

    def _rows_share(self, first: int, length: int) -> Share:
        inner, stride = count(self.rows[1:]), self.rows[0][1]
        operands = [inner * operand.place.row for operand in self.operands]
        kernel = replace(self, rows=((length, stride), *self.rows[1:]))
        vectors = self.vector_steps(0, 0)
        return self._share(kernel, first, stride, 0, vectors, operands, inner * self.out_row)

    def _columns_share(self, first: int, length: int) -> Share:
        operands = [operand.place.column for operand in self.operands]
        kernel = replace(self, columns=length)
        vectors = self.vector_steps(1, 1)
        return self._share(kernel, first, 0, packed_depth(self.reduce), vectors, operands, 1)

    def _share(
        self,
        kernel: IntegerContraction,
        first: int,
        a: int,
        b: int,
        vectors: Sequence[int],
        operands: Sequence[int],
        out: int,
    ) -> Share:
        """A share from the elements between neighbours along the cut axis, per parameter."""
        steps = [a * NBYTES[self.a], b * NBYTES[self.b]]
        steps += [4 * step for step in vectors]
        for step, operand in zip(operands, self.operands, strict=True):
            steps.append(step * NBYTES[operand.dtype])
        steps.append(out * NBYTES[self.out])
        return Share(kernel, tuple(first * step for step in steps))
