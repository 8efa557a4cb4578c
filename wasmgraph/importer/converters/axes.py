"""Operators along one axis, computed by the operator library."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from math import prod
from typing import Any

from wasmgraph.importer.converters.library import library_call, suffix, suffix_of_moved
from wasmgraph.importer.converters.static import (
    as_dtype,
    axis_within,
    dtype_of,
    require_shape,
    required_constant,
    shape_of,
)


def _around(shape: Sequence[int], axis: int) -> tuple[int, int, int]:
    """How many elements there are before, along and after an axis."""
    axis = axis_within(axis, len(shape))
    return prod(shape[:axis]), shape[axis], prod(shape[axis + 1 :])


def cumulative(name: str) -> Callable[[Any, Sequence[Any], Mapping[str, Any]], Any]:
    """CumSum and CumProd."""

    def convert(_bb: Any, inputs: Sequence[Any], attrs: Mapping[str, Any]) -> Any:
        x, dtype = inputs[0], dtype_of(inputs[0])
        axis = int(required_constant(inputs[1], "the axis").item())
        words = [
            *_around(shape_of(x), axis),
            int(attrs.get("exclusive", 0)),
            int(attrs.get("reverse", 0)),
        ]
        return library_call(f"{name}_{suffix(dtype)}", [x], [(dtype, shape_of(x))], words)

    return convert


cumulative_sum = cumulative("cumulative_sum")
cumulative_product = cumulative("cumulative_product")


def reverse_sequence(bb: Any, inputs: Sequence[Any], attrs: Mapping[str, Any]) -> Any:
    """ReverseSequence."""
    x, lengths = inputs
    dtype, shape = dtype_of(x), shape_of(x)
    time_first = int(attrs.get("time_axis", 0)) == 0
    time, batch = shape[:2] if time_first else shape[1::-1]
    require_shape(lengths, [batch], "the lengths")
    words = [time, batch, prod(shape[2:]), int(time_first)]
    name = f"reverse_sequence_{suffix_of_moved(dtype)}"
    return library_call(name, [x, as_dtype(bb, lengths, "int64")], [(dtype, shape)], words)


def top_k(_bb: Any, inputs: Sequence[Any], attrs: Mapping[str, Any]) -> Any:
    """TopK; always sorted, which the operator's `sorted` attribute only allows."""
    x, dtype, shape = inputs[0], dtype_of(inputs[0]), shape_of(inputs[0])
    k = int(required_constant(inputs[1], "k").item())
    axis = int(attrs.get("axis", -1)) % len(shape)
    if not 0 <= k <= shape[axis]:
        raise ValueError(f"k is {k}, the axis has {shape[axis]} elements")
    words = [*_around(shape, axis), k, int(attrs.get("largest", 1))]
    found = (*shape[:axis], k, *shape[axis + 1 :])
    outputs = [(dtype, found), ("int64", found)]
    return library_call(f"top_k_{suffix(dtype)}", [x], outputs, words)


def one_hot(bb: Any, inputs: Sequence[Any], attrs: Mapping[str, Any]) -> Any:
    """OneHot."""
    indices, depth, values = inputs
    shape, dtype = shape_of(indices), dtype_of(values)
    count = int(required_constant(depth, "the depth").item())
    require_shape(values, [2], "off and on")
    axis = int(attrs.get("axis", -1)) % (len(shape) + 1)
    words = [prod(shape[:axis]), count, prod(shape[axis:])]
    return library_call(
        f"one_hot_{suffix_of_moved(dtype)}",
        [as_dtype(bb, indices, "int64"), values],
        [(dtype, (*shape[:axis], count, *shape[axis:]))],
        words,
    )
