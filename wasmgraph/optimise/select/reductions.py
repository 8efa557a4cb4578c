"""Reductions, softmax and normalisation over rows or over vectors."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import cast

from wasmgraph.kernels.normalisation import LayerNorm
from wasmgraph.kernels.reduction import Operator, Reduction
from wasmgraph.kernels.softmax import Softmax
from wasmgraph.optimise.opgraph import Op
from wasmgraph.optimise.select.builder import Builder
from wasmgraph.optimise.view import View, dense_strides, merged_axes

_Axis = tuple[int, int, int]
"""Extent, stride in, stride out."""


@dataclass(frozen=True)
class _Nest:
    """A tensor's axes in memory order: kept, reduced, kept and adjacent.

    Attributes:
        outer: (extent, stride in, stride out).
        reduced: (extent, stride in, stride out).
        inner: Extent of the adjacent kept axis; 1 where the reduced ones are adjacent.
    """

    outer: tuple[_Axis, ...]
    reduced: tuple[_Axis, ...]
    inner: int


def _nest(view: View, out: View, axes: Collection[int]) -> _Nest | None:
    """Sort the axes, or None if kept and reduced ones are mixed in memory."""
    runs: list[tuple[bool, list[int]]] = []
    for axis in view.order():
        if view.shape[axis] == 1:
            continue
        if runs and runs[-1][0] == (axis in axes):
            runs[-1][1].append(axis)
        else:
            runs.append((axis in axes, [axis]))
    merged = [(is_reduced, _merge(view, out, run)) for is_reduced, run in runs]
    return _nest_of_runs(merged)


def _nest_of_runs(runs: list[tuple[bool, list[_Axis]]]) -> _Nest | None:
    """From runs of kept and reduced axes, outermost first."""
    kinds = [is_reduced for is_reduced, _ in runs]
    if kinds.count(True) > 1:
        return None
    if True not in kinds:
        outer = runs[0][1] if runs else []
        adjacent = bool(outer) and outer[-1][1:] == (1, 1)
        inner = outer[-1][0] if adjacent else 1
        return _Nest(tuple(outer[:-1] if adjacent else outer), ((1, 1, 1),), inner)
    place = kinds.index(True)
    outer = runs[0][1] if place else []
    reduced = runs[place][1]
    if place + 1 == len(runs):
        return _Nest(tuple(outer), tuple(reduced), 1) if reduced[-1][1] == 1 else None
    last = runs[place + 1][1]
    if len(last) != 1 or last[0][1:] != (1, 1):
        return None
    return _Nest(tuple(outer), tuple(reduced), last[0][0])


def _merge(view: View, out: View, axes: list[int]) -> list[_Axis]:
    shape, (source, target) = merged_axes(
        [view.shape[a] for a in axes],
        [view.strides[a] for a in axes],
        [out.strides[a] for a in axes],
    )
    return list(zip(shape, source, target, strict=True))


def reduce(builder: Builder, op: Op) -> bool:
    """sum, mean, max, min, prod."""
    if builder.graph.tensors[op.inputs[0]].dtype != "float32":
        return False
    view = builder.view(op.inputs[0])
    if view.size == 0:
        return False
    rank = len(view.shape)
    axes = range(rank) if op.attrs.axis is None else [int(a) % rank for a in op.attrs.axis]
    reduced = set(axes)
    kept_shape = tuple(1 if a in reduced else n for a, n in enumerate(view.shape))
    order = view.order()
    out = builder.allocate(kept_shape, order=order)
    nest = _nest(view, out, reduced)
    if nest is None:
        view = builder.dense(
            view, op.nodes, [a for a in order if a not in reduced] + sorted(reduced)
        )
        nest = _nest(view, out, reduced)
        assert nest is not None
    kernel = Reduction(
        cast(Operator, op.kind),
        nest.outer,
        tuple((extent, stride) for extent, stride, _ in nest.reduced),
        nest.inner,
    )
    builder.emit(kernel, [view], [out], op.nodes, op.kind)
    result = out.reshaped(builder.graph.tensors[op.outputs[0]].shape)
    if result is None:
        result = builder.dense(out, op.nodes).reshaped(builder.graph.tensors[op.outputs[0]].shape)
    assert result is not None
    builder.set(op.outputs[0], result)
    return True


def softmax(builder: Builder, op: Op) -> bool:
    """softmax and log_softmax along one axis."""
    if builder.graph.tensors[op.inputs[0]].dtype != "float32":
        return False
    view = builder.view(op.inputs[0])
    if view.size == 0:
        return False
    axis = int(op.attrs.axis) % len(view.shape)
    source = view
    out = builder.place(
        op.outputs[0], view.order(), lambda room: _nest(source, room, {axis}) is not None
    )
    nest = _nest(view, out, {axis})
    if nest is None:
        view = builder.dense(view, op.nodes)
        out = builder.allocate(view.shape)
        nest = _nest(view, out, {axis})
        if nest is None:
            return False
    kernel = Softmax(nest.outer, nest.reduced[0], nest.inner, op.kind == "nn.log_softmax")
    builder.emit(kernel, [view], [out], op.nodes, op.kind.removeprefix("nn."))
    builder.set(op.outputs[0], out)
    return True


def layer_norm(builder: Builder, op: Op) -> bool:
    """Layer normalisation over the last axes, with constant scale and shift."""
    shape = builder.graph.tensors[op.inputs[0]].shape
    axes = sorted(int(axis) % len(shape) for axis in op.attrs.axes)
    if builder.graph.tensors[op.inputs[0]].dtype != "float32" or axes != list(
        range(len(shape) - len(axes), len(shape))
    ):
        return False
    scale, shift = (builder.view(tensor) for tensor in op.inputs[1:3])
    first = axes[0]
    length = 1
    for extent in shape[first:]:
        length *= extent
    view = builder.view(op.inputs[0])
    wanted = dense_strides(shape)[first:]
    if any(
        n > 1 and s != w
        for n, s, w in zip(shape[first:], view.strides[first:], wanted, strict=True)
    ):
        view = builder.dense(view, op.nodes)
    out = builder.allocate(shape)
    outer, (source, target) = merged_axes(shape[:first], view.strides[:first], out.strides[:first])
    kernel = LayerNorm(
        tuple(zip(outer, source, target, strict=True)),
        length,
        float(op.attrs.epsilon),
        bool(op.attrs.scale),
        bool(op.attrs.center),
    )
    reads = [view]
    if op.attrs.scale:
        reads.append(builder.dense(scale, op.nodes))
    if op.attrs.center:
        reads.append(builder.dense(shift, op.nodes))
    builder.emit(kernel, reads, [out], op.nodes, "layer_norm")
    builder.set(op.outputs[0], out)
    return True
