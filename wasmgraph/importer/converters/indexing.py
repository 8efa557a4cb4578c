"""Slice and Gather with everything about them known at compile time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from tvm import relax

from wasmgraph.importer.converters.static import (
    constant,
    constant_value,
    dtype_of,
    operand,
    required_constant,
    shape_of,
)


def slice_(bb: Any, inputs: Sequence[Any], _attrs: Mapping[str, Any]) -> Any:
    """Slice; bounds are clamped here, since TVM's arithmetic overflows on an end of INT64_MAX.

    Source: the ONNX operator specification, whose clamping is that of Python's slices.
    """
    shape = shape_of(inputs[0])
    starts = required_constant(inputs[1], "the start of Slice").tolist()
    ends = required_constant(inputs[2], "the end of Slice").tolist()
    given_axes, given_steps = operand(inputs, 3), operand(inputs, 4)
    axes = (
        list(range(len(starts)))
        if given_axes is None
        else required_constant(given_axes, "the axes of Slice").tolist()
    )
    steps = (
        [1] * len(starts)
        if given_steps is None
        else required_constant(given_steps, "the steps of Slice").tolist()
    )
    axes = [axis + len(shape) if axis < 0 else axis for axis in axes]
    bounds = [
        slice(start, end, step).indices(shape[axis])
        for axis, start, end, step in zip(axes, starts, ends, steps, strict=True)
    ]
    x = inputs[0]
    forward = [(a, b) for a, b in zip(axes, bounds, strict=True) if b[2] > 0]
    backward = [(a, b) for a, b in zip(axes, bounds, strict=True) if b[2] < 0]
    if forward:
        x = relax.op.strided_slice(
            x,
            [axis for axis, _ in forward],
            [begin for _, (begin, _, _) in forward],
            [max(begin, end) for _, (begin, end, _) in forward],
            [step for _, (_, _, step) in forward],
            assume_inbound=True,
        )
    for axis, (begin, end, step) in backward:
        index = np.arange(begin, end, step, dtype=np.int64)
        x = relax.op.take(bb.normalize(x), constant(index), axis, mode="fast")
    return x


def gather(bb: Any, inputs: Sequence[Any], attrs: Mapping[str, Any]) -> Any:
    """Gather; negative indices are resolved here where they are constants."""
    data, indices = inputs
    axis = int(attrs.get("axis", 0))
    extent = shape_of(data)[axis]
    value = constant_value(indices)
    if value is not None:
        if value.size and (value.min() < -extent or value.max() >= extent):
            raise ValueError(f"an index lies outside the {extent} elements of axis {axis}")
        resolved = np.where(value < 0, value + extent, value).astype(value.dtype)
        return relax.op.take(data, constant(resolved), axis, mode="fast")
    dtype = dtype_of(indices)
    negative = bb.normalize(relax.op.less(indices, constant(0, dtype)))
    wrapped = bb.normalize(relax.op.add(indices, constant(extent, dtype)))
    resolved = bb.normalize(relax.op.where(negative, wrapped, indices))
    # "clip" keeps an index that is out of range inside the tensor instead of reading beyond it.
    return relax.op.take(data, resolved, axis, mode="clip")
