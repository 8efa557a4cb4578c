"""What sliding windows share: which taps lie inside the image, blocks of channels, the loops.

No padded copy is made: taps outside the image are never read. Rows have bounds computed at run
time; columns are cut into runs of outputs that have the same taps, each with code of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from wasmgraph.assembler.function import I32, Expr, Function, Local, binary, i32, select

LANES = 4


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

    def taps(self, position: int) -> tuple[int, int]:
        """The first tap inside the image and the one after the last, for one output."""
        start = position * self.stride - self.before
        first = -(min(start, 0) // self.dilation)
        end = min(self.kernel, -(-max(self.size - start, 0) // self.dilation))
        return (first, end) if first < end else (0, 0)

    def padded_taps(self, position: int) -> int:
        """How many taps of an output lie inside the image with its padding."""
        start = position * self.stride - self.before
        return min(self.kernel, -(-max(self.size + self.after - start, 0) // self.dilation))

    def runs(self, count_padding: bool = False) -> list[Run]:
        """The outputs, cut where the taps inside the image change.

        Args:
            count_padding: Whether to cut where `padded_taps` changes, too.
        """
        found: list[Run] = []
        for position in range(self.outputs):
            first, end = self.taps(position)
            counted = self.padded_taps(position) if count_padding else end - first
            if found and (first, end, counted) == (
                found[-1].first,
                found[-1].end,
                found[-1].counted,
            ):
                found[-1] = Run(found[-1].start, found[-1].count + 1, first, end, counted)
            else:
                found.append(Run(position, 1, first, end, counted))
        return found


@dataclass(frozen=True)
class Run:
    """Neighbouring outputs with the same taps.

    Attributes:
        start: The first output.
        count: How many.
        first: The first tap inside the image.
        end: The tap after the last one inside.
        counted: What an average divides by, along this axis.
    """

    start: int
    count: int
    first: int
    end: int
    counted: int


class RowBounds:
    """The taps of an output row that lie inside the image, computed at run time.

    Attributes:
        first: The first tap.
        count: How many; 0 where `may_be_empty`.
        top: Row of the image where tap 0 is; may be negative.
    """

    def __init__(self, f: Function, axis: Axis) -> None:
        self.f = f
        self.axis = axis
        self.top = f.new(i32(-axis.before))
        self.first, self.count = f.locals(I32, 2)
        bounds = [axis.taps(y) for y in range(axis.outputs)]
        self.may_be_empty = any(first == end for first, end in bounds)
        self.is_constant = len(set(bounds)) == 1

    def update(self) -> None:
        """Set `first` and `count` for the current row."""
        f, axis = self.f, self.axis
        f.set(self.first, _divided_up(_at_least_zero(i32(0) - self.top), axis.dilation))
        f.set(self.count, self._end(0) - self.first)
        if self.may_be_empty:
            f.set(self.count, _at_least_zero(self.count))

    def padded_count(self) -> Expr:
        """How many taps lie inside the image with its padding."""
        return self._end(self.axis.after)

    def _end(self, after: int) -> Expr:
        axis = self.axis
        with self.f.scratch(I32, 1) as (end,):
            inside = _at_least_zero(i32(axis.size + after) - self.top)
            self.f.set(end, _divided_up(inside, axis.dilation))
            return select(binary("i32.lt_s", end, i32(axis.kernel)), end, i32(axis.kernel))

    def next(self) -> None:
        """Go to the next output row."""
        self.f.set(self.top, self.top + self.axis.stride)

    def close(self) -> None:
        """Release the locals."""
        self.f.release(self.top, self.first, self.count)


def _at_least_zero(value: Expr) -> Expr:
    return select(binary("i32.gt_s", value, i32(0)), value, i32(0))


def _divided_up(value: Expr, divisor: int) -> Expr:
    return value if divisor == 1 else binary("i32.div_u", value + (divisor - 1), i32(divisor))


def vector_lanes(channels: int) -> tuple[int, ...]:
    """How many lanes of each vector hold channels."""
    return tuple(min(LANES, channels - c) for c in range(0, channels, LANES))


def each_channel_block(
    f: Function,
    channels: int,
    vectors: int,
    may_overlap: bool,
    body: Callable[[Expr, tuple[int, ...]], None],
) -> None:
    """Run `body` over all channels, `vectors` at a time.

    Args:
        may_overlap: Whether channels may be computed twice. Then a last block that is not full
            costs no code: the second block begins inside the first one.
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
        with f.repeat_until(offset, 4 * width, i32(4 * (channels - rest))):
            body(offset, full)
        if rest:
            body(offset, vector_lanes(rest))
    f.release(offset)


