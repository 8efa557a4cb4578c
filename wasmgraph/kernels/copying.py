"""Copies between strided tensors: transposes, slices, concatenation, broadcasts.

Not for anything that changes values: items are moved as bytes. Transposes of four-byte items go by
4x4 tiles in registers, and by blocks of columns that fit the first-level cache.

Measured (one Zen 4 core at 3.6 GHz, Wasmtime 50, 2026-11-20), reads and writes together: 64x56x56
to channel-last and back 51 GB/s; 32x112x112 58 GB/s both ways (31 GB/s back without the blocks);
RGB 37 and 28 GB/s; contiguous runs 80 to 87 GB/s.
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import dataclass, replace

from wasmgraph.assembler.function import (
    V128,
    Expr,
    Function,
    Local,
    load,
    load_i32,
    load_lane,
    load_lanes,
    load_splat,
    shuffle,
)
from wasmgraph.kernels.loops import LANES, Shape, advance, at, merge, nest
from wasmgraph.kernels.sharing import LINE_FLOATS, Share, cut_axis, replaced, whole

VECTOR_BYTES = 16

MEMORY_COPY_BYTES = 1024
"""From this length on a run is left to `memory.copy`, for the smaller code: under Wasmtime it is as
quick as vectors from 64 bytes to 1 MiB (within 10 %), but other engines may call out for it."""

BLOCK_COLUMNS = 64
"""Columns of a transpose that are worked through for all rows: 64 lines of the source stay in the
first-level cache until all of their 16 elements were used."""

_UNROLL = 4


@dataclass(frozen=True)
class StridedCopy:
    """out[i] = source[i]

    Strides are in items; a source's may be 0 (broadcast), each may be negative. The pointers are
    those of the element with index 0 along every axis. The tensors must not overlap.

    Attributes:
        shape: Extents, in any order of the axes.
        source: The source's strides.
        out: The output's strides.
        item_nbytes: 1, 2, 4 or 8.
    """

    shape: Shape
    source: Shape
    out: Shape
    item_nbytes: int = 4

    def assemble(self, name: str) -> Function:
        """Parameters: source, out."""
        return _Assembly(self, name).run()

    def in_order(self) -> StridedCopy:
        """The same copy with its axes in the order of the output's memory, merged.

        Writing in order leaves each line of the output finished before the next one.
        """
        order = sorted(range(len(self.shape)), key=lambda axis: -abs(self.out[axis]))
        shape, (source, out) = merge(
            tuple(self.shape[a] for a in order),
            tuple(self.source[a] for a in order),
            tuple(self.out[a] for a in order),
        )
        return StridedCopy(shape, source, out, self.item_nbytes)

    def shares(self, count: int) -> tuple[Share, ...]:
        """At most `count` kernels for parts of an axis, an outer one if possible."""
        ordered = self.in_order()
        shape, strides = ordered.shape, list(zip(ordered.source, ordered.out, strict=True))
        # A transpose reads and writes whole cache lines only by many elements of both axes.
        steps = [LINE_FLOATS if 1 in pair else 1 for pair in strides]
        steps = [
            n if min(s) < 0 else step for n, s, step in zip(shape, strides, steps, strict=True)
        ]
        cut = cut_axis(list(zip(shape, steps, strict=True)), count)
        if cut is None:
            return whole(self, 2)
        axis, parts = cut
        return tuple(
            Share(
                replace(ordered, shape=replaced(shape, axis, length)),
                tuple(self.item_nbytes * first * stride for stride in strides[axis]),
            )
            for first, length in parts
        )


class _Assembly:
    def __init__(self, spec: StridedCopy, name: str) -> None:
        self.f = Function(name, 2)
        self.source, self.out = self.f.params
        self.item = spec.item_nbytes
        ordered = spec.in_order()
        self.axes = list(zip(ordered.shape, ordered.source, ordered.out, strict=True))

    def run(self) -> Function:
        axes = self.axes or [(1, 1, 1)]
        extent, source, out = axes[-1]
        unit = [i for i, axis in enumerate(axes) if axis[1] == 1]
        if out == 1 and source == 1:
            self._runs(axes[:-1], extent * self.item)
        elif out == 1 and source == 0:
            self._fills(axes[:-1], extent * self.item)
        elif out == 1 and unit and self.item == LANES and source > 0 and axes[unit[0]][2] > 0:
            rows = axes[unit[0]]
            outer = [axis for i, axis in enumerate(axes[:-1]) if i != unit[0]]
            self._transposes(outer, (rows[0], rows[2]), (extent, source))
        else:
            self._items(axes)
        return self.f

    def _nest(
        self, axes: list[tuple[int, int, int]], moved: list[int]
    ) -> AbstractContextManager[None]:
        strides = [[self.item * axis[t] for axis in axes] for t in (1, 2)]
        return nest(self.f, [a[0] for a in axes], [self.source, self.out], strides, moved)

    def _runs(self, outer: list[tuple[int, int, int]], nbytes: int) -> None:
        """Contiguous bytes; short runs several at a time."""
        f = self.f
        if nbytes >= MEMORY_COPY_BYTES:
            with self._nest(outer, [0, 0]):
                f.copy(self.out, self.source, nbytes)
            return
        moved = [0, 0]
        if not outer or nbytes > _UNROLL * VECTOR_BYTES:
            with self._nest(outer, moved):
                moved[:] = [self._run(nbytes)] * 2
            return
        extent, *steps = outer[-1]
        source, out = (self.item * s for s in steps)
        with self._nest(outer[:-1], moved):
            with f.repeat(extent // _UNROLL):
                for index in range(_UNROLL):
                    self._pieces(nbytes, index * source, index * out)
                advance(f, [self.source, self.out], [_UNROLL * source, _UNROLL * out])
            with f.repeat(extent % _UNROLL):
                self._pieces(nbytes, 0, 0)
                advance(f, [self.source, self.out], [source, out])
            moved[:] = [extent * source, extent * out]

    def _run(self, nbytes: int) -> int:
        """One run; returns how far both pointers were moved."""
        f, step = self.f, _UNROLL * VECTOR_BYTES
        groups = max(0, (nbytes - VECTOR_BYTES) // step)
        if groups < 2:
            groups = 0
        with f.repeat(groups):
            for index in range(_UNROLL):
                offset = VECTOR_BYTES * index
                f.store(self.out, load(self.source, offset), offset)
            advance(f, [self.source, self.out], [step, step])
        self._pieces(nbytes - groups * step, 0, 0)
        return groups * step

    def _pieces(self, nbytes: int, source: int, out: int) -> None:
        """A run without a loop; the last piece overlaps the one before."""
        for start, size in _cut(nbytes):
            self._move(source + start, out + start, size)

    def _move(self, source: int, out: int, nbytes: int) -> None:
        from_, from_offset = at(self.source, source)
        to, to_offset = at(self.out, out)
        if nbytes == VECTOR_BYTES:
            self.f.store(to, load(from_, from_offset), to_offset)
        elif nbytes == 8:
            self.f.store_item(to, load_lanes(from_, from_offset, 2), to_offset, 8)
        else:
            self.f.store_i32(to, load_i32(from_, from_offset, nbytes), to_offset, nbytes)

    def _fills(self, outer: list[tuple[int, int, int]], nbytes: int) -> None:
        """Runs of one item, repeated."""
        f, step = self.f, _UNROLL * VECTOR_BYTES
        groups = max(0, (nbytes - VECTOR_BYTES) // step)
        with self._nest(outer, [0, groups * step]):
            value = f.new(load_splat(self.source, 0, self.item))
            with f.repeat(groups):
                for index in range(_UNROLL):
                    f.store(self.out, value, VECTOR_BYTES * index)
                advance(f, [self.out], [step])
            for start, size in _cut(nbytes - groups * step):
                if size == VECTOR_BYTES:
                    f.store(self.out, value, start)
                else:
                    f.store_item(self.out, value, start, size)
            f.release(value)

    def _items(self, axes: list[tuple[int, int, int]]) -> None:
        """Item by item along the innermost axis, four at a time."""
        f = self.f
        extent, *steps = axes[-1]
        source, out = (self.item * s for s in steps)
        with self._nest(axes[:-1], [extent * source, extent * out]):
            with f.repeat(extent // _UNROLL):
                if self.item == LANES and steps[1] == 1:
                    f.store(self.out, self._gather(source))
                else:
                    for index in range(_UNROLL):
                        self._move(index * source, index * out, self.item)
                advance(f, [self.source, self.out], [_UNROLL * source, _UNROLL * out])
            with f.repeat(extent % _UNROLL):
                self._move(0, 0, self.item)
                advance(f, [self.source, self.out], [source, out])

    def _gather(self, step: int) -> Expr:
        value = load_lanes(self.source, 0, 1)
        for lane in range(1, LANES):
            address, offset = at(self.source, lane * step)
            value = load_lane(address, offset, value, lane)
        return value

    def _transposes(
        self,
        outer: list[tuple[int, int, int]],
        rows: tuple[int, int],
        columns: tuple[int, int],
    ) -> None:
        """Tiles of 4x4 floats.

        Args:
            rows: The axis that is contiguous in the source: extent, stride in the output.
            columns: The axis that is contiguous in the output: extent, stride in the source.
        """
        f, pointers = self.f, [self.source, self.out]
        steps = 4 * rows[1], 4 * columns[1]
        with self._nest(outer, [columns[0] * steps[1], 4 * columns[0]]):
            for count, block in _cuts(columns[0]):
                with f.repeat(count):
                    self._block(rows[0], block, steps)
                    back = [-4 * rows[0], -rows[0] * steps[0]]
                    forward = [block * steps[1], 4 * block]
                    advance(f, pointers, [a + b for a, b in zip(back, forward, strict=True)])

    def _block(self, rows: int, columns: int, steps: tuple[int, int]) -> None:
        """All rows of one block of columns; leaves the pointers behind the last row."""
        f, pointers = self.f, [self.source, self.out]
        row_step, column_step = steps
        for count, height in _tiles(rows):
            with f.repeat(count):
                for times, width in _tiles(columns):
                    with f.repeat(times):
                        self._tile(height, width, row_step, column_step)
                        advance(f, pointers, [width * column_step, 4 * width])
                back = [-columns * column_step, -4 * columns]
                forward = [4 * height, height * row_step]
                advance(f, pointers, [a + b for a, b in zip(back, forward, strict=True)])

    def _tile(self, height: int, width: int, row_step: int, column_step: int) -> None:
        """`width` vectors of `height` lanes become `height` vectors of `width` lanes."""
        f = self.f
        with f.scratch(V128, 2 * LANES) as taken:
            read, pairs = taken[:LANES], taken[LANES:]
            for i in range(width):
                f.set(read[i], load_lanes(self.source, i * column_step, height))
            for i in range(width, LANES):
                f.set(read[i], read[0])
            low, high = (0, 4, 1, 5), (2, 6, 3, 7)
            for i in (0, 2):
                f.set(pairs[i], shuffle(read[i], read[i + 1], low))
                f.set(pairs[i + 1], shuffle(read[i], read[i + 1], high))
            for j in range(height):
                halves = (0, 1, 4, 5) if j % 2 == 0 else (2, 3, 6, 7)
                first = pairs[j // 2]
                value: Local = read[j]
                f.set(value, shuffle(first, pairs[j // 2 + 2], halves))
                f.store_lanes(self.out, value, j * row_step, width)


def _cuts(extent: int) -> list[tuple[int, int]]:
    """(how many, how long) for blocks of columns: one length if it divides the extent."""
    if extent <= 4 * BLOCK_COLUMNS:
        return [(1, extent)]
    for size in range(2 * BLOCK_COLUMNS, BLOCK_COLUMNS // 2, -LANES):
        if extent % size == 0:
            return [(extent // size, size)]
    count, rest = divmod(extent, BLOCK_COLUMNS)
    return [(count, BLOCK_COLUMNS), (1, rest)] if rest else [(count, BLOCK_COLUMNS)]


def _tiles(extent: int) -> list[tuple[int, int]]:
    """(how many, how wide) for whole tiles and for the rest, where there are any."""
    count, rest = divmod(extent, LANES)
    return [pair for pair in ((count, LANES), (1, rest)) if pair[0] and pair[1]]


def _cut(nbytes: int) -> list[tuple[int, int]]:
    """Pieces (start, length) of 16, 8, 4, 2 and 1 bytes; the last one may overlap another."""
    pieces, start = [], 0
    for size in (16, 8, 4, 2, 1):
        while nbytes - start >= size:
            pieces.append((start, size))
            start += size
        if start and start < nbytes and nbytes >= size and pieces[-1][1] == size:
            pieces.append((nbytes - size, size))
            return pieces
    return pieces
