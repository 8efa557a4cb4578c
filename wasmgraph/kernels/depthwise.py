"""Depthwise convolution of channel-last images: a filter per channel, with a fused epilogue.

Taps outside the image are skipped, so there is no padded copy of the input.

A tile is 4 neighbouring outputs (5 where that leaves no narrow rest) times one vector of channels:
every input column is loaded once per kernel row, and so are the row's weights. Useful GFLOP/s,
median of three runs (one Zen 4 core at 3.6 GHz, shared with other work; Wasmtime 50, 2026-11-20;
the contraction of 240x256x240 gave 41.5 in the same runs):

    3x3       56x56x144 31.3   112x112x32 35.3   14x14x384 33.6   7x7x960 32.9
    3x3 / 2   56x56x144 23.0   112x112x96 23.7   14x14x576 29.6
    5x5       28x28x120 33.7   14x14x672 32.1    7x7x960 33.0
    7x7       56x56x96 36.8

Outputs per tile, 3x3, two runs: at 56x56x144 2 gave 26 and 29, 3 30, 4 31, 5 30, 6 30; at 14x14x384
26, 31, 32, 34, 32. Tiles of 2 or 4 vectors of channels gave 22 to 26 for both.

Known weakness: channels that put columns a multiple of 2 KiB apart. 14x14x512 reaches 23 and
14x14x1024 11, where 576 and 768 reach over 31; probably a tile's lines then compete for few sets
of the first-level cache (not verified with counters). Tiles of 4 vectors help at 1024 (18), not at
512.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wasmgraph.assembler.function import (
    I32,
    V128,
    Expr,
    Function,
    Local,
    binary,
    f32x4,
    i32,
    load,
    load_lanes,
    unary,
)
from wasmgraph.kernels.chain import IDENTITY, Chain, emit_chain
from wasmgraph.kernels.operands import PixelOperand, load_operand
from wasmgraph.kernels.sharing import Share
from wasmgraph.kernels.window_shares import cut_windows
from wasmgraph.kernels.windows import (
    LANES,
    Axis,
    KernelRows,
    Place,
    advance,
    each_channel_block,
    plan_tiles,
    sweep,
)

_UNROLLED_TAPS = 9
"""A kernel row of more taps is a loop."""

_MOST_TILES = 6
"""With more distinct tiles in a row, those at the borders share code that is not unrolled."""

_SUMS = 4
"""Accumulators per tile, where the row is long enough; few pixels take more channels at once."""

_REGISTERS = 15
"""Vectors that may be live: accumulators, weights, inputs."""

_TILE_COST = (0.0, 1.6, 2.6, 3.4, 4.0, 5.1)
"""Time of a tile by outputs, relative to an output of the widest."""


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
    def taps(self) -> int:
        """Taps of the filter."""
        return self.kernel_h * self.kernel_w

    @property
    def replaceable(self) -> int:
        """How many of the last operands the output may lie upon, if they have its strides."""
        return len(self.operands)

    @property
    def flops(self) -> int:
        """Multiplications and additions, those with padding included."""
        taps = self.kernel_h * self.kernel_w
        return 2 * self.batch * self.out_h * self.out_w * self.channels * taps

    def assemble(self, name: str) -> Function:
        """Parameters: source, weights (`pack_depthwise`), bias (if any), operands, out.

        out must not overlap source; it may be the same memory as an operand of the same strides.
        """
        wide = self.kernel_h == 1 and self.kernel_w > _UNROLLED_TAPS
        return _Assembly(_transposed(self) if wide else self, name).run()

    def shares(self, count: int) -> tuple[Share, ...]:
        """At most `count` kernels for images, channels or rows of the output."""
        rows = Axis(
            self.in_h, self.out_h, self.kernel_h, self.stride_h, self.dilation_h, self.pad_top
        )
        shares = []
        for part in cut_windows(self.batch, rows, self.channels, self.out_col, count):
            kernel = replace(
                self,
                batch=part.images,
                in_h=part.rows.size,
                channels=part.channels,
                out_h=part.rows.outputs,
                pad_top=part.rows.before,
            )
            image, row, channel = part.image, part.out_row, part.channel
            # Where channels are no whole vectors, the second vector's begin inside the first's.
            vector = -(-channel // LANES)
            offsets = [
                image * self.in_batch + part.in_row * self.in_row + channel,
                vector * LANES * self.taps,
                *([channel] if self.has_bias else []),
                *(image * o.batch + row * o.row + channel * o.channel for o in self.operands),
                image * self.out_batch + row * self.out_row + channel,
            ]
            shares.append(Share(kernel, tuple(4 * offset for offset in offsets)))
        return tuple(shares)


def pack_depthwise(weights: NDArray[Any]) -> NDArray[Any]:
    """Pack filters for `Depthwise`.

    Args:
        weights: float32 [channels, 1, kernel_h, kernel_w].

    Returns:
        float32 [vectors of channels, kernel_h, kernel_w, 4]. Where the channels are no whole
        vectors, the second vector begins inside the first one; of less than 4, some are zero.
    """
    channels, _, kernel_h, kernel_w = weights.shape
    starts = [0, *range(channels % LANES or LANES, channels, LANES)]
    packed = np.zeros((len(starts), kernel_h, kernel_w, LANES), np.float32)
    for block, start in zip(packed, starts, strict=True):
        part = weights[start : start + LANES, 0]
        block[..., : len(part)] = part.transpose(1, 2, 0)
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
        self.columns = Axis(
            spec.in_w, spec.out_w, spec.kernel_w, spec.stride_w, spec.dilation_w, spec.pad_left
        )
        most = _MOST_TILES if spec.kernel_w <= _UNROLLED_TAPS else 0
        self.tiles = plan_tiles(self.columns, self._width(), most)
        self.rows = KernelRows(
            self.f,
            Axis(*rows),
            4 * spec.in_row,
            4 * spec.kernel_w * LANES,
            self.tiles,
        )

    def run(self) -> Function:
        spec, f = self.spec, self.f
        self.zero = f.new(binary("i32.and", self.out, i32(1)))
        moving = [(self.out, (spec.out_batch, spec.out_row, spec.out_col))]
        for pointer, operand in zip(self.operands, spec.operands, strict=True):
            moving.append((pointer, (operand.batch, operand.row, operand.col)))
        sweep(
            f,
            spec.batch,
            self.rows,
            self.columns,
            self.source,
            (spec.in_batch, spec.in_col),
            moving,
            self.tiles,
            lambda: None,
            self._tile,
        )
        return f

    def _width(self) -> int:
        """Outputs per tile: the cheapest cut of a row."""
        outputs = self.spec.out_w

        def cost(width: int) -> float:
            whole, rest = divmod(outputs, width)
            return whole * _TILE_COST[width] + _TILE_COST[rest]

        return min(range(1, len(_TILE_COST)), key=cost)

    def _tile(self, place: Place) -> None:
        f, spec = self.f, self.spec
        vectors = self._vectors(len(place.tile.pixels))
        weights = f.new(self.weights)

        def block(offset: Expr, lanes: tuple[int, ...]) -> None:
            self._block(place, offset, weights, lanes)
            advance(f, weights, len(lanes) * spec.taps * LANES)

        each_channel_block(f, spec.channels, vectors, not spec.operands, block)
        f.release(weights)

    def _vectors(self, pixels: int) -> int:
        """Vectors of channels per tile: they divide all, for so the weights are packed."""
        whole, rest = divmod(self.spec.channels, LANES)
        wanted = 1 if rest else max(1, _SUMS // pixels)
        return max(v for v in range(1, wanted + 1) if whole % v == 0)

    def _block(self, place: Place, offset: Expr, weights: Local, lanes: tuple[int, ...]) -> None:
        """A tile's outputs of a few vectors of channels."""
        f, pixels, vectors = self.f, place.tile.pixels, len(lanes)
        with f.scratch(V128, len(pixels) * vectors) as sums:
            for v in range(vectors):
                first: Expr = f32x4(0.0)
                if self.bias is not None:
                    first = load_lanes(self.bias + offset, 16 * v, lanes[v])
                f.set(sums[v], first)
                for p in range(1, len(pixels)):
                    f.set(sums[p * vectors + v], sums[v])

            def row(source: Local, row_weights: Local, skipped: int) -> None:
                self._row(place, source, row_weights, skipped, lanes, sums)

            self.rows.each(place.tile, place.column + offset, weights, self.zero, row)
            channel_strides = [1, *(operand.channel for operand in self.spec.operands)]
            pointers = [
                f.new(pointer + offset if channel else pointer)
                for pointer, channel in zip(place.pointers, channel_strides, strict=True)
            ]
            for p in range(len(pixels)):
                for v in range(vectors):
                    self._store(p, v, lanes[v], pointers, sums[p * vectors + v])
            f.release(*pointers)

    def _row(
        self,
        place: Place,
        source: Local,
        weights: Local,
        skipped: int,
        lanes: tuple[int, ...],
        sums: list[Local],
    ) -> None:
        """Add the products of one kernel row; its weights are `skipped` bytes after `weights`."""
        spec, f, pixels = self.spec, self.f, place.tile.pixels
        if place.taps is None and spec.kernel_w <= _UNROLLED_TAPS:
            uses: dict[int, list[tuple[int, int]]] = {}
            for p, pixel in enumerate(pixels):
                for j in range(pixel.first, pixel.end):
                    column = pixel.offset + (j - pixel.first) * spec.dilation_w
                    uses.setdefault(column, []).append((p, j))
            self._products(uses, source, weights, skipped, lanes, sums)
            return
        uses = {pixel.offset: [(p, 0)] for p, pixel in enumerate(pixels)}
        tap_source, tap_weights, left = f.new(source), f.new(weights + skipped), f.local(I32)
        with f.block() as end:
            if place.taps is None:
                f.set(left, i32(spec.kernel_w))
            else:
                f.set(left, place.taps.count)
                f.leave_if(end, unary("i32.eqz", left))
                f.set(tap_weights, tap_weights + place.taps.first * (4 * LANES))
            with f.repeat_until(left, -1, i32(0)):
                self._products(uses, tap_source, tap_weights, 0, lanes, sums)
                advance(f, tap_source, spec.dilation_w * spec.in_col)
                advance(f, tap_weights, LANES)
        f.release(tap_source, tap_weights, left)

    def _products(
        self,
        uses: dict[int, list[tuple[int, int]]],
        source: Local,
        weights: Local,
        skipped: int,
        lanes: tuple[int, ...],
        sums: list[Local],
    ) -> None:
        """Read every input column once and add its products.

        Args:
            uses: By input column, counted from `source`: the pixels of the tile and their taps.
        """
        spec, f, vectors = self.spec, self.f, len(lanes)
        taps = sorted({j for pairs in uses.values() for _, j in pairs})
        room = max(1, _REGISTERS - len(sums) - len(taps))
        order = sorted(uses)
        groups = [order[start : start + room] for start in range(0, len(order), room)]
        with (
            f.scratch(V128, len(taps)) as filters,
            f.scratch(V128, min(room, len(order))) as values,
            f.block() as end,
        ):
            for v, count in enumerate(lanes):
                for j, weight in zip(taps, filters, strict=True):
                    place = skipped + 4 * LANES * (j + v * spec.taps)
                    f.set(weight, load(weights, place))
                for group in groups:
                    products: dict[int, Expr] = {}
                    for column, value in zip(group, values, strict=False):
                        place = 4 * (column * spec.in_col + v * LANES)
                        f.set(value, load_lanes(source, place, count))
                        for p, j in uses[column]:
                            product = value * filters[taps.index(j)]
                            products[p] = products[p] + product if p in products else product
                    # One addition to the sum per kernel row: its latency is what adds up.
                    for p, total in products.items():
                        f.set(sums[p * vectors + v], sums[p * vectors + v] + total)
                    if group is not groups[-1] or v + 1 < vectors:
                        f.leave_if(end, self.zero)

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
