"""wasmgraph's `.wasm` under Wasmtime, by the package's public API."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from benchmarks.tensorfiles import Array
from benchmarks.workers.serve import Create, Worker, serve


def imports() -> Create:
    """Import wasmgraph's runtime and the engine, which `load` would import when first called."""
    from wasmgraph.runtime import Graph, load
    from wasmgraph.runtime.registry import find_engine

    find_engine("wasmtime")

    class System:
        def __init__(self, graph: Graph) -> None:
            self.graph = graph

        def run(self, inputs: Mapping[str, Array]) -> Mapping[str, Array]:
            return self.graph.run(inputs)

        def details(self, inputs: Mapping[str, Array]) -> dict[str, Any]:
            from wasmgraph.measure.memory import guest_memory

            return {"guest": guest_memory(self.graph.path, inputs).to_json()}

    def create(model: str, threads: int) -> System:
        return System(load(model, threads=threads))

    return create


if __name__ == "__main__":
    serve(Worker(imports))
