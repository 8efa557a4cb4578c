"""Maximum and average pooling of channel-last images.

Taps outside the image are skipped, so there is no padded copy of the input.

Where windows overlap, a tile is up to 4 neighbouring outputs times a vector of channels, with an
accumulator per input column: down the rows first, then across the columns. Where they do not, it
is one output times 4 vectors. Median of three runs (one Zen 4 core at 3.6 GHz, shared with other
work; Wasmtime 50, 2026-11-20), bytes read and written: maximum 3x3 / 2 of 112x112x64 100 us
(40 GB/s), 2x2 / 2 45 us (90 GB/s), 5x5 of 20x20x256 91 us; average of 7x7x2048 14.6 us, of
56x56x128 36 us (44 GB/s).

Against an accumulator per output (single runs of an earlier version) 5x5 gained, 117 to 91 us,
while 3x3 / 2 lost a little, 94 to 100, and 1x5 more, 16.5 to 20.4.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from wasmgraph.assembler.function import (
    I32,
    V128,
    Expr,
    Function,
    Local,
    binary,
    f32x4,
    i32,
    load_lanes,
    unary,
)
from wasmgraph.kernels.sharing import Share
from wasmgraph.kernels.window_shares import cut_windows
from wasmgraph.kernels.windows import (
    LANES,
    Axis,
    Bounds,
    KernelRows,
    Pixel,
    Place,
    advance,
    block_vectors,
    each_channel_block,
    plan_tiles,
    sweep,
)

_UNROLLED_TAPS = 9
"""A window row of more taps is a loop."""

_MOST_TILES = 6
"""With more distinct tiles in a row, those at the borders share code that is not unrolled."""

_PIXELS = 4
_VECTORS = 4
"""Outputs and vectors of channels per tile, at most."""

_REGISTERS = 12
"""Accumulators per tile, at most."""


@dataclass(frozen=True)
class Pool:
    """The maximum or the average of every channel under a sliding window.

    float32; strides in elements; channels are adjacent in the input and the output.

    A maximum ignores NaN; of a window without a tap inside the image (or without a number) it is
    -inf. An average divides by the number of taps inside the image or, with `count_include_pad`, by
    those inside the image with its padding; windows may reach beyond that (ONNX's ceil_mode).

    Attributes:
        pad_bottom: Only counted by `count_include_pad`; so is pad_right.
    """

    op: Literal["max", "average"]
    batch: int
    in_h: int
    in_w: int
    channels: int
    in_batch: int
    in_row: int
    in_col: int
    out_h: int
    out_w: int
    out_batch: int
    out_row: int
    out_col: int
    kernel_h: int
    kernel_w: int
    stride_h: int
    stride_w: int
    dilation_h: int
    dilation_w: int
    pad_top: int
    pad_left: int
    pad_bottom: int
    pad_right: int
    count_include_pad: bool

    @property
    def rows(self) -> Axis:
        """The vertical axis."""
        return Axis(
            self.in_h,
            self.out_h,
            self.kernel_h,
            self.stride_h,
            self.dilation_h,
            self.pad_top,
            self.pad_bottom,
        )

    def assemble(self, name: str) -> Function:
        """Parameters: source, out. They must not overlap."""
        return _Assembly(self, name).run()

    def shares(self, count: int) -> tuple[Share, ...]:
        """At most `count` kernels for images, channels or rows of the output."""
        shares = []
        for part in cut_windows(self.batch, self.rows, self.channels, self.out_col, count):
            kernel = replace(
                self,
                batch=part.images,
                in_h=part.rows.size,
                channels=part.channels,
                out_h=part.rows.outputs,
                pad_top=part.rows.before,
                pad_bottom=part.rows.after,
            )
            offsets = (
                part.image * self.in_batch + part.in_row * self.in_row + part.channel,
                part.image * self.out_batch + part.out_row * self.out_row + part.channel,
            )
            shares.append(Share(kernel, tuple(4 * offset for offset in offsets)))
        return tuple(shares)


def separated(spec: Pool) -> tuple[Pool, Pool]:
    """The same pooling in two steps: along the rows, then along the columns of what that gave.

    It takes kernel_h + kernel_w steps per output instead of their product, but a tensor in between:
    float32 [batch, in_h, out_w, channels], dense. Maxima are the same; averages may round
    differently. A maximum at 20x20x256, stride 1, at once and as the sum of both steps timed alone,
    in microseconds: 5x5 91 and 44, 9x9 462 and 80, 13x13 612 and 129.
    """
    col = spec.channels
    row = spec.out_w * col
    across = replace(
        spec,
        out_h=spec.in_h,
        out_batch=spec.in_h * row,
        out_row=row,
        out_col=col,
        kernel_h=1,
        stride_h=1,
        dilation_h=1,
        pad_top=0,
        pad_bottom=0,
    )
    down = replace(
        spec,
        in_w=spec.out_w,
        in_batch=spec.in_h * row,
        in_row=row,
        in_col=col,
        kernel_w=1,
        stride_w=1,
        dilation_w=1,
        pad_left=0,
        pad_right=0,
    )
    return across, down


class _Assembly:
    def __init__(self, spec: Pool, name: str) -> None:
        self.spec = spec
        self.f = Function(name, 2)
        self.source, self.out = self.f.params
        columns = Axis(
            spec.in_w,
            spec.out_w,
            spec.kernel_w,
            spec.stride_w,
            spec.dilation_w,
            spec.pad_left,
            spec.pad_right,
        )
        self.columns = columns
        most = _MOST_TILES if spec.kernel_w <= _UNROLLED_TAPS else 0
        self.tiles = plan_tiles(columns, self._width(), most)
        self.rows = KernelRows(self.f, spec.rows, 4 * spec.in_row, 0, self.tiles)
        self.counts_padding = spec.op == "average" and spec.count_include_pad

    def _width(self) -> int:
        """Outputs per tile: as many as share columns and whose columns fit the registers."""
        spec = self.spec
        reach = (spec.kernel_w - 1) * spec.dilation_w + 1
        if spec.kernel_w == 1 or reach <= spec.stride_w:
            return 1
        fitting = (_REGISTERS - reach) // spec.stride_w + 1
        return max(1, min(_PIXELS, fitting, spec.out_w))

    def run(self) -> Function:
        spec, f = self.spec, self.f
        self.zero = f.new(binary("i32.and", self.out, i32(1)))
        self.rows_counted = f.local(V128)
        sweep(
            f,
            spec.batch,
            self.rows,
            self.columns,
            self.source,
            (spec.in_batch, spec.in_col),
            [(self.out, (spec.out_batch, spec.out_row, spec.out_col))],
            self.tiles,
            self._begin_row,
            self._tile,
        )
        return f

    def _begin_row(self) -> None:
        if self.spec.op == "average":
            self._set_count(self.rows_counted, self.rows.bounds)

    def _set_count(self, target: Local, bounds: Bounds) -> None:
        """target = what an average divides by along one axis, in all lanes."""
        f = self.f
        count = bounds.count
        if self.counts_padding:
            count = f.local(I32)
            bounds.set_padded_count(count)
            f.release(count)
        f.set(target, unary("f32x4.convert_i32x4_s", unary("i32x4.splat", count)))

    def _tile(self, place: Place) -> None:
        f, channels = self.f, self.spec.channels
        per_vector = max(1, len(self._columns(place)))
        vectors = block_vectors(channels, min(max(1, _REGISTERS // per_vector), _VECTORS))
        scales = self._scales(place) if self.spec.op == "average" else []

        def block(offset: Expr, lanes: tuple[int, ...]) -> None:
            self._block(place, offset, lanes, scales)

        each_channel_block(f, channels, vectors, True, block)
        f.release(*set(scales))

    def _columns(self, place: Place) -> list[int]:
        """The input columns that have an accumulator, counted from the tile's base."""
        return sorted({c for pixel in place.tile.pixels for c in self._held(place, pixel)})

    def _held(self, place: Place, pixel: Pixel) -> list[int]:
        """Whose accumulators an output combines; one output alone has no use for several."""
        if self._loops_over_taps(place) or len(place.tile.pixels) == 1:
            return [pixel.offset]
        return self._reads(pixel)

    def _loops_over_taps(self, place: Place) -> bool:
        return place.taps is not None or self.spec.kernel_w > _UNROLLED_TAPS

    def _reads(self, pixel: Pixel) -> list[int]:
        """The columns under an output's window, counted from the tile's base."""
        return [pixel.offset + j * self.spec.dilation_w for j in range(pixel.end - pixel.first)]

    def _scales(self, place: Place) -> list[Local]:
        """The reciprocal of the number of taps, per pixel."""
        f = self.f
        scales: list[Local] = []
        by_count: dict[int, Local] = {}
        for pixel in place.tile.pixels:
            counted = pixel.padded_taps if self.counts_padding else pixel.end - pixel.first
            if counted not in by_count:
                scale = by_count[counted] = f.local(V128)
                if place.taps is None:
                    f.set(scale, f32x4(counted))
                else:
                    self._set_count(scale, place.taps)
                f.set(scale, binary("f32x4.div", f32x4(1.0), scale * self.rows_counted))
            scales.append(by_count[counted])
        return scales

    def _block(
        self, place: Place, offset: Expr, lanes: tuple[int, ...], scales: list[Local]
    ) -> None:
        """A tile's outputs of a few vectors of channels.

        Every input column has an accumulator: down the rows first, then across the columns.
        """
        spec, f = self.spec, self.f
        columns = self._columns(place)
        neutral = f32x4(0.0 if spec.op == "average" else float("-inf"))
        with f.scratch(V128, max(1, len(columns) * len(lanes))) as held:
            by_column = {c: held[i * len(lanes) :] for i, c in enumerate(columns)}
            for accumulator in held:
                f.set(accumulator, neutral)

            def row(source: Local, _: Local, __: int) -> None:
                self._row(place, source, lanes, by_column)

            self.rows.each(place.tile, place.column + offset, self.zero, self.zero, row)
            out, total = f.new(place.pointers[0] + offset), f.local(V128)
            for p, pixel in enumerate(place.tile.pixels):
                for v, count in enumerate(lanes):
                    result: Expr = neutral
                    for i, column in enumerate(self._held(place, pixel)):
                        value = by_column[column][v]
                        result = self._combine(result, value) if i else value
                    if spec.op == "average":
                        result = result * scales[p]
                    f.set(total, result)
                    f.store_lanes(out, total, 4 * (p * spec.out_col + v * LANES), count)
            f.release(out, total)

    def _combine(self, result: Expr, value: Expr) -> Expr:
        if self.spec.op == "average":
            return result + value
        # pmax(a, b) is a unless a < b: with a from -inf on, a NaN is never taken as b.
        return binary("f32x4.pmax", result, value)

    def _row(
        self,
        place: Place,
        source: Local,
        lanes: tuple[int, ...],
        by_column: dict[int, list[Local]],
    ) -> None:
        """Take in one window row."""
        spec, f = self.spec, self.f
        if not self._loops_over_taps(place):
            if len(place.tile.pixels) > 1:
                reads = {column: [column] for column in by_column}
            else:
                reads = {c: self._reads(place.tile.pixels[0]) for c in by_column}
            self._take(source, lanes, by_column, reads)
            return
        tap, left = f.new(source), f.local(I32)
        with f.block() as end:
            if place.taps is None:
                f.set(left, i32(spec.kernel_w))
            else:
                f.set(left, place.taps.count)
                f.leave_if(end, unary("i32.eqz", left))
            with f.repeat_until(left, -1, i32(0)):
                self._take(tap, lanes, by_column, {column: [column] for column in by_column})
                advance(f, tap, spec.dilation_w * spec.in_col)
        f.release(tap, left)

    def _take(
        self,
        source: Local,
        lanes: tuple[int, ...],
        by_column: dict[int, list[Local]],
        reads: dict[int, list[int]],
    ) -> None:
        """Take in one row's elements: `reads` are the columns that each accumulator takes."""
        for held, results in by_column.items():
            for column in reads[held]:
                for v, count in enumerate(lanes):
                    place = 4 * (column * self.spec.in_col + v * LANES)
                    value = load_lanes(source, place, count)
                    self.f.set(results[v], self._combine(results[v], value))
