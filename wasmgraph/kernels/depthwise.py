"""Depthwise convolution of channel-last images: a filter per channel, with a fused epilogue.

Taps outside the image are skipped, so there is no padded copy of the input.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wasmgraph.assembler.function import (
    V128,
    Expr,
    Function,
    Local,
    binary,
    f32x4,
    i32,
    load,
    load_lanes,
)
from wasmgraph.kernels.chain import IDENTITY, Chain, emit_chain
from wasmgraph.kernels.operands import PixelOperand, load_operand
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
"""A kernel row of more taps is a loop."""

_SUMS = 4
"""Accumulators per tile."""


@dataclass(frozen=True)
class Depthwise:
    """out[n, y, x, c] = chain(bias[c] + sum over i, j of in[n, y', x', c] * weights[i, j, c])

    where y' = y * stride_h + i * dilation_h - pad_top, x' likewise; taps outside the image count as
    zero. float32; strides in elements; channels are adjacent in the input and the output.

    Attributes:
        has_bias: Whether there is a bias of exactly `channels` elements.
        chain: The epilogue; operand 0 is the sum.
        operands: The chain's other operands.
    """

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
    has_bias: bool
    chain: Chain = IDENTITY
    operands: tuple[PixelOperand, ...] = ()

    @property
    def padded_channels(self) -> int:
        """Channels of the packed weights."""
        return -(-self.channels // LANES) * LANES

    def assemble(self, name: str) -> Function:
        """Parameters: source, weights (`pack_depthwise`), bias (if any), operands, out.

        out must not overlap source; it may be the same memory as an operand of the same strides.
        """
        wide = self.kernel_h == 1 and self.kernel_w > _UNROLLED_TAPS
        return _Assembly(_transposed(self) if wide else self, name).run()


def pack_depthwise(weights: NDArray[Any]) -> NDArray[Any]:
    """Pack filters for `Depthwise`.

    Args:
        weights: float32 [channels, 1, kernel_h, kernel_w].

    Returns:
        float32 [kernel_h, kernel_w, channels rounded up to whole vectors]; missing ones are zero.
    """
    channels, _, kernel_h, kernel_w = weights.shape
    packed = np.zeros((kernel_h, kernel_w, -(-channels // LANES) * LANES), np.float32)
    packed[..., :channels] = weights[:, 0].transpose(1, 2, 0)
    return packed


def _transposed(spec: Depthwise) -> Depthwise:
    """The same convolution with rows and columns exchanged; for one row of taps, weights agree."""
    return replace(
        spec,
        in_h=spec.in_w,
        in_w=spec.in_h,
        in_row=spec.in_col,
        in_col=spec.in_row,
        out_h=spec.out_w,
        out_w=spec.out_h,
        out_row=spec.out_col,
        out_col=spec.out_row,
        kernel_h=spec.kernel_w,
        kernel_w=spec.kernel_h,
        stride_h=spec.stride_w,
        stride_w=spec.stride_h,
        dilation_h=spec.dilation_w,
        dilation_w=spec.dilation_h,
        pad_top=spec.pad_left,
        pad_left=spec.pad_top,
        operands=tuple(PixelOperand(o.batch, o.col, o.row, o.channel) for o in spec.operands),
    )


class _Assembly:
    def __init__(self, spec: Depthwise, name: str) -> None:
        self.spec = spec
        self.f = Function(name, 3 + spec.has_bias + len(spec.operands))
        self.source, self.weights, *others = self.f.params
        self.bias = others.pop(0) if spec.has_bias else None
        self.out = others[-1]
        self.operands = others[:-1]
        rows = (spec.in_h, spec.out_h, spec.kernel_h, spec.stride_h, spec.dilation_h, spec.pad_top)
        cols = (spec.in_w, spec.out_w, spec.kernel_w, spec.stride_w, spec.dilation_w, spec.pad_left)
        self.images = Images(
            spec.batch, Axis(*rows), Axis(*cols), (spec.in_batch, spec.in_row, spec.in_col)
        )

    def run(self) -> Function:
        spec, f = self.spec, self.f
        self.zero = f.new(binary("i32.and", self.out, i32(1)))
        self.first_weight, self.weights_end = f.locals(self.out.type, 2)
        moving = [(self.out, (spec.out_batch, spec.out_row, spec.out_col))]
        for pointer, operand in zip(self.operands, spec.operands, strict=True):
            moving.append((pointer, (operand.batch, operand.row, operand.col)))
        runs = self.images.columns.runs()
        sweep(f, self.images, self.source, moving, runs, self._width, self._begin_row, self._tile)
        return f

    def _width(self, run: Run) -> int:
        return min(_SUMS, run.count)

    def _begin_row(self, rows: RowBounds) -> None:
        """Where the row's weights begin and end."""
        f = self.f
        row_bytes = 4 * self.spec.kernel_w * self.spec.padded_channels
        f.set(self.first_weight, self.weights + rows.first * row_bytes)
        f.set(self.weights_end, self.first_weight + rows.count * row_bytes)

    def _tile(self, tile: Tile) -> None:
        vectors = max(1, _SUMS // tile.pixels)
        vectors = min(vectors, self.spec.padded_channels // LANES)

        def block(offset: Expr, lanes: tuple[int, ...]) -> None:
            self._block(tile, offset, lanes)

        may_overlap = not self.spec.operands
        each_channel_block(self.f, self.spec.channels, vectors, may_overlap, block)

    def _block(self, tile: Tile, offset: Expr, lanes: tuple[int, ...]) -> None:
        """A tile's outputs of a few vectors of channels."""
        f, vectors = self.f, len(lanes)
        with f.scratch(V128, tile.pixels * vectors) as sums:
            for v in range(vectors):
                first: Expr = f32x4(0.0)
                if self.bias is not None:
                    first = load_lanes(self.bias + offset, 16 * v, lanes[v])
                f.set(sums[v], first)
                for p in range(1, tile.pixels):
                    f.set(sums[p * vectors + v], sums[v])
            if tile.run.first < tile.run.end:
                if tile.rows.may_be_empty:
                    with f.when(tile.rows.count):
                        self._rows(tile, offset, lanes, sums)
                else:
                    self._rows(tile, offset, lanes, sums)
            pointers = [
                f.new(self._at(pointer, offset, channel))
                for pointer, channel in zip(tile.pointers, self._channel_strides(), strict=True)
            ]
            for p in range(tile.pixels):
                for v in range(vectors):
                    self._store(p, v, lanes[v], pointers, sums[p * vectors + v])
            f.release(*pointers)

    def _channel_strides(self) -> list[int]:
        return [1, *(operand.channel for operand in self.spec.operands)]

    def _at(self, pointer: Local, offset: Expr, channel: int) -> Expr:
        return pointer + offset if channel else pointer

    def _rows(self, tile: Tile, offset: Expr, lanes: tuple[int, ...], sums: list[Local]) -> None:
        """Add the products of all kernel rows inside the image; there is at least one."""
        spec, f = self.spec, self.f
        skipped = 4 * tile.run.first * spec.padded_channels
        source = f.new(tile.source + offset)
        weights = f.new(self.first_weight + skipped + offset)
        end = f.new(self.weights_end + skipped + offset)
        taps = tile.run.end - tile.run.first
        with f.repeat_until(weights, 4 * spec.kernel_w * spec.padded_channels, end):
            if taps <= _UNROLLED_TAPS:
                self._taps(taps, tile.pixels, source, weights, lanes, sums)
                advance(f, source, spec.dilation_h * spec.in_row)
            else:
                tap_source, tap_weights = f.new(source), f.new(weights)
                with f.repeat(taps):
                    self._taps(1, tile.pixels, tap_source, tap_weights, lanes, sums)
                    advance(f, tap_source, spec.dilation_w * spec.in_col)
                    advance(f, tap_weights, spec.padded_channels)
                f.release(tap_source, tap_weights)
                advance(f, source, spec.dilation_h * spec.in_row)
        f.release(source, weights, end)

    def _taps(
        self,
        taps: int,
        pixels: int,
        source: Local,
        weights: Local,
        lanes: tuple[int, ...],
        sums: list[Local],
    ) -> None:
        """Add the products of neighbouring taps of a kernel row; each column is read once."""
        spec, f = self.spec, self.f
        uses: dict[int, list[tuple[int, int]]] = {}
        for p in range(pixels):
            for j in range(taps):
                uses.setdefault(p * spec.stride_w + j * spec.dilation_w, []).append((p, j))
        with f.scratch(V128, 1 + taps) as (value, *filters):
            for v, count in enumerate(lanes):
                for j in range(taps):
                    f.set(filters[j], load(weights, 4 * (j * spec.padded_channels + v * LANES)))
                for column in sorted(uses):
                    address = 4 * (column * spec.in_col + v * LANES)
                    f.set(value, load_lanes(source, address, count))
                    for p, j in uses[column]:
                        total = sums[p * len(lanes) + v]
                        f.set(total, total + value * filters[j])

    def _store(self, p: int, v: int, lanes: int, pointers: list[Local], total: Local) -> None:
        spec, f = self.spec, self.f
        out, *operands = pointers
        inputs: list[Expr] = [total]
        for pointer, operand in zip(operands, spec.operands, strict=True):
            place = 4 * (p * operand.col + v * LANES * operand.channel)
            inputs.append(load_operand(pointer, place, operand.channel, lanes))
        value, taken = emit_chain(f, spec.chain, inputs)
        if lanes == 3 and not isinstance(value, Local):
            taken.append(f.new(value))
            value = taken[-1]
        f.store_lanes(out, value, 4 * (p * spec.out_col + v * LANES), lanes)
        f.release(*taken)
