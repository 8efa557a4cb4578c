"""Stage 2: graph passes on Relax, then fusion; the result is a flat list of kernel calls.

The passes, in order, are in `PASSES`. Layout choice and memory planning follow them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from wasmgraph.importer import ImportedModel
from wasmgraph.progress import SILENT, Reporter

if TYPE_CHECKING:
    from wasmgraph.optimise.program import Program

__all__ = ["optimise"]


def optimise(imported: ImportedModel, reporter: Reporter = SILENT) -> Program:
    """Fold, fuse and flatten an imported model.

    Raises:
        UnsupportedModelError: an operator has no lowering to a kernel.
    """
    from wasmgraph.optimise.pipeline import run_passes
    from wasmgraph.optimise.program import flatten

    module, groups = run_passes(imported.graph.module, reporter)
    return flatten(module, groups, imported.graph, imported.source.name)
