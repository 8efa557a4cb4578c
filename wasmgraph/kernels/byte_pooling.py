"""Maxima over windows of channel-last images of bytes, 16 channels at a time.

The image is padded already, with the lowest number of its type.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from wasmgraph.assembler.function import Expr, Function, Local, binary, load, load_bytes
from wasmgraph.kernels.sharing import Share, pieces, whole


@dataclass(frozen=True)
class MaxPoolBytes:
    """out[pixel, channel] = the largest x of the window, over channels that are adjacent

    Attributes:
        batch, out_h, out_w, channels: Extents of the output.
        in_batch, in_row, in_col: Strides of the padded input.
        out_batch, out_row, out_col: Strides of the output.
        window, stride, dilation: Of rows and columns.
        is_signed: Whether the bytes are int8, not uint8.
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
    window: tuple[int, int]
    stride: tuple[int, int]
    dilation: tuple[int, int]
    is_signed: bool

    def assemble(self, name: str) -> Function:
        """Parameters: x, out."""
        f = Function(name, 2)
        x_row, out_row = f.params
        x, out = f.new(x_row), f.new(out_row)
        with f.repeat(self.batch):
            with f.repeat(self.out_h):
                f.set(x, x_row)
                f.set(out, out_row)
                with f.repeat(self.out_w):
                    self._pixel(f, x, out)
                    f.set(x, x + self.stride[1] * self.in_col)
                    f.set(out, out + self.out_col)
                f.set(x_row, x_row + self.stride[0] * self.in_row)
                f.set(out_row, out_row + self.out_row)
            f.set(x_row, x_row + self.in_batch - self.out_h * self.stride[0] * self.in_row)
            f.set(out_row, out_row + self.out_batch - self.out_h * self.out_row)
        return f

    def _pixel(self, f: Function, x_start: Local, out_start: Local) -> None:
        x, out = f.new(x_start), f.new(out_start)
        blocks, rest = divmod(self.channels, 16)
        with f.repeat(blocks):
            f.store(out, self._largest(x, 0, 16))
            f.set(x, x + 16)
            f.set(out, out + 16)
        done = 0
        for size in (8, 4, 2, 1):
            if rest & size:
                f.store_bytes(out, self._largest(x, done, size), done, size)
                done += size
        f.release(x, out)

    def _largest(self, x: Local, first: int, size: int) -> Expr:
        found: Expr | None = None
        for i in range(self.window[0]):
            for j in range(self.window[1]):
                place = i * self.dilation[0] * self.in_row + j * self.dilation[1] * self.in_col
                offset = first + place
                value = load(x, offset) if size == 16 else load_bytes(x, offset, size)
                name = f"i8x16.max_{'s' if self.is_signed else 'u'}"
                found = value if found is None else binary(name, found, value)
        assert found is not None, "a window without elements"
        return found

    def shares(self, count: int) -> tuple[Share, ...]:
        """At most `count` kernels, for parts of the rows of a single image."""
        parts = pieces(self.out_h, count)
        if self.batch > 1 or len(parts) < 2:
            return whole(self, 2)
        return tuple(
            Share(
                replace(self, out_h=length),
                (first * self.stride[0] * self.in_row, first * self.out_row),
            )
            for first, length in parts
        )
