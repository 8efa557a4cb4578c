"""Memory for a graph whose open axes all have an upper bound: what a run at the bounds takes.

The graph is run at them, as what its operators allocate besides tensors no plan knows. Afterwards
its memory has that size from the start and cannot grow.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from wasmgraph.bundle import Bundle, Graph
from wasmgraph.errors import InferenceError, InputError
from wasmgraph.link import link
from wasmgraph.progress import SILENT, Reporter
from wasmgraph.runtime.base import Limits, TensorSpec
from wasmgraph.runtime.graph import read_graph
from wasmgraph.runtime.source import Source
from wasmgraph.runtime.wasmtime_engine import WasmtimeEngine
from wasmgraph.runtime.wasmtime_instance import WasmtimeInstance
from wasmgraph.tensors.extents import filled
from wasmgraph.tensors.random import random_inputs

_PAGE_NBYTES = 65536
_SPARE = 8
"""An eighth is added: smaller sizes may leave gaps that the bounds do not, and other values may
take another branch."""


def is_bounded(graph: Graph) -> bool:
    """Whether every open axis of a graph's inputs has an upper bound, and there is one at all.

    The memory of a graph for several threads is its host's, which says how large it is.
    """
    axes = {d for tensor in graph.inputs for d in tensor.shape if isinstance(d, str)}
    return bool(axes) and axes <= graph.bounds.keys() and not graph.threads


def with_reserved_memory(bundle: Bundle, reporter: Reporter = SILENT) -> Bundle:
    """The bundle with memory for runs at its bounds; as it was, if an axis has none.

    Raises:
        InputError: it cannot run at the bounds.
        ModelError, UnsupportedModelError, ToolchainError, WasmgraphError: it cannot be linked.
    """
    graph = bundle.graph
    if not is_bounded(graph):
        return bundle
    with tempfile.TemporaryDirectory(prefix="wasmgraph-bounds-") as folder:
        path = Path(folder) / "unbounded.wasm"
        link(bundle, path, reporter)
        needed = _measured(path, graph)
    pages = -(-(needed + needed // _SPARE) // _PAGE_NBYTES) + 1
    reserved = pages * _PAGE_NBYTES
    reporter.log(f"a run at the bounds allocates {needed} bytes, {reserved} are reserved")
    return replace(bundle, graph=replace(graph, reserved_nbytes=reserved))


def _measured(path: Path, graph: Graph) -> int:
    """Bytes by which the memory of a graph grows in runs at its bounds and at half of them."""
    specs = tuple(TensorSpec(t.name, t.dtype, t.shape) for t in graph.inputs)
    halves = {axis: max(1, bound // 2) for axis, bound in graph.bounds.items()}
    with Source(path) as source:
        program = WasmtimeEngine().load(read_graph(source), Limits(), cache=False)
    instance = program.instantiate()
    try:
        began = instance.memory_nbytes
        try:
            _run(instance, specs, graph.bounds)
        except InferenceError as error:
            bounds = ", ".join(f"{axis} {bound}" for axis, bound in graph.bounds.items())
            raise InputError(
                f"{graph.source.name} cannot run at its upper bounds ({bounds}): {error.message}",
                hint="give bounds that are sizes which the model takes",
            ) from error
        grown = instance.memory_nbytes - began
        # Half of a bound need not be a size that the model takes.
        with suppress(InferenceError):
            for extents in (halves, graph.bounds):
                _run(instance, specs, extents)
            grown = instance.memory_nbytes - began
        return grown
    finally:
        instance.close()
        program.close()


def _run(
    instance: WasmtimeInstance, specs: Sequence[TensorSpec], extents: Mapping[str, int]
) -> None:
    """Run on random inputs of these extents."""
    given = random_inputs(filled(specs, extents))
    instance.run([given[spec.name] for spec in specs])
