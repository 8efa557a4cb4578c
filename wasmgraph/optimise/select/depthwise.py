"""Depthwise convolutions."""

from __future__ import annotations

from typing import Any

from numpy.typing import NDArray

from wasmgraph.kernels.depthwise import Depthwise, pack_depthwise
from wasmgraph.kernels.operands import PixelOperand
from wasmgraph.optimise.fuse import Group
from wasmgraph.optimise.select.bias import peel_bias
from wasmgraph.optimise.select.builder import Builder
from wasmgraph.optimise.select.elementwise import describe
from wasmgraph.optimise.select.windows import Window
from wasmgraph.optimise.view import View, channel_last


def select_depthwise(builder: Builder, group: Group, weights: NDArray[Any]) -> bool:
    """One kernel; the border needs no padded copy."""
    anchor = group.anchor
    assert anchor is not None
    window = Window.of(anchor.attrs)
    source = builder.view(anchor.inputs[0])
    if source.strides[1] != 1 and source.shape[1] > 1:
        source = builder.dense(source, group.nodes, channel_last(4))
    shape = builder.graph.tensors[group.output].shape
    out = builder.place(group.output, channel_last(4))
    bias, chain, tensors = peel_bias(builder, group, 1)
    views = [readable_pixels(builder, builder.view(t), out, group.nodes) for t in tensors]
    kernel = Depthwise(
        batch=shape[0],
        in_h=source.shape[2],
        in_w=source.shape[3],
        channels=shape[1],
        in_batch=source.strides[0],
        in_row=source.strides[2],
        in_col=source.strides[3],
        out_h=shape[2],
        out_w=shape[3],
        out_batch=out.strides[0],
        out_row=out.strides[2],
        out_col=out.strides[3],
        kernel_h=weights.shape[2],
        kernel_w=weights.shape[3],
        stride_h=window.strides[0],
        stride_w=window.strides[1],
        dilation_h=window.dilation[0],
        dilation_w=window.dilation[1],
        pad_top=window.before[0],
        pad_left=window.before[1],
        has_bias=bias is not None,
        chain=chain,
        operands=tuple(map(pixel_operand, views)),
    )
    name = builder.graph.tensors[anchor.inputs[1]].name
    reads = [source, builder.weight(pack_depthwise(weights), name)]
    if bias is not None:
        reads.append(builder.weight(bias))
    label = "depthwise_conv2d" + (" + bias" if bias is not None else "")
    builder.emit(kernel, [*reads, *views], [out], group.nodes, describe(chain, label))
    builder.set(group.output, out)
    return True


def readable_pixels(builder: Builder, view: View, out: View, nodes: frozenset[int]) -> View:
    """An operand broadcast to the output, its channels adjacent or all the same."""
    wide = view.broadcast(out.shape)
    if wide.strides[1] in (0, 1):
        return wide
    missing = len(out.shape) - len(view.shape)
    order = [axis - missing for axis in channel_last(4) if axis >= missing]
    return builder.dense(view, nodes, order).broadcast(out.shape)


def pixel_operand(view: View) -> PixelOperand:
    """A view from `readable_pixels` as a kernel's operand."""
    batch, channel, row, col = view.strides
    return PixelOperand(batch, row, col, channel)
