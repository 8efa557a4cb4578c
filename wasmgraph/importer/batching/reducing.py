"""Rules of operators that work along some axes: reductions, softmax, norms, sorting."""

from __future__ import annotations

from wasmgraph.importer.batching.states import Mixed, NodeView, Spread, State, normal_axis

REDUCTIONS = frozenset(
    [
        *("ReduceL1", "ReduceL2", "ReduceLogSum", "ReduceLogSumExp", "ReduceMax", "ReduceMean"),
        *("ReduceMin", "ReduceProd", "ReduceSum", "ReduceSumSquare"),
    ]
)


def reduction(view: NodeView) -> list[State]:
    """Reduce*, over other axes."""
    axis, rank = view.spread(), view.rank()
    view.rest_is_same(0)
    axes = view.axes(1, default=[])
    if not axes:
        if view.attribute("noop_with_empty_axes", 0):
            return [Spread(axis)]
        raise Mixed("it reduces over all axes, the batch's among them")
    gone = {normal_axis(a, rank) for a in axes}
    return [_without(axis, gone, keepdims=view.attribute("keepdims", 1))]


def position(view: NodeView) -> list[State]:
    """ArgMax, ArgMin, over another axis."""
    gone = normal_axis(view.attribute("axis", 0), view.rank())
    return [_without(view.spread(), {gone}, keepdims=view.attribute("keepdims", 1))]


def _without(axis: int, gone: set[int], *, keepdims: int) -> Spread:
    if axis in gone:
        raise Mixed("it reduces over the batch")
    return Spread(axis if keepdims else axis - sum(a < axis for a in gone))


def along_axis(view: NodeView) -> list[State]:
    """Softmax and others that keep the shape, and TopK: along one other axis."""
    view.rest_is_same(0)
    if view.opset < 13:
        raise Mixed("before opset 13 it flattens axes")
    axis = normal_axis(view.attribute("axis", -1), view.rank())
    if axis == view.spread():
        raise Mixed("it works along the batch")
    return [Spread(view.spread())] * len(view.node.output)


def cumulative(view: NodeView) -> list[State]:
    """CumSum, CumProd."""
    view.rest_is_same(0)
    axis = view.value(1)
    if axis is None:
        raise Mixed("its axis is not given")
    if normal_axis(int(axis.reshape(-1)[0]), view.rank()) == view.spread():
        raise Mixed("it sums along the batch")
    return [Spread(view.spread())]


def layer_norm(view: NodeView) -> list[State]:
    """LayerNormalization, RMSNormalization: over the last axes, with weights for these."""
    view.rest_is_same(0)
    rank = view.rank()
    first = normal_axis(view.attribute("axis", -1), rank)
    weights = [view.rank(i) for i in range(1, len(view.states)) if view.states[i] is not None]
    if first <= view.spread() or max(weights, default=0) > rank - first:
        raise Mixed("it normalises over the batch")
    return [Spread(view.spread())] * len(view.node.output)


def channel_norm(view: NodeView) -> list[State]:
    """InstanceNormalization, GroupNormalization, LRN: over what one sample has."""
    view.rest_is_same(0)
    if view.spread() != 0:
        raise Mixed("its samples are not on axis 0")
    return [Spread(0)]


def batch_norm(view: NodeView) -> list[State]:
    """BatchNormalization with fixed statistics."""
    view.rest_is_same(0)
    if view.attribute("training_mode", 0) or len([name for name in view.node.output if name]) > 1:
        raise Mixed("its statistics are those of the batch")
    if view.spread() == 1:
        raise Mixed("its channels are samples")
    return [Spread(view.spread())]
