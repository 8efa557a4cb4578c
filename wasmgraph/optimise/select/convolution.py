"""Convolutions of any rank: pad, pack the weights, fuse what follows."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wasmgraph.kernels import winograd
from wasmgraph.kernels.contraction import BatchAxis
from wasmgraph.kernels.packing import packed_columns
from wasmgraph.kernels.rows import merge_axes
from wasmgraph.kernels.tiles import SEPARATE
from wasmgraph.optimise.fuse import Group
from wasmgraph.optimise.select.bias import peel_bias
from wasmgraph.optimise.select.builder import Builder
from wasmgraph.optimise.select.depthwise import pixel_operand, readable_pixels, select_depthwise
from wasmgraph.optimise.select.elementwise import describe
from wasmgraph.optimise.select.products import Product, Weights, emit_product, packed_weights
from wasmgraph.optimise.select.windows import Window, padded
from wasmgraph.optimise.view import View, channel_last, merged_axes

WINOGRAD_MIN_CHANNELS = 8
WINOGRAD_MIN_TILES = 12
"""Below either the transforms cost more than the multiplications they save."""


def select_convolution(builder: Builder, group: Group) -> bool:
    anchor = group.anchor
    assert anchor is not None
    window = Window.of(anchor.attrs)
    weights = builder.value(anchor.inputs[1])
    if weights is None:
        return False
    shape = builder.graph.tensors[anchor.outputs[0]].shape
    channels = builder.graph.tensors[anchor.inputs[0]].shape[1]
    if len(shape) == 4 and window.groups == channels == shape[1] > 1:
        return select_depthwise(builder, group, weights)
    if _suits_winograd(builder, window, weights, shape):
        return _select_winograd(builder, group, weights)
    order = channel_last(len(shape))
    source = padded(builder, builder.view(anchor.inputs[0]), window, group.nodes)
    space = range(2, len(shape))
    rows = [(shape[0], source.strides[0])]
    rows += [(shape[a], source.strides[a] * window.strides[a - 2]) for a in space]
    kernel = weights.shape[2:]
    reduce = [
        (k, source.strides[a] * d) for a, k, d in zip(space, kernel, window.dilation, strict=True)
    ]
    per_group = channels // window.groups
    columns = shape[1] // window.groups
    # [group, column, k in group, space...] -> [group, space..., k in group, column]
    grouped = weights.reshape(window.groups, columns, per_group, *kernel)
    grouped = np.moveaxis(grouped, (1, 2), (-1, -2))
    grouped = grouped.reshape(*([window.groups] if window.groups > 1 else []), -1, columns)
    batch: tuple[BatchAxis, ...] = ()
    if window.groups > 1:
        packed = packed_columns(columns, builder.tiles) * grouped.shape[-2]
        batch = (BatchAxis(window.groups, per_group, packed, columns, bias=columns),)
    emit_product(
        builder,
        group,
        Product(
            batch=batch,
            rows=merge_axes(rows),
            reduce=merge_axes([*reduce, (per_group, 1)]),
            columns=columns,
            b_row=0,
            channel_axis=1,
        ),
        source,
        Weights(grouped, builder.graph.tensors[anchor.inputs[1]].name),
        order,
        anchor.kind.removeprefix("nn."),
    )
    return True


def _suits_winograd(
    builder: Builder, window: Window, weights: NDArray[Any], shape: tuple[int, ...]
) -> bool:
    return (
        builder.options.winograd
        and weights.shape[2:] == (3, 3)
        and window.strides == window.dilation == (1, 1)
        and window.groups == 1
        and min(weights.shape[:2]) >= WINOGRAD_MIN_CHANNELS
        and winograd.applies(weights.shape[1], weights.shape[0])
        and shape[0] * -(-shape[2] // winograd.TILE) * -(-shape[3] // winograd.TILE)
        >= WINOGRAD_MIN_TILES
    )


def _select_winograd(builder: Builder, group: Group, weights: NDArray[Any]) -> bool:
    """The same convolution with fewer multiplications."""
    anchor = group.anchor
    assert anchor is not None
    window = Window.of(anchor.attrs)
    shape = builder.graph.tensors[group.output].shape
    order = channel_last(4)
    view = builder.view(anchor.inputs[0])
    after = [
        winograd.padded_extent(shape[a]) - view.shape[a] - window.before[a - 2] for a in (2, 3)
    ]
    source = padded(builder, view, replace(window, after=tuple(after)), group.nodes)
    source = builder.dense(source, group.nodes, order)
    bias, chain, tensors = peel_bias(builder, group, 1)
    out = builder.place(group.output, order, lambda view: _pixel_stride(view) is not None)
    views = [readable_pixels(builder, builder.view(t), out, group.nodes) for t in tensors]
    columns = np.moveaxis(weights, (0, 1), (-1, -2)).reshape(-1, weights.shape[0])
    name = builder.graph.tensors[anchor.inputs[1]].name
    stored, packed = packed_weights(builder, Weights(columns, name), SEPARATE)
    kernel = winograd.Winograd(
        batch=shape[0],
        height=shape[2],
        width=shape[3],
        channels=weights.shape[1],
        columns=weights.shape[0],
        has_bias=bias is not None,
        chain=chain,
        operands=tuple(pixel_operand(v) for v in views),
        pitch=_pixel_stride(out) or 0,
        stored=stored,
    )
    reads = [source, *packed]
    if bias is not None:
        reads.append(builder.weight(bias))
    scratch = builder.allocate((kernel.scratch_nbytes // 4,))
    label = "conv2d" + (" + bias" if bias is not None else "")
    builder.emit(kernel, [*reads, *views], [out, scratch], group.nodes, describe(chain, label))
    builder.set(group.output, out)
    return True


def _pixel_stride(view: View) -> int | None:
    """Elements between neighbouring pixels of channel-last images; None if it differs."""
    shape, (strides,) = merged_axes(
        *([values[a] for a in (0, 2, 3)] for values in (view.shape, view.strides))
    )
    return strides[0] if len(shape) == 1 else None
