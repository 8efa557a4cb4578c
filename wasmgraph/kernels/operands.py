"""How a kernel reads the other operands of a fused chain."""

from __future__ import annotations

from dataclasses import dataclass

from wasmgraph.assembler.function import Expr, Local, load_lanes, load_splat


@dataclass(frozen=True)
class RowOperand:
    """An operand of an epilogue, addressed by row and column of the kernel's output.

    Attributes:
        batch: Elements between batches, per batch axis.
        row: Elements between rows (0: the same for every row).
        column: 1, or 0 where all columns share one element.
    """

    batch: tuple[int, ...]
    row: int
    column: int


@dataclass(frozen=True)
class PixelOperand:
    """An operand of an epilogue over channel-last images.

    Attributes:
        batch: Elements between images (0: the same for every image).
        row: Elements between rows of pixels.
        col: Elements between pixels of a row.
        channel: 1, or 0 where all channels share one element.
    """

    batch: int
    row: int
    col: int
    channel: int


def load_operand(pointer: Local, offset: int, column_stride: int, lanes: int) -> Expr:
    """Four lanes of an operand; `offset` in bytes."""
    if column_stride == 0:
        return load_splat(pointer, offset)
    return load_lanes(pointer, offset, lanes)
