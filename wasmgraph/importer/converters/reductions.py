"""Reductions that TVM lacks or has wrong: over no elements, of bool, means of integers."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from tvm import relax

from wasmgraph.importer.converters.static import (
    as_dtype,
    axis_within,
    constant,
    dtype_of,
    operand,
    required_constant,
    shape_of,
)

_OF_NOTHING = {
    "ReduceL1": 0,
    "ReduceL2": 0,
    "ReduceLogSum": -np.inf,
    "ReduceLogSumExp": -np.inf,
    "ReduceMean": np.nan,
    "ReduceProd": 1,
    "ReduceSum": 0,
    "ReduceSumSquare": 0,
}
"""What they give for no elements; the others give the bounds of their dtype."""


def reduction(op: str) -> Callable[[Any, Sequence[Any], Mapping[str, Any]], Any]:
    """A converter for the reduction of this name; it leaves to TVM what TVM can do."""

    def convert(bb: Any, inputs: Sequence[Any], attrs: Mapping[str, Any]) -> Any:
        x, shape, dtype = inputs[0], shape_of(inputs[0]), dtype_of(inputs[0])
        is_mean_of_integers = op == "ReduceMean" and np.dtype(dtype).kind in "iu"
        if 0 not in shape and dtype != "bool" and not is_mean_of_integers:
            return None
        axes = _axes(inputs, attrs, len(shape))
        if not axes:
            return x
        keep = bool(attrs.get("keepdims", 1))
        if 0 in shape:
            kept = [1 if axis in axes else n for axis, n in enumerate(shape)]
            found = kept if keep else [n for axis, n in enumerate(shape) if axis not in axes]
            fill = constant(_of_nothing(op, np.dtype(dtype)), dtype)
            return relax.op.broadcast_to(fill, found)
        if is_mean_of_integers:
            mean = relax.op.mean(as_dtype(bb, x, "float64"), axes, keepdims=keep)
            return as_dtype(bb, bb.normalize(mean), dtype)
        reduce = relax.op.max if op == "ReduceMax" else relax.op.min
        # TVM compares no bools.
        bytes_ = as_dtype(bb, x, "uint8")
        return as_dtype(bb, bb.normalize(reduce(bytes_, axes, keepdims=keep)), "bool")

    return convert


def _axes(inputs: Sequence[Any], attrs: Mapping[str, Any], rank: int) -> list[int]:
    given = operand(inputs, 1)
    axes = [] if given is None else required_constant(given, "the axes").tolist()
    if not axes and not attrs.get("noop_with_empty_axes", 0):
        return list(range(rank))
    return [axis_within(int(axis), rank) for axis in axes]


def _of_nothing(op: str, dtype: np.dtype[Any]) -> Any:
    if op in _OF_NOTHING:
        return _OF_NOTHING[op]
    largest = op == "ReduceMin"
    if dtype.kind == "b":
        return largest
    if dtype.kind == "f":
        return np.inf if largest else -np.inf
    bounds = np.iinfo(dtype)
    return bounds.max if largest else bounds.min


REDUCTIONS = (*_OF_NOTHING, "ReduceMax", "ReduceMin")
