"""Purely element-wise groups, and what is left of a chain that a kernel could not take along."""

from __future__ import annotations

from collections.abc import Sequence

from wasmgraph.kernels.chain import Chain
from wasmgraph.kernels.elementwise import Elementwise
from wasmgraph.optimise.fuse import Group
from wasmgraph.optimise.select.builder import Builder
from wasmgraph.optimise.view import View, merged_axes


def select_elementwise(builder: Builder, group: Group) -> None:
    """A kernel for a group without an anchor."""
    views = [builder.view(tensor) for tensor in group.operands]
    emit_chain(builder, group.chain, views, group.output, group.nodes)


def emit_chain(
    builder: Builder,
    chain: Chain,
    views: Sequence[View],
    output: int,
    nodes: frozenset[int],
) -> None:
    """Compute a tensor by a chain; it lies in the order of the largest operand."""
    shape = builder.graph.tensors[output].shape
    full = [view for view in views if view.shape == shape]
    order = max(full, key=_weight_of).order() if full else None
    out = builder.place(output, order)
    wide = [readable(builder, view, shape, out, nodes) for view in views]
    axes = out.order()

    def arranged(values: Sequence[int]) -> tuple[int, ...]:
        return tuple(values[axis] for axis in axes)

    merged, strides = merged_axes(
        arranged(shape), arranged(out.strides), *(arranged(view.strides) for view in wide)
    )
    builder.emit(
        Elementwise(merged, strides[0], strides[1:], chain), wide, [out], nodes, describe(chain)
    )
    builder.set(output, out)


def _weight_of(view: View) -> tuple[int, int]:
    """Prefer operands without broadcast axes, then channel-last ones, whose copies cost most."""
    moving = sum(1 for n, s in zip(view.shape, view.strides, strict=True) if n > 1 and s)
    return moving, int(not view.is_dense())


def readable(
    builder: Builder, view: View, shape: tuple[int, ...], out: View, nodes: frozenset[int]
) -> View:
    """The operand broadcast to `shape`, copied if it is not adjacent along the innermost axis."""
    wide = view.broadcast(shape)
    inner = innermost(out)
    if inner is None or wide.strides[inner] in (0, 1):
        return wide
    missing = len(shape) - len(view.shape)
    order = [axis - missing for axis in out.order() if axis >= missing]
    return builder.dense(view, nodes, order).broadcast(shape)


def innermost(view: View) -> int | None:
    """The axis along which a dense view's elements are adjacent; None for a single element."""
    for axis in reversed(view.order()):
        if view.shape[axis] > 1:
            return axis
    return None


def describe(chain: Chain, anchor: str = "") -> str:
    """The operators of a chain by name, e.g. "conv2d + add + relu"."""
    names = [anchor] if anchor else []
    names += [step.op.removesuffix("_number") for step in chain.steps]
    return " + ".join(names)
