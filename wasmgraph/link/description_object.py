"""Writes the graph's description as an object file: tables for the executor, a function per step.

A step is a function without parameters that calls its kernel with addresses which the linker fills
in. The tables are laid out as the structures of toolchain/executor/src/graph.rs read them. So the
executor is compiled once and only linked with a graph, which takes a twentieth of the time that
rustc needs for a source with the same in it.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence

from wasmgraph.assembler.function import unsigned
from wasmgraph.assembler.object_file import (
    PLACEHOLDER,
    Code,
    Data,
    Fill,
    Relocation,
    write_linked_object,
)
from wasmgraph.assembler.opcodes import CALL, END, I32_CONST
from wasmgraph.bundle import Buffer, Graph, Step, Tensor
from wasmgraph.link.regions_object import region_symbol
from wasmgraph.metadata import DTYPE_NBYTES

DESCRIPTION = "wasmgraph_description"
"""The symbol of the tables; the first of them is the executor's `Graph`."""

_ALIGNMENT = 8
_NO_LOCALS = unsigned(0)


def description_object(graph: Graph) -> bytes:
    """The object file: the same graph always gives the same bytes. `graph` must be consistent."""
    steps = [_step(number, step, graph) for number, step in enumerate(graph.steps)]
    tables = _Tables()
    entries = [
        *tables.tensors(graph.inputs),
        *tables.tensors(graph.outputs),
        *tables.steps(graph.steps),
        *tables.stages(graph.steps),
    ]
    assert len(entries) == _Tables.ROOT_WORDS
    tables.fill_root(entries)
    called = {kernel.symbol: kernel.buffers for kernel in graph.kernels}
    return write_linked_object(steps, [tables.data()], called)


def _step_symbol(number: int) -> str:
    return f"wasmgraph_step_{number}"


def _step(number: int, step: Step, graph: Graph) -> Code:
    body = bytearray(_NO_LOCALS)
    relocations = []
    for buffer in step.buffers:
        body.append(I32_CONST)
        relocations.append(
            Relocation(Fill.ADDRESS_SLEB, len(body), region_symbol(buffer.region), buffer.offset)
        )
        body += PLACEHOLDER
    body.append(CALL)
    relocations.append(Relocation(Fill.CALL, len(body), graph.kernels[step.kernel].symbol))
    body += PLACEHOLDER
    body.append(END)
    return Code(_step_symbol(number), 0, bytes(body), tuple(relocations))


class _Tables:
    """Little-endian words, texts and extents, and the places in them that are addresses."""

    ROOT_WORDS = 8

    def __init__(self) -> None:
        self._bytes = bytearray(4 * self.ROOT_WORDS)
        self._relocations: list[Relocation] = []
        self._texts: dict[str, int] = {}

    def data(self) -> Data:
        return Data(DESCRIPTION, bytes(self._bytes), _ALIGNMENT, tuple(self._relocations))

    def fill_root(self, words: Sequence[int | Relocation]) -> None:
        self._put(0, words)

    def tensors(self, tensors: Sequence[Tensor]) -> list[int | Relocation]:
        """The words (address, count) of a table of `Tensor`."""
        dtypes = list(DTYPE_NBYTES)
        rows = [
            [
                *self._text(tensor.name),
                dtypes.index(tensor.dtype),
                *self._append(struct.pack(f"<{len(tensor.shape)}q", *tensor.shape), tensor.shape),
                _address(tensor.buffer),
                0,
            ]
            for tensor in tensors
        ]
        return self._table(rows)

    def steps(self, steps: Sequence[Step]) -> list[int | Relocation]:
        """Of a table of `Step`."""
        return self._table(
            [
                [
                    Relocation(Fill.TABLE_INDEX_I32, 0, _step_symbol(number)),
                    *self._text(", ".join(step.nodes)),
                ]
                for number, step in enumerate(steps)
            ]
        )

    def stages(self, steps: Sequence[Step]) -> list[int | Relocation]:
        """Of a table with the first step of every stage."""
        firsts = [
            [number]
            for number, step in enumerate(steps)
            if number == 0 or steps[number - 1].stage != step.stage
        ]
        return self._table(firsts)

    def _table(self, rows: Sequence[Sequence[int | Relocation]]) -> list[int | Relocation]:
        start = self._aligned()
        for row in rows:
            self._bytes += bytes(4 * len(row))
            self._put(len(self._bytes) - 4 * len(row), row)
        return [_within(start), len(rows)]

    def _text(self, text: str) -> list[int | Relocation]:
        encoded = text.encode()
        # The shares of one kernel call have the same nodes.
        if text not in self._texts:
            self._texts[text] = self._aligned()
            self._bytes += encoded
        return [_within(self._texts[text]), len(encoded)]

    def _append(self, contents: bytes, counted: Sequence[object]) -> list[int | Relocation]:
        start = self._aligned()
        self._bytes += contents
        return [_within(start), len(counted)]

    def _aligned(self) -> int:
        self._bytes += bytes(-len(self._bytes) % _ALIGNMENT)
        return len(self._bytes)

    def _put(self, offset: int, words: Sequence[int | Relocation]) -> None:
        for place, word in enumerate(words):
            where = offset + 4 * place
            if isinstance(word, Relocation):
                self._relocations.append(Relocation(word.fill, where, word.symbol, word.addend))
            else:
                self._bytes[where : where + 4] = struct.pack("<I", word)


def _within(offset: int) -> Relocation:
    """The address of a byte of the tables; where it is written is not known yet."""
    return Relocation(Fill.ADDRESS_I32, 0, DESCRIPTION, offset)


def _address(buffer: Buffer) -> Relocation:
    return Relocation(Fill.ADDRESS_I32, 0, region_symbol(buffer.region), buffer.offset)
