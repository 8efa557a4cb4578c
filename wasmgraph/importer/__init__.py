"""Stage 1: ONNX to Relax. Upgrade the opset, fix shapes, fold constants, reject with a clear error.

Importing this package imports onnx, but TVM only when `import_model` runs.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from wasmgraph.bundle import Source
from wasmgraph.importer.load import LoadedModel, load_model
from wasmgraph.progress import SILENT, Reporter

if TYPE_CHECKING:
    from wasmgraph.importer.relax_graph import RelaxGraph

__all__ = ["ImportedModel", "LoadedModel", "describe_source", "import_model", "load_model"]


@dataclass(frozen=True)
class ImportedModel:
    """A model as Relax, and what it came from."""

    source: Source
    graph: RelaxGraph


def import_model(
    loaded: LoadedModel,
    shapes: Mapping[str, Sequence[int]] | None = None,
    reporter: Reporter = SILENT,
) -> ImportedModel:
    """Turn a loaded model into Relax with static shapes.

    Args:
        loaded: From `load_model`.
        shapes: Extents by input name, for dynamic axes or to replace fixed ones.
        reporter: Told what is going on.

    Raises:
        ModelError: shapes contradict each other.
        InputError: `shapes` names no input, or does not fit.
        UnsupportedModelError: open axes, or nodes that cannot be compiled, each listed.
    """
    from wasmgraph.crash_handlers import import_tvm

    import_tvm()  # before anything else does
    from wasmgraph.importer.network import network_from_proto
    from wasmgraph.importer.normalise import normalise
    from wasmgraph.importer.normalise.inline import inline_local_functions
    from wasmgraph.importer.relax_graph import build_relax
    from wasmgraph.importer.shapes import fix_shapes
    from wasmgraph.importer.support import (
        reject_impossible_tensors,
        reject_unsupported,
        reject_wide_attributes,
    )

    network = network_from_proto(loaded.proto, loaded.name)
    reporter.log(f"{len(network.nodes)} nodes, opset {network.opset}")
    inline_local_functions(network)
    reject_unsupported(network, upgraded=False)
    fix_shapes(network, shapes or {})
    normalise(network)
    reporter.log(f"{len(network.nodes)} nodes after normalisation, opset {network.opset}")
    reject_unsupported(network, upgraded=True)
    reject_impossible_tensors(network)
    reject_wide_attributes(network)
    return ImportedModel(describe_source(loaded), build_relax(network))


def describe_source(loaded: LoadedModel) -> Source:
    """What `graph.json` says of the model a graph came from."""
    operators = Counter(
        f"{node.domain}.{node.op_type}" if node.domain not in ("", "ai.onnx") else node.op_type
        for node in loaded.proto.graph.node
    )
    opsets = {o.domain: o.version for o in loaded.proto.opset_import}
    return Source(
        name=loaded.name,
        sha256=loaded.sha256,
        opset=opsets.get("", opsets.get("ai.onnx", 1)),
        operators=dict(sorted(operators.items())),
    )
