"""Matrix products of extents that are known at run time only.

`product` gives the kernel of one panel: some rows times `WIDTHS` columns, which stand packed, all
columns of a k beside each other. What stays in registers is a tile of `_ROWS` rows. The executor
cuts products into panels (toolchain/executor/src/dynamic/fast/panels.rs).

Measured (one Zen 4 core at 3.6 GHz, Wasmtime 50, 2026-11-20), 256 k: 16 columns by 2 rows 41
GFLOP/s, 8 by 4 37, 4 by 6 28, where the contraction of fixed extents had 38 to 42.
"""

from __future__ import annotations

from collections.abc import Sequence

from wasmgraph.assembler.function import (
    I32,
    V128,
    Expr,
    Function,
    Local,
    binary,
    i32,
    load,
    load_f32,
    shuffle,
    splat,
    unfused,
)

LANES = 4
WIDTHS = (16, 8, 4)
"""Columns of a panel; wgk_product_16 and so on."""

_ROWS = {16: 2, 8: 4, 4: 6}


def product(width: int) -> Function:
    """out[row, column] = start[row, column] + sum over k of a[row, k] * b[k, column]

    Parameters (addresses and distances in bytes): a, distance of its rows, b, out, distance of its
    rows, start, distance of its rows, distance of its vectors of four columns (both may be 0), how
    many rows, how many k. `start` may be `out`. Elements of a row of a are adjacent.
    """
    f = Function(f"wgk_product_{width}", 10)
    a, a_row, b, out, out_row, start, start_row, start_step, rows, depth = f.params
    vectors, height = width // LANES, _ROWS[width]
    tile = _Tile(f, vectors, b, start_row, start_step, a_row, out_row, depth)
    with f.scratch(I32, 1) as (left,):
        f.set(left, binary("i32.div_u", rows, i32(height)))
        for step in (height, 1):
            with f.when(left), f.repeat_until(left, -1, i32(0)):
                tile.emit(step, a, out, start)
                for pointer, distance in ((a, a_row), (out, out_row), (start, start_row)):
                    f.set(pointer, pointer + _times(distance, step))
            if step > 1:
                f.set(left, binary("i32.rem_u", rows, i32(height)))
    return f


def _times(distance: Expr, count: int) -> Expr:
    return binary("i32.mul", distance, i32(count)) if count > 1 else distance


class _Tile:
    def __init__(
        self,
        f: Function,
        vectors: int,
        b: Local,
        start_row: Local,
        start_step: Local,
        a_row: Local,
        out_row: Local,
        depth: Local,
    ) -> None:
        self.f, self.vectors, self.b = f, vectors, b
        self.start_row, self.start_step = start_row, start_step
        self.a_row, self.out_row, self.depth = a_row, out_row, depth

    def emit(self, height: int, a: Local, out: Local, start: Local) -> None:
        """One tile, whose sums begin with what is at `start`."""
        f = self.f
        with (
            f.scratch(V128, height * self.vectors) as sums,
            f.scratch(I32, height) as rows,
            f.scratch(I32, 3) as (b, left, place),
        ):
            for i in range(height):
                f.set(rows[i], rows[i - 1] + self.a_row if i else a)
                f.set(place, start + _times(self.start_row, i) if i else start)
                for j in range(self.vectors):
                    f.set(sums[i * self.vectors + j], load(place))
                    if j + 1 < self.vectors:
                        f.set(place, place + self.start_step)
            f.set(b, self.b)
            # The sums are read behind the block, so they must be there where it is left.
            with f.block() as never:
                self._reduce(rows, b, left, sums, never)
            f.set(place, out)
            for i in range(height):
                for j in range(self.vectors):
                    f.store(place, sums[i * self.vectors + j], 16 * j)
                if i + 1 < height:
                    f.set(place, place + self.out_row)

    def _reduce(
        self, rows: Sequence[Local], b: Local, left: Local, sums: Sequence[Local], never: int
    ) -> None:
        """Four k at a time, then the rest one by one."""
        f = self.f
        f.set(left, binary("i32.shr_u", self.depth, i32(2)))
        with f.when(left), f.repeat_until(left, -1, i32(0)):
            self._four(rows, b, sums, never)
        f.set(left, binary("i32.and", self.depth, i32(3)))
        with f.when(left), f.repeat_until(left, -1, i32(0)):
            self._one(rows, b, sums)

    def _four(self, rows: Sequence[Local], b: Local, sums: Sequence[Local], never: int) -> None:
        """The branches keep loads apart, as in `wasmgraph.kernels.contraction`."""
        f = self.f
        zero = binary("i32.lt_s", self.depth, i32(0))
        with (
            f.scratch(V128, len(rows)) as lanes,
            f.scratch(V128, 1 + self.vectors) as (spread, *loaded),
        ):
            for i, row in enumerate(rows):
                f.set(lanes[i], load(row))
            for k in range(LANES):
                for j in range(self.vectors):
                    f.set(loaded[j], load(b, 16 * (k * self.vectors + j)))
                for i in range(len(rows)):
                    f.set(spread, shuffle(lanes[i], lanes[i], (k, k, k, k)))
                    self._add_products(sums, i, spread, loaded)
                if k + 1 < LANES:
                    f.leave_if(never, zero)
        for row in rows:
            f.set(row, row + 4 * LANES)
        f.set(b, b + 16 * LANES * self.vectors)

    def _one(self, rows: Sequence[Local], b: Local, sums: Sequence[Local]) -> None:
        f = self.f
        with f.scratch(V128, 1 + self.vectors) as (spread, *loaded):
            for j in range(self.vectors):
                f.set(loaded[j], load(b, 16 * j))
            for i, row in enumerate(rows):
                f.set(spread, splat(load_f32(row)))
                self._add_products(sums, i, spread, loaded)
        for row in rows:
            f.set(row, row + 4)
        f.set(b, b + 16 * self.vectors)

    def _add_products(
        self, sums: Sequence[Local], i: int, factor: Local, loaded: Sequence[Local]
    ) -> None:
        with unfused():
            for j, vector in enumerate(loaded):
                total = sums[i * self.vectors + j]
                self.f.set(total, total + factor * vector)
