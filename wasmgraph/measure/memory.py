"""The memory of a graph's guest, as its plan has it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from wasmgraph.component.file import check_component, is_component
from wasmgraph.errors import LoadError, MemoryLimitExceeded
from wasmgraph.runtime import load
from wasmgraph.wasmfile import parse_wasm, read_metadata

WASM_PAGE = 65536


@dataclass(frozen=True)
class GuestMemory:
    """Bytes of a graph's linear memory by what they hold.

    Attributes:
        total: The memory that an instance has from its start on.
        weights, io, arena: The regions of the graph's plan.
        rest: The executor's own data, its stack, and what is unused at a page's end.
        grows: Whether a run asks for more than that.
    """

    total: int
    weights: int
    io: int
    arena: int
    rest: int
    grows: bool

    def to_json(self) -> dict[str, int | bool]:
        """For `json.dumps`."""
        return asdict(self)


def guest_memory(path: Path, inputs: Mapping[str, object]) -> GuestMemory:
    """The memory of a graph; one run on `inputs` shows whether it grows.

    Raises:
        LoadError: no graph.
        InputError, InferenceError: the run failed.
    """
    data = path.read_bytes()
    if is_component(data):
        metadata, component = check_component(data)
        pages = component.memory_pages
    else:
        metadata, memory = read_metadata(data), parse_wasm(data).memory
        pages = memory.minimum if memory else 0
    if pages == 0:
        raise LoadError(f"{path} has no memory")
    sizes, total = metadata.sizes, pages * WASM_PAGE
    return GuestMemory(
        total,
        sizes.weights,
        sizes.io,
        sizes.arena,
        total - sizes.weights - sizes.io - sizes.arena,
        grows=_grows(path, inputs, total),
    )


def _grows(path: Path, inputs: Mapping[str, object], total: int) -> bool:
    try:
        with load(path, max_memory=total) as graph:
            graph.run(inputs)
    except MemoryLimitExceeded:
        return True
    return False
