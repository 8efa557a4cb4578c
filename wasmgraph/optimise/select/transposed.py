"""Transposed convolutions: a plain convolution of stride 1 for every phase of the output.

Outputs whose index leaves one rest by the stride use the same taps, at neighbouring inputs. So each
of the strides' product of phases is a convolution with a part of the filter, which writes every
stride-th pixel; together they do no more multiplications than needed, and nothing is added up in
memory or moved afterwards.

Where windows do not overlap, the phases of a row read the same inputs and their outputs are
neighbours: they are the columns of one product.

3x3 windows of stride 2, from 180x180x64 to 360x360x32, reach 40 GFLOP/s, as plain convolutions do
(one Zen 4 core at 3.6 GHz, Wasmtime 50, 2026-11-20).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import product
from math import gcd

import numpy as np
from numpy.typing import NDArray

from wasmgraph.kernels.chain import Chain
from wasmgraph.kernels.contraction import BatchAxis, Contraction
from wasmgraph.kernels.depthwise import Depthwise, pack_depthwise
from wasmgraph.kernels.operands import PixelOperand, RowOperand
from wasmgraph.kernels.packing import packed_columns
from wasmgraph.kernels.rows import merge_axes
from wasmgraph.optimise.fuse import Group
from wasmgraph.optimise.select.bias import peel_bias
from wasmgraph.optimise.select.builder import Builder
from wasmgraph.optimise.select.elementwise import describe, readable
from wasmgraph.optimise.select.products import Weights, packed_weights
from wasmgraph.optimise.select.windows import Window, padded
from wasmgraph.optimise.view import View, channel_last, dense_strides

Array = NDArray[np.float32]

MIN_COLUMNS = 8
"""Where a row's phases have fewer columns, those of all axes are computed together, and moved: 24
to 1 channel of 320x320, each pixel to 2x2, took 0.78 ms so and 1.84 ms as two products of 2 columns
(24 to 24 of 160x160: 4.4 and 3.2 ms; one Zen 4 core, Wasmtime 50, 2026-11-20)."""


@dataclass(frozen=True)
class Phase:
    """Every stride-th output of an axis as a convolution of stride 1.

    Attributes:
        first: The first of these outputs.
        stride: From one to the next.
        count: How many.
        taps: The filter's taps that they use, in the order of the inputs these meet; none where
            all of them are zero.
        start: The input that the first tap of the first output meets; may lie before the image.
        dilation: Inputs from tap to tap.
    """

    first: int
    stride: int
    count: int
    taps: tuple[int, ...]
    start: int
    dilation: int

    @property
    def end(self) -> int:
        """One more than the last input it reads."""
        return self.start + self.count + max(0, len(self.taps) - 1) * self.dilation


def phases_of(outputs: int, kernel: int, stride: int, dilation: int, pad: int) -> list[Phase]:
    """All phases of an axis.

    Output o gets input i times tap k where o = i * stride - pad + k * dilation.
    """
    found = []
    for first in range(min(stride, outputs)):
        taps = [k for k in range(kernel) if (first + pad - k * dilation) % stride == 0][::-1]
        found.append(
            Phase(
                first=first,
                stride=stride,
                count=-(-(outputs - first) // stride),
                taps=tuple(taps),
                start=(first + pad - taps[0] * dilation) // stride if taps else 0,
                dilation=dilation // gcd(stride, dilation),
            )
        )
    return found


@dataclass(frozen=True)
class _Convolution:
    """What the phases have in common.

    Attributes:
        source: Channel-last, with its border where it is not depthwise.
        before: Pixels of that border before the image, by axis.
        weights: [channels, columns per group, taps...].
        bias, chain, operands: What is added and done to the sums.
        out: The whole output.
    """

    source: View
    before: tuple[int, ...]
    weights: Array
    name: str
    groups: int
    bias: Array | None
    chain: Chain
    operands: tuple[View, ...]
    out: View


def select_transposed(builder: Builder, group: Group) -> bool:
    """nn.conv1d_transpose, nn.conv2d_transpose, nn.conv3d_transpose."""
    anchor = group.anchor
    assert anchor is not None
    window = Window.of(anchor.attrs)
    weights = builder.value(anchor.inputs[1])
    shape = builder.graph.tensors[group.output].shape
    view = builder.view(anchor.inputs[0])
    if weights is None or view.size == 0 or 0 in shape:
        return False
    axes = phases = [
        phases_of(*sizes)
        for sizes in zip(
            shape[2:],
            weights.shape[2:],
            window.strides,
            window.dilation,
            window.before,
            strict=True,
        )
    ]
    order = channel_last(len(shape))
    is_depthwise = len(shape) == 4 and window.groups == shape[1] == view.shape[1] > 1
    if is_depthwise and view.strides[1] != 1:
        view = builder.dense(view, group.nodes, order)
    border: list[tuple[int, int]] = [(0, 0)] * len(axes)
    if not is_depthwise:
        border = [
            (max(0, -min(p.start for p in axis)), max(0, max(p.end for p in axis) - extent))
            for axis, extent in zip(axes, view.shape[2:], strict=True)
        ]
    before, after = (tuple(pair[i] for pair in border) for i in range(2))
    ones = (1,) * len(axes)
    source = padded(builder, view, Window(ones, ones, before, after, 1), group.nodes)
    bias, chain, tensors = peel_bias(builder, group, 1)
    out = builder.place(group.output, order)
    convolution = _Convolution(
        source,
        before,
        weights,
        builder.graph.tensors[anchor.inputs[1]].name,
        window.groups,
        bias,
        chain,
        tuple(readable(builder, builder.view(t), shape, out, group.nodes) for t in tensors),
        out,
    )
    label = anchor.kind.removeprefix("nn.") + (" + bias" if bias is not None else "")
    label = describe(chain, label)
    emit = _emit_depthwise if is_depthwise else _emit_product
    joined = _joined_axes(convolution, axes)
    if joined:
        convolution, axes = _joined(builder, convolution, axes, joined)
    for combination in product(*axes):
        emit(builder, group, convolution, combination, label)
    if convolution.out.storage != out.storage:
        _spread(builder, group, convolution.out, out, [len(axis) for axis in phases])
    builder.set(group.output, out)
    return True


def _joined_axes(convolution: _Convolution, axes: Sequence[Sequence[Phase]]) -> range:
    """The axes whose phases are columns of one product: none, the last one, or all."""
    out = convolution.out
    rank = len(out.shape)
    joinable = convolution.groups == 1 and not convolution.operands

    def is_joinable(axis: int) -> bool:
        phases = axes[axis - 2]
        first = phases[0]
        return (
            joinable
            and len(phases) * first.count == out.shape[axis]
            and {(p.start, len(p.taps)) for p in phases} == {(first.start, 1)}
        )

    if out.shape[1] * len(axes[-1]) < MIN_COLUMNS and all(map(is_joinable, range(2, rank))):
        return range(2, rank)
    adjacent = (out.strides[-1], out.strides[1]) == (out.shape[1], 1)
    return range(rank - 1, rank) if adjacent and is_joinable(rank - 1) else range(0)


def _joined(
    builder: Builder,
    convolution: _Convolution,
    axes: Sequence[list[Phase]],
    joined: range,
) -> tuple[_Convolution, list[list[Phase]]]:
    """The same convolution with all phases of some axes as columns, and what phases are left.

    With all axes joined its output is [batch, (taps, column), space], channel-last.
    """
    weights, out = convolution.weights, convolution.out
    left = list(axes)
    shape = list(out.shape)
    for axis in reversed(joined):
        # [channel, column, ..., tap, ...] -> [channel, (tap, column), ..., 1, ...]
        first = axes[axis - 2][0]
        taken = np.take(weights, [p.taps[0] for p in axes[axis - 2]], axis)
        taken = np.moveaxis(taken, axis, 1)
        taken = taken.reshape(taken.shape[0], -1, *taken.shape[3:])
        weights = np.expand_dims(taken, axis)
        left[axis - 2] = [replace(first, stride=1, taps=(0,))]
        shape[axis] = first.count
    width, columns = weights.shape[1] // shape[1], weights.shape[1]
    shape[1] = columns
    if len(joined) > 1:
        out = builder.allocate(shape, order=channel_last(len(shape)))
    else:
        out = replace(out, shape=tuple(shape), strides=(*out.strides[:-1], columns))
    bias = None if convolution.bias is None else np.tile(convolution.bias, width)
    return replace(convolution, weights=weights, bias=bias, out=out), left


def _spread(
    builder: Builder, group: Group, columns: View, out: View, widths: Sequence[int]
) -> None:
    """Move columns, which hold all phases, to the pixels of the output."""
    space = range(2, len(out.shape))
    counts = tuple(columns.shape[a] for a in space)
    channel = columns.strides[1]
    shape = (out.shape[0], *counts, *widths, out.shape[1])
    taps = dense_strides((*widths, out.shape[1]))
    source = replace(
        columns,
        shape=shape,
        strides=(
            columns.strides[0],
            *(columns.strides[a] for a in space),
            *(channel * step for step in taps),
        ),
    )
    target = replace(
        out,
        shape=shape,
        strides=(
            out.strides[0],
            *(out.strides[a] * n for a, n in zip(space, widths, strict=True)),
            *(out.strides[a] for a in space),
            out.strides[1],
        ),
    )
    builder.copy(source, target, group.nodes)


def _filter(weights: Array, phases: Sequence[Phase]) -> Array:
    """The taps of some phases; a single one of zeros where an axis has none."""
    for axis, phase in enumerate(phases, start=2):
        weights = np.take(weights, phase.taps or (0,), axis) * np.float32(bool(phase.taps))
    return weights


def _emit_product(
    builder: Builder,
    group: Group,
    convolution: _Convolution,
    phases: Sequence[Phase],
    label: str,
) -> None:
    """One phase as a contraction."""
    source, groups, bias = convolution.source, convolution.groups, convolution.bias
    out, operands = _parts(convolution, phases)
    per_group = source.shape[1] // groups
    reduce: list[tuple[int, int]] = []
    for axis, phase in enumerate(phases, start=2):
        begin = phase.start + convolution.before[axis - 2]
        reduce.append((max(1, len(phase.taps)), source.strides[axis] * phase.dilation))
        source = source.sliced(axis, begin, phase.count)
    part = _filter(convolution.weights, phases)
    columns = part.shape[1]
    part = part.reshape(groups, per_group, columns, *part.shape[2:])
    part = np.moveaxis(part, (1, 2), (-2, -1))
    part = part.reshape(*([groups] if groups > 1 else []), -1, columns)
    axes = [0, *range(2, len(out.shape))]
    rows, batches = _split_rows(axes, [out, *operands])
    batch = [BatchAxis(out.shape[a], source.strides[a], 0, out.strides[a]) for a in batches]
    batch_operands = [[operand.strides[a] for a in batches] for operand in operands]
    if groups > 1:
        step = packed_columns(columns, builder.tiles) * part.shape[-2]
        batch.append(BatchAxis(groups, per_group, step, columns, bias=columns))
        for steps, operand in zip(batch_operands, operands, strict=True):
            steps.append(columns * _channel_stride(operand))
    stored, packed = packed_weights(builder, Weights(part, convolution.name), builder.tiles)
    kernel = Contraction(
        batch=tuple(batch),
        rows=merge_axes([(out.shape[a], source.strides[a]) for a in rows]),
        out_row=out.strides[rows[-1]],
        reduce=merge_axes([*reduce, (per_group, 1)]),
        columns=columns,
        has_bias=bias is not None,
        chain=convolution.chain,
        operands=tuple(
            RowOperand(tuple(steps), operand.strides[rows[-1]], _channel_stride(operand))
            for steps, operand in zip(batch_operands, operands, strict=True)
        ),
        tiles=builder.tiles,
        stored=stored,
    )
    reads = [source, *packed]
    if bias is not None:
        reads.append(builder.weight(bias))
    writes = [out]
    if kernel.scratch_nbytes:
        writes.append(builder.allocate((kernel.scratch_nbytes // 4,)))
    builder.emit(kernel, [*reads, *operands], writes, group.nodes, label)


def _parts(convolution: _Convolution, phases: Sequence[Phase]) -> tuple[View, tuple[View, ...]]:
    """The outputs of some phases, and the operands' elements for them."""
    views = [convolution.out, *convolution.operands]
    for axis, phase in enumerate(phases, start=2):
        views = [view.sliced(axis, phase.first, phase.count, phase.stride) for view in views]
    return views[0], tuple(views[1:])


