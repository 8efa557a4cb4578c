"""Matrix products and convolutions: rows times packed columns, with a fused epilogue.

One kernel serves them all. A convolution over an input that is already padded is a matrix product
whose rows (output pixels) start anywhere and whose reduction is nested: kernel rows, kernel
columns, input channels. Rows are numbered through all their axes, so an odd width wastes nothing.

A tile keeps its accumulators in registers; `tiles` says of which shape.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from functools import partial
from math import gcd, lcm

from wasmgraph.assembler.function import (
    V128,
    Expr,
    Function,
    Local,
    binary,
    f32x4,
    i32,
    load,
    load_f32,
    load_lanes,
    shuffle,
    splat,
    unfused,
)
from wasmgraph.kernels.chain import IDENTITY, Chain, emit_chain
from wasmgraph.kernels.operands import RowOperand, load_operand
from wasmgraph.kernels.rows import Axes, RowWalk, TileRows, advance, count
from wasmgraph.kernels.sharing import LINE_FLOATS, Piece, Share, choose, pieces, whole
from wasmgraph.kernels.tiles import LANES, SEPARATE, Tiles, column_blocks

__all__ = ["LANES", "BatchAxis", "Contraction", "column_blocks", "emit_product"]

CACHE_BYTES = 192 * 1024
"""How much of the rows' input is worked through before the next columns: it stays in a 512 KiB to
1 MiB second-level cache beside the weights."""

ROWS_STEP = 24
"""Blocks of rows are multiples of it: no tile height leaves a rest."""

WIDE = 4
"""From so many columns per row on, shares are of columns: the weights are so much larger than the
rows' input that every thread should read a part of them only."""


@dataclass(frozen=True)
class BatchAxis:
    """Independent products: extent, and elements between them in a, b, the output and the bias."""

    extent: int
    a: int
    b: int
    out: int
    bias: int = 0


