"""Rules of products, convolutions, windows and recurrent operators."""

from __future__ import annotations

import math

import numpy as np

from wasmgraph.importer.batching.states import (
    MANY,
    SAME,
    Array,
    Mixed,
    NodeView,
    Spread,
    State,
)


def matmul(view: NodeView) -> list[State]:
    """MatMul, MatMulInteger: samples as rows of the left operand, columns of the right one, or
    matrices."""
    for i in range(2, len(view.states)):
        if view.states[i] is not None and (view.states[i] != SAME or view.shape(i) not in _SINGLE):
            raise Mixed(f"input {i} may differ from sample to sample")
    rank = len(view.result()[0])
    left, right = view.state(0), view.state(1)
    ranks = view.rank(0), view.rank(1)
    if isinstance(left, Spread) and isinstance(right, Spread):
        if min(ranks) < 3 or left.axis >= ranks[0] - 2 or right.axis >= ranks[1] - 2:
            raise Mixed("it multiplies samples with each other")
        axes = rank - ranks[0] + left.axis, rank - ranks[1] + right.axis
        if axes[0] != axes[1] or view.shape(0)[left.axis] != view.shape(1)[right.axis]:
            raise Mixed("it multiplies samples with each other")
        return [Spread(axes[0])]
    if SAME not in (left, right):
        raise Mixed("it computes with the number of samples")
    if isinstance(left, Spread):
        return [Spread(_row(view, left.axis))]
    return [Spread(_column(view, view.spread(1)))]


_SINGLE = ((), (1,))


def _row(view: NodeView, axis: int) -> int:
    """Where the result has the samples of the left operand, `axis` of which they are on."""
    ranks, rank = (view.rank(0), view.rank(1)), len(view.result()[0])
    if axis == ranks[0] - 1:
        raise Mixed("it sums over samples")
    # A right operand of one axis leaves out the last of the result.
    own = rank + (ranks[1] == 1) - ranks[0] + axis
    if axis < ranks[0] - 2:
        _require_one(view, 1, own - (rank + (ranks[1] == 1)))
    return own


def _column(view: NodeView, axis: int) -> int:
    ranks, rank = (view.rank(0), view.rank(1)), len(view.result()[0])
    if ranks[1] == 1 or axis == ranks[1] - 2:
        raise Mixed("it sums over samples")
    # A left operand of one axis leaves out the last but one of the result.
    if axis == ranks[1] - 1:
        return rank - 1
    full = rank + (ranks[0] == 1)
    own = full - ranks[1] + axis
    _require_one(view, 0, own - full)
    return own


def _require_one(view: NodeView, operand: int, from_end: int) -> None:
    """The other operand has one matrix for all samples."""
    shape = view.shape(operand)
    if len(shape) > 2 and -from_end <= len(shape) and shape[from_end] != 1:
        raise Mixed(f"input {operand} has a matrix for each of some samples")


def gemm(view: NodeView) -> list[State]:
    """Gemm: samples as rows of the result, or as columns."""
    inner = (1 - view.attribute("transA", 0), view.attribute("transB", 0))
    operands = [i for i in (0, 1) if isinstance(view.state(i), Spread)]
    if len(operands) != 1:
        raise Mixed("it multiplies samples with each other")
    [operand] = operands
    if view.spread(operand) == inner[operand]:
        raise Mixed("it sums over samples")
    view.rest_is_same(operand, 2)
    axis = operand  # rows come from the first operand, columns from the second
    if view.state(2) is not None:
        _check_addend(view, axis)
    return [Spread(axis)]


def _check_addend(view: NodeView, axis: int) -> None:
    shape, state = view.shape(2), view.state(2)
    own = axis - 2 + len(shape)
    if isinstance(state, Spread):
        if state.axis != own or shape[own] != view.result()[0][axis]:
            raise Mixed("it adds different samples")
    elif state != SAME or (own >= 0 and shape[own] != 1):
        raise Mixed("what it adds differs from sample to sample")


def einsum(view: NodeView) -> list[State]:
    """Einsum: the letter of the batch is in the result and nowhere but where samples are."""
    equation = view.attribute("equation").decode().replace(" ", "")
    left, arrow, right = equation.partition("->")
    terms = left.split(",")
    if not arrow or "." in equation or len(terms) != len(view.states):
        raise Mixed("its equation does not name every axis")
    spread = [(t, s) for t, s in zip(terms, view.states, strict=True) if isinstance(s, Spread)]
    letters = {term[state.axis] for term, state in spread}
    if len(letters) != 1:
        raise Mixed("it brings together different samples")
    [letter] = letters
    others = [t for t, s in zip(terms, view.states, strict=True) if not isinstance(s, Spread)]
    if any(s not in (SAME, *(state for _, state in spread)) for s in view.states):
        raise Mixed("it computes with the number of samples")
    if right.count(letter) != 1 or any(term.count(letter) != 1 for term, _ in spread):
        raise Mixed("it sums over samples")
    if any(letter in term for term in others):
        raise Mixed("an operand differs from sample to sample")
    extents = {view.shape(i)[s.axis] for i, s in enumerate(view.states) if isinstance(s, Spread)}
    if len(extents) != 1:
        raise Mixed("it brings together different samples")
    return [Spread(right.index(letter))]