def _channel_stride(operand: View) -> int:
    """1, or 0 where all channels share one element."""
    return operand.strides[1] if operand.shape[1] > 1 else 0


def _split_rows(axes: Sequence[int], views: Sequence[View]) -> tuple[list[int], list[int]]:
    """The axes that count rows, all a stride apart in every view, and those left for batches."""
    axes = [a for a in axes if views[0].shape[a] > 1] or [axes[-1]]
    rows = [axes[-1]]
    for axis in reversed(axes[:-1]):
        extent = views[0].shape[rows[0]]
        if any(view.strides[axis] != extent * view.strides[rows[0]] for view in views):
            break
        rows.insert(0, axis)
    return rows, list(axes[: len(axes) - len(rows)])


def _emit_depthwise(
    builder: Builder,
    group: Group,
    convolution: _Convolution,
    phases: Sequence[Phase],
    label: str,
) -> None:
    """One phase of a convolution with a filter per channel."""
    source = convolution.source
    out, operands = _parts(convolution, phases)
    for axis, phase in enumerate(phases, start=2):
        # What lies before the first input that is read might as well not be there.
        begin = max(0, phase.start)
        source = source.sliced(axis, begin, source.shape[axis] - begin)
    part = _filter(convolution.weights, phases)
    kernel = Depthwise(
        batch=out.shape[0],
        in_h=source.shape[2],
        in_w=source.shape[3],
        channels=out.shape[1],
        in_batch=source.strides[0],
        in_row=source.strides[2],
        in_col=source.strides[3],
        out_h=out.shape[2],
        out_w=out.shape[3],
        out_batch=out.strides[0],
        out_row=out.strides[2],
        out_col=out.strides[3],
        kernel_h=part.shape[2],
        kernel_w=part.shape[3],
        stride_h=1,
        stride_w=1,
        dilation_h=phases[0].dilation,
        dilation_w=phases[1].dilation,
        pad_top=max(0, -phases[0].start),
        pad_left=max(0, -phases[1].start),
        has_bias=convolution.bias is not None,
        chain=convolution.chain,
        operands=tuple(
            PixelOperand(o.strides[0], o.strides[2], o.strides[3], _channel_stride(o))
            for o in operands
        ),
    )
    reads = [source, builder.weight(pack_depthwise(part), convolution.name)]
    if convolution.bias is not None:
        reads.append(builder.weight(convolution.bias))
    builder.emit(kernel, [*reads, *operands], [out], group.nodes, label)