@dataclass(frozen=True)
class Contraction:
    """out[batch, row, column] = chain(bias[column] + sum over k of a[row, k] * b[k, column])

    Strides are in elements; columns are adjacent in b and in the output.

    Attributes:
        batch: Outermost first.
        rows: (extent, stride in a) per axis of rows, outermost first.
        out_row: Elements between rows of the output.
        reduce: (extent, stride in a) per axis of the reduction, outermost first.
        columns: How many.
        b_row: Elements between consecutive k in b; 0 where b is packed by `pack_columns`.
        has_bias: Whether a vector of `columns` is added first.
        chain: The epilogue; operand 0 is the sum.
        operands: The chain's other operands.
        tiles: As in `pack_columns` where b is packed.
    """

    batch: tuple[BatchAxis, ...]
    rows: Axes
    out_row: int
    reduce: Axes
    columns: int
    b_row: int = 0
    has_bias: bool = False
    chain: Chain = IDENTITY
    operands: tuple[RowOperand, ...] = ()
    tiles: Tiles = SEPARATE

    @property
    def depth(self) -> int:
        """How many products are summed for one element."""
        return count(self.reduce)

    @property
    def row_count(self) -> int:
        """How many rows one batch has."""
        return count(self.rows)

    @property
    def replaceable(self) -> int:
        """How many of the last operands the output may lie upon, if they have its strides."""
        return len(self.operands)

    @property
    def flops(self) -> int:
        """Multiplications and additions."""
        total = 2 * self.row_count * self.columns * self.depth
        for axis in self.batch:
            total *= axis.extent
        return total

    def assemble(self, name: str) -> Function:
        """Parameters: a, b, bias (if any), the chain's other operands, out."""
        f = Function(name, 3 + self.has_bias + len(self.operands))
        a, b, *rest, out = f.params
        bias = rest.pop(0) if self.has_bias else None
        emit_product(f, self, a, b, out, bias, rest)
        return f

    def shares(self, count: int) -> tuple[Share, ...]:
        """At most `count` products: of some batches, of rows, or of blocks of columns."""
        by_rows = (self._row_pieces(count), self._rows_share)
        by_columns = (self._column_pieces(count), self._columns_share)
        cuts: list[tuple[Sequence[Piece], Callable[[int, int], Share]]] = [
            (pieces(axis.extent, count), partial(self._batch_share, index))
            for index, axis in enumerate(self.batch)
        ]
        if self.columns >= WIDE * self.row_count:
            cuts += [by_columns, by_rows]
        else:
            cuts += [by_rows, by_columns]
        parts, share = cuts[choose([parts for parts, _ in cuts], count)]
        if len(parts) == 1:
            return whole(self, 3 + self.has_bias + len(self.operands))
        return tuple(share(first, length) for first, length in parts)

    def _row_pieces(self, most: int) -> tuple[Piece, ...]:
        """Pieces of the outermost axis of rows, of whole tiles."""
        tile = lcm(*map(self.tiles.rows, column_blocks(self.columns, self.tiles)))
        inner = count(self.rows[1:])
        return pieces(self.rows[0][0], most, tile // gcd(tile, inner))

    def _column_pieces(self, most: int) -> tuple[Piece, ...]:
        """Pieces of columns; of packed ones, those whose blocks are blocks of the whole, too."""
        if self.b_row:
            return pieces(self.columns, most, LINE_FLOATS)
        blocks = column_blocks(self.columns, self.tiles)
        cut, first = [], 0
        for start, length in pieces(len(blocks), most):
            part = blocks[start : start + length]
            columns = min(sum(part) * LANES, self.columns - first)
            if column_blocks(columns, self.tiles) != part:
                return ((0, self.columns),)
            cut.append((first, columns))
            first += columns
        return tuple(cut)

    def _batch_share(self, axis: int, first: int, length: int) -> Share:
        step = self.batch[axis]
        batch = (*self.batch[:axis], replace(step, extent=length), *self.batch[axis + 1 :])
        operands = [operand.batch[axis] for operand in self.operands]
        return self._share(
            replace(self, batch=batch), first, step.a, step.b, step.bias, operands, step.out
        )

    def _rows_share(self, first: int, length: int) -> Share:
        inner, stride = count(self.rows[1:]), self.rows[0][1]
        operands = [inner * operand.row for operand in self.operands]
        kernel = replace(self, rows=((length, stride), *self.rows[1:]))
        return self._share(kernel, first, stride, 0, 0, operands, inner * self.out_row)

    def _columns_share(self, first: int, length: int) -> Share:
        operands = [operand.column for operand in self.operands]
        b = 1 if self.b_row else self.depth
        return self._share(replace(self, columns=length), first, 0, b, 1, operands, 1)

    def _share(
        self,
        kernel: Contraction,
        first: int,
        a: int,
        b: int,
        bias: int,
        operands: Sequence[int],
        out: int,
    ) -> Share:
        """A share from the elements between neighbours along the cut axis, per parameter."""
        steps = [a, b, *([bias] if self.has_bias else []), *operands, out]
        return Share(kernel, tuple(4 * first * step for step in steps))


def emit_product(
    f: Function,
    spec: Contraction,
    a: Local,
    b: Local,
    out: Local,
    bias: Local | None = None,
    operands: Sequence[Local] = (),
) -> None:
    """The contraction as a part of another kernel; the pointers are as before when it is done."""
    _Assembly(f, spec, a, b, out, bias, list(operands)).run()


class _Assembly:
    def __init__(
        self,
        f: Function,
        spec: Contraction,
        a: Local,
        b: Local,
        out: Local,
        bias: Local | None,
        operands: list[Local],
    ) -> None:
        self.f = f
        self.spec = spec
        self.a, self.b, self.out = a, b, out
        self.bias = bias
        self.operands = operands

    def run(self) -> None:
        self.zero = self.f.new(binary("i32.and", self.out, i32(1)))
        self._batches(0)
        self.f.release(self.zero)

    def _batches(self, level: int) -> None:
        spec, f = self.spec, self.f
        if level == len(spec.batch):
            self._product()
            return
        axis = spec.batch[level]
        pointers = [self.a, self.b, self.out, *self.operands]
        steps = [axis.a, axis.b, axis.out, *(o.batch[level] for o in spec.operands)]
        if self.bias is not None:
            pointers.append(self.bias)
            steps.append(axis.bias)
        with f.repeat(axis.extent):
            self._batches(level + 1)
            advance(f, pointers, steps)
        advance(f, pointers, [-step * axis.extent for step in steps])

    def _product(self) -> None:
        """Blocks of rows that fit the cache; within one, all columns."""
        spec, f = self.spec, self.f
        blocks = column_blocks(spec.columns, spec.tiles)
        per_block = self._rows_per_block()
        whole, rest = divmod(spec.row_count, per_block)
        walk = RowWalk(f, spec.rows, self.a)
        out = f.new(self.out)
        operands = [f.new(o) for o in self.operands]
        for times, rows in ((whole, per_block), (1 if rest else 0, rest)):
            if not times:
                continue
            with f.repeat(times):
                self._columns(blocks, rows, walk, out, operands)
                walk.skip(rows)
                strides = [spec.out_row, *(o.row for o in spec.operands)]
                advance(f, [out, *operands], [rows * s for s in strides])
        walk.close()
        f.release(out, *operands)

    def _rows_per_block(self) -> int:
        """As many rows as the cache takes, in whole tiles of every height."""
        spec = self.spec
        # Neighbouring pixels of a convolution share most of their windows: about three rows'
        # worth of the innermost axis is new.
        fresh = spec.depth if len(spec.rows) == 1 else min(spec.depth, 3 * spec.reduce[-1][0])
        rows = CACHE_BYTES // (4 * max(1, fresh))
        return min(max(ROWS_STEP, rows // ROWS_STEP * ROWS_STEP), spec.row_count)

    def _columns(
        self,
        blocks: tuple[int, ...],
        rows: int,
        walk: RowWalk,
        out: Local,
        operands: list[Local],
    ) -> None:
        """All blocks of columns over one block of rows; equal neighbours share a loop."""
        spec, f = self.spec, self.f
        b = f.new(self.b)
        bias = f.new(self.bias) if self.bias is not None else None
        column_out = f.new(out)
        column_operands = [f.new(o) for o in operands]
        done = 0
        start = 0
        while start < len(blocks):
            size = blocks[start]
            same = 1
            full = (done + size * LANES) <= spec.columns
            while (
                full
                and start + same < len(blocks)
                and blocks[start + same] == size
                and done + (same + 1) * size * LANES <= spec.columns
            ):
                same += 1
            lanes = min(size * LANES, spec.columns - done)
            with f.repeat(same):
                self._rows(rows, size, lanes, walk, b, bias, column_out, column_operands)
                step = size * LANES
                b_step = step if spec.b_row else spec.depth * step
                advance(f, [b, column_out], [b_step, step])
                if bias is not None:
                    advance(f, [bias], [step])
                advance(f, column_operands, [step * o.column for o in spec.operands])
            done += same * size * LANES
            start += same
        f.release(b, column_out, *column_operands, *([bias] if bias is not None else []))

    def _rows(
        self,
        rows: int,
        vectors: int,
        columns: int,
        walk: RowWalk,
        b: Local,
        bias: Local | None,
        out: Local,
        operands: list[Local],
    ) -> None:
        spec, f = self.spec, self.f
        tile = spec.tiles.rows(vectors)
        whole, rest = divmod(rows, tile)
        cursor = walk.fork()
        row_out = f.new(out)
        row_operands = [f.new(o) for o in operands]
        for times, height in ((whole, tile), (1 if rest else 0, rest)):
            if not times:
                continue
            with f.repeat(times):
                self._tile(height, vectors, columns, cursor, b, bias, row_out, row_operands)
                strides = [spec.out_row, *(o.row for o in spec.operands)]
                advance(f, [row_out, *row_operands], [height * s for s in strides])
        cursor.close()
        f.release(row_out, *row_operands)

    def _tile(
        self,
        height: int,
        vectors: int,
        columns: int,
        cursor: RowWalk,
        b: Local,
        bias: Local | None,
        out: Local,
        operands: list[Local],
    ) -> None:
        f = self.f
        with f.scratch(V128, height * vectors) as sums:
            for j in range(vectors):
                lanes = min(LANES, columns - j * LANES)
                first = sums[j]
                f.set(first, f32x4(0.0) if bias is None else load_lanes(bias, 16 * j, lanes))
                for i in range(1, height):
                    f.set(sums[i * vectors + j], first)
            with cursor.tile(height) as rows:
                b_pointer = f.new(b)
                with f.block() as end:
                    self._reduce(0, rows, vectors, columns, b_pointer, sums, end)
                f.release(b_pointer)
            self._store(height, vectors, columns, out, operands, sums)

    def _reduce(
        self,
        level: int,
        rows: TileRows,
        vectors: int,
        columns: int,
        b: Local,
        sums: list[Local],
        end: int,
    ) -> None:
        """The loops of the reduction, each axis moving the rows' pointers back when it is done."""
        spec, f = self.spec, self.f
        extent, stride = spec.reduce[level]
        if level + 1 < len(spec.reduce):
            with f.repeat(extent):
                self._reduce(level + 1, rows, vectors, columns, b, sums, end)
                rows.move(stride)
            rows.move(-extent * stride)
            return
        lane_wise, rest = divmod(extent, LANES) if stride == 1 else (0, extent)
        if lane_wise:
            with f.repeat(lane_wise):
                self._four(rows, vectors, columns, b, sums, end)
        if rest:
            chunk = rest if rest < LANES else 1
            with f.repeat(rest // chunk):
                for index in range(chunk):
                    self._one(rows, index * stride, index, vectors, columns, b, sums)
                    if index + 1 < chunk:
                        f.leave_if(end, self.zero)
                rows.move(chunk * stride)
                self._move_b(b, chunk, vectors)
        rows.move(-extent * stride)

    def _four(
        self,
        rows: TileRows,
        vectors: int,
        columns: int,
        b: Local,
        sums: list[Local],
        end: int,
    ) -> None:
        """Four steps of k: one vector of each row of a, whose lanes are spread in turn."""
        f = self.f
        with (
            f.scratch(V128, rows.height) as lanes,
            f.scratch(V128, 1 + vectors) as (spread, *loaded),
        ):
            for i in range(rows.height):
                f.set(lanes[i], load(*rows.at(i, 0)))
            for k in range(LANES):
                for j in range(vectors):
                    f.set(loaded[j], self._load_b(b, k, j, vectors, columns))
                for i in range(rows.height):
                    f.set(spread, shuffle(lanes[i], lanes[i], (k, k, k, k)))
                    for j in range(vectors):
                        total = sums[i * vectors + j]
                        f.set(total, self._plus_product(total, spread, loaded[j]))
                if k + 1 < LANES:
                    # Never taken. Cranelift moves arithmetic down to where a branch needs it, and
                    # so would load all of b first and spill: 28 instead of 42 GFLOP/s.
                    f.leave_if(end, self.zero)
        rows.move(LANES)
        self._move_b(b, LANES, vectors)

    def _one(
        self,
        rows: TileRows,
        a_offset: int,
        k: int,
        vectors: int,
        columns: int,
        b: Local,
        sums: list[Local],
    ) -> None:
        f = self.f
        with f.scratch(V128, 1 + vectors) as (spread, *loaded):
            for j in range(vectors):
                f.set(loaded[j], self._load_b(b, k, j, vectors, columns))
            for i in range(rows.height):
                f.set(spread, splat(load_f32(*rows.at(i, a_offset))))
                for j in range(vectors):
                    total = sums[i * vectors + j]
                    f.set(total, self._plus_product(total, spread, loaded[j]))

    def _plus_product(self, total: Expr, a: Expr, b: Expr) -> Expr:
        with nullcontext() if self.spec.tiles.fused else unfused():
            return total + a * b

    def _load_b(self, b: Local, k: int, j: int, vectors: int, columns: int) -> Expr:
        if not self.spec.b_row:
            return load(b, 4 * (k * vectors + j) * LANES)
        lanes = min(LANES, columns - j * LANES)
        return load_lanes(b, 4 * (k * self.spec.b_row + j * LANES), lanes)

    def _move_b(self, b: Local, steps: int, vectors: int) -> None:
        advance(self.f, [b], [steps * (self.spec.b_row or vectors * LANES)])

    def _store(
        self,
        height: int,
        vectors: int,
        columns: int,
        out: Local,
        operands: list[Local],
        sums: list[Local],
    ) -> None:
        spec, f = self.spec, self.f
        for i in range(height):
            for j in range(vectors):
                lanes = min(LANES, columns - j * LANES)
                inputs: list[Expr] = [sums[i * vectors + j]]
                for pointer, operand in zip(operands, spec.operands, strict=True):
                    offset = 4 * (i * operand.row + j * LANES * operand.column)
                    inputs.append(load_operand(pointer, offset, operand.column, lanes))
                value, taken = emit_chain(f, spec.chain, inputs)
                if lanes == 3 and not isinstance(value, Local):
                    taken.append(f.new(value))
                    value = taken[-1]
                f.store_lanes(out, value, 4 * (i * spec.out_row + j * LANES), lanes)
                f.release(*taken)
