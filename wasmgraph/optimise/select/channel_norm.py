"""Instance and group normalisation."""

from __future__ import annotations

from wasmgraph.kernels.chain import IDENTITY
from wasmgraph.kernels.normalisation import ChannelNorm
from wasmgraph.optimise.fuse import Group
from wasmgraph.optimise.select.builder import Builder
from wasmgraph.optimise.select.elementwise import describe, emit_chain
from wasmgraph.optimise.view import View, channel_last, merged_axes

Positions = tuple[tuple[int, ...], tuple[tuple[int, ...], ...]]


def select_channel_norm(builder: Builder, group: Group) -> bool:
    """The opaque call of this name: one kernel over channel-last images, and what follows it."""
    anchor = group.anchor
    assert anchor is not None
    view, scale, shift = (builder.view(tensor) for tensor in anchor.inputs)
    order = channel_last(len(view.shape))
    if (view.shape[1] > 1 and view.strides[1] != 1) or not _is_even(view):
        view = builder.dense(view, group.nodes, order)
    fits = not group.operands
    if fits:
        out = builder.place(group.output, order, _is_even)
    else:
        out = builder.allocate(view.shape, order=order)
    chain = group.chain if fits else IDENTITY
    (positions,), ((source,), (target,)) = _positions(view, out)
    kernel = ChannelNorm(
        outer=((view.shape[0], view.strides[0], out.strides[0]),),
        positions=(positions, source, target),
        channels=view.shape[1],
        group=int(anchor.attrs.parameters["group"]),
        epsilon=float(anchor.attrs.parameters["epsilon"]),
        has_scale=True,
        has_shift=True,
        chain=chain,
    )
    reads = [view, builder.dense(scale, group.nodes), builder.dense(shift, group.nodes)]
    name = "instance_norm" if kernel.group == 1 else "group_norm"
    builder.emit(kernel, reads, [out], group.nodes, describe(chain, name))
    if fits:
        builder.set(group.output, out)
    else:
        views = [out, *(builder.view(tensor) for tensor in group.operands)]
        emit_chain(builder, group.chain, views, group.output, group.nodes)
    return True


def _positions(*views: View) -> Positions:
    axes = slice(2, None)
    return merged_axes(views[0].shape[axes], *(view.strides[axes] for view in views))


def _is_even(view: View) -> bool:
    """Whether all positions of an image are one stride apart."""
    return len(_positions(view)[0]) == 1
