"""The instructions of `integer_contraction`: its loops, tiles and epilogue."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from wasmgraph.assembler.function import (
    V128,
    Expr,
    Function,
    Local,
    binary,
    i32,
    i32x4,
    load,
    load_bytes,
    load_widened,
    shuffle,
    unary,
)
from wasmgraph.kernels.contraction import CACHE_BYTES, ROWS_STEP
from wasmgraph.kernels.integer_packing import packed_depth
from wasmgraph.kernels.rows import RowWalk, TileRows, advance, count
from wasmgraph.kernels.tiles import LANES, SEPARATE, column_blocks
from wasmgraph.kernels.typed import (
    NBYTES,
    emit_typed_chain,
    load_floats,
    load_floats_splat,
    load_numbers,
    narrowed,
)

if TYPE_CHECKING:
    from wasmgraph.kernels.integer_contraction import IntegerContraction

WIDENED = 8
"""Elements of a row that are widened at a time."""


@dataclass(frozen=True)
class _Pointers:
    """What moves with the columns, and the operands and the output, which move with the rows, too.

    Attributes:
        columns: b, and the bias and the multipliers if any.
        rows: The operands and the output.
    """

    columns: tuple[Local, ...]
    rows: tuple[Local, ...]

    def copied(self, f: Function) -> _Pointers:
        return _Pointers(tuple(map(f.new, self.columns)), tuple(map(f.new, self.rows)))

    def release(self, f: Function) -> None:
        f.release(*self.columns, *self.rows)


def move(f: Function, pointers: Sequence[Local], nbytes: Sequence[int]) -> None:
    """Move pointers by numbers of bytes."""
    advance(f, pointers, nbytes, 1)


def assemble_contraction(spec: IntegerContraction, name: str) -> Function:
    """The kernel's function; its parameters are what `IntegerContraction.assemble` says."""
    return _Assembly(spec, name).run()


