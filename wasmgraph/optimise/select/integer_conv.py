"""Convolutions of integers, with what follows them."""

from __future__ import annotations

from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wasmgraph.kernels.chain import IDENTITY
from wasmgraph.kernels.contraction import BatchAxis
from wasmgraph.kernels.integer_depthwise import (
    CHANNELS,
    MAX_TAPS,
    IntegerDepthwise,
    blocks_of_channels,
    pack_integer_depthwise,
)
from wasmgraph.kernels.integer_packing import pack_integer_columns, packed_depth
from wasmgraph.kernels.rows import merge_axes
from wasmgraph.kernels.tiles import LANES, column_blocks
from wasmgraph.kernels.typed import numbers_apart
from wasmgraph.optimise.fuse import Group
from wasmgraph.optimise.opgraph import Op
from wasmgraph.optimise.select.builder import Builder
from wasmgraph.optimise.select.byte_images import adjacent_channels, padded_bytes
from wasmgraph.optimise.select.elementwise import describe
from wasmgraph.optimise.select.integer_products import (
    Product,
    columns_of_groups,
    emit_integer_product,
    rescaled,
)
from wasmgraph.optimise.select.typed import emit_typed, number_operand, with_bounds_joined
from wasmgraph.optimise.select.windows import Window
from wasmgraph.optimise.view import View, channel_last


def select_integer_conv(builder: Builder, group: Group) -> bool:
    """Inputs: the image, weights [column, k, space...], multipliers (if scaled), bias."""
    anchor = group.anchor
    assert anchor is not None
    window = _window(anchor)
    weights = builder.value(anchor.inputs[1])
    assert weights is not None
    shape = builder.graph.tensors[anchor.outputs[0]].shape
    channels = builder.graph.tensors[anchor.inputs[0]].shape[1]
    zero = int(anchor.attrs.parameters["zero"])
    source = adjacent_channels(builder, builder.view(anchor.inputs[0]), group.nodes)
    source = padded_bytes(builder, source, window.before, window.after, zero, group.nodes)
    space = range(2, len(shape))
    rows = [(shape[0], source.strides[0])]
    rows += [(shape[a], source.strides[a] * window.strides[a - 2]) for a in space]
    if _is_depthwise(window, weights, channels):
        _depthwise(builder, group, window, source, weights, shape)
        return True
    kernel = weights.shape[2:]
    reduce = [
        (k, source.strides[a] * d) for a, k, d in zip(space, kernel, window.dilation, strict=True)
    ]
    per_group, columns = channels // window.groups, shape[1] // window.groups
    reduce_axes = merge_axes([*reduce, (per_group, 1)])
    if reduce_axes[-1][1] != 1:
        # A group of one channel: the kernel wants neighbours along the innermost axis.
        reduce_axes = (*reduce_axes, (1, 1))
    # [group, column, k in group, space...] -> [group, space..., k in group, column]
    grouped = weights.reshape(window.groups, columns, per_group, *kernel)
    grouped = np.moveaxis(grouped, (1, 2), (-1, -2)).reshape(window.groups, -1, columns)
    batch: tuple[BatchAxis, ...] = ()
    if window.groups > 1:
        padded = LANES * sum(column_blocks(columns))
        step = packed_depth(reduce_axes) * padded
        batch = (BatchAxis(window.groups, per_group, step, columns, bias=padded),)
    info = builder.graph.tensors[group.output]
    out = builder.allocate(shape, info.dtype, channel_last(len(shape)))
    product = Product(batch, merge_axes(rows), reduce_axes, columns, 1)
    vectors = [builder.value(tensor) for tensor in anchor.inputs[2:]]
    bias = vectors[-1]
    assert bias is not None
    name = builder.graph.tensors[anchor.inputs[1]].name
    emit_integer_product(
        builder,
        group,
        product,
        source,
        builder.weight(pack_integer_columns(grouped, reduce_axes), name),
        builder.weight(columns_of_groups(bias, product)),
        vectors[0] if len(vectors) > 1 else None,
        out,
    )
    return True


def _is_depthwise(window: Window, weights: NDArray[Any], channels: int) -> bool:
    return (
        weights.ndim == 4
        and window.groups == channels == weights.shape[0]
        and channels >= CHANNELS
        and prod(weights.shape[2:]) <= MAX_TAPS
    )


def _depthwise(
    builder: Builder,
    group: Group,
    window: Window,
    source: View,
    weights: NDArray[Any],
    shape: tuple[int, ...],
) -> None:
    """A filter per channel. What follows goes along if it reads nothing else."""
    anchor = group.anchor
    assert anchor is not None
    fused = group.chain.operands == 1
    chain = with_bounds_joined(group.chain) if fused else IDENTITY
    wanted = builder.graph.tensors[group.output].dtype
    dtype = wanted if fused else "float32"
    out = builder.allocate(shape, dtype, channel_last(4))
    name = builder.graph.tensors[anchor.inputs[1]].name
    reads = [source, builder.weight(pack_integer_depthwise(weights), name)]
    vectors = [builder.value(tensor) for tensor in anchor.inputs[2:]]
    bias = vectors[-1]
    assert bias is not None
    reads.append(builder.weight(blocks_of_channels(bias)))
    if dtype != "int32":
        multiplier = vectors[0]
        assert multiplier is not None
        chain, multiplier = rescaled(chain, multiplier)
        reads.append(builder.weight(blocks_of_channels(multiplier)))
    chain, numbers = numbers_apart(chain, dtype)
    reads += number_operand(builder, numbers)
    kernel = IntegerDepthwise(
        batch=shape[0],
        out_h=shape[2],
        out_w=shape[3],
        channels=shape[1],
        in_batch=source.strides[0],
        in_row=source.strides[2],
        in_col=source.strides[3],
        out_batch=out.strides[0],
        out_row=out.strides[2],
        out_col=out.strides[3],
        kernel=(weights.shape[2], weights.shape[3]),
        stride=(window.strides[0], window.strides[1]),
        dilation=(window.dilation[0], window.dilation[1]),
        is_signed=source.dtype == "int8",
        out=dtype,
        chain=chain,
    )
    label = describe(group.chain if fused else IDENTITY, "int8_depthwise_conv")
    builder.emit(kernel, reads, [out], group.nodes, label)
    if fused:
        builder.set(group.output, out)
    else:
        views = [out, *(builder.view(tensor) for tensor in group.operands)]
        emit_typed(builder, group.chain, views, group.output, group.nodes)


def _window(anchor: Op) -> Window:
    parameters = anchor.attrs.parameters
    pads = parameters["pads"]
    half = len(pads) // 2
    return Window(
        tuple(parameters["strides"]),
        tuple(parameters["dilations"]),
        tuple(pads[:half]),
        tuple(pads[half:]),
        parameters["group"],
    )
