"""What converters ask of Relax expressions whose shapes are static."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tvm import relax, tirx
from tvm.ir import GenericConst


def constant(value: Any, dtype: str | None = None) -> Any:
    """A Relax constant of exactly this dtype; `relax.const` alone turns int64 into int32."""
    array = np.asarray(value, dtype)
    return relax.const(np.ascontiguousarray(array).reshape(array.shape), array.dtype.name)


def shape_of(expr: Any) -> tuple[int, ...]:
    """The static shape of a tensor expression."""
    return tuple(int(extent) for extent in expr.ty.shape.values)


def has_static_shape(expr: Any) -> bool:
    """Whether every extent of a tensor expression is known."""
    shape = expr.ty.shape
    return shape is not None and all(isinstance(n, (int, tirx.IntImm)) for n in shape.values)


def dtype_of(expr: Any) -> str:
    """The dtype name of a tensor expression."""
    dtype = expr.ty.dtype
    return str(getattr(dtype, "dtype", dtype))


def constant_value(expr: Any) -> NDArray[Any] | None:
    """The value of a constant expression, else None."""
    return expr.value.numpy() if isinstance(expr, GenericConst) else None


def required_constant(expr: Any, what: str) -> NDArray[Any]:
    """The value of an operand that must be known at compile time.

    Raises:
        NotImplementedError: it is computed at run time.
    """
    value = constant_value(expr)
    if value is None:
        raise NotImplementedError(f"{what} is computed at run time; it must be a constant")
    return value


def require_shape(expr: Any, shape: Sequence[int], what: str) -> None:
    """Check what shape inference does not: an operator of the library trusts its shapes.

    Raises:
        ValueError: the tensor has another shape.
    """
    if shape_of(expr) != tuple(shape):
        raise ValueError(f"{what} has the shape {list(shape_of(expr))}, not {list(shape)}")


def axis_within(axis: int, rank: int) -> int:
    """The axis counted from the front; shape inference does not look at axes that are operands.

    Raises:
        ValueError: there is no such axis.
    """
    if not -rank <= axis < rank:
        raise ValueError(f"there is no axis {axis} among {rank}")
    return axis % rank


def operand(inputs: Any, index: int) -> Any:
    """An optional input: None where it is left out or beyond the end."""
    return inputs[index] if index < len(inputs) else None


def as_dtype(bb: Any, expr: Any, dtype: str) -> Any:
    """A tensor expression cast to a dtype, unless it has that already."""
    if dtype_of(expr) == dtype:
        return expr
    value = constant_value(expr)
    if value is not None:
        return constant(value, dtype)
    return bb.normalize(relax.op.astype(expr, dtype))
