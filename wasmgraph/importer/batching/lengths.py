"""Arithmetic on what depends on the number of samples alone: shapes, mostly.

Two points tell an affine function, so it is enough that every operator keeps elements affine in
the number of samples N. What does so for all N >= 1 is let through, nothing else.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from wasmgraph.importer.batching.states import (
    LENGTHS,
    MANY,
    SAME,
    Array,
    Mixed,
    NodeView,
    State,
)


def lengths_of(view: NodeView) -> list[State]:
    """The states of the outputs of a node whose inputs are `Lengths` or `Same`.

    Raises:
        Mixed: an element would not be affine, or it cannot be told.
    """
    keeps = _KEEPING.get(view.op)
    if keeps is None or view.node.domain:
        raise Mixed("it computes with the number of samples")
    keeps(view)
    return [told(view, name) for name in view.node.output if name]


def told(view: NodeView, name: str) -> State:
    """Whether an affine tensor changes with the number of samples at all."""
    one, many = view.one.values.get(name), view.many.values.get(name)
    if one is None or many is None or one.shape != many.shape:
        raise Mixed("what it computes with the number of samples is not known")
    return SAME if np.array_equal(one, many) else LENGTHS


def _slope(one: Array, many: Array) -> Array:
    """How much every element grows per sample."""
    difference = many.astype(np.float64) - one.astype(np.float64)
    if np.any(np.abs(many.astype(np.float64)) > 2**52):
        raise Mixed("it computes with numbers too large to follow")
    return difference / (MANY - 1)


def _rest_is_same(view: NodeView, *but: int) -> None:
    for i, state in enumerate(view.states):
        if i not in but and state not in (None, SAME):
            raise Mixed("it computes with the number of samples")


def _moves(view: NodeView) -> None:
    """The elements of the first input, elsewhere."""
    _rest_is_same(view, 0)


def _adds(view: NodeView) -> None:
    """A sum of elements of all inputs."""


def _casts(view: NodeView) -> None:
    """To a dtype that holds any number of samples."""
    if np.dtype(view.one.values[view.node.output[0]].dtype).name not in _WIDE:
        raise Mixed("it narrows the number of samples")
    _rounds(view)


_WIDE = ("int32", "int64", "uint32", "uint64", "float32", "float64")


def _rounds(view: NodeView) -> None:
    _require_whole(*view.lengths(0))


def _require_whole(one: Array, many: Array) -> None:
    """Elements that grow are whole numbers for every N, so that rounding changes none."""
    slope = _slope(one, many)
    grows = slope != 0
    if not (_is_whole(slope[grows]) and _is_whole(one.astype(np.float64)[grows])):
        raise Mixed("it rounds the number of samples")


def _is_whole(numbers: Array) -> bool:
    return bool(np.all(numbers == np.floor(numbers)))


def _pair(view: NodeView) -> tuple[Array, Array, Array, Array]:
    """The two operands of a node, broadcast: values with one sample, and slopes."""
    if len(view.states) != 2:
        raise Mixed("it computes with the number of samples")
    values = [view.lengths(i) for i in (0, 1)]
    ones = np.broadcast_arrays(*(one.astype(np.float64) for one, _ in values))
    slopes = np.broadcast_arrays(*(_slope(one, many) for one, many in values))
    return ones[0], slopes[0], ones[1], slopes[1]


def _multiplies(view: NodeView) -> None:
    _, slope, _, other = _pair(view)
    if np.any((slope != 0) & (other != 0)):
        raise Mixed("it multiplies the number of samples by itself")


def _divides(view: NodeView) -> None:
    """Only what goes up for every N."""
    one, slope, divisor, divisors_slope = _pair(view)
    grows = slope != 0
    if np.any(divisors_slope != 0) or np.any(divisor[grows] == 0):
        raise Mixed("it divides by the number of samples")
    base = (one - slope)[grows]
    if not (_is_whole(slope[grows] / divisor[grows]) and _is_whole(base / divisor[grows])):
        raise Mixed("it divides the number of samples")


def _takes_remainder(view: NodeView) -> None:
    """The same for every N where the slope is a multiple of the divisor."""
    _, slope, divisor, divisors_slope = _pair(view)
    grows = slope != 0
    if np.any(divisors_slope != 0) or np.any(divisor[grows] == 0):
        raise Mixed("it divides by the number of samples")
    if not _is_whole(slope[grows] / divisor[grows]):
        raise Mixed("it divides the number of samples")


def _compares(view: NodeView) -> None:
    """One operand is the larger for every N >= 1, or they are always equal."""
    one, slope, other, others_slope = _pair(view)
    difference, growth = one - other, slope - others_slope
    settled = (difference * growth > 0) | (growth == 0)
    if not np.all(settled):
        raise Mixed("it decides by the number of samples")


def _chooses(view: NodeView) -> None:
    if view.state(0) != SAME:
        raise Mixed("it decides by the number of samples")


def _product(view: NodeView) -> None:
    """At most one factor depends on N."""
    _rest_is_same(view, 0)
    if np.count_nonzero(_slope(*view.lengths(0))) > 1:
        raise Mixed("it multiplies the number of samples by itself")


_KEEPING: dict[str, Callable[[NodeView], None]] = {
    **dict.fromkeys(
        [
            *("Gather", "Slice", "Unsqueeze", "Squeeze", "Reshape", "Identity", "Transpose"),
            *("Split", "Flatten", "Expand", "Tile", "ReduceSum"),
        ],
        _moves,
    ),
    **dict.fromkeys(["Add", "Sub", "Sum", "Neg", "Concat"], _adds),
    **dict.fromkeys(["Floor", "Ceil", "Round"], _rounds),
    "Cast": _casts,
    **dict.fromkeys(["Equal", "Less", "LessOrEqual", "Greater", "GreaterOrEqual"], _compares),
    **dict.fromkeys(["Min", "Max"], _compares),
    "Mul": _multiplies,
    "Div": _divides,
    "Mod": _takes_remainder,
    "ReduceProd": _product,
    "Where": _chooses,
}
"""By operator what its inputs must be, or the element is not affine."""
