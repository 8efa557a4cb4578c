"""What sliding windows share: which taps lie inside the image, tiles of outputs, the loops.

No padded copy is made: taps outside the image are never read. An output row's kernel rows are known
at run time. An output's kernel columns are known at compile time: a tile is a few neighbouring
outputs, and the one at the border has code of its own, in which some taps are missing.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from wasmgraph.assembler.function import I32, Expr, Function, Local, binary, i32, select

LANES = 4

_UNROLLED_ROWS = 3
"""Up to so many kernel rows are unrolled, each behind a branch; more are a loop."""

_UNROLLED_TILES = 2
"""In a row of more distinct tiles, kernel rows are unrolled in the most frequent one only."""


@dataclass(frozen=True)
class Axis:
    """One spatial axis of a window operator.

    Attributes:
        size: Extent of the input.
        outputs: Extent of the output.
        kernel: Taps.
        stride: Input elements between outputs.
        dilation: Input elements between taps.
        before: Padding before the first element.
        after: Padding after the last one; only counted (average pooling), never read.
    """

    size: int
    outputs: int
    kernel: int
    stride: int
    dilation: int
    before: int
    after: int = 0

    def start(self, position: int) -> int:
        """Where tap 0 of an output lies."""
        return position * self.stride - self.before

    def taps(self, position: int) -> tuple[int, int]:
        """The first tap inside the image and the one after the last, for one output."""
        start = self.start(position)
        first = -(min(start, 0) // self.dilation)
        end = min(self.kernel, -(-max(self.size - start, 0) // self.dilation))
        return (first, end) if first < end else (0, 0)

    def padded_taps(self, position: int) -> int:
        """How many taps of an output lie inside the image with its padding."""
        start = self.start(position)
        return min(self.kernel, -(-max(self.size + self.after - start, 0) // self.dilation))


@dataclass(frozen=True)
class Pixel:
    """One output of a tile.

    Attributes:
        first: The first tap inside the image.
        end: The tap after the last one inside.
        offset: Where the first tap lies, in columns from the tile's base.
        padded_taps: How many taps lie inside the image with its padding.
    """

    first: int
    end: int
    offset: int
    padded_taps: int


@dataclass(frozen=True)
class Tile:
    """Neighbouring outputs of a row that are computed together, and how often that repeats.

    Attributes:
        base: The leftmost input column that the first repetition reads.
        pixels: The outputs.
        repeats: How many tiles in a row have the same taps.
        unrolls_rows: Whether kernel rows that are few are unrolled; else they are a loop.
        is_generic: Whether the code finds the taps at run time; it has one output then, and base
            and pixels are those of the first.
    """

    base: int
    pixels: tuple[Pixel, ...]
    repeats: int
    unrolls_rows: bool = True
    is_generic: bool = False


def plan_tiles(axis: Axis, width: int, most_border_tiles: int) -> list[Tile]:
    """Cut an axis into tiles.

    Args:
        width: Outputs per tile; some tiles may have fewer.
        most_border_tiles: Where there would be more distinct tiles, outputs at a border find their
            taps at run time instead.
    """
    tiles = _tiled(axis, 0, axis.outputs, width)
    if len(tiles) > most_border_tiles:
        full = [y for y in range(axis.outputs) if axis.taps(y) == (0, axis.kernel)]
        first, end = (full[0], full[-1] + 1) if full else (axis.outputs, axis.outputs)
        tiles = _generic(axis, 0, first)
        tiles += _tiled(axis, first, end, width)
        tiles += _generic(axis, end, axis.outputs)
    if len(tiles) <= _UNROLLED_TILES:
        return tiles
    frequent = max(tiles, key=lambda tile: tile.repeats * len(tile.pixels))
    return [replace(tile, unrolls_rows=tile is frequent) for tile in tiles]


def _generic(axis: Axis, first: int, end: int) -> list[Tile]:
    if first == end:
        return []
    return [replace(_tile(axis, first, 1), repeats=end - first, is_generic=True)]


def _tiled(axis: Axis, first: int, end: int, width: int) -> list[Tile]:
    found: list[Tile] = []
    for position in range(first, end, width):
        tile = _tile(axis, position, min(width, end - position))
        if found and found[-1].pixels == tile.pixels:
            found[-1] = replace(found[-1], repeats=found[-1].repeats + 1)
        else:
            found.append(tile)
    return found


def _tile(axis: Axis, position: int, width: int) -> Tile:
    bounds = [axis.taps(position + p) for p in range(width)]
    columns = [
        axis.start(position + p) + first * axis.dilation for p, (first, _) in enumerate(bounds)
    ]
    base = min([c for c, (first, end) in zip(columns, bounds, strict=True) if first < end] or [0])
    pixels = [
        Pixel(first, end, column - base if first < end else 0, axis.padded_taps(position + p))
        for p, ((first, end), column) in enumerate(zip(bounds, columns, strict=True))
    ]
    return Tile(base, tuple(pixels), 1)


class Bounds:
    """The taps of an output that lie inside the image, along one axis, computed at run time.

    Attributes:
        start: Where tap 0 lies; may be negative.
        first: The first tap.
        count: How many; 0 where `may_be_empty`.
    """

    def __init__(self, f: Function, axis: Axis, position: int = 0) -> None:
        self.f = f
        self.axis = axis
        self.start = f.new(i32(axis.start(position)))
        self.first, self.count = f.locals(I32, 2)
        self.may_be_empty = any(axis.taps(y) == (0, 0) for y in range(axis.outputs))

    def update(self) -> None:
        """Set `first` and `count` for the current output."""
        f, axis = self.f, self.axis
        f.set(self.first, _divided_up(_at_least_zero(i32(0) - self.start), axis.dilation))
        f.set(self.count, self._end(0))
        f.set(self.count, self.count - self.first)
        if self.may_be_empty:
            f.set(self.count, _at_least_zero(self.count))

    def set_padded_count(self, target: Local) -> None:
        """target = how many taps lie inside the image with its padding."""
        self.f.set(target, self._end(self.axis.after))

    def _end(self, after: int) -> Expr:
        axis = self.axis
        inside = _at_least_zero(i32(axis.size + after) - self.start)
        end = _divided_up(inside, axis.dilation)
        return select(binary("i32.lt_s", end, i32(axis.kernel)), end, i32(axis.kernel))

    def next(self) -> None:
        """Go to the next output."""
        self.f.set(self.start, self.start + self.axis.stride)

    def close(self) -> None:
        """Release the locals."""
        self.f.release(self.start, self.first, self.count)


def _at_least_zero(value: Expr) -> Expr:
    return select(binary("i32.gt_s", value, i32(0)), value, i32(0))


def _divided_up(value: Expr, divisor: int) -> Expr:
    return value if divisor == 1 else binary("i32.div_u", value + (divisor - 1), i32(divisor))


class KernelRows:
    """Goes through the kernel rows of an output row that lie inside the image.

    Args:
        axis: The vertical axis.
        source_row: Bytes between rows of the input.
        weights_row: Bytes between kernel rows of the weights; 0 where there are none.
        tiles: What will be computed.
    """

    def __init__(
        self,
        f: Function,
        axis: Axis,
        source_row: int,
        weights_row: int,
        tiles: Sequence[Tile],
    ) -> None:
        self.f = f
        self.axis = axis
        self.source_row = source_row
        self.weights_row = weights_row
        self.bounds = Bounds(f, axis)
        self.has_loops = not all(self._unrolls(tile) for tile in tiles)
        self.first_row, self.skipped_weights = f.locals(I32, 2)
        # Per unrolled kernel row: its address, and whether it lies outside if it ever does.
        self.unrolled: list[tuple[Local, Local | None]] = []
        if any(self._unrolls(tile) for tile in tiles):
            starts = [axis.start(y) for y in range(axis.outputs)]
            for i in range(axis.kernel):
                inside = all(0 <= start + i * axis.dilation < axis.size for start in starts)
                self.unrolled.append((f.local(I32), None if inside else f.local(I32)))

    def _unrolls(self, tile: Tile) -> bool:
        return tile.unrolls_rows and self.axis.kernel <= _UNROLLED_ROWS

    def begin(self, source: Local) -> None:
        """Prepare for the output row where `bounds` stands."""
        f, axis, bounds = self.f, self.axis, self.bounds
        bounds.update()
        if self.has_loops:
            row = bounds.start + bounds.first * axis.dilation
            f.set(self.first_row, source + row * self.source_row)
            if self.weights_row:
                f.set(self.skipped_weights, bounds.first * self.weights_row)
        for i, (pointer, outside) in enumerate(self.unrolled):
            row = bounds.start + i * axis.dilation
            f.set(pointer, source + row * self.source_row)
            if outside is not None:
                f.set(outside, binary("i32.ge_u", row, i32(axis.size)))

    def each(
        self,
        tile: Tile,
        source_offset: Expr,
        weights: Local,
        zero: Local,
        body: Callable[[Local, Local, int], None],
    ) -> None:
        """Run `body` for every kernel row inside the image.

        Args:
            source_offset: Bytes from the image's left border.
            weights: Address of the first kernel row's weights.
            zero: Is 0, which the engine does not know.
            body: Gets the address in the input row, an address in the weights, and how many bytes
                further the kernel row's weights are.
        """
        if self._unrolls(tile):
            self._unrolled(source_offset, weights, zero, body)
        elif self.bounds.may_be_empty:
            with self.f.when(self.bounds.count):
                self._loop(source_offset, weights, body)
        else:
            self._loop(source_offset, weights, body)

    def _unrolled(
        self,
        source_offset: Expr,
        weights: Local,
        zero: Local,
        body: Callable[[Local, Local, int], None],
    ) -> None:
        f = self.f
        with f.scratch(I32, 1) as (source,):
            for i, (pointer, outside) in enumerate(self.unrolled):
                with f.block() as end:
                    # Also where it is never taken: arithmetic is done before a branch, so that
                    # the next row's loads do not pile up in registers.
                    f.leave_if(end, zero if outside is None else outside)
                    f.set(source, pointer + source_offset)
                    body(source, weights, i * self.weights_row)

    def _loop(
        self,
        source_offset: Expr,
        weights: Local,
        body: Callable[[Local, Local, int], None],
    ) -> None:
        f = self.f
        source, left = f.new(self.first_row + source_offset), f.new(self.bounds.count)
        row_weights = f.new(weights + self.skipped_weights if self.weights_row else weights)
        with f.repeat_until(left, -1, i32(0)):
            body(source, row_weights, 0)
            f.set(source, source + self.axis.dilation * self.source_row)
            if self.weights_row:
                f.set(row_weights, row_weights + self.weights_row)
        f.release(source, left, row_weights)


@dataclass(frozen=True)
class Place:
    """A tile's place in an output row.

    Attributes:
        tile: What is computed.
        column: Byte offset of the tile's base (of the first tap if it is generic) from the image's
            left border.
        pointers: Address of the first output in each of the tensors that move with the output.
        taps: The output's taps if the tile is generic.
    """

    tile: Tile
    column: Local
    pointers: tuple[Local, ...]
    taps: Bounds | None


def sweep(
    f: Function,
    batch: int,
    rows: KernelRows,
    columns: Axis,
    source: Local,
    source_strides: tuple[int, int],
    moving: Sequence[tuple[Local, tuple[int, int, int]]],
    tiles: Sequence[Tile],
    begin_row: Callable[[], None],
    body: Callable[[Place], None],
) -> None:
    """Visit every output, a tile at a time.

    Args:
        source: The input; it is moved.
        source_strides: Elements between images and columns of the input.
        moving: Tensors laid out like the output: address (it is moved) and strides in elements
            between images, rows and columns.
        tiles: The cut of an output row.
        begin_row: Called once per output row, after `rows` is prepared.
        body: Called for every tile that there is code for.
    """
    with f.repeat(batch):
        f.set(rows.bounds.start, i32(rows.axis.start(0)))
        row_pointers = [f.new(pointer) for pointer, _ in moving]
        with f.repeat(rows.axis.outputs):
            rows.begin(source)
            begin_row()
            pixels = tuple(f.new(pointer) for pointer in row_pointers)
            steps = [strides[2] for _, strides in moving]
            position = 0
            for tile in tiles:
                _sweep_tiles(f, tile, position, columns, source_strides[1], pixels, steps, body)
                position += tile.repeats * len(tile.pixels)
            for pointer, (_, strides) in zip(row_pointers, moving, strict=True):
                advance(f, pointer, strides[1])
            rows.bounds.next()
            f.release(*pixels)
        advance(f, source, source_strides[0])
        for pointer, strides in moving:
            advance(f, pointer, strides[0])
        f.release(*row_pointers)


def _sweep_tiles(
    f: Function,
    tile: Tile,
    position: int,
    columns: Axis,
    source_column: int,
    pointers: tuple[Local, ...],
    steps: Sequence[int],
    body: Callable[[Place], None],
) -> None:
    width = len(tile.pixels)
    column = f.new(i32(4 * tile.base * source_column))
    taps = Bounds(f, columns, position) if tile.is_generic else None
    with f.repeat(tile.repeats):
        if taps is not None:
            taps.update()
            first = taps.start + taps.first * columns.dilation
            f.set(column, first * (4 * source_column))
        body(Place(tile, column, pointers, taps))
        if taps is not None:
            taps.next()
        else:
            advance(f, column, width * columns.stride * source_column)
        for pointer, step in zip(pointers, steps, strict=True):
            advance(f, pointer, width * step)
    f.release(column)
    if taps is not None:
        taps.close()


def vector_lanes(channels: int) -> tuple[int, ...]:
    """How many lanes of each vector hold channels."""
    return tuple(min(LANES, channels - c) for c in range(0, channels, LANES))


def block_vectors(channels: int, most: int) -> int:
    """Vectors per block of channels, so that the fewest are computed twice."""
    needed = -(-channels // LANES)
    return min(range(1, min(most, needed) + 1), key=lambda v: (-(-needed // v) * v, -v))


def each_channel_block(
    f: Function,
    channels: int,
    vectors: int,
    may_overlap: bool,
    body: Callable[[Expr, tuple[int, ...]], None],
) -> None:
    """Run `body` over all channels, `vectors` at a time.

    Where they are not whole blocks, the first block is smaller than the others, or
    reaches into the second one.

    Args:
        may_overlap: Whether channels may be computed twice, which costs less code.
        body: Gets the byte offset of the block's first channel and its vectors' lanes.
    """
    width = vectors * LANES
    if channels <= width:
        body(i32(0), vector_lanes(channels))
        return
    rest = channels % width
    full = vector_lanes(width)
    offset = f.new(i32(0))
    if rest and may_overlap:
        f.set(offset, i32(4 * (rest - width)))
        with f.repeat_until(offset, 4 * width, i32(4 * channels)):
            start = f.new(_at_least_zero(offset))
            body(start, full)
            f.release(start)
    else:
        if rest:
            body(offset, vector_lanes(rest))
            f.set(offset, i32(4 * rest))
        with f.repeat_until(offset, 4 * width, i32(4 * channels)):
            body(offset, full)
    f.release(offset)


def advance(f: Function, pointer: Local, elements: int) -> None:
    """Move a pointer by float32 elements."""
    if elements:
        f.set(pointer, pointer + 4 * elements)
