"""Maximum and average pooling of channel-last images.

Taps outside the image are skipped, so there is no padded copy of the input.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from wasmgraph.assembler.function import (
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
from wasmgraph.kernels.windows import (
    LANES,
    Axis,
    Images,
    RowBounds,
    Run,
    Tile,
    advance,
    each_channel_block,
    sweep,
)

_UNROLLED_TAPS = 9
"""A window row of more taps is a loop."""

_RESULTS = 4
"""Accumulators per tile."""


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

    def assemble(self, name: str) -> Function:
        """Parameters: source, out. They must not overlap."""
        return _Assembly(self, name).run()


class _Assembly:
    def __init__(self, spec: Pool, name: str) -> None:
        self.spec = spec
        self.f = Function(name, 2)
        self.source, self.out = self.f.params
        rows = Axis(
            spec.in_h,
            spec.out_h,
            spec.kernel_h,
            spec.stride_h,
            spec.dilation_h,
            spec.pad_top,
            spec.pad_bottom,
        )
        columns = Axis(
            spec.in_w,
            spec.out_w,
            spec.kernel_w,
            spec.stride_w,
            spec.dilation_w,
            spec.pad_left,
            spec.pad_right,
        )
        strides = (spec.in_batch, spec.in_row, spec.in_col)
        self.images = Images(spec.batch, rows, columns, strides)
        self.counts_padding = spec.op == "average" and spec.count_include_pad

    def run(self) -> Function:
        spec, f = self.spec, self.f
        self.rows_counted = f.local(V128)
        runs = self.images.columns.runs(self.counts_padding)
        moving = [(self.out, (spec.out_batch, spec.out_row, spec.out_col))]
        sweep(f, self.images, self.source, moving, runs, self._width, self._begin_row, self._tile)
        return f

    def _width(self, run: Run) -> int:
        return min(_RESULTS, run.count)

    def _begin_row(self, rows: RowBounds) -> None:
        if self.spec.op == "average":
            count = rows.padded_count() if self.counts_padding else rows.count
            as_lanes = unary("i32x4.splat", count)
            self.f.set(self.rows_counted, unary("f32x4.convert_i32x4_s", as_lanes))

    def _tile(self, tile: Tile) -> None:
        f, channels = self.f, self.spec.channels
        vectors = min(max(1, _RESULTS // tile.pixels), -(-channels // LANES))
        with f.scratch(V128, 1) as (scale,):
            if self.spec.op == "average":
                count = self.rows_counted * f32x4(tile.run.counted)
                f.set(scale, binary("f32x4.div", f32x4(1.0), count))

            def block(offset: Expr, lanes: tuple[int, ...]) -> None:
                self._block(tile, offset, lanes, scale)

            each_channel_block(f, channels, vectors, True, block)

    def _block(self, tile: Tile, offset: Expr, lanes: tuple[int, ...], scale: Local) -> None:
        """A tile's outputs of a few vectors of channels."""
        spec, f = self.spec, self.f
        with f.scratch(V128, tile.pixels * len(lanes)) as results:
            for result in results:
                f.set(result, f32x4(0.0 if spec.op == "average" else float("-inf")))
            if tile.run.first < tile.run.end:
                if tile.rows.may_be_empty:
                    with f.when(tile.rows.count):
                        self._rows(tile, offset, lanes, results)
                else:
                    self._rows(tile, offset, lanes, results)
            out = f.new(tile.pointers[0] + offset)
            for p in range(tile.pixels):
                for v, count in enumerate(lanes):
                    result = results[p * len(lanes) + v]
                    if spec.op == "average":
                        f.set(result, result * scale)
                    f.store_lanes(out, result, 4 * (p * spec.out_col + v * LANES), count)
            f.release(out)

    def _rows(self, tile: Tile, offset: Expr, lanes: tuple[int, ...], results: list[Local]) -> None:
        """Take in all window rows inside the image; there is at least one."""
        spec, f = self.spec, self.f
        source = f.new(tile.source + offset)
        left = f.new(tile.rows.count)
        taps = tile.run.end - tile.run.first
        with f.repeat_until(left, -1, i32(0)):
            if taps <= _UNROLLED_TAPS:
                self._taps(taps, tile.pixels, source, lanes, results)
            else:
                tap = f.new(source)
                with f.repeat(taps):
                    self._taps(1, tile.pixels, tap, lanes, results)
                    advance(f, tap, spec.dilation_w * spec.in_col)
                f.release(tap)
            advance(f, source, spec.dilation_h * spec.in_row)
        f.release(source, left)

    def _taps(
        self, taps: int, pixels: int, source: Local, lanes: tuple[int, ...], results: list[Local]
    ) -> None:
        """Take in neighbouring taps of a window row; each column is read once."""
        spec, f = self.spec, self.f
        uses: dict[int, list[int]] = {}
        for p in range(pixels):
            for j in range(taps):
                uses.setdefault(p * spec.stride_w + j * spec.dilation_w, []).append(p)
        with f.scratch(V128, 1) as (value,):
            for column in sorted(uses):
                for v, count in enumerate(lanes):
                    f.set(value, load_lanes(source, 4 * (column * spec.in_col + v * LANES), count))
                    for p in uses[column]:
                        result = results[p * len(lanes) + v]
                        if spec.op == "average":
                            f.set(result, result + value)
                        else:
                            # pmax(a, b) is a unless a < b, so a NaN of the input is never taken.
                            f.set(result, binary("f32x4.pmax", result, value))
