"""What the passes on Relax share."""

from __future__ import annotations

from typing import Any

import tvm


def rewrite_main(module: Any, rewriter: Any) -> Any:
    """A copy of the module whose `main` was visited by `rewriter`."""
    main = rewriter.visit_expr(module["main"])
    functions = {gv: main if gv.name_hint == "main" else f for gv, f in module.functions.items()}
    return tvm.IRModule(functions, attrs=module.attrs)