def advance(f: Function, pointer: Local, elements: int) -> None:
    """Move a pointer by float32 elements."""
    if elements:
        f.set(pointer, pointer + 4 * elements)


@dataclass(frozen=True)
class Images:
    """Channel-last images that a window slides over; strides in elements.

    Attributes:
        batch: How many images.
        rows: The window's vertical axis.
        columns: Its horizontal axis.
        source: Strides of the input: image, row, column.
    """

    batch: int
    rows: Axis
    columns: Axis
    source: tuple[int, int, int]


@dataclass(frozen=True)
class Tile:
    """Neighbouring outputs of a row whose windows have the same taps inside the image.

    Attributes:
        pixels: How many outputs.
        run: Their taps.
        rows: The row's taps; one of them may not exist (`rows.may_be_empty`).
        source: Address of the first output's first tap inside the image.
        pointers: Address of the first output in each of the tensors that move with the output.
    """

    pixels: int
    run: Run
    rows: RowBounds
    source: Local
    pointers: tuple[Local, ...]


def sweep(
    f: Function,
    images: Images,
    source: Local,
    moving: Sequence[tuple[Local, tuple[int, int, int]]],
    runs: Sequence[Run],
    tile_width: Callable[[Run], int],
    begin_row: Callable[[RowBounds], None],
    body: Callable[[Tile], None],
) -> None:
    """Visit every output, a tile at a time.

    Args:
        source: The input; it is moved.
        moving: Tensors laid out like the output: address (it is moved) and strides in elements
            between images, rows and columns.
        runs: Runs of output columns.
        tile_width: Outputs per tile of a run.
        begin_row: Called once per output row, before its tiles.
        body: Called for every tile that there is code for.
    """
    with f.repeat(images.batch):
        bounds = RowBounds(f, images.rows)
        rows = [f.new(pointer) for pointer, _ in moving]
        with f.repeat(images.rows.outputs):
            bounds.update()
            first = bounds.top + bounds.first * images.rows.dilation
            source_row = f.new(source + first * (4 * images.source[1]))
            begin_row(bounds)
            pixels = [f.new(row) for row in rows]
            for run in runs:
                _sweep_run(
                    f, images, run, tile_width(run), bounds, source_row, pixels, moving, body
                )
            for row, (_, strides) in zip(rows, moving, strict=True):
                advance(f, row, strides[1])
            bounds.next()
            f.release(source_row, *pixels)
        advance(f, source, images.source[0])
        for pointer, strides in moving:
            advance(f, pointer, strides[0])
        f.release(*rows)
        bounds.close()


def _sweep_run(
    f: Function,
    images: Images,
    run: Run,
    width: int,
    bounds: RowBounds,
    source_row: Local,
    pixels: Sequence[Local],
    moving: Sequence[tuple[Local, tuple[int, int, int]]],
    body: Callable[[Tile], None],
) -> None:
    columns = images.columns
    start = run.start * columns.stride - columns.before + run.first * columns.dilation
    source = f.new(source_row + 4 * start * images.source[2])
    for times, count in ((run.count // width, width), (1, run.count % width)):
        if times == 0 or count == 0:
            continue
        with f.repeat(times):
            body(Tile(count, run, bounds, source, tuple(pixels)))
            advance(f, source, count * columns.stride * images.source[2])
            for pointer, (_, strides) in zip(pixels, moving, strict=True):
                advance(f, pointer, count * strides[2])
    f.release(source)