def windows(view: NodeView) -> list[State]:
    """Convolutions and pooling: images on axis 0."""
    view.rest_is_same(0)
    if view.spread() != 0:
        raise Mixed("its samples are not on axis 0")
    if len([name for name in view.node.output if name]) > 1:
        raise Mixed("its indices count elements of all samples")
    return [Spread(0)]


def deform_conv(view: NodeView) -> list[State]:
    """DeformConv: offsets and mask per image."""
    view.rest_is_same(0, 2, 4)
    return _first_axes(view, 0, 2, *([4] if view.state(4) is not None else []))


def grid_sample(view: NodeView) -> list[State]:
    """GridSample: a grid per image."""
    return _first_axes(view, 0, 1)


def _first_axes(view: NodeView, *operands: int) -> list[State]:
    if any(view.spread(i) != 0 for i in operands):
        raise Mixed("its samples are not on axis 0")
    if len({view.shape(i)[0] for i in operands}) != 1:
        raise Mixed("it brings together different samples")
    return [Spread(0)]


def resize(view: NodeView) -> list[State]:
    """Resize: not the batch."""
    axis, rank = view.spread(), view.rank()
    if view.attribute("keep_aspect_ratio_policy", b"stretch") != b"stretch":
        raise Mixed("its scales depend on each other")
    if view.attribute("coordinate_transformation_mode", b"") in _SHIFTING:
        raise Mixed("it shifts samples")
    resized = list(view.attribute("axes", range(rank)))
    if axis not in [a % rank for a in resized]:
        if any(state not in (None, SAME) for state in view.states[1:]):
            raise Mixed("it resizes by the number of samples")
        return [Spread(axis)]
    entry = [a % rank for a in resized].index(axis)
    extent = view.shape(0)[axis]
    # Exporters write an empty tensor for what they leave out.
    scales, sizes = ((view.lengths(i) if view.state(i) else None) for i in (2, 3))
    if scales is not None and scales[0].size:
        kept = view.value(2) is not None and scales[0][entry] == 1
    else:
        kept = sizes is not None and _grows_alone(*sizes, entry, extent)
    if not kept:
        raise Mixed("it resizes the batch")
    return [Spread(axis)]


# At a scale of 1 these do not give every element itself.
_SHIFTING = (b"tf_crop_and_resize", b"tf_half_pixel_for_nn")


def _grows_alone(one: Array, many: Array, entry: int, extent: int) -> bool:
    """Whether one entry of a shape is that of the batch, and the others are fixed."""
    expected = one.copy()
    expected[entry] = MANY * extent
    return bool(one[entry] == extent and np.array_equal(many, expected))


def recurrent(view: NodeView) -> list[State]:
    """LSTM, GRU, RNN: X, W, R, B, lengths of sequences, initial states, P."""
    layout = view.attribute("layout", 0)
    batch = 1 - layout
    view.rest_is_same(0, 4, 5, 6)
    if view.spread() != batch:
        raise Mixed("its samples are not on the batch axis")
    for i, own in ((4, 0), (5, batch), (6, batch)):
        if view.state(i) is None:
            continue
        if view.spread(i) != own or view.shape(i)[own] != view.shape(0)[batch]:
            raise Mixed(f"input {i} is not one per sample")
    axes = (0 if layout else 2, batch, batch)
    return [Spread(axis) for axis in axes[: len(view.node.output)]]


def spectrum(view: NodeView) -> list[State]:
    """STFT: of signals on axis 0."""
    view.rest_is_same(0)
    if view.spread() != 0:
        raise Mixed("its samples are not on axis 0")
    return [Spread(0)]


def rows(view: NodeView) -> list[State]:
    """ai.onnx.ml's estimators: a row of features per sample."""
    view.rest_is_same(0)
    if view.spread() != 0 or view.rank() != 2:
        raise Mixed("its samples are not rows")
    return [Spread(0)] * len(view.node.output)


def keeps_axes(view: NodeView) -> list[State]:
    """ai.onnx.ml's encoders: element by element; one may add a last axis."""
    view.rest_is_same(0)
    return [Spread(view.spread())]


def extracted(view: NodeView) -> list[State]:
    """ArrayFeatureExtractor: along the last axis, which gets as many elements as there are
    indices."""
    if len(view.result()[0]) < 2:
        raise Mixed("it takes some of the samples")
    if view.state(0) == SAME:
        if math.prod(view.shape(1)[: view.spread(1)]) != 1:
            raise Mixed("its indices are not in the order of the samples")
        return [Spread(len(view.result()[0]) - 1)]
    view.rest_is_same(0)
    if view.spread() == view.rank() - 1:
        raise Mixed("it takes some of the samples")
    return [Spread(view.spread())]
