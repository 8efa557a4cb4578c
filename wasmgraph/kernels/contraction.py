"""Matrix products and convolutions: rows times packed columns, with a fused epilogue.

One kernel serves them all. A convolution over an input that is already padded is a matrix product
whose rows (output pixels) start anywhere and whose reduction is nested: kernel rows, kernel
columns, input channels. Rows are numbered through all their axes, so an odd width wastes nothing.

A tile keeps its accumulators in registers; `tiles` says of which shape.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from wasmgraph.assembler.function import (
    V128,
    Expr,
    Function,
    Local,
    binary,
    f32x4,
    i32,
    load_lanes,
)
from wasmgraph.kernels.block_stored import BlockFormat, column_nbytes, emit_block_decoding
from wasmgraph.kernels.chain import IDENTITY, Chain, emit_chain
from wasmgraph.kernels.operands import RowOperand, load_operand
from wasmgraph.kernels.product_shares import product_shares
from wasmgraph.kernels.rows import Axes, RowWalk, advance, count
from wasmgraph.kernels.sharing import Share
from wasmgraph.kernels.stored import NBYTES, Stored, emit_decoding
from wasmgraph.kernels.tile_sums import DECODED_AT_ONCE, Panel, TileSums
from wasmgraph.kernels.tiles import LANES, SEPARATE, Tiles, column_blocks

__all__ = ["LANES", "BatchAxis", "Contraction", "column_blocks", "emit_product"]

CACHE_BYTES = 192 * 1024
"""How much of the rows' input is worked through before the next columns: it stays in a 512 KiB to
1 MiB second-level cache beside the weights."""

ROWS_STEP = 24
"""Blocks of rows are multiples of it: no tile height leaves a rest."""


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
        stored: As what b is; anything but float32 is packed, int8 and blocks have no batches of b,
            and with blocks the reduction is one axis.
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
    stored: Stored | BlockFormat = "float32"

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
    def has_scales(self) -> bool:
        """Whether there is a scale per column of b, all of its packed ones."""
        return self.stored == "int8"

    @property
    def b_nbytes(self) -> int:
        """Bytes of an element of b; with blocks, which have no batches, 0."""
        return 0 if isinstance(self.stored, BlockFormat) else NBYTES[self.stored]

    @property
    def b_column_nbytes(self) -> int:
        """Bytes between neighbouring blocks of columns of b, per column of the first."""
        return 4 if self.b_row else column_nbytes(self.stored, self.depth)

    @property
    def scratch_nbytes(self) -> int:
        """Bytes of the scratch buffer for a decoded block of columns; 0: it takes none.

        A few where no block is decoded, so that all shares of a product take the parameter.
        """
        if self.stored == "float32":
            return 0
        at_once = DECODED_AT_ONCE if isinstance(self.stored, BlockFormat) else 0
        decoded = 1
        for size in column_blocks(self.columns, self.tiles):
            is_read_once = self.is_read_once(self.row_count, size)
            depth = min(self.depth, at_once) if is_read_once else self.depth
            decoded = max(decoded, depth * size)
        return 4 * LANES * decoded

    def is_read_once(self, rows: int, vectors: int) -> bool:
        """Whether so many rows are one tile: then it decodes b itself."""
        return rows <= self.tiles.rows(vectors)

    @property
    def flops(self) -> int:
        """Multiplications and additions."""
        total = 2 * self.row_count * self.columns * self.depth
        for axis in self.batch:
            total *= axis.extent
        return total

    def assemble(self, name: str) -> Function:
        """Parameters: a, b, scales and bias (if any), the chain's other operands, out, scratch."""
        has_scratch = bool(self.scratch_nbytes)
        given = self.has_scales + self.has_bias + has_scratch
        f = Function(name, 3 + given + len(self.operands))
        a, b, *rest = f.params
        scales = rest.pop(0) if self.has_scales else None
        bias = rest.pop(0) if self.has_bias else None
        scratch = rest.pop() if has_scratch else None
        out = rest.pop()
        emit_product(f, self, a, b, out, bias, rest, scales, scratch)
        return f

    def shares(self, count: int) -> tuple[Share, ...]:
        """At most `count` products: of some batches, of rows, or of blocks of columns."""
        return product_shares(self, count)


