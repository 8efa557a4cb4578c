"""Compute with numpy, at compile time, what is done to weights alone.

Converters reshape biases, transpose Gemm weights and so on. TVM's FoldConstant would build a host
kernel for each of them.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from tvm import relax
from tvm.ir import GenericConst
from tvm.relax.expr_functor import PyExprMutator, mutator

from wasmgraph.importer.converters.static import constant, dtype_of, shape_of
from wasmgraph.importer.normalise.fold import MAX_GROWTH_BYTES
from wasmgraph.optimise.rewriting import rewrite_main

Fold = Callable[..., Any]
"""From the call and the values of its operands to its value."""


def _permute(call: Any, x: Any) -> Any:
    axes = call.attrs.axes
    return np.transpose(x, None if axes is None else [int(axis) for axis in axes])


def _arange(call: Any) -> Any:
    start, _, step = (arg.value for arg in call.args[:3])
    return start + np.arange(shape_of(call)[0]) * step


def _eye(call: Any) -> Any:
    rows, columns = shape_of(call)
    return np.eye(rows, columns, int(call.args[1].value))


_UNARY: dict[str, Fold] = {
    "relax.reshape": lambda call, x: x.reshape(shape_of(call)),
    "relax.squeeze": lambda call, x: x.reshape(shape_of(call)),
    "relax.expand_dims": lambda call, x: x.reshape(shape_of(call)),
    "relax.permute_dims": _permute,
    "relax.broadcast_to": lambda call, x: np.broadcast_to(x, shape_of(call)),
    "relax.astype": lambda call, x: x.astype(dtype_of(call)),
    "relax.negative": lambda _, x: -x,
    "relax.sqrt": lambda _, x: np.sqrt(x),
}

_FOLDS: dict[str, Fold] = {
    **_UNARY,
    "relax.less": lambda _, x, y: np.less(x, y),
    "relax.add": lambda _, x, y: np.add(x, y),
    "relax.subtract": lambda _, x, y: np.subtract(x, y),
    "relax.multiply": lambda _, x, y: np.multiply(x, y),
    "relax.take": lambda call, x, index: np.take(x, index, int(call.attrs.axis)),
    "relax.where": lambda _, condition, x, y: np.where(condition, x, y),
}

# Of these only the shape matters, which is known.
_FILLED = {"relax.zeros_like": 0, "relax.zeros": 0, "relax.ones_like": 1, "relax.ones": 1}
_FROM_NOTHING: dict[str, Callable[[Any], Any]] = {
    "relax.shape_to_tensor": lambda call: [int(n) for n in call.args[0].ty.values],
    "relax.arange": _arange,
    "relax.eye_like": _eye,
}


@mutator
class _Folder(PyExprMutator):  # type: ignore[misc]
    def __init__(self, module: Any) -> None:
        super().__init__(module)
        self.known: dict[Any, Any] = {}

    def visit_var_(self, var: Any) -> Any:
        return self.known.get(var, super().visit_var_(var))

    visit_dataflow_var_ = visit_var_

    def visit_var_binding_(self, binding: Any) -> None:
        value = self.visit_expr(binding.value)
        if isinstance(value, GenericConst):
            self.known[binding.var] = value
            return
        super().visit_var_binding_(binding)

    def visit_call_(self, call: Any) -> Any:
        name = getattr(call.op, "name", "")
        if name in _FROM_NOTHING:
            return constant(_FROM_NOTHING[name](call), dtype_of(call))
        if name in _FILLED:
            return _filled(call, _FILLED[name])
        fold = _FOLDS.get(name)
        if fold is None:
            return super().visit_call_(call)
        operands = [self.visit_expr(arg) for arg in call.args[: _arity(name)]]
        if not all(isinstance(arg, GenericConst) for arg in operands):
            return super().visit_call_(call)
        arrays = [arg.value.numpy() for arg in operands]
        if not _worth_storing(call, sum(array.nbytes for array in arrays)):
            return super().visit_call_(call)
        return constant(fold(call, *arrays), dtype_of(call))


def _arity(name: str) -> int | None:
    """How many of the arguments are tensors: a view's second one is its shape."""
    return 1 if name in _UNARY else None


def _worth_storing(call: Any, operand_nbytes: int) -> bool:
    """Whether the result is not much larger than what it is made of.

    A scalar that is broadcast is a view at run time, and in the file it would be millions of bytes.
    """
    nbytes = math.prod(shape_of(call)) * np.dtype(dtype_of(call)).itemsize
    return nbytes <= operand_nbytes + MAX_GROWTH_BYTES


def _filled(call: Any, value: int) -> Any:
    """A tensor of one value: a constant where it is small, else a scalar that is broadcast."""
    shape, dtype = shape_of(call), dtype_of(call)
    if _worth_storing(call, 0):
        return constant(np.full(shape, value, dtype), dtype)
    return relax.op.broadcast_to(constant(value, dtype), shape)


def fold_weight_expressions(module: Any) -> Any:
    """Replace views, transposes, casts and arithmetic of constants by constants."""
    return rewrite_main(module, _Folder(module))
