"""The list of graph passes, in order."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tvm import relax, transform

from wasmgraph.optimise.attribution import attribute
from wasmgraph.optimise.fold_affine import fold_affine_into_convolution
from wasmgraph.optimise.fold_weights import fold_weight_expressions
from wasmgraph.optimise.views import VIEW_OPS, turn_views_into_reshapes
from wasmgraph.progress import Reporter

ModulePass = Callable[[Any], Any]

PASSES: tuple[tuple[str, ModulePass], ...] = (
    # Simplify the graph of operators.
    ("views into reshapes", turn_views_into_reshapes),
    ("fold expressions of weights", fold_weight_expressions),
    ("fold scale and shift into convolutions", fold_affine_into_convolution),
    ("drop what nobody reads", relax.transform.DeadCodeElimination()),
    ("share common subexpressions", relax.transform.EliminateCommonSubexpr()),
    # Operators to TIR. A reshape moves nothing, so it stays a view.
    ("legalise", relax.transform.LegalizeOps(skip_ops=list(VIEW_OPS))),
    ("fold what legalising left", relax.transform.FoldConstant()),
    ("drop what nobody reads", relax.transform.DeadCodeElimination()),
    ("annotate patterns", relax.transform.AnnotateTIROpPattern()),
)


def run_passes(module: Any, reporter: Reporter) -> tuple[Any, tuple[frozenset[int], ...]]:
    """Run `PASSES` on a module with one Relax function `main`, then fuse.

    Returns:
        The fused module, and the ONNX node indices behind each binding of its `main`.
    """
    reporter.set_total(len(PASSES) + 2)
    with transform.PassContext(opt_level=3):
        for name, graph_pass in PASSES:
            module = graph_pass(module)
            reporter.advance(name)
        grouped = relax.transform.FuseOps()(module)
        groups = attribute(module, grouped)
        reporter.advance("group operators")
        fused = relax.transform.FuseTIR()(grouped)
        reporter.advance("fuse groups")
    return fused, groups
