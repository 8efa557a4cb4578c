"""Reshape, squeeze and their kin change no byte: make them all reshapes, which stay views."""

from __future__ import annotations

from typing import Any

import tvm
from tvm import relax
from tvm.relax.expr_functor import PyExprMutator, mutator

VIEW_OPS = ("relax.reshape",)
_SPELLINGS = frozenset(["relax.squeeze", "relax.expand_dims", "relax.flatten"])


@mutator
class _Views(PyExprMutator):  # type: ignore[misc]
    def visit_call_(self, call: Any) -> Any:
        call = super().visit_call_(call)
        if getattr(call.op, "name", "") in _SPELLINGS:
            shape = [int(extent) for extent in call.ty.shape.values]
            return relax.op.reshape(call.args[0], shape)
        return call


def turn_views_into_reshapes(module: Any) -> Any:
    """Rewrite squeeze, expand_dims and flatten as reshape."""
    return rewrite_main(module, _Views(module))


def rewrite_main(module: Any, rewriter: Any) -> Any:
    """A copy of the module whose `main` was visited by `rewriter`."""
    main = rewriter.visit_expr(module["main"])
    functions = {gv: main if gv.name_hint == "main" else f for gv, f in module.functions.items()}
    return tvm.IRModule(functions, attrs=module.attrs)
