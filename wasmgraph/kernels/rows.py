"""How products walk through the rows of their left operand, and through their axes.

The rows of a convolution are its output pixels: their inputs start anywhere, so an axis of rows has
an extent and a stride of its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod

from wasmgraph.assembler.function import Expr, Function, Local, binary, i32

Axes = tuple[tuple[int, int], ...]
"""(extent, elements between neighbours) per axis, outermost first."""


def count(axes: Axes) -> int:
    """The product of the extents."""
    return prod(extent for extent, _ in axes)


def advance(
    f: Function, pointers: Sequence[Local], elements: Sequence[int], nbytes: int = 4
) -> None:
    """Move pointers by numbers of elements, float32 unless they have another size."""
    for pointer, count in zip(pointers, elements, strict=True):
        if count:
            f.set(pointer, pointer + nbytes * count)


def merge_axes(axes: Sequence[tuple[int, int]]) -> tuple[tuple[int, int], ...]:
    """Join neighbouring (extent, stride) axes that one stride serves; drop those of extent 1."""
    merged: list[tuple[int, int]] = []
    for extent, stride in axes:
        if extent == 1:
            continue
        if merged and merged[-1][1] == extent * stride:
            merged[-1] = (merged[-1][0] * extent, stride)
        else:
            merged.append((extent, stride))
    return tuple(merged) or ((1, 1),)


@dataclass(frozen=True)
class TileRows:
    """Where the rows of a tile are read: a pointer and a byte offset each."""

    f: Function
    pointers: tuple[Local, ...]
    offsets: tuple[int, ...]
    nbytes: int = 4

    @property
    def height(self) -> int:
        return len(self.offsets)

    def at(self, row: int, element: int) -> tuple[Local, int]:
        """Address of an element of a row, counted from where the reduction stands."""
        pointer = self.pointers[row if len(self.pointers) > 1 else 0]
        return pointer, self.offsets[row] + self.nbytes * element

    def move(self, elements: int) -> None:
        advance(self.f, self.pointers, [elements] * len(self.pointers), self.nbytes)


class RowWalk:
    """Walks through the rows of a.

    Rows with one stride need one pointer. Otherwise a counter per inner axis tells when a row of
    pixels ends and the pointer jumps. Elements of a have `nbytes`.
    """

    def __init__(
        self, f: Function, rows: tuple[tuple[int, int], ...], start: Expr, nbytes: int = 4
    ) -> None:
        self.f = f
        self.rows = rows
        self.nbytes = nbytes
        self.linear = len(rows) == 1
        self.pointer = f.new(start)
        self.counters = [f.new(i32(extent)) for extent, _ in rows[1:]]

    def fork(self) -> RowWalk:
        """A second walk that starts where this one is."""
        copy = RowWalk(self.f, self.rows, self.pointer, self.nbytes)
        for mine, other in zip(self.counters, copy.counters, strict=True):
            self.f.set(other, mine)
        return copy

    def close(self) -> None:
        self.f.release(self.pointer, *self.counters)

    def skip(self, rows: int) -> None:
        """Go `rows` rows on."""
        if self.linear:
            advance(self.f, [self.pointer], [rows * self.rows[0][1]], self.nbytes)
            return
        with self.f.repeat(rows):
            self._next()

    def _next(self) -> None:
        """Go one row on: the innermost axis steps, and those that are full carry."""
        self._carry(len(self.rows) - 1)

    def _carry(self, axis: int) -> None:
        f, rows = self.f, self.rows
        advance(f, [self.pointer], [rows[axis][1]], self.nbytes)
        if axis == 0:
            return
        counter = self.counters[axis - 1]
        f.set(counter, counter - 1)
        with f.when(binary("i32.eq", counter, i32(0))):
            f.set(counter, i32(rows[axis][0]))
            advance(f, [self.pointer], [-rows[axis][0] * rows[axis][1]], self.nbytes)
            self._carry(axis - 1)

    def tile(self, height: int) -> _TileContext:
        """The next `height` rows; the walk goes on when the block ends."""
        return _TileContext(self, height)


class _TileContext:
    def __init__(self, walk: RowWalk, height: int) -> None:
        self.walk = walk
        self.height = height
        self.taken: list[Local] = []

    def __enter__(self) -> TileRows:
        walk = self.walk
        f = walk.f
        if walk.linear:
            self.taken = [f.new(walk.pointer)]
            stride = walk.nbytes * walk.rows[0][1]
            offsets = tuple(stride * i for i in range(self.height))
            return TileRows(f, tuple(self.taken), offsets, walk.nbytes)
        for _ in range(self.height):
            self.taken.append(f.new(walk.pointer))
            walk._next()
        return TileRows(f, tuple(self.taken), (0,) * self.height, walk.nbytes)

    def __exit__(self, *_: object) -> None:
        if self.walk.linear:
            self.walk.skip(self.height)
        self.walk.f.release(*self.taken)
