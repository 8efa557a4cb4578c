"""Matrix products and convolutions of integers: rows times packed columns, exact in int32.

As in `contraction`, a convolution is a product whose rows start anywhere and whose reduction is
nested. Two neighbouring k are one step: i32x4.dot_i16x8_s multiplies eight 16-bit numbers and adds
them by pairs. Both operands are widened as they are loaded, so activations and weights stay 8 bit
in memory. Zero points are no business of the kernel's: that of a goes into the bias, b has none.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from math import gcd, lcm

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
from wasmgraph.kernels.chain import IDENTITY, Chain
from wasmgraph.kernels.contraction import CACHE_BYTES, ROWS_STEP, WIDE, BatchAxis, column_blocks
from wasmgraph.kernels.integer_packing import packed_depth
from wasmgraph.kernels.operands import RowOperand
from wasmgraph.kernels.rows import Axes, RowWalk, TileRows, advance, count
from wasmgraph.kernels.sharing import Piece, Share, choose, pieces, whole
from wasmgraph.kernels.typed import (
    NBYTES,
    emit_typed_chain,
    load_floats,
    load_floats_splat,
    load_numbers,
    narrowed,
)

ROWS_OF_TILE = {4: 2, 3: 3, 2: 4, 1: 6}
"""Rows per tile, by vectors of columns."""

LANES = 4
WIDENED = 8
"""Elements of a row that are widened at a time."""

_NBYTES = {"int8": 1, "uint8": 1, "int16": 2}


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
        """Parameters: a, b, bias, multipliers, numbers (as far as there are any), operands, out."""
        return _Assembly(self, name).run()

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
            return whole(self, 3 + len(self.vector_steps(0, 0)) + len(self.operands))
        return tuple(share(first, length) for first, length in parts)

    def _row_pieces(self, most: int) -> tuple[Piece, ...]:
        tile = lcm(*(ROWS_OF_TILE[size] for size in column_blocks(self.columns)))
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
        steps = [a * _NBYTES[self.a], b * _NBYTES[self.b]]
        steps += [4 * step for step in vectors]
        for step, operand in zip(operands, self.operands, strict=True):
            steps.append(step * NBYTES[operand.dtype])
        steps.append(out * NBYTES[self.out])
        return Share(kernel, tuple(first * step for step in steps))


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


class _Assembly:
    def __init__(self, spec: IntegerContraction, name: str) -> None:
        self.spec = spec
        fixed = 2 + len(spec.vector_steps(0, 0))
        self.f = Function(name, fixed + len(spec.operands) + 1)
        self.a, *rest = self.f.params
        vectors = rest[: fixed - 1 - (spec.numbers > 0)]
        self.pointers = _Pointers(tuple(vectors), tuple(rest[fixed - 1 :]))
        self.numbers = load_numbers(rest[fixed - 2], spec.numbers)
        self.a_nbytes, self.b_nbytes = _NBYTES[spec.a], _NBYTES[spec.b]
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
                self._rows(rows, size, min(width, left), walk, pointers)
                b_step = packed_depth(spec.reduce) * width * self.b_nbytes
                vectors = len(pointers.columns) - 1
                move(f, pointers.columns, [b_step, *[4 * width] * vectors])
                move(f, pointers.rows, [width * step for step in self.column_steps])
            left -= same * width
            del blocks[:same]
        pointers.release(f)

    def _rows(self, rows: int, vectors: int, columns: int, walk: RowWalk, start: _Pointers) -> None:
        f = self.f
        tile = ROWS_OF_TILE[vectors]
        whole_tiles, rest = divmod(rows, tile)
        cursor = walk.fork()
        pointers = _Pointers(start.columns, tuple(map(f.new, start.rows)))
        for times, height in ((whole_tiles, tile), (1 if rest else 0, rest)):
            if times:
                with f.repeat(times):
                    self._tile(height, vectors, columns, cursor, pointers)
                    move(f, pointers.rows, [height * step for step in self.row_steps])
        cursor.close()
        f.release(*pointers.rows)

    def _tile(
        self, height: int, vectors: int, columns: int, cursor: RowWalk, pointers: _Pointers
    ) -> None:
        f = self.f
        with f.scratch(V128, height * vectors) as sums:
            for j in range(vectors):
                start = load(pointers.columns[1], 16 * j) if self.spec.has_bias else i32x4(0)
                f.set(sums[j], start)
                for i in range(1, height):
                    f.set(sums[i * vectors + j], sums[j])
            with cursor.tile(height) as rows:
                b = f.new(pointers.columns[0])
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
        move(self.f, [b], [steps * vectors * LANES * self.b_nbytes])

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
        offset = 2 * LANES * self.b_nbytes * vector
        return load_widened(b, offset, True) if self.b_nbytes == 1 else load(b, offset)

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
