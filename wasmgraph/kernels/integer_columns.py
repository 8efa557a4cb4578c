"""Packs the right operand of an integer product at run time, where it is no weight.

What `integer_packing` does when compiling, with the zero point of the elements taken off, which
leaves 16 bits of them; and the bias that the zero point of the left operand makes.
"""

from __future__ import annotations

from dataclasses import dataclass

from wasmgraph.assembler.function import (
    V128,
    Expr,
    Function,
    Local,
    binary,
    i32,
    i32x4,
    interleave,
    load,
    load_bytes,
    load_i32,
    load_lanes,
    load_widened,
    shuffle,
    unary,
)
from wasmgraph.kernels.tiles import LANES, column_blocks

_ONES = 0x00010001
_LOWER = 0x0000FFFF
_STEP = 8
"""Elements of a column that are widened at a time, where they are adjacent."""


@dataclass(frozen=True)
class PackIntegerColumns:
    """Packed int16 columns of b less its zero point, and -a_zero times the sum of each column.

    Strides are in elements; either neighbouring columns are adjacent or neighbouring k.

    Attributes:
        batch: (extent, stride) per axis, outermost first.
        depth: Of every column.
        columns: How many.
        depth_stride, column_stride: One of them is 1.
        dtype: int8, uint8 or int16.
        zero: The zero point of b.
        a_zero: That of the other operand.
    """

    batch: tuple[tuple[int, int], ...]
    depth: int
    columns: int
    depth_stride: int
    column_stride: int
    dtype: str
    zero: int
    a_zero: int

    def assemble(self, name: str) -> Function:
        """Parameters: b, packed, bias."""
        return _Assembly(self, name).run()


