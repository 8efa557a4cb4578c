"""Writes the graph's description as an object file: tables for the executor, a function per step.

A step is a function without parameters that calls its kernel with addresses which the linker fills
in. The tables are laid out as the structures of toolchain/executor/src/graph.rs read them. So the
executor is compiled once and only linked with a graph, which takes a twentieth of the time that
rustc needs for a source with the same in it.
"""

from __future__ import annotations

from collections.abc import Sequence

from wasmgraph.assembler.function import unsigned
from wasmgraph.assembler.object_file import (
    PLACEHOLDER,
    Code,
    Fill,
    Relocation,
    write_linked_object,
)
from wasmgraph.assembler.opcodes import CALL, END, I32_CONST
from wasmgraph.bundle import Batch, Buffer, Graph, Step, Tensor
from wasmgraph.link.regions_object import region_symbol
from wasmgraph.link.tables import Tables, Word
from wasmgraph.metadata import DTYPE_NBYTES

DESCRIPTION = "wasmgraph_description"
"""The symbol of the tables; the first of them is the executor's `Graph`."""

_ROOT_WORDS = 13
_NO_BOUND = 2**32 - 1
_NO_AXIS = 2**32 - 1
_NO_LOCALS = unsigned(0)


def description_object(graph: Graph) -> bytes:
    """The object file: the same graph always gives the same bytes. `graph` must be consistent."""
    steps = [_step(number, step, graph) for number, step in enumerate(graph.steps)]
    tables = Tables(DESCRIPTION, _ROOT_WORDS)
    axes = open_axes(graph)
    tables.fill_root(
        [
            Relocation(Fill.ADDRESS_I32, 0, _engine(graph)),
            *tables.table(
                [[*tables.text(name), graph.bounds.get(name, _NO_BOUND)] for name in axes]
            ),
            *_tensors(tables, graph.inputs, axes),
            *_tensors(tables, graph.outputs, axes),
            *_steps(tables, graph.steps),
            *_stages(tables, graph.steps),
            *_shares(tables, graph.batch),
        ]
    )
    called = {kernel.symbol: kernel.buffers for kernel in graph.kernels}
    return write_linked_object(steps, [tables.data()], called)


def _engine(graph: Graph) -> str:
    if graph.dynamic is not None:
        return "wasmgraph_dynamic"
    return "wasmgraph_static" if graph.batch is None else "wasmgraph_batch"


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


def open_axes(graph: Graph) -> list[str]:
    """The names of axes without a fixed extent, in the order of their numbers."""
    shapes = [tensor.shape for tensor in (*graph.inputs, *graph.outputs)]
    return list(dict.fromkeys(d for shape in shapes for d in shape if isinstance(d, str)))


def _tensors(tables: Tables, tensors: Sequence[Tensor], axes: Sequence[str]) -> list[Word]:
    """The words (address, count) of a table of `Tensor`."""
    dtypes = list(DTYPE_NBYTES)
    rows = []
    for tensor in tensors:
        dims = [-1 - axes.index(d) if isinstance(d, str) else d for d in tensor.shape]
        address = 0 if tensor.buffer is None else _address(tensor.buffer)
        dtype = dtypes.index(tensor.dtype)
        rows.append([*tables.text(tensor.name), dtype, *tables.numbers(dims, "q"), address])
    return tables.table(rows)


def _steps(tables: Tables, steps: Sequence[Step]) -> list[Word]:
    """Of a table of `Step`."""
    return tables.table(
        [
            [
                Relocation(Fill.TABLE_INDEX_I32, 0, _step_symbol(number)),
                *tables.text(", ".join(step.nodes)),
            ]
            for number, step in enumerate(steps)
        ]
    )


def _stages(tables: Tables, steps: Sequence[Step]) -> list[Word]:
    """Of a table with the first step of every stage."""
    firsts = [
        [number]
        for number, step in enumerate(steps)
        if number == 0 or steps[number - 1].stage != step.stage
    ]
    return tables.table(firsts)


def _shares(tables: Tables, batch: Batch | None) -> list[Word]:
    """Of a table of `Share`: of the inputs, then of the outputs."""
    shares = () if batch is None else (*batch.inputs, *batch.outputs)
    return tables.table(
        [[_NO_AXIS, 0] if share is None else [share.axis, share.extent] for share in shares]
    )


def _address(buffer: Buffer) -> Relocation:
    return Relocation(Fill.ADDRESS_I32, 0, region_symbol(buffer.region), buffer.offset)
