"""Writes what `describe` returns, as the canonical ABI lays it out: a host reads it in place."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from wasmgraph.assembler.object_file import write_linked_object
from wasmgraph.bundle import SIMD_LEVELS, Graph, Tensor
from wasmgraph.link.tables import Tables, Word
from wasmgraph.metadata import DTYPE_NBYTES

METADATA = "wasmgraph_metadata"
"""The symbol of the record `metadata`."""

_ROOT_WORDS = 12
_ANY_SHAPE = ("...",)
_NONE, _SOME = 0, 1
_FIXED, _OPEN = 0, 1


def metadata_object(graph: Graph, producer: Mapping[str, str]) -> bytes:
    """The object file: the same graph always gives the same bytes.

    Args:
        producer: Versions of what made the component, by name.
    """
    tables = Tables(METADATA, _ROOT_WORDS)
    source = graph.source
    producers = [[*tables.text(name), *tables.text(text)] for name, text in producer.items()]
    # An enum or a variant's case is one byte, and what follows it here begins at the next word.
    tables.fill_root(
        [
            *tables.table(producers),
            *(*tables.text(source.name), *tables.text(source.sha256), source.opset),
            SIMD_LEVELS.index(graph.simd),
            *tables.table([_spec(tables, tensor) for tensor in graph.inputs]),
            *tables.table([_spec(tables, tensor) for tensor in graph.outputs]),
        ]
    )
    return write_linked_object([], [tables.data()])


def _spec(tables: Tables, tensor: Tensor) -> Sequence[Word]:
    """A `tensor-spec`."""
    shape: list[Word] = [_NONE, 0, 0]
    if tensor.shape != _ANY_SHAPE:
        shape = [_SOME, *tables.table([_extent(tables, extent) for extent in tensor.shape])]
    return [*tables.text(tensor.name), list(DTYPE_NBYTES).index(tensor.dtype), *shape]


def _extent(tables: Tables, extent: int | str) -> Sequence[Word]:
    if isinstance(extent, str):
        return [_OPEN, *tables.text(extent)]
    # More is possible only beside an extent of 0, and then the tensor can never be passed.
    return [_FIXED, min(extent, 2**32 - 1), 0]
