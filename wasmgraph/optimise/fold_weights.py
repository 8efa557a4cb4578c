"""Compute with numpy, at compile time, what is done to weights alone.

Converters reshape biases, transpose Gemm weights and so on. TVM's FoldConstant would build a host
kernel for each of them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from tvm.ir import GenericConst
from tvm.relax.expr_functor import PyExprMutator, mutator

from wasmgraph.importer.converters.static import constant, dtype_of, shape_of
from wasmgraph.optimise.rewriting import rewrite_main

Fold = Callable[[Any, Any], Any]


def _permute(call: Any, x: Any) -> Any:
    axes = call.attrs.axes
    return np.transpose(x, None if axes is None else [int(axis) for axis in axes])


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

_BINARY: dict[str, Callable[[Any, Any], Any]] = {
    "relax.less": np.less,
    "relax.add": np.add,
    "relax.subtract": np.subtract,
    "relax.multiply": np.multiply,
}

# With attributes or three operands.
_SEVERAL: dict[str, Callable[..., Any]] = {
    "relax.take": lambda call, x, index: np.take(x, index, int(call.attrs.axis)),
    "relax.where": lambda _, condition, x, y: np.where(condition, x, y),
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
        if name == "relax.shape_to_tensor":
            return constant([int(n) for n in call.args[0].ty.values], "int64")
        if name in _SEVERAL:
            operands = [self.visit_expr(arg) for arg in call.args]
            if all(isinstance(arg, GenericConst) for arg in operands):
                value = _SEVERAL[name](call, *(arg.value.numpy() for arg in operands))
                return constant(value, dtype_of(call))
        if name not in _UNARY and name not in _BINARY:
            return super().visit_call_(call)
        operands = [self.visit_expr(arg) for arg in call.args]
        if name in _UNARY and isinstance(operands[0], GenericConst):
            value = _UNARY[name](call, operands[0].value.numpy())
        elif name in _BINARY and all(isinstance(arg, GenericConst) for arg in operands):
            value = _BINARY[name](*(arg.value.numpy() for arg in operands))
        else:
            return super().visit_call_(call)
        return constant(value, dtype_of(call))


def fold_weight_expressions(module: Any) -> Any:
    """Replace views, transposes, casts and arithmetic of constants by constants."""
    return rewrite_main(module, _Folder(module))