class _Assembly:
    def __init__(self, spec: PackIntegerColumns, name: str) -> None:
        self.spec = spec
        self.f = Function(name, 3)
        self.b, self.packed, self.bias = self.f.params
        self.nbytes = 2 if spec.dtype == "int16" else 1
        self.sign = "u" if spec.dtype == "uint8" else "s"

    def run(self) -> Function:
        self._batches(0)
        return self.f

    def _batches(self, level: int) -> None:
        spec, f = self.spec, self.f
        if level == len(spec.batch):
            self._columns()
            return
        extent, stride = spec.batch[level]
        with f.repeat(extent):
            self._batches(level + 1)
            f.set(self.b, self.b + stride * self.nbytes)
        f.set(self.b, self.b - extent * stride * self.nbytes)

    def _columns(self) -> None:
        """One matrix, block by block; the results' pointers go on."""
        spec, f = self.spec, self.f
        b = f.new(self.b)
        left = spec.columns
        blocks = list(column_blocks(spec.columns))
        while blocks:
            size = blocks[0]
            width = size * LANES
            same = 1
            while same < len(blocks) and blocks[same] == size and (same + 1) * width <= left:
                same += 1
            with f.repeat(same):
                for vector in range(size):
                    self._vector(b, vector, size, min(LANES, left - vector * LANES))
                f.set(b, b + width * spec.column_stride * self.nbytes)
                depth = spec.depth + spec.depth % 2
                f.set(self.packed, self.packed + 2 * depth * width)
                f.set(self.bias, self.bias + 4 * width)
            left -= same * width
            del blocks[:same]
        f.release(b)

    def _vector(self, start: Local, vector: int, size: int, lanes: int) -> None:
        """Four columns, or what there is of them."""
        spec, f = self.spec, self.f
        b = f.new(start + vector * LANES * spec.column_stride * self.nbytes)
        out = f.new(self.packed + 16 * vector)
        with f.scratch(V128, 2) as (total, pairs):
            f.set(total, i32x4(0))
            if spec.column_stride == 1:
                self._across(b, out, 16 * size, lanes, total, pairs)
            else:
                self._down(b, out, 16 * size, lanes, total, pairs)
            f.store(self.bias, binary("i32x4.mul", total, i32x4(-spec.a_zero)), 16 * vector)
        f.release(b, out)

    def _emit(self, out: Local, offset: int, value: Expr, total: Local, pairs: Local) -> None:
        """Store a pair of k of four columns and add it to the sums."""
        f = self.f
        f.set(pairs, value)
        f.store(out, pairs, offset)
        added = binary("i32x4.dot_i16x8_s", pairs, i32x4(_ONES))
        f.set(total, binary("i32x4.add", total, added))

    def _less_zero(self, value: Expr) -> Expr:
        zero = (self.spec.zero & 0xFFFF) * 0x00010001
        return binary("i16x8.sub", value, i32x4(zero)) if self.spec.zero else value

    def _across(
        self, b: Local, out: Local, step: int, lanes: int, total: Local, pairs: Local
    ) -> None:
        """Neighbouring columns are adjacent: two rows are interleaved."""
        spec, f = self.spec, self.f
        row = spec.depth_stride * self.nbytes
        with f.repeat(spec.depth // 2):
            first, second = (self._less_zero(self._four(b, k * row, lanes)) for k in (0, 1))
            self._emit(out, 0, interleave(first, second, 0), total, pairs)
            f.set(b, b + 2 * row)
            f.set(out, out + step)
        if spec.depth % 2:
            last = self._less_zero(self._four(b, 0, lanes))
            self._emit(out, 0, interleave(last, i32x4(0), 0), total, pairs)

    def _four(self, b: Local, offset: int, lanes: int) -> Expr:
        """Elements of up to four columns as the first 16-bit lanes."""
        if self.nbytes == 2:
            if lanes == LANES:
                return load_lanes(b, offset, 2)
            halves = [load_i32(b, offset + 2 * lane, 2) for lane in range(lanes)]
            low = halves[0]
            if lanes > 1:
                low = binary("i32.or", low, binary("i32.shl", halves[1], i32(16)))
            words = [unary("i32x4.splat", low), unary("i32x4.splat", halves[-1])]
            return shuffle(words[0], words[1], (0, 4, 0, 4))
        if lanes == LANES:
            word = load_lanes(b, offset, 1)
        else:
            value = load_i32(b, offset, min(lanes, 2))
            if lanes == 3:
                last = binary("i32.shl", load_i32(b, offset + 2, 1), i32(16))
                value = binary("i32.or", value, last)
            word = unary("i32x4.splat", value)
        return unary(f"i16x8.extend_low_i8x16_{self.sign}", word)

    def _down(
        self, b: Local, out: Local, step: int, lanes: int, total: Local, pairs: Local
    ) -> None:
        """Neighbouring k are adjacent: eight of them of four columns are turned over."""
        spec, f = self.spec, self.f
        # Columns that are not there are the last one again; nobody reads them.
        offsets = [min(c, lanes - 1) * spec.column_stride * self.nbytes for c in range(LANES)]
        with f.repeat(spec.depth // _STEP), f.scratch(V128, 4 + 4) as scratch:
            columns, halves = scratch[:4], scratch[4:]
            for column, offset in zip(columns, offsets, strict=True):
                f.set(column, self._less_zero(self._eight(b, offset)))
            for index, (first, second) in enumerate(((0, 1), (2, 3))):
                x, y = columns[first], columns[second]
                f.set(halves[2 * index], shuffle(x, y, (0, 4, 1, 5)))
                f.set(halves[2 * index + 1], shuffle(x, y, (2, 6, 3, 7)))
            for pair in range(4):
                x, y = halves[pair // 2], halves[2 + pair // 2]
                picked = (2, 3, 6, 7) if pair % 2 else (0, 1, 4, 5)
                self._emit(out, pair * step, shuffle(x, y, picked), total, pairs)
            f.set(b, b + _STEP * self.nbytes)
            f.set(out, out + 4 * step)
        done = 0
        while done < spec.depth % _STEP:
            count = min(2, spec.depth % _STEP - done)
            parts = [self._pair(b, offset + done * self.nbytes, count) for offset in offsets]
            upper = shuffle(parts[0], parts[1], (0, 4, 0, 4))
            lower = shuffle(parts[2], parts[3], (0, 4, 0, 4))
            value = self._less_zero(shuffle(upper, lower, (0, 1, 4, 5)))
            if count == 1:
                value = binary("v128.and", value, i32x4(_LOWER))
            self._emit(out, done // 2 * step, value, total, pairs)
            done += count

    def _eight(self, b: Local, offset: int) -> Expr:
        return load(b, offset) if self.nbytes == 2 else load_widened(b, offset, self.sign == "s")

    def _pair(self, b: Local, offset: int, count: int) -> Expr:
        """One or two elements of a column, in every pair of lanes."""
        value = load_bytes(b, offset, count * self.nbytes)
        if self.nbytes == 2:
            return value
        return unary(f"i16x8.extend_low_i8x16_{self.sign}", value)
