"""Element-wise operators of two tensors that the operator library computes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import prod
from typing import Any

import numpy as np
from tvm import relax

from wasmgraph.importer.converters.library import counted, library_call, suffix
from wasmgraph.importer.converters.static import as_dtype, constant_value, dtype_of, shape_of


def _binary(name: str, a: Any, b: Any) -> Any:
    """A call over broadcast operands; the result has the first one's dtype."""
    shape = np.broadcast_shapes(shape_of(a), shape_of(b))
    words = counted(shape)
    for operand in (a, b):
        given = shape_of(operand)
        words += [0] * (len(shape) - len(given))
        words += [
            0 if extent == 1 else prod(given[axis + 1 :]) for axis, extent in enumerate(given)
        ]
    dtype = dtype_of(a)
    return library_call(f"{name}_{suffix(dtype)}", [a, b], [(dtype, shape)], words)


def mod(_bb: Any, inputs: Sequence[Any], attrs: Mapping[str, Any]) -> Any:
    """Mod; TVM's traps on a zero and is wrong about infinities and the sign of zero."""
    return _binary("remainder" if attrs.get("fmod", 0) else "modulo", *inputs)


def bit_shift(_bb: Any, inputs: Sequence[Any], attrs: Mapping[str, Any]) -> Any:
    """BitShift; TVM leaves it to the machine what a shift by too many bits gives."""
    return _binary(f"shift_{attrs['direction'].decode().lower()}", *inputs)


def power(bb: Any, inputs: Sequence[Any], _attrs: Mapping[str, Any]) -> Any:
    """Pow; TVM demands equal dtypes and has no power of integers."""
    base, exponent = inputs
    if np.dtype(dtype_of(base)).kind == "f":
        return relax.op.power(base, as_dtype(bb, exponent, dtype_of(base)))
    value = constant_value(exponent)
    if value is not None and value.size == 1 and value.item() >= 0 and value.item() % 1 == 0:
        return _multiplied(bb, base, int(value.item()))
    if np.dtype(dtype_of(exponent)).kind == "f":
        return _binary("power_of_float", base, as_dtype(bb, exponent, "float64"))
    return _binary("power", base, as_dtype(bb, exponent, "int64"))


def _multiplied(bb: Any, base: Any, exponent: int) -> Any:
    """A power by squaring."""
    result = None
    while exponent:
        if exponent % 2:
            result = base if result is None else bb.normalize(relax.op.multiply(result, base))
        exponent //= 2
        if exponent:
            base = bb.normalize(relax.op.multiply(base, base))
    return relax.op.ones_like(base) if result is None else result
