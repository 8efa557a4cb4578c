"""Channel-last images of bytes: their borders, and maxima over windows."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from wasmgraph.kernels.byte_padding import PadBytes
from wasmgraph.kernels.byte_pooling import MaxPoolBytes
from wasmgraph.optimise.opgraph import Op
from wasmgraph.optimise.select.builder import Builder
from wasmgraph.optimise.view import View, channel_last


def adjacent_channels(builder: Builder, view: View, nodes: frozenset[int]) -> View:
    """The image with its channels next to each other."""
    if view.shape[1] > 1 and view.strides[1] != 1:
        return builder.dense(view, nodes, channel_last(len(view.shape)))
    return view


def padded_bytes(
    builder: Builder,
    view: View,
    before: Sequence[int],
    after: Sequence[int],
    value: int,
    nodes: frozenset[int],
) -> View:
    """An image with adjacent channels and a border; a view, not a copy, where there is none.

    Args:
        before, after: Elements of the border, per spatial axis.
        value: What the border holds; 0 where elements are no bytes.
    """
    if not any((*before, *after)):
        return view
    order = channel_last(len(view.shape))
    first, last = (0, 0, *before), (0, 0, *after)
    shape = [n + b + a for n, b, a in zip(view.shape, first, last, strict=True)]
    out = builder.allocate(shape, view.dtype, order)
    size = view.itemsize
    assert size == 1 or value == 0, "only bytes have a zero point"
    arranged = tuple(view.shape[a] for a in order)
    kernel = PadBytes(
        (*arranged[:-1], arranged[-1] * size),
        (*(view.strides[a] * size for a in order[:-1]), 1),
        tuple(first[a] for a in order),
        tuple(last[a] for a in order),
        value & 0xFF,
    )
    builder.emit(kernel, [view], [out], nodes, "pad")
    return out


def max_pool_bytes(builder: Builder, op: Op) -> bool:
    """max_pool2d of int8 or uint8."""
    view = adjacent_channels(builder, builder.view(op.inputs[0]), op.nodes)
    info = builder.graph.tensors[op.outputs[0]]
    window, stride, dilation = (
        (int(pair[0]), int(pair[1]))
        for pair in (op.attrs.pool_size, op.attrs.strides, op.attrs.dilation)
    )
    before = [int(p) for p in op.attrs.padding[:2]]
    # What the windows reach; where the last ones are cut off, that is less than the padding.
    reach = [
        (n - 1) * s + (k - 1) * d + 1
        for n, s, k, d in zip(info.shape[2:], stride, window, dilation, strict=True)
    ]
    after = [max(0, r - b - n) for r, b, n in zip(reach, before, view.shape[2:], strict=True)]
    lowest = int(np.iinfo(info.dtype).min)
    source = padded_bytes(builder, view, before, after, lowest, op.nodes)
    out = builder.allocate(info.shape, info.dtype, channel_last(4))
    kernel = MaxPoolBytes(
        batch=info.shape[0],
        out_h=info.shape[2],
        out_w=info.shape[3],
        channels=info.shape[1],
        in_batch=source.strides[0],
        in_row=source.strides[2],
        in_col=source.strides[3],
        out_batch=out.strides[0],
        out_row=out.strides[2],
        out_col=out.strides[3],
        window=window,
        stride=stride,
        dilation=dilation,
        is_signed=info.dtype == "int8",
    )
    builder.emit(kernel, [source], [out], op.nodes, "max_pool2d")
    builder.set(op.outputs[0], out)
    return True
