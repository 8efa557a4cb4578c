"""Rules of operators that only move elements: shapes, slices, look-ups."""

from __future__ import annotations

import math

import numpy as np

from wasmgraph.importer.batching.states import (
    MANY,
    SAME,
    Mixed,
    NodeView,
    Spread,
    State,
    differing_axis,
    normal_axis,
)

_TO_THE_END = 10**9
"""Where exporters let a slice end that goes to the end of an axis; memory has no room for as many
samples."""


def reshape(view: NodeView) -> list[State]:
    """Reshape: the axes around the batch's may change if as many elements come before it."""
    axis = view.spread()
    if view.attribute("allowzero", 0):
        raise Mixed("its shape may have zeros")
    one, many = view.lengths(1)
    new = _same_split(view, axis)
    for i, (a, b) in enumerate(zip(one.tolist(), many.tolist(), strict=True)):
        if a != b and (i != new or b != MANY * a):
            raise Mixed("its shape does not grow with the batch")
    return [Spread(new)]


def flatten(view: NodeView) -> list[State]:
    """Flatten."""
    return [Spread(_same_split(view, view.spread()))]


def _same_split(view: NodeView, axis: int) -> int:
    one, many = view.result()
    new = differing_axis(one, many)
    if new is None or math.prod(one[:new]) != math.prod(view.shape(0)[:axis]):
        raise Mixed("its shape mixes samples with what belongs to one")
    return new


def squeeze(view: NodeView) -> list[State]:
    """Squeeze."""
    axis, rank = view.spread(), view.rank()
    gone = [normal_axis(a, rank) for a in view.axes(1)]
    if axis in gone:
        raise Mixed("it removes the batch axis")
    return [Spread(axis - sum(a < axis for a in gone))]


def unsqueeze(view: NodeView) -> list[State]:
    """Unsqueeze."""
    axis, given = view.spread(), view.axes(1)
    rank = view.rank() + len(given)
    new = {normal_axis(a, rank) for a in given}
    kept = [i for i in range(rank) if i not in new]
    return [Spread(kept[axis])]


def transpose(view: NodeView) -> list[State]:
    """Transpose."""
    order = view.attribute("perm", list(range(view.rank()))[::-1])
    return [Spread(list(order).index(view.spread()))]


def expand(view: NodeView) -> list[State]:
    """Expand: a batch stays one, or a constant is repeated for every sample."""
    one, many = view.lengths(1)
    rank = len(view.result()[0])
    lead = rank - len(one)  # axes of the operand alone
    own = rank - view.rank()
    if view.state(0) == SAME:
        growing = _only_growing(one.tolist(), many.tolist())
        before = view.shape(0)[lead + growing - own] if lead + growing >= own else 1
        if before != 1:
            raise Mixed("it repeats more than one row per sample")
        return [Spread(lead + growing)]
    axis = view.spread() + own
    for i, (a, b) in enumerate(zip(one.tolist(), many.tolist(), strict=True)):
        if lead + i == axis:
            extent = view.shape(0)[view.spread()]
            if (a, b) not in ((1, 1), (extent, MANY * extent)):
                raise Mixed("it repeats samples")
        elif a != b:
            raise Mixed("it repeats a sample as often as there are samples")
    return [Spread(axis)]


def tile(view: NodeView) -> list[State]:
    """Tile: not along the batch's axis; or a constant, as often as there are samples."""
    one, many = view.lengths(1)
    if len(one) != view.rank():
        raise Mixed("it has not one count per axis")
    if view.state(0) == SAME:
        return [Spread(_only_growing(one.tolist(), many.tolist()))]
    axis = view.spread()
    if not np.array_equal(one, many) or one[axis] != 1:
        raise Mixed("it repeats samples")
    return [Spread(axis)]


def constant_of_shape(view: NodeView) -> list[State]:
    """ConstantOfShape: all elements are equal."""
    one, many = view.lengths(0)
    return [Spread(_only_growing(one.tolist(), many.tolist()))]


def _only_growing(one: list[int], many: list[int]) -> int:
    """The only axis whose extent grows, in proportion to the number of samples."""
    growing = differing_axis(tuple(one), tuple(many))
    if growing is None:
        raise Mixed("it does not grow with the batch")
    return growing


