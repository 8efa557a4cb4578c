"""Products of integers: convolutions and matrix products with what follows them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wasmgraph.kernels.byte_padding import PadBytes
from wasmgraph.kernels.chain import IDENTITY, Chain
from wasmgraph.kernels.contraction import BatchAxis
from wasmgraph.kernels.integer_contraction import IntegerContraction, TypedOperand
from wasmgraph.kernels.integer_depthwise import (
    CHANNELS,
    MAX_TAPS,
    IntegerDepthwise,
    blocks_of_channels,
    pack_integer_depthwise,
)
from wasmgraph.kernels.integer_packing import pack_integer_columns, packed_depth, per_column
from wasmgraph.kernels.operands import RowOperand
from wasmgraph.kernels.rows import Axes, merge_axes
from wasmgraph.kernels.tiles import LANES, column_blocks
from wasmgraph.optimise.fuse import Group
from wasmgraph.optimise.opgraph import Op
from wasmgraph.optimise.select.builder import Builder
from wasmgraph.optimise.select.elementwise import describe
from wasmgraph.optimise.select.typed import emit_typed, with_bounds_joined
from wasmgraph.optimise.select.windows import Window
from wasmgraph.optimise.view import View, channel_last, merged_axes


def select_integer(builder: Builder, group: Group) -> bool:
    """A product whose result is scaled to float32, with what follows."""
    anchor = group.anchor
    assert anchor is not None
    select = _conv if anchor.attrs.name == "integer_conv" else _matmul
    select(builder, anchor, group)
    return True


def select_integer_sum(builder: Builder, op: Op) -> None:
    """A product whose result stays int32: nothing follows."""
    group = Group(op, IDENTITY, (), op.outputs[0], op.nodes, 0)
    select_integer(builder, group)


def _conv(builder: Builder, anchor: Op, group: Group) -> None:
    """Inputs: the image, weights [column, k, space...], then what `_emit` says."""
    window = _window(anchor)
    weights = builder.value(anchor.inputs[1])
    assert weights is not None
    shape = builder.graph.tensors[anchor.outputs[0]].shape
    channels = builder.graph.tensors[anchor.inputs[0]].shape[1]
    zero = int(anchor.attrs.parameters["zero"])
    source = _padded(builder, builder.view(anchor.inputs[0]), window, zero, group.nodes)
    space = range(2, len(shape))
    rows = [(shape[0], source.strides[0])]
    rows += [(shape[a], source.strides[a] * window.strides[a - 2]) for a in space]
    if _is_depthwise(window, weights, channels):
        _depthwise(builder, group, window, source, weights, shape)
        return
    kernel = weights.shape[2:]
    reduce = [
        (k, source.strides[a] * d) for a, k, d in zip(space, kernel, window.dilation, strict=True)
    ]
    per_group, columns = channels // window.groups, shape[1] // window.groups
    reduce_axes = merge_axes([*reduce, (per_group, 1)])
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
    product = _Product(batch, merge_axes(rows), reduce_axes, columns, 1, window.groups)
    _emit(builder, group, product, source, grouped, out)


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
    chain = with_bounds_joined(group.chain)
    fused = chain.operands == 1
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
        chain, multiplier = rescaled(chain, multiplier) if fused else (chain, multiplier)
        reads.append(builder.weight(blocks_of_channels(multiplier)))
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
        chain=chain if fused else IDENTITY,
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


def _padded(builder: Builder, view: View, window: Window, zero: int, nodes: frozenset[int]) -> View:
    """The image with adjacent channels and a border of zero points."""
    order = channel_last(len(view.shape))
    if view.shape[1] > 1 and view.strides[1] != 1:
        view = builder.dense(view, nodes, order)
    if not any((*window.before, *window.after)):
        return view
    before, after = (0, 0, *window.before), (0, 0, *window.after)
    shape = [n + b + a for n, b, a in zip(view.shape, before, after, strict=True)]
    out = builder.allocate(shape, view.dtype, order)
    size = view.itemsize
    if size > 1:
        assert zero == 0, "only bytes have a zero point"
    arranged = tuple(view.shape[a] for a in order)
    kernel = PadBytes(
        (*arranged[:-1], arranged[-1] * size),
        (*(view.strides[a] * size for a in order[:-1]), 1),
        tuple(before[a] for a in order),
        tuple(after[a] for a in order),
        zero & 0xFF,
    )
    builder.emit(kernel, [view], [out], nodes, "pad")
    return out


def _matmul(builder: Builder, anchor: Op, group: Group) -> None:
    """Inputs: rows, weights [k, column], then what `_emit` says."""
    weights = builder.value(anchor.inputs[1])
    assert weights is not None
    shape = builder.graph.tensors[anchor.outputs[0]].shape
    a = builder.view(anchor.inputs[0])
    if a.shape[-1] > 1 and a.strides[-1] != 1:
        a = builder.dense(a, group.nodes)
    rows = merge_axes([*zip(a.shape[:-1], a.strides[:-1], strict=True)])
    depth, columns = weights.shape
    out = builder.allocate(shape, builder.graph.tensors[group.output].dtype)
    product = _Product((), rows, ((depth, 1),), columns, len(shape) - 1)
    _emit(builder, group, product, a, weights[None], out)


class _Product:
    """What `_emit` needs to know of a product; see `IntegerContraction`."""

    def __init__(
        self,
        batch: tuple[BatchAxis, ...],
        rows: Axes,
        reduce: Axes,
        columns: int,
        channel_axis: int,
        groups: int = 1,
    ) -> None:
        self.batch = batch
        self.rows = rows
        self.reduce = reduce
        self.columns = columns
        self.channel_axis = channel_axis
        self.groups = groups


def _emit(
    builder: Builder,
    group: Group,
    product: _Product,
    a: View,
    weights: NDArray[Any],
    out: View,
) -> None:
    """The call.

    Args:
        weights: [group, k, column]. The anchor's inputs behind them are the multipliers (where the
            result is scaled), then the bias.
    """
    anchor = group.anchor
    assert anchor is not None
    name = builder.graph.tensors[anchor.inputs[1]].name
    vectors = [builder.value(tensor) for tensor in anchor.inputs[2:]]
    chain = with_bounds_joined(group.chain)
    reads = [a, builder.weight(pack_integer_columns(weights, product.reduce), name)]
    bias = vectors[-1]
    if bias is not None:
        reads.append(builder.weight(_columns(bias, product)))
    else:
        reads.append(builder.view(anchor.inputs[-1]))
    if out.dtype != "int32":
        multiplier = vectors[0]
        assert multiplier is not None
        chain, multiplier = rescaled(chain, multiplier)
        reads.append(builder.weight(_columns(multiplier, product)))
    views = [builder.view(tensor) for tensor in group.operands]
    views = [_readable(builder, view, out, product, group.nodes) for view in views]
    kernel = IntegerContraction(
        batch=product.batch,
        rows=product.rows,
        out_row=_row_stride(out, product),
        reduce=product.reduce,
        columns=product.columns,
        a=a.dtype,
        b=weights.dtype.name,
        out=out.dtype,
        has_bias=True,
        chain=chain,
        operands=tuple(_operand(view, product) for view in views),
    )
    label = anchor.attrs.name.replace("integer_", "int8_")
    builder.emit(kernel, [*reads, *views], [out], group.nodes, describe(group.chain, label))
    builder.set(group.output, out)


def _columns(vector: NDArray[Any], product: _Product) -> NDArray[Any]:
    """A vector per column of every group, as long as the kernel wants it."""
    return per_column(vector.reshape(product.groups, -1), product.columns)


def rescaled(chain: Chain, multiplier: NDArray[Any]) -> tuple[Chain, NDArray[Any]]:
    """Where the sum is quantised at once, its multiplier over the scale, like onnxruntime."""
    if [step.op for step in chain.steps] != ["quantise"] or chain.operands != 1:
        return chain, multiplier
    (last,) = chain.steps
    scale = np.float32(last.numbers[0])
    step = replace(last, numbers=(1.0, *last.numbers[1:]))
    return replace(chain, steps=(step,)), np.asarray(multiplier / scale, np.float32)


def _row_axes(view: View, product: _Product) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Extents and strides of the axes that count rows, merged."""
    axes = [a for a in range(len(view.shape)) if a != product.channel_axis]
    shape, (strides,) = merged_axes([view.shape[a] for a in axes], [view.strides[a] for a in axes])
    return shape, strides


def _row_stride(out: View, product: _Product) -> int:
    shape, strides = _row_axes(out, product)
    assert len(shape) == 1, (shape, strides)
    return strides[0]


def _readable(
    builder: Builder, view: View, out: View, product: _Product, nodes: frozenset[int]
) -> View:
    """An operand with its columns adjacent or all the same, and its rows evenly spaced."""
    wide = view.broadcast(out.shape)
    column = wide.strides[product.channel_axis]
    if len(_row_axes(wide, product)[0]) == 1 and column in (0, 1):
        return wide
    missing = len(out.shape) - len(view.shape)
    order: Sequence[int] = [axis - missing for axis in out.order() if axis >= missing]
    if view.shape == out.shape:
        return builder.dense(view, nodes, order)
    full = builder.allocate(out.shape, view.dtype, out.order())
    builder.copy(wide, full, nodes)
    return full


def _operand(wide: View, product: _Product) -> TypedOperand:
    column = wide.strides[product.channel_axis] if wide.shape[product.channel_axis] > 1 else 0
    strides = _row_axes(wide, product)[1]
    batch = tuple(axis.out * column for axis in product.batch)
    return TypedOperand(RowOperand(batch, strides[0], column), wide.dtype)
