"""Stage 2: graph passes on Relax, then fusion, layouts and the choice of kernels.

The result is a flat list of kernel calls over storages whose places are planned later.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from wasmgraph.importer import ImportedModel
from wasmgraph.optimise.options import DEFAULT, Options
from wasmgraph.progress import SILENT, Reporter

if TYPE_CHECKING:
    from wasmgraph.optimise.program import Program

__all__ = ["Options", "optimise"]


def optimise(
    imported: ImportedModel, reporter: Reporter = SILENT, options: Options = DEFAULT
) -> Program:
    """Fold, fuse and choose kernels for an imported model.

    Raises:
        UnsupportedModelError: an operator has no kernel.
    """
    from wasmgraph.optimise.channel_norms import join_channel_norms
    from wasmgraph.optimise.opgraph import extract
    from wasmgraph.optimise.parallel import share_out
    from wasmgraph.optimise.pipeline import run_passes
    from wasmgraph.optimise.select import select_kernels

    assert imported.graph is not None  # only static models come here
    module = run_passes(imported.graph.module, reporter)
    graph = extract(module, imported.graph)
    join_channel_norms(graph)
    program = select_kernels(graph, imported.graph, imported.source.name, options)
    return share_out(program) if options.threads else program
