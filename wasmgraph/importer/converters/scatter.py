"""What writes into a copy of a tensor; TVM's definitions cannot be compiled for wasm."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import prod
from typing import Any

from wasmgraph.importer.converters.library import counted, library_call, suffix, suffix_of_moved
from wasmgraph.importer.converters.static import (
    as_dtype,
    constant,
    dtype_of,
    operand,
    require_shape,
    shape_of,
)

_REDUCTIONS = ("none", "add", "mul", "max", "min")
"""In the order of their numbers in operators/scatter.rs."""


def scatter_nd(bb: Any, inputs: Sequence[Any], attrs: Mapping[str, Any]) -> Any:
    """ScatterND."""
    data, indices, updates = inputs
    shape, index_shape = shape_of(data), shape_of(indices)
    depth = index_shape[-1]
    if depth > len(shape):
        raise ValueError(f"{depth} indices select nothing in {len(shape)} axes")
    require_shape(updates, (*index_shape[:-1], *shape[depth:]), "the updates")
    words = [
        _reduction(attrs),
        prod(index_shape[:-1]),
        prod(shape[depth:]),
        *counted(shape[:depth]),
    ]
    return _call("scatter_nd", bb, data, indices, updates, words)


def scatter_elements(bb: Any, inputs: Sequence[Any], attrs: Mapping[str, Any]) -> Any:
    """ScatterElements."""
    data, indices, updates = inputs
    shape = shape_of(data)
    axis = int(attrs.get("axis", 0)) % len(shape)
    given = shape_of(indices)
    require_shape(updates, given, "the updates")
    if len(given) != len(shape) or any(
        given[k] > extent for k, extent in enumerate(shape) if k != axis
    ):
        raise ValueError(f"indices of shape {list(given)} do not fit into {list(shape)}")
    words = [_reduction(attrs), axis, *counted(shape), *shape_of(indices)]
    return _call("scatter_elements", bb, data, indices, updates, words)


def tensor_scatter(bb: Any, inputs: Sequence[Any], attrs: Mapping[str, Any]) -> Any:
    """TensorScatter; without indices every batch is written from its beginning."""
    cache, update, first = inputs[0], inputs[1], operand(inputs, 2)
    shape, dtype = shape_of(cache), dtype_of(cache)
    axis = int(attrs.get("axis", -2)) % len(shape)
    if first is None:
        first = constant([0] * shape[0], "int64")
    extent = shape_of(update)[axis]
    require_shape(update, (*shape[:axis], extent, *shape[axis + 1 :]), "the update")
    require_shape(first, shape[:1], "the first indices")
    words = [
        shape[0],
        prod(shape[1:axis]),
        shape[axis],
        extent,
        prod(shape[axis + 1 :]),
        int(attrs.get("mode", b"linear") == b"circular"),
    ]
    operands = [cache, update, as_dtype(bb, first, "int64")]
    name = f"tensor_scatter_{suffix_of_moved(dtype)}"
    return library_call(name, operands, [(dtype, shape)], words)


def _reduction(attrs: Mapping[str, Any]) -> int:
    return _REDUCTIONS.index(attrs.get("reduction", b"none").decode())


def _call(name: str, bb: Any, data: Any, indices: Any, updates: Any, words: list[int]) -> Any:
    dtype = dtype_of(data)
    # Nothing but moving is defined for bool.
    kind = suffix_of_moved(dtype) if dtype == "bool" else suffix(dtype)
    operands = [data, as_dtype(bb, indices, "int64"), updates]
    return library_call(f"{name}_{kind}", operands, [(dtype, shape_of(data))], words)
