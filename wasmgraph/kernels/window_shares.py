"""How kernels with sliding windows are cut into shares: by images, by channels or by output rows.

Like `sharing`, for depthwise convolutions and pooling.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from wasmgraph.kernels.sharing import LINE_FLOATS, Piece, choose, pieces
from wasmgraph.kernels.windows import LANES, Axis


@dataclass(frozen=True)
class Part:
    """A part of the output.

    Attributes:
        image, out_row, channel: Where it begins in the output.
        in_row: The input row where the part's input begins.
        images, channels: How many.
        rows: The vertical axis of the part.
    """

    image: int
    out_row: int
    channel: int
    in_row: int
    images: int
    channels: int
    rows: Axis


def cut_windows(images: int, rows: Axis, channels: int, out_col: int, count: int) -> list[Part]:
    """At most `count` parts.

    Channels are cut first where that keeps the parts' cache lines apart: a thread then reads its
    own weights and no row twice.

    Args:
        out_col: Elements between pixels of the output.
    """
    by_image = [
        Part(first, 0, 0, 0, length, channels, rows) for first, length in pieces(images, count)
    ]
    by_channel = [
        Part(0, 0, first, 0, images, length, rows)
        for first, length in _channel_pieces(channels, count)
    ]
    by_row = _by_row(images, rows, channels, count)
    if out_col % LINE_FLOATS == 0:
        cuts = [by_image, by_channel, by_row]
    else:
        cuts = [by_image, by_row, by_channel]
    sizes: list[list[Piece]] = [
        [(0, part.images * part.rows.outputs * part.channels) for part in cut] for cut in cuts
    ]
    return cuts[choose(sizes, count)]


def _channel_pieces(channels: int, count: int) -> list[Piece]:
    """Whole vectors; the lanes of a first vector that is not whole belong to the first piece."""
    odd = channels % LANES
    cut = pieces(channels - odd, count, LINE_FLOATS) or ((0, 0),)
    return [(first + odd if first else 0, length + (0 if first else odd)) for first, length in cut]


def _by_row(images: int, rows: Axis, channels: int, count: int) -> list[Part]:
    parts = []
    for first, length in pieces(rows.outputs, count):
        in_row, axis = _part_of(rows, first, length)
        if axis.size < 1:
            # A part that reads nothing but padding: the loops want an image.
            return [Part(0, 0, 0, 0, images, channels, rows)]
        parts.append(Part(0, first, 0, in_row, images, channels, axis))
    return parts


def _part_of(axis: Axis, first: int, outputs: int) -> tuple[int, Axis]:
    """Some of an axis's outputs, over only those inputs that they read; and where these begin.

    Parts that touch no padding are equal.
    """
    start = axis.start(first)
    begin = max(0, start)
    before = begin - start
    reach = (outputs - 1) * axis.stride + (axis.kernel - 1) * axis.dilation + 1 - before
    size = min(axis.size - begin, reach)
    after = min(axis.size + axis.after - begin, reach) - size
    return begin, replace(axis, size=size, outputs=outputs, before=before, after=after)
