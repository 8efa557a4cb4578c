"""Products with one or two columns: dot products of rows, four rows at a time.

`Contraction` would fill a quarter or half of every vector. Here the lanes run along the reduction,
and the sums of four rows are transposed into one vector at the end.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import gcd

from wasmgraph.assembler.function import (
    V128,
    Function,
    Local,
    binary,
    extract,
    f32x4,
    i32,
    load_f32,
    load_lanes,
    shuffle,
    splat,
)
from wasmgraph.kernels.chain import IDENTITY, Chain, emit_chain
from wasmgraph.kernels.rows import Axes, RowWalk, TileRows, advance, count
from wasmgraph.kernels.sharing import LINE_FLOATS, Share, pieces, whole
from wasmgraph.kernels.tiles import LANES

MAX_COLUMNS = 2
MIN_ADJACENT = 8
"""With fewer adjacent products per row the transposition costs more than it saves."""

_ROWS = 4


@dataclass(frozen=True)
class ThinContraction:
    """out[row, column] = chain(bias[column] + sum over k of a[row, k] * b[column, k])

    Attributes:
        rows, out_row, reduce: As in `Contraction`; the last axis of `reduce` has stride 1.
        columns: 1 or 2.
        has_bias: Whether a vector of `columns` is added first.
        chain: The epilogue, without further operands.
    """

    rows: Axes
    out_row: int
    reduce: Axes
    columns: int
    has_bias: bool = False
    chain: Chain = IDENTITY

    @property
    def depth(self) -> int:
        """How many products are summed for one element."""
        return count(self.reduce)

    @property
    def row_count(self) -> int:
        """How many rows there are."""
        return count(self.rows)

    @property
    def flops(self) -> int:
        """Multiplications and additions."""
        return 2 * self.row_count * self.columns * self.depth

    def assemble(self, name: str) -> Function:
        """Parameters: a, b as [column, k], bias (if any), out."""
        f = Function(name, 3 + self.has_bias)
        a, b, *rest = f.params
        bias = rest[0] if self.has_bias else None
        out = f.new(rest[-1])
        zero = f.new(binary("i32.and", out, i32(1)))
        walk = RowWalk(f, self.rows, a)
        tiles, left = divmod(self.row_count, _ROWS)
        for times, height in ((tiles, _ROWS), (1 if left else 0, left)):
            if times:
                with f.repeat(times):
                    self._tile(f, height, walk, b, bias, out, zero)
                    advance(f, [out], [height * self.out_row])
        return f

    def shares(self, most: int) -> tuple[Share, ...]:
        """At most `most` products, of rows."""
        (extent, stride), *others = self.rows
        inner = count(tuple(others))
        parts = pieces(extent, most, LINE_FLOATS // gcd(LINE_FLOATS, inner))
        if len(parts) == 1:
            return whole(self, 3 + self.has_bias)
        return tuple(
            Share(
                replace(self, rows=((length, stride), *others)),
                (
                    4 * first * stride,
                    *(0, 0)[: 1 + self.has_bias],
                    4 * first * inner * self.out_row,
                ),
            )
            for first, length in parts
        )

    def _tile(
        self,
        f: Function,
        height: int,
        walk: RowWalk,
        b: Local,
        bias: Local | None,
        out: Local,
        zero: Local,
    ) -> None:
        with f.scratch(V128, height * self.columns) as sums:
            for total in sums:
                f.set(total, f32x4(0.0))
            with walk.tile(height) as rows:
                cursor = f.new(b)
                with f.block() as end:
                    self._reduce(f, 0, rows, cursor, sums)
                    f.leave_if(end, zero)
                f.release(cursor)
            for column in range(self.columns):
                self._store(f, column, height, sums, bias, out)

    def _reduce(self, f: Function, level: int, rows: TileRows, b: Local, sums: list[Local]) -> None:
        extent, stride = self.reduce[level]
        if level + 1 < len(self.reduce):
            with f.repeat(extent):
                self._reduce(f, level + 1, rows, b, sums)
                rows.move(stride)
            rows.move(-extent * stride)
            return
        vectors, left = divmod(extent, LANES)
        if vectors:
            with f.repeat(vectors):
                self._products(f, rows, b, LANES, sums)
                rows.move(LANES)
                advance(f, [b], [LANES])
        if left:
            self._products(f, rows, b, left, sums)
            advance(f, [b], [left])
        rows.move(-vectors * LANES)

    def _products(
        self, f: Function, rows: TileRows, b: Local, lanes: int, sums: list[Local]
    ) -> None:
        with f.scratch(V128, 1 + self.columns) as (values, *weights):
            for column, weight in enumerate(weights):
                f.set(weight, load_lanes(b, 4 * column * self.depth, lanes))
            for i in range(rows.height):
                pointer, offset = rows.at(i, 0)
                f.set(values, load_lanes(pointer, offset, lanes))
                for column, weight in enumerate(weights):
                    total = sums[i * self.columns + column]
                    f.set(total, total + values * weight)

    def _store(
        self,
        f: Function,
        column: int,
        height: int,
        sums: list[Local],
        bias: Local | None,
        out: Local,
    ) -> None:
        picked = [sums[min(i, height - 1) * self.columns + column] for i in range(_ROWS)]
        pairs = []
        for first, second in (picked[:2], picked[2:]):
            low = shuffle(first, second, (0, 4, 1, 5))
            pairs.append(f.new(low + shuffle(first, second, (2, 6, 3, 7))))
        near, far = pairs
        total = shuffle(near, far, (0, 1, 4, 5)) + shuffle(near, far, (2, 3, 6, 7))
        if bias is not None:
            total = total + splat(load_f32(bias, 4 * column))
        value, taken = emit_chain(f, self.chain, [total])
        if self.columns == 1 and self.out_row == 1 and height == _ROWS:
            f.store(out, value)
        else:
            kept = f.new(value)
            for i in range(height):
                f.store_f32(out, extract(kept, i), 4 * (i * self.out_row + column))
            f.release(kept)
        f.release(*taken, *pairs)
