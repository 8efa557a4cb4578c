"""Pad in the forms that TVM lacks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from tvm import relax

from wasmgraph.importer.converters.library import counted, library_call, suffix_of_moved
from wasmgraph.importer.converters.static import (
    constant,
    constant_value,
    dtype_of,
    operand,
    required_constant,
    shape_of,
)


def pad(bb: Any, inputs: Sequence[Any], attrs: Mapping[str, Any]) -> Any:
    """Pad, unless it mirrors or repeats, or pads other types by a known value: None then."""
    x, value = inputs[0], operand(inputs, 2)
    shape, dtype = shape_of(x), dtype_of(x)
    begin, end = _both_sides(inputs, len(shape))
    if attrs.get("mode", b"constant") != b"constant":
        return None
    known = np.zeros(1) if value is None else constant_value(value)
    if min([0, *begin, *end]) == 0 and known is not None:
        if dtype != "float32":
            return None
        # TVM's converter makes a kernel at once, which nobody recognises as padding.
        widths = [width for pair in zip(begin, end, strict=True) for width in pair]
        return bb.normalize(relax.op.nn.pad(x, widths, "constant", float(known.reshape(()))))
    if value is None:
        value = constant(0, dtype)
    found = tuple(n + before + after for n, before, after in zip(shape, begin, end, strict=True))
    words = [*counted(shape), *found, *begin]
    return library_call(f"pad_{suffix_of_moved(dtype)}", [x, value], [(dtype, found)], words)


def _both_sides(inputs: Sequence[Any], rank: int) -> tuple[list[int], list[int]]:
    """Elements before and after every axis."""
    pads = required_constant(inputs[1], "the padding").tolist()
    axes = list(range(rank))
    if operand(inputs, 3) is not None:
        given = required_constant(inputs[3], "the axes of Pad").tolist()
        axes = [int(axis) % rank for axis in given]
    begin, end = [0] * rank, [0] * rank
    for position, axis in enumerate(axes):
        begin[axis], end[axis] = pads[position], pads[len(axes) + position]
    return begin, end
