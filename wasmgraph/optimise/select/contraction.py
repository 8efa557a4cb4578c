"""Convolutions and matrix products: pad, pack the weights, fuse what follows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wasmgraph.kernels import winograd
from wasmgraph.kernels.chain import IDENTITY, Chain, Step
from wasmgraph.kernels.contraction import BatchAxis, Contraction
from wasmgraph.kernels.operands import RowOperand
from wasmgraph.kernels.packing import pack_columns, packed_columns
from wasmgraph.kernels.padding import PadConstant
from wasmgraph.kernels.rows import merge_axes
from wasmgraph.kernels.thin import MAX_COLUMNS, MIN_ADJACENT, ThinContraction
from wasmgraph.optimise.fuse import Group
from wasmgraph.optimise.opgraph import Op
from wasmgraph.optimise.select.builder import Builder
from wasmgraph.optimise.select.depthwise import pixel_operand, readable_pixels, select_depthwise
from wasmgraph.optimise.select.elementwise import describe, emit_chain
from wasmgraph.optimise.view import (
    View,
    channel_last,
    dense_strides,
    element_count,
    merged_axes,
)

WINOGRAD_MIN_CHANNELS = 8
WINOGRAD_MIN_TILES = 12
"""Below either the transforms cost more than the multiplications they save."""


def select_anchored(builder: Builder, group: Group) -> bool:
    """Kernels for a group with an anchor; False if we have none for this form of it."""
    assert group.anchor is not None
    if group.anchor.kind == "matmul":
        return _select_matmul(builder, group)
    if group.anchor.kind == "nn.conv2d_transpose":
        return _select_transposed(builder, group)
    return _select_convolution(builder, group)


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


def peel_bias(
    builder: Builder, group: Group, channel_axis: int
) -> tuple[NDArray[Any] | None, Chain, tuple[int, ...]]:
    """Take a constant per-channel addition off the front of a chain.

    Returns:
        The vector [channels] or None, the rest of the chain, and its operands.
    """
    chain, operands = group.chain, group.operands
    added = _first_addition(chain)
    if added is None:
        return None, chain, operands
    shape = builder.graph.tensors[group.output].shape
    if isinstance(added, float):
        bias = np.full(shape[channel_axis], added, np.float32)
        return bias, _without_first(chain, None), operands
    info = builder.graph.tensors[operands[added - 1]]
    vector = _per_channel(info.constant, shape, channel_axis)
    if vector is None:
        return None, chain, operands
    rest = tuple(t for i, t in enumerate(operands) if i != added - 1)
    return vector, _without_first(chain, added), rest


def _first_addition(chain: Chain) -> float | int | None:
    """The number, or the operand that nothing else reads, which is added to operand 0 first."""
    if not chain.steps or any(0 in step.args for step in chain.steps[1:]):
        return None
    first = chain.steps[0]
    if first.op == "add_number":
        return first.numbers[0]
    if first.op != "add" or 0 not in first.args or first.args == (0, 0):
        return None
    other = max(first.args)
    return None if any(other in step.args for step in chain.steps[1:]) else other


def _per_channel(
    array: NDArray[Any] | None, shape: Sequence[int], axis: int
) -> NDArray[Any] | None:
    if array is None or array.ndim > len(shape):
        return None
    full = array.reshape((1,) * (len(shape) - array.ndim) + array.shape)
    if full.size != full.shape[axis] or full.shape[axis] not in (1, shape[axis]):
        return None
    return np.ascontiguousarray(np.broadcast_to(full.reshape(-1), (shape[axis],)), np.float32)


def _without_first(chain: Chain, dropped: int | None) -> Chain:
    """The chain less its first step (whose result becomes operand 0), and less one operand."""
    first_result = chain.operands

    def renumber(reference: int) -> int:
        if reference == first_result:
            return 0
        shift = (1 if dropped is not None and reference > dropped else 0) + (
            1 if reference > first_result else 0
        )
        return reference - shift

    steps = tuple(Step(s.op, tuple(map(renumber, s.args)), s.numbers) for s in chain.steps[1:])
    return Chain(chain.operands - (dropped is not None), steps)


def _select_convolution(builder: Builder, group: Group) -> bool:
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
    grouped = grouped.reshape(window.groups, -1, columns)
    out = builder.allocate(shape, order=order)
    batch: tuple[BatchAxis, ...] = ()
    if window.groups > 1:
        packed = packed_columns(columns) * grouped.shape[1]
        batch = (BatchAxis(window.groups, per_group, packed, columns, bias=columns),)
    _emit(
        builder,
        group,
        _Product(
            batch=batch,
            rows=merge_axes(rows),
            reduce=merge_axes([*reduce, (per_group, 1)]),
            columns=columns,
            b_row=0,
            channel_axis=1,
        ),
        source,
        _Weights(grouped, builder.graph.tensors[anchor.inputs[1]].name),
        out,
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
    out = builder.allocate(shape, order=order)
    views = [readable_pixels(builder, builder.view(t), out, group.nodes) for t in tensors]
    kernel = winograd.Winograd(
        batch=shape[0],
        height=shape[2],
        width=shape[3],
        channels=weights.shape[1],
        columns=weights.shape[0],
        has_bias=bias is not None,
        chain=chain,
        operands=tuple(pixel_operand(v) for v in views),
    )
    columns = np.moveaxis(weights, (0, 1), (-1, -2)).reshape(-1, weights.shape[0])
    name = builder.graph.tensors[anchor.inputs[1]].name
    reads = [source, builder.weight(pack_columns(columns), name)]
    if bias is not None:
        reads.append(builder.weight(bias))
    scratch = builder.allocate((kernel.scratch_nbytes // 4,))
    label = "conv2d" + (" + bias" if bias is not None else "")
    builder.emit(kernel, [*reads, *views], [out, scratch], group.nodes, describe(chain, label))
    builder.set(group.output, out)
    return True


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


@dataclass(frozen=True)
class _Product:
    batch: tuple[BatchAxis, ...]
    rows: tuple[tuple[int, int], ...]
    reduce: tuple[tuple[int, int], ...]
    columns: int
    b_row: int
    channel_axis: int


@dataclass(frozen=True)
class _Weights:
    """b as a constant: float32 [batch..., k, column], and its name."""

    array: NDArray[Any]
    name: str


def _emit(
    builder: Builder,
    group: Group,
    product: _Product,
    a: View,
    b: View | _Weights,
    out: View,
    name: str,
) -> None:
    """The contraction with as much of the chain as its operands allow, then the rest."""
    if isinstance(b, _Weights) and _is_thin(product):
        _emit_thin(builder, group, product, a, b, out, name)
        return
    if isinstance(b, _Weights):
        b = builder.weight(pack_columns(b.array), b.name)
    bias, chain, tensors = peel_bias(builder, group, product.channel_axis)
    views = [_readable(builder, builder.view(t), out, product, group.nodes) for t in tensors]
    operands = [_row_operand(view, out, product) for view in views]
    reads = [a, b]
    if bias is not None:
        reads.append(builder.weight(bias))
    fits = all(operand is not None for operand in operands)
    kernel = Contraction(
        batch=product.batch,
        rows=product.rows,
        out_row=_row_stride(out, product),
        reduce=product.reduce,
        columns=product.columns,
        b_row=product.b_row,
        has_bias=bias is not None,
        chain=chain if fits else IDENTITY,
        operands=tuple(o for o in operands if o is not None) if fits else (),
    )
    if bias is not None:
        name += " + bias"
    if not fits:
        builder.emit(kernel, reads, [out], group.nodes, name)
        builder.set(group.output, emit_chain(builder, chain, [out, *views], out.shape, group.nodes))
        return
    # A weight must be adjacent along the columns, which its C order need not be.
    builder.emit(kernel, [*reads, *views], [out], group.nodes, describe(chain, name))
    builder.set(group.output, out)


def _is_thin(product: _Product) -> bool:
    adjacent, stride = product.reduce[-1]
    return (
        product.columns <= MAX_COLUMNS
        and not product.batch
        and stride == 1
        and adjacent >= MIN_ADJACENT
    )


def _emit_thin(
    builder: Builder,
    group: Group,
    product: _Product,
    a: View,
    b: _Weights,
    out: View,
    name: str,
) -> None:
    """Few columns: dot products, with the chain if it reads nothing else."""
    bias, chain, tensors = peel_bias(builder, group, product.channel_axis)
    fused = chain if not tensors else IDENTITY
    kernel = ThinContraction(
        product.rows,
        _row_stride(out, product),
        product.reduce,
        product.columns,
        bias is not None,
        fused,
    )
    columns = np.moveaxis(b.array.reshape(-1, product.columns), 0, 1)
    reads = [a, builder.weight(np.ascontiguousarray(columns, np.float32), b.name)]
    if bias is not None:
        reads.append(builder.weight(bias))
        name += " + bias"
    builder.emit(kernel, reads, [out], group.nodes, describe(fused, name))
    if tensors:
        views = [out, *(builder.view(tensor) for tensor in tensors)]
        out = emit_chain(builder, chain, views, out.shape, group.nodes)
    builder.set(group.output, out)


def _row_stride(out: View, product: _Product) -> int:
    """Elements from one output row to the next."""
    shape, (strides,) = _row_axes(out, product)
    return strides[-1] if len(shape) == 1 else 0


def _row_axes(view: View, product: _Product) -> tuple[tuple[int, ...], tuple[tuple[int, ...], ...]]:
    """The axes of a view (broadcast to the output) that count rows, merged."""
    batch = len(product.batch) if product.channel_axis != 1 else 0
    axes = [a for a in range(batch, len(view.shape)) if a != product.channel_axis]
    return merged_axes([view.shape[a] for a in axes], [view.strides[a] for a in axes])


def _readable(
    builder: Builder, view: View, out: View, product: _Product, nodes: frozenset[int]
) -> View:
    """An operand with its columns adjacent or all the same."""
    column = view.broadcast(out.shape).strides[product.channel_axis]
    if column in (0, 1) or out.shape[product.channel_axis] == 1:
        return view
    missing = len(out.shape) - len(view.shape)
    order = [axis - missing for axis in out.order() if axis >= missing]
    return builder.dense(view, nodes, order)


def _row_operand(view: View, out: View, product: _Product) -> RowOperand | None:
    """How the contraction reads an operand, or None if its rows are not evenly spaced."""
    wide = view.broadcast(out.shape)
    column = wide.strides[product.channel_axis]
    if out.shape[product.channel_axis] == 1:
        column = 0
    shape, (strides,) = _row_axes(wide, product)
    if len(shape) != 1 or column not in (0, 1):
        return None
    if product.channel_axis == 1:
        batch = tuple(axis.out * column for axis in product.batch)
    else:
        batch = tuple(wide.strides[: len(product.batch)])
    return RowOperand(batch, strides[0], column)


def _select_matmul(builder: Builder, group: Group) -> bool:
    anchor = group.anchor
    assert anchor is not None
    a, b = (builder.view(t) for t in anchor.inputs)
    shape = builder.graph.tensors[anchor.outputs[0]].shape
    if len(a.shape) < 2 or len(b.shape) < 2:
        return False
    constant = builder.value(anchor.inputs[1])
    depth, columns = b.shape[-2:]
    out = builder.allocate(shape, order=_product_order(builder, group, shape))
    lead = shape[:-2]
    wide_a = a.broadcast((*lead, *a.shape[-2:]))
    if constant is not None and element_count(constant.shape[:-2]) == 1:
        name = builder.graph.tensors[anchor.inputs[1]].name
        weight = _Weights(constant.reshape(depth, columns), name)
        rows = [*zip(lead, wide_a.strides[:-2], strict=True), (shape[-2], wide_a.strides[-2])]
        product = _Product(
            (), merge_axes(rows), ((depth, wide_a.strides[-1]),), columns, 0, len(shape) - 1
        )
        if len(_row_axes(out, product)[0]) != 1:
            out = builder.allocate(shape)
        _emit(builder, group, product, wide_a, weight, out, "matmul")
        return True
    weights_or_view: View | _Weights = b
    if constant is not None:
        weights_or_view = _Weights(constant, builder.graph.tensors[anchor.inputs[1]].name)
        size = packed_columns(columns) * depth
        b_batch, b_row = tuple(size * s for s in dense_strides(constant.shape[:-2])), 0
    else:
        if columns > 1 and b.strides[-1] != 1:
            b = builder.dense(b, group.nodes)
        b_batch, b_row = b.strides[:-2], b.strides[-2]
        if b_row == 0:
            b = builder.dense(b, group.nodes)
            b_batch, b_row = b.strides[:-2], b.strides[-2]
        weights_or_view = b
    missing = len(lead) - len(b_batch)
    old = (1,) * missing + tuple(builder.graph.tensors[anchor.inputs[1]].shape[:-2])
    steps = (0,) * missing + tuple(b_batch)
    steps = tuple(0 if o == 1 else s for o, s in zip(old, steps, strict=True))
    batch = tuple(
        BatchAxis(n, wide_a.strides[i], steps[i], out.strides[i]) for i, n in enumerate(lead)
    )
    product = _Product(
        batch,
        ((shape[-2], wide_a.strides[-2]),),
        ((depth, wide_a.strides[-1]),),
        columns,
        b_row,
        len(shape) - 1,
    )
    _emit(builder, group, product, wide_a, weights_or_view, out, "matmul")
    return True


def _product_order(
    builder: Builder, group: Group, shape: tuple[int, ...]
) -> tuple[int, ...] | None:
    """If all that reads the product is one transpose that keeps columns innermost, its order."""
    readers = [op for op in builder.graph.ops if group.output in op.inputs]
    if group.output in builder.graph.outputs or len(readers) != 1:
        return None
    if readers[0].kind != "permute_dims":
        return None
    axes = permutation(readers[0], len(shape))
    return axes if axes[-1] == len(shape) - 1 else None


def permutation(op: Op, rank: int) -> tuple[int, ...]:
    """The axes of a permute_dims; without any it reverses them."""
    if op.attrs.axes is None:
        return tuple(reversed(range(rank)))
    return tuple(int(axis) % rank for axis in op.attrs.axes)


def _select_transposed(builder: Builder, group: Group) -> bool:
    """A transposed convolution whose windows do not overlap: a matrix product, then a shuffle."""
    anchor = group.anchor
    assert anchor is not None
    window = Window.of(anchor.attrs)
    weights = builder.value(anchor.inputs[1])
    shape = builder.graph.tensors[anchor.outputs[0]].shape
    if (
        weights is None
        or window.groups != 1
        or weights.shape[2:] != window.strides
        or any((*window.before, *window.after))
        or any(int(p) for p in anchor.attrs.output_padding)
    ):
        return False
    batch, height, width = shape[0], shape[2] // window.strides[0], shape[3] // window.strides[1]
    channels, out_channels, kernel_h, kernel_w = weights.shape
    source = padded(builder, builder.view(anchor.inputs[0]), window, group.nodes)
    columns = kernel_h * kernel_w * out_channels
    packed = pack_columns(weights.transpose(0, 2, 3, 1).reshape(channels, columns))
    rows = [(batch, source.strides[0]), (height, source.strides[2]), (width, source.strides[3])]
    product = builder.allocate((batch, height, width, kernel_h, kernel_w, out_channels))
    kernel = Contraction((), merge_axes(rows), columns, ((channels, 1),), columns)
    name = builder.graph.tensors[anchor.inputs[1]].name
    builder.emit(
        kernel, [source, builder.weight(packed, name)], [product], group.nodes, "conv2d_transpose"
    )
    # [n, y, x, i, j, c] -> [n, c, y, i, x, j], which is [n, c, y * kh + i, x * kw + j]
    pixels = builder.dense(product.permuted((0, 1, 3, 2, 4, 5)), group.nodes)
    whole = pixels.reshaped((batch, shape[2], shape[3], out_channels))
    assert whole is not None
    result = whole.permuted((0, 3, 1, 2))
    if group.chain.steps:
        views = [result, *(builder.view(t) for t in group.operands)]
        result = emit_chain(builder, group.chain, views, shape, group.nodes)
    builder.set(group.output, result)
    return True
