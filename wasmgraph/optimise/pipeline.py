"""The graph passes on Relax, in order."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tvm import relax, transform

from wasmgraph.optimise.fold_affine import fold_affine_into_convolution
from wasmgraph.optimise.fold_weights import fold_weight_expressions
from wasmgraph.progress import Reporter

ModulePass = Callable[[Any], Any]

PASSES: tuple[tuple[str, ModulePass], ...] = (
    ("fold expressions of weights", fold_weight_expressions),
    ("fold scale and shift into convolutions", fold_affine_into_convolution),
    ("drop what nobody reads", relax.transform.DeadCodeElimination()),
    ("share common subexpressions", relax.transform.EliminateCommonSubexpr()),
)


def run_passes(module: Any, reporter: Reporter) -> Any:
    """Run `PASSES` on a module with one Relax function `main`."""
    reporter.set_total(len(PASSES))
    with transform.PassContext(opt_level=3):
        for name, graph_pass in PASSES:
            module = graph_pass(module)
            reporter.advance(name)
    return module
