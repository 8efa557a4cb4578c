"""Linear algebra that the operator library computes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import prod
from typing import Any

from wasmgraph.importer.converters.library import library_call, suffix
from wasmgraph.importer.converters.static import dtype_of, require_shape, shape_of


def determinant(_bb: Any, inputs: Sequence[Any], _attrs: Mapping[str, Any]) -> Any:
    """Det, of a matrix or of each in a batch."""
    shape, dtype = shape_of(inputs[0]), dtype_of(inputs[0])
    require_shape(inputs[0], (*shape[:-1], shape[-2]), "a square matrix")
    words = [prod(shape[:-2]), shape[-1]]
    return library_call(f"determinant_{suffix(dtype)}", inputs, [(dtype, shape[:-2])], words)