def emit_product(
    f: Function,
    spec: Contraction,
    a: Local,
    b: Local,
    out: Local,
    bias: Local | None = None,
    operands: Sequence[Local] = (),
    scales: Local | None = None,
    scratch: Local | None = None,
) -> None:
    """The contraction as a part of another kernel; the pointers are as before when it is done."""
    panel = Panel(b, spec.stored, scales)
    _Assembly(f, spec, a, panel, out, bias, list(operands), scratch).run()


class _Assembly:
    def __init__(
        self,
        f: Function,
        spec: Contraction,
        a: Local,
        b: Panel,
        out: Local,
        bias: Local | None,
        operands: list[Local],
        scratch: Local | None,
    ) -> None:
        self.f = f
        self.spec = spec
        self.a, self.b, self.out = a, b, out
        self.bias = bias
        self.operands = operands
        self.scratch = scratch

    def run(self) -> None:
        spec, f = self.spec, self.f
        zero = f.new(binary("i32.and", self.out, i32(1)))
        fused = spec.tiles.fused
        self.sums = TileSums(f, spec.reduce, spec.b_row, fused, zero, self.scratch)
        self._batches(0)
        f.release(zero)

    def _batches(self, level: int) -> None:
        spec, f = self.spec, self.f
        if level == len(spec.batch):
            self._product()
            return
        axis = spec.batch[level]
        pointers = [self.a, self.out, *self.operands]
        steps = [axis.a, axis.out, *(o.batch[level] for o in spec.operands)]
        if self.bias is not None:
            pointers.append(self.bias)
            steps.append(axis.bias)
        with f.repeat(axis.extent):
            self._batches(level + 1)
            advance(f, pointers, steps)
            advance(f, [self.b.pointer], [axis.b], spec.b_nbytes)
        advance(f, pointers, [-step * axis.extent for step in steps])
        advance(f, [self.b.pointer], [-axis.b * axis.extent], spec.b_nbytes)

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
        rows = max(ROWS_STEP, rows // ROWS_STEP * ROWS_STEP)
        if spec.stored != "float32":
            # Columns are decoded for every block: none for a few rows that are left over.
            blocks = max(1, round(spec.row_count / rows))
            rows = -(-spec.row_count // (blocks * ROWS_STEP)) * ROWS_STEP
        return min(rows, spec.row_count)

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
        b = f.new(self.b.pointer)
        scales = f.new(self.b.scales) if self.b.scales is not None else None
        bias = f.new(self.bias) if self.bias is not None else None
        column_out = f.new(out)
        column_operands = [f.new(o) for o in operands]
        along = [p for p in (scales, bias, column_out) if p is not None]
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
                panel = self._panel(rows, size, Panel(b, spec.stored, scales))
                self._rows(rows, size, lanes, walk, panel, bias, column_out, column_operands)
                step = size * LANES
                advance(f, [b], [step], spec.b_column_nbytes)
                advance(f, along, [step] * len(along))
                advance(f, column_operands, [step * o.column for o in spec.operands])
            done += same * size * LANES
            start += same
        f.release(b, *column_operands, *along)

    def _panel(self, rows: int, vectors: int, stored: Panel) -> Panel:
        """A block of columns as float32, unless it is read but once."""
        spec = self.spec
        if stored.stored == "float32" or spec.is_read_once(rows, vectors):
            return stored
        assert self.scratch is not None
        form, b, target = stored.stored, stored.pointer, self.scratch
        if isinstance(form, BlockFormat):
            emit_block_decoding(self.f, form, b, target, spec.depth, vectors)
        else:
            emit_decoding(self.f, form, b, target, spec.depth, vectors, stored.scales)
        return Panel(target)

    def _rows(
        self,
        rows: int,
        vectors: int,
        columns: int,
        walk: RowWalk,
        b: Panel,
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
        b: Panel,
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
                self.sums.add(rows, vectors, columns, b, sums)
            self._store(height, vectors, columns, out, operands, sums)

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
