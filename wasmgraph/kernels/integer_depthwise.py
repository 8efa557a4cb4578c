"""Depthwise convolution of channel-last images of bytes, exact in int32.

i32x4.dot_i16x8_s adds two products: those of two neighbouring kernel rows. The pixels of both rows
are widened and interleaved once, and serve every kernel column; the last row of an odd number is
paired with itself, its second weight being zero. A tile is 4 neighbouring outputs times 8 channels.
The image is padded already, with its zero point; the last channels, where there are no whole 8,
are computed together with some that were computed before.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wasmgraph.assembler.function import (
    V128,
    Function,
    Local,
    binary,
    i32,
    interleave,
    load,
    load_widened,
    unary,
)
from wasmgraph.kernels.chain import IDENTITY, Chain
from wasmgraph.kernels.sharing import Share, pieces, whole
from wasmgraph.kernels.typed import NBYTES, emit_typed_chain, load_numbers, narrowed

CHANNELS = 8
"""Channels of a tile; there must be at least so many."""

MAX_TAPS = 64
"""All taps of a tile are one run of instructions."""

_TILE = 4


@dataclass(frozen=True)
class IntegerDepthwise:
    """out = chain(multiplier[channel] * (bias[channel] + sum over taps of x * weight))

    Strides are in elements; channels are adjacent.

    Attributes:
        batch, out_h, out_w, channels: Extents of the output.
        in_batch, in_row, in_col: Strides of the padded input.
        out_batch, out_row, out_col: Strides of the output.
        kernel: Rows and columns of the filters.
        stride, dilation: Per axis.
        is_signed: Whether the input is int8, not uint8.
        out: int8, uint8, float32, or int32 (the sum, nothing follows).
        chain: What follows, from `typed.numbers_apart`: its operands are the scaled sum, then the
            numbers.
    """

    batch: int
    out_h: int
    out_w: int
    channels: int
    in_batch: int
    in_row: int
    in_col: int
    out_batch: int
    out_row: int
    out_col: int
    kernel: tuple[int, int]
    stride: tuple[int, int]
    dilation: tuple[int, int]
    is_signed: bool
    out: str
    chain: Chain = IDENTITY

    @property
    def flops(self) -> int:
        """Multiplications and additions."""
        taps = self.kernel[0] * self.kernel[1]
        return 2 * self.batch * self.out_h * self.out_w * self.channels * taps

    def assemble(self, name: str) -> Function:
        """Parameters: x, weights, bias, multipliers (if the output is no int32), numbers, out.

        The vectors are packed by `pack_integer_depthwise` and `blocks_of_channels`.
        """
        return _Assembly(self, name).run()

    def shares(self, count: int) -> tuple[Share, ...]:
        """At most `count` kernels, for parts of the images or of their rows."""
        nbytes = NBYTES[self.out]
        others = (0,) * (2 + (self.out != "int32") + (self.chain.operands > 1))
        if self.batch >= count:
            parts = pieces(self.batch, count)
            kernels = [replace(self, batch=length) for _, length in parts]
            steps = (self.in_batch, nbytes * self.out_batch)
        elif self.batch == 1:
            parts = pieces(self.out_h, count)
            kernels = [replace(self, out_h=length) for _, length in parts]
            steps = (self.stride[0] * self.in_row, nbytes * self.out_row)
        else:
            return whole(self, 2 + len(others))
        return tuple(
            Share(kernel, (first * steps[0], *others, first * steps[1]))
            for kernel, (first, _) in zip(kernels, parts, strict=True)
        )


def blocks_of_channels(vector: NDArray[Any]) -> NDArray[Any]:
    """[..., channels] as [blocks, ..., 8]; the last block ends with the last channel."""
    channels = vector.shape[-1]
    firsts = [min(first, channels - CHANNELS) for first in range(0, channels, CHANNELS)]
    return np.stack([vector[..., first : first + CHANNELS] for first in firsts])


def pack_integer_depthwise(weights: NDArray[Any]) -> NDArray[Any]:
    """Pack filters for `IntegerDepthwise`.

    Args:
        weights: [channels, 1, rows, columns], of int8 or int16.

    Returns:
        int16 [block, pair of rows, column, 8 channels, row of the pair].
    """
    channels, _, rows, columns = weights.shape
    padded = np.zeros((channels, rows + rows % 2, columns), np.int16)
    padded[:, :rows] = weights[:, 0]
    pairs = padded.reshape(channels, -1, 2, columns).transpose(1, 3, 2, 0)
    return np.ascontiguousarray(blocks_of_channels(pairs).swapaxes(-1, -2))


class _Assembly:
    def __init__(self, spec: IntegerDepthwise, name: str) -> None:
        self.spec = spec
        self.is_scaled = spec.out != "int32"
        numbers = spec.chain.operands - 1
        self.f = Function(name, 4 + self.is_scaled + (numbers > 0))
        self.x, self.weights, self.bias, *others, self.out = self.f.params
        self.multipliers = others[: self.is_scaled]
        self.numbers = load_numbers(others[-1], numbers) if numbers else []
        self.pairs = -(-spec.kernel[0] // 2)
        self.nbytes = NBYTES[spec.out]

    def run(self) -> Function:
        spec, f = self.spec, self.f
        self.zero = f.new(binary("i32.and", self.weights, i32(1)))
        x_row, out_row = f.new(self.x), f.new(self.out)
        x, out = f.new(self.x), f.new(self.out)
        whole_tiles, rest = divmod(spec.out_w, _TILE)
        with f.repeat(spec.batch):
            with f.repeat(spec.out_h):
                f.set(x, x_row)
                f.set(out, out_row)
                for times, width in ((whole_tiles, _TILE), (1 if rest else 0, rest)):
                    if times:
                        with f.repeat(times):
                            self._channels(x, out, width)
                            f.set(x, x + width * spec.stride[1] * spec.in_col)
                            f.set(out, out + width * spec.out_col * self.nbytes)
                f.set(x_row, x_row + spec.stride[0] * spec.in_row)
                f.set(out_row, out_row + spec.out_row * self.nbytes)
            f.set(x_row, x_row + spec.in_batch - spec.out_h * spec.stride[0] * spec.in_row)
            skipped = spec.out_batch - spec.out_h * spec.out_row
            f.set(out_row, out_row + skipped * self.nbytes)
        return f

    def _channels(self, x_start: Local, out_start: Local, width: int) -> None:
        """All channels of some neighbouring outputs."""
        spec, f = self.spec, self.f
        x, out, weights = f.new(x_start), f.new(out_start), f.new(self.weights)
        vectors = [f.new(pointer) for pointer in (self.bias, *self.multipliers)]
        blocks, rest = divmod(spec.channels, CHANNELS)
        with f.repeat(blocks):
            self._tile(x, out, weights, vectors, width)
            f.set(x, x + CHANNELS)
            f.set(out, out + CHANNELS * self.nbytes)
            f.set(weights, weights + self.pairs * spec.kernel[1] * 4 * CHANNELS)
            for vector in vectors:
                f.set(vector, vector + 4 * CHANNELS)
        if rest:
            f.set(x, x - (CHANNELS - rest))
            f.set(out, out - (CHANNELS - rest) * self.nbytes)
            self._tile(x, out, weights, vectors, width)
        f.release(x, out, weights, *vectors)

    def _tile(self, x: Local, out: Local, weights: Local, vectors: list[Local], width: int) -> None:
        f = self.f
        with f.scratch(V128, 2 * width) as sums:
            for half in (0, 1):
                for t in range(width):
                    f.set(sums[2 * t + half], load(vectors[0], 16 * half))
            with f.block() as end:
                for pair in range(self.pairs):
                    self._rows(x, weights, pair, sums, width, end)
            for t in range(width):
                self._store(out, vectors, t, sums[2 * t : 2 * t + 2])

    def _rows(
        self, x: Local, weights: Local, pair: int, sums: list[Local], width: int, end: int
    ) -> None:
        """Two kernel rows (or the last one): every column of the input that a tile reads."""
        spec, f = self.spec, self.f
        (stride, dilation), columns = (spec.stride[1], spec.dilation[1]), spec.kernel[1]
        uses: dict[int, list[tuple[int, int]]] = {}
        for t in range(width):
            for tap in range(columns):
                uses.setdefault(t * stride + tap * dilation, []).append((t, tap))
        rows = [row for row in (2 * pair, 2 * pair + 1) if row < spec.kernel[0]]
        with f.scratch(V128, 4) as (upper, lower, *halves):
            for column in sorted(uses):
                offset = column * spec.in_col
                for row, target in zip(rows, (upper, lower), strict=False):
                    place = offset + row * spec.dilation[0] * spec.in_row
                    f.set(target, load_widened(x, place, spec.is_signed))
                second = lower if len(rows) == 2 else upper
                for half in (0, 1):
                    f.set(halves[half], interleave(upper, second, half))
                for t, tap in uses[column]:
                    for half in (0, 1):
                        total = sums[2 * t + half]
                        factor = load(weights, 32 * (pair * columns + tap) + 16 * half)
                        products = binary("i32x4.dot_i16x8_s", halves[half], factor)
                        f.set(total, binary("i32x4.add", total, products))
                # Never taken: it keeps the arithmetic before the next loads, which would need more
                # registers than there are.
                f.leave_if(end, self.zero)

    def _store(self, out: Local, vectors: list[Local], t: int, sums: list[Local]) -> None:
        spec, f = self.spec, self.f
        offset = t * spec.out_col * self.nbytes
        for half, total in enumerate(sums):
            if self.is_scaled:
                scaled = unary("f32x4.convert_i32x4_s", total) * load(vectors[1], 16 * half)
                value, taken = emit_typed_chain(f, spec.chain, [scaled, *self.numbers], spec.out)
                f.set(total, value)
                f.release(*taken)
            if self.nbytes == 4:
                f.store(out, total, offset + 16 * half)
        if self.nbytes == 1:
            f.set(sums[0], narrowed(sums, spec.out))
            f.store_bytes(out, sums[0], offset, CHANNELS)
