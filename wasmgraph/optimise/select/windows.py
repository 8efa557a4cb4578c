"""A convolution's window, and its input with the border that the window reads."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from wasmgraph.kernels.padding import PadConstant
from wasmgraph.optimise.select.builder import Builder
from wasmgraph.optimise.view import View, channel_last


@dataclass(frozen=True)
class Window:
    """A convolution's attributes, one entry per spatial axis."""

    strides: tuple[int, ...]
    dilation: tuple[int, ...]
    before: tuple[int, ...]
    after: tuple[int, ...]
    groups: int

    @staticmethod
    def of(attrs: Any) -> Window:
        """From Relax's attributes, whose padding is all begins, then all ends."""
        padding = [int(p) for p in attrs.padding]
        half = len(padding) // 2
        return Window(
            tuple(int(s) for s in attrs.strides),
            tuple(int(d) for d in attrs.dilation),
            tuple(padding[:half]),
            tuple(padding[half:]),
            int(attrs.groups),
        )


def padded(builder: Builder, view: View, window: Window, nodes: frozenset[int]) -> View:
    """The input with adjacent channels and a zero border; a view, not a copy, where it may be."""
    rank = len(view.shape)
    order = channel_last(rank)
    if view.shape[1] > 1 and view.strides[1] != 1:
        view = builder.dense(view, nodes, order)
    if not any((*window.before, *window.after)):
        return view
    before = (0, 0, *window.before)
    after = (0, 0, *window.after)
    shape = [n + b + a for n, b, a in zip(view.shape, before, after, strict=True)]
    out = builder.allocate(shape, order=order)
    kernel = PadConstant(
        tuple(view.shape[a] for a in order),
        (*(view.strides[a] for a in order[:-1]), 1),
        tuple(before[a] for a in order),
        tuple(after[a] for a in order),
    )
    builder.emit(kernel, [view], [out], nodes, "pad")
    return out