class _Assembly:
    def __init__(self, spec: IntegerContraction, name: str) -> None:
        self.spec = spec
        fixed = 2 + len(spec.vector_steps(0, 0))
        self.widens = spec.scratch_nbytes > 0
        self.f = Function(name, fixed + len(spec.operands) + 1 + self.widens)
        self.a, *rest = self.f.params
        self.scratch = rest.pop() if self.widens else None
        vectors = rest[: fixed - 1 - (spec.numbers > 0)]
        self.pointers = _Pointers(tuple(vectors), tuple(rest[fixed - 1 :]))
        self.numbers = load_numbers(rest[fixed - 2], spec.numbers)
        self.a_nbytes, self.b_nbytes = NBYTES[spec.a], NBYTES[spec.b]
        self.factor_nbytes = 2 if self.widens else self.b_nbytes
        self.row_types = [*(o.dtype for o in spec.operands), spec.out]
        self.row_nbytes = [NBYTES[dtype] for dtype in self.row_types]
        places = [operand.place for operand in spec.operands]
        self.row_steps = self._bytes([*(p.row for p in places), spec.out_row])
        self.column_steps = self._bytes([*(p.column for p in places), 1])

    def _bytes(self, elements: Sequence[int]) -> list[int]:
        return [n * size for n, size in zip(elements, self.row_nbytes, strict=True)]

    def run(self) -> Function:
        # Packed weights lie at even addresses.
        self.zero = self.f.new(binary("i32.and", self.pointers.columns[0], i32(1)))
        self._batches(0)
        return self.f

    def _batches(self, level: int) -> None:
        spec, f = self.spec, self.f
        if level == len(spec.batch):
            self._product()
            return
        axis = spec.batch[level]
        pointers = [self.a, *self.pointers.columns, *self.pointers.rows]
        scale = 0 if spec.one_scale else axis.bias
        vectors = [4 * step for step in spec.vector_steps(axis.bias, scale)]
        vectors = vectors[: len(self.pointers.columns) - 1]
        operands = self._bytes([*(o.place.batch[level] for o in spec.operands), axis.out])
        steps = [axis.a * self.a_nbytes, axis.b * self.b_nbytes, *vectors, *operands]
        with f.repeat(axis.extent):
            self._batches(level + 1)
            move(f, pointers, steps)
        move(f, pointers, [-step * axis.extent for step in steps])

    def _product(self) -> None:
        """Blocks of rows that fit the cache; within one, all columns."""
        spec, f = self.spec, self.f
        per_block = self._rows_per_block()
        whole_blocks, rest = divmod(spec.row_count, per_block)
        walk = RowWalk(f, spec.rows, self.a, self.a_nbytes)
        pointers = self.pointers.copied(f)
        for times, rows in ((whole_blocks, per_block), (1 if rest else 0, rest)):
            if times:
                with f.repeat(times):
                    self._columns(rows, walk, pointers)
                    walk.skip(rows)
                    move(f, pointers.rows, [rows * step for step in self.row_steps])
        walk.close()
        pointers.release(f)

    def _rows_per_block(self) -> int:
        """As many rows as the cache takes, in whole tiles of every height."""
        spec = self.spec
        depth = count(spec.reduce)
        fresh = depth if len(spec.rows) == 1 else min(depth, 3 * spec.reduce[-1][0])
        rows = CACHE_BYTES // (self.a_nbytes * max(1, fresh))
        return min(max(ROWS_STEP, rows // ROWS_STEP * ROWS_STEP), spec.row_count)

    def _columns(self, rows: int, walk: RowWalk, start: _Pointers) -> None:
        """All blocks of columns over one block of rows; equal neighbours share a loop."""
        spec, f = self.spec, self.f
        pointers = start.copied(f)
        left = spec.columns
        blocks = list(column_blocks(spec.columns))
        while blocks:
            size = blocks[0]
            width = size * LANES
            same = 1
            while same < len(blocks) and blocks[same] == size and (same + 1) * width <= left:
                same += 1
            with f.repeat(same):
                b = pointers.columns[0] if self.scratch is None else self._widened(pointers, size)
                self._rows(rows, size, min(width, left), walk, pointers, b)
                b_step = packed_depth(spec.reduce) * width * self.b_nbytes
                vectors = len(pointers.columns) - 1
                move(f, pointers.columns, [b_step, *[4 * width] * vectors])
                move(f, pointers.rows, [width * step for step in self.column_steps])
            left -= same * width
            del blocks[:same]
        pointers.release(f)

    def _widened(self, pointers: _Pointers, vectors: int) -> Local:
        """One block of columns, widened to 16 bits; where it lies now."""
        f, scratch = self.f, self.scratch
        assert scratch is not None
        source, target = f.new(pointers.columns[0]), f.new(scratch)
        count = packed_depth(self.spec.reduce) // 2
        with f.repeat(count):
            for j in range(vectors):
                f.store(target, load_widened(source, 2 * LANES * j, True), 4 * LANES * j)
            f.set(source, source + 2 * LANES * vectors)
            f.set(target, target + 4 * LANES * vectors)
        f.release(source, target)
        return scratch

    def _rows(
        self,
        rows: int,
        vectors: int,
        columns: int,
        walk: RowWalk,
        start: _Pointers,
        b: Local,
    ) -> None:
        f = self.f
        tile = SEPARATE.rows(vectors)
        whole_tiles, rest = divmod(rows, tile)
        cursor = walk.fork()
        pointers = _Pointers(start.columns, tuple(map(f.new, start.rows)))
        for times, height in ((whole_tiles, tile), (1 if rest else 0, rest)):
            if times:
                with f.repeat(times):
                    self._tile(height, vectors, columns, cursor, pointers, b)
                    move(f, pointers.rows, [height * step for step in self.row_steps])
        cursor.close()
        f.release(*pointers.rows)

    def _tile(
        self,
        height: int,
        vectors: int,
        columns: int,
        cursor: RowWalk,
        pointers: _Pointers,
        b_start: Local,
    ) -> None:
        f = self.f
        with f.scratch(V128, height * vectors) as sums:
            for j in range(vectors):
                start = load(pointers.columns[1], 16 * j) if self.spec.has_bias else i32x4(0)
                f.set(sums[j], start)
                for i in range(1, height):
                    f.set(sums[i * vectors + j], sums[j])
            with cursor.tile(height) as rows:
                b = f.new(b_start)
                with f.block() as end:
                    self._reduce(0, rows, vectors, b, sums, end)
                f.release(b)
            self._store(height, vectors, columns, pointers, sums)

    def _reduce(
        self, level: int, rows: TileRows, vectors: int, b: Local, sums: list[Local], end: int
    ) -> None:
        """The loops of the reduction, each axis moving the rows' pointers back when it is done."""
        spec, f = self.spec, self.f
        extent, stride = spec.reduce[level]
        if level + 1 < len(spec.reduce):
            with f.repeat(extent):
                self._reduce(level + 1, rows, vectors, b, sums, end)
                rows.move(stride)
            rows.move(-extent * stride)
            return
        assert stride == 1 or extent == 1, spec.reduce
        with f.repeat(extent // WIDENED):
            self._step(rows, WIDENED, 0, vectors, b, sums, end)
            rows.move(WIDENED)
            self._move_b(b, WIDENED, vectors)
        done = 0
        for length in (4, 2, 1):
            if extent % WIDENED & length:
                self._step(rows, length, done, vectors, b, sums, end)
                self._move_b(b, length + length % 2, vectors)
                done += length
        rows.move(-(extent // WIDENED * WIDENED))

    def _move_b(self, b: Local, steps: int, vectors: int) -> None:
        move(self.f, [b], [steps * vectors * LANES * self.factor_nbytes])

    def _step(
        self,
        rows: TileRows,
        length: int,
        first: int,
        vectors: int,
        b: Local,
        sums: list[Local],
        end: int,
    ) -> None:
        """`length` steps of k: each row's elements are widened at once and spread pair by pair."""
        f = self.f
        with (
            f.scratch(V128, rows.height) as wide,
            f.scratch(V128, 1 + vectors) as (spread, *loaded),
        ):
            for i in range(rows.height):
                f.set(wide[i], self._load_a(*rows.at(i, first), length))
            for pair in range(max(1, length // 2)):
                for j in range(vectors):
                    f.set(loaded[j], self._load_b(b, pair * vectors + j))
                for i in range(rows.height):
                    source = wide[i]
                    if length > 2:
                        f.set(spread, shuffle(source, source, (pair, pair, pair, pair)))
                        source = spread
                    for j in range(vectors):
                        total = sums[i * vectors + j]
                        products = binary("i32x4.dot_i16x8_s", source, loaded[j])
                        f.set(total, binary("i32x4.add", total, products))
                # Never taken: it keeps the next loads from moving before this arithmetic, which
                # would need more registers than there are.
                f.leave_if(end, self.zero)

    def _load_a(self, pointer: Local, offset: int, length: int) -> Expr:
        """The next elements as 16-bit lanes; one or two of them in every pair of lanes."""
        if self.a_nbytes == 2:
            return load_bytes(pointer, offset, 2 * length)
        is_signed = self.spec.a == "int8"
        if length == WIDENED:
            return load_widened(pointer, offset, is_signed)
        sign = "s" if is_signed else "u"
        return unary(f"i16x8.extend_low_i8x16_{sign}", load_bytes(pointer, offset, length))

    def _load_b(self, b: Local, vector: int) -> Expr:
        offset = 2 * LANES * self.factor_nbytes * vector
        return load_widened(b, offset, True) if self.factor_nbytes == 1 else load(b, offset)

    def _store(
        self, height: int, vectors: int, columns: int, pointers: _Pointers, sums: list[Local]
    ) -> None:
        for i in range(height):
            row = sums[i * vectors : (i + 1) * vectors]
            if self.spec.out == "int32":
                for j, total in enumerate(row):
                    self._store_words(pointers, i, j, total, columns)
            elif self.spec.out == "float32":
                for j, total in enumerate(row):
                    value, taken = self._finish(pointers, i, j, total, columns)
                    self._store_words(pointers, i, j, value, columns)
                    self.f.release(*taken)
            else:
                self._store_bytes(pointers, i, row, columns)

    def _store_words(self, pointers: _Pointers, i: int, j: int, value: Expr, columns: int) -> None:
        f, lanes = self.f, min(LANES, columns - j * LANES)
        with f.scratch(V128, 1) as (kept,):
            if lanes == 3:
                f.set(kept, value)
                value = kept
            f.store_lanes(pointers.rows[-1], value, i * self.row_steps[-1] + 16 * j, lanes)

    def _store_bytes(self, pointers: _Pointers, i: int, row: list[Local], columns: int) -> None:
        f = self.f
        for j, total in enumerate(row):
            value, taken = self._finish(pointers, i, j, total, columns)
            f.set(total, value)
            f.release(*taken)
        f.set(row[0], narrowed(row, self.spec.out))
        f.store_bytes(pointers.rows[-1], row[0], i * self.row_steps[-1], columns)

    def _finish(
        self, pointers: _Pointers, i: int, j: int, total: Local, columns: int
    ) -> tuple[Expr, list[Local]]:
        """The scaled sum with what follows."""
        spec, lanes = self.spec, min(LANES, columns - j * LANES)
        scaled = unary("f32x4.convert_i32x4_s", total) * load(pointers.columns[-1], 16 * j)
        inputs: list[Expr] = [scaled]
        for index, operand in enumerate(spec.operands):
            pointer, dtype = pointers.rows[index], operand.dtype
            offset = i * self.row_steps[index] + j * LANES * self.column_steps[index]
            if operand.place.column:
                inputs.append(load_floats(pointer, offset, dtype, lanes))
            else:
                inputs.append(load_floats_splat(pointer, offset, dtype))
        return emit_typed_chain(self.f, spec.chain, inputs + self.numbers, spec.out)