def slice_(view: NodeView) -> list[State]:
    """Slice: on other axes, or from the first sample to the last."""
    axis, rank = view.spread(), view.rank()
    starts, ends = view.lengths(1), view.lengths(2)
    count = len(starts[0])
    axes = range(count) if view.state(3) is None else view.axes(3)
    given = view.value(4)
    steps = np.ones(count, np.int64) if given is None else given
    extent = view.shape(0)[axis]
    for i, sliced in enumerate(axes):
        start = (int(starts[0][i]), int(starts[1][i]))
        end = (int(ends[0][i]), int(ends[1][i]))
        if normal_axis(int(sliced), rank) != axis:
            if start[0] != start[1] or end[0] != end[1]:
                raise Mixed("it slices by the number of samples")
            continue
        to_the_end = min(end) >= _TO_THE_END or end == (extent, MANY * extent)
        if start != (0, 0) or not to_the_end or steps[i] != 1:
            raise Mixed("it takes some of the samples")
    return [Spread(axis)]


def concat(view: NodeView) -> list[State]:
    """Concat, on another axis."""
    axis = view.spread()
    if any(state != Spread(axis) for state in view.states):
        raise Mixed("it joins a batch with what is none")
    if normal_axis(view.attribute("axis"), view.rank()) == axis:
        raise Mixed("it joins batches to a larger one")
    return [Spread(axis)]


def split(view: NodeView) -> list[State]:
    """Split, on another axis."""
    axis = _apart(view, view.attribute("axis", 0))
    return [Spread(axis)] * len(view.node.output)


def trilu(view: NodeView) -> list[State]:
    """Trilu: of matrices on the last two axes."""
    view.rest_is_same(0)
    if view.spread() >= view.rank() - 2:
        raise Mixed("its matrix has a sample per row")
    return [Spread(view.spread())]


def pad(view: NodeView) -> list[State]:
    """Pad, on other axes."""
    axis, rank = view.spread(), view.rank()
    view.rest_is_same(0)
    pads = view.value(1)
    axes = list(range(rank)) if view.state(3) is None else view.axes(3)
    if pads is None:
        raise Mixed("its padding is not given")
    for i, padded in enumerate(axes):
        if normal_axis(padded, rank) == axis and (pads[i] or pads[len(axes) + i]):
            raise Mixed("it adds samples")
    return [Spread(axis)]


def gather(view: NodeView) -> list[State]:
    """Gather: from each sample, or with indices that each sample has."""
    axis = normal_axis(view.attribute("axis", 0), view.rank())
    if view.state(0) == SAME:
        return [Spread(axis + view.spread(1))]
    batch = _apart(view, axis)
    return [Spread(batch if batch < axis else batch - 1 + view.rank(1))]


def gather_elements(view: NodeView) -> list[State]:
    """GatherElements and ScatterElements: each sample has indices of its own."""
    batch = view.spread()
    extent = view.shape(0)[batch]
    for i in range(len(view.states)):
        if view.spread(i) != batch or view.shape(i)[batch] != extent:
            raise Mixed("samples do not have an index each")
    if normal_axis(view.attribute("axis", 0), view.rank()) == batch:
        raise Mixed("its indices lead from sample to sample")
    return [Spread(batch)]


def gather_nd(view: NodeView) -> list[State]:
    """GatherND: likewise."""
    batch_dims = view.attribute("batch_dims", 0)
    indices = view.spread(1)
    if view.state(0) == SAME:
        if batch_dims or indices == view.rank(1) - 1:
            raise Mixed("a sample has a part of an index")
        return [Spread(indices)]
    same = view.spread(0) == indices and view.shape(0)[indices] == view.shape(1)[indices]
    if not same or indices >= batch_dims:
        raise Mixed("its indices lead from sample to sample")
    return [Spread(indices)]


def one_hot(view: NodeView) -> list[State]:
    """OneHot: a new axis."""
    view.rest_is_same(0)
    axis = normal_axis(view.attribute("axis", -1), view.rank() + 1)
    return [Spread(view.spread() + (axis <= view.spread()))]


def reverse_sequence(view: NodeView) -> list[State]:
    """ReverseSequence: every sample by its own length."""
    batch = view.spread()
    if view.attribute("batch_axis", 1) != batch or view.attribute("time_axis", 0) == batch:
        raise Mixed("it reverses the order of samples")
    if view.spread(1) != 0 or view.shape(1)[0] != view.shape(0)[batch]:
        raise Mixed("its lengths are not one per sample")
    return [Spread(batch)]


def channels_and_space(view: NodeView) -> list[State]:
    """DepthToSpace, SpaceToDepth."""
    if view.spread() != 0:
        raise Mixed("its samples are not on axis 0")
    return [Spread(0)]


def _apart(view: NodeView, axis: int) -> int:
    """The batch axis of the first input, which is another than `axis`."""
    view.rest_is_same(0)
    batch = view.spread()
    if normal_axis(axis, view.rank()) == batch:
        raise Mixed("it works across samples")
    return batch
