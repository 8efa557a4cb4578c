"""Writes a dynamic program as an object file, in tables that the executor reads
(toolchain/executor/src/dynamic/run.rs)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from wasmgraph.assembler.object_file import Fill, Relocation, write_linked_object
from wasmgraph.bundle import Constant
from wasmgraph.dynamic.program import Body, DynamicProgram, Node, chains, operators
from wasmgraph.link.regions_object import region_symbol
from wasmgraph.link.tables import Tables, Word

NODES = "wasmgraph_nodes"
"""The symbol of the tables; the first of them is the executor's `dynamic::run::Graph`."""

_ROOT_WORDS = 9
_NO_SLOT = 2**32 - 1


def nodes_object(program: DynamicProgram, constants: Sequence[Constant]) -> bytes:
    """The object file: the same program always gives the same bytes."""
    tables = Tables(NODES, _ROOT_WORDS)
    rows = [
        [
            slot,
            np.dtype(constant.dtype).itemsize,
            *tables.numbers(constant.shape, "q"),
            Relocation(Fill.ADDRESS_I32, 0, region_symbol("params"), constant.offset),
        ]
        for slot, constant in zip(program.constants, constants, strict=True)
    ]
    tables.fill_root([program.slots, *tables.table(rows), *_body(tables, program.body)])
    # Each takes a call and room for the reason of a failure.
    # So does each chain, of a table and a number.
    called = dict.fromkeys([*operators(program), *chains(program)], 2)
    return write_linked_object([], [tables.data()], called)


def _body(tables: Tables, body: Body) -> list[Word]:
    return [
        *tables.table([_node(tables, node) for node in body.nodes]),
        *tables.numbers(body.inputs, "I"),
        *tables.numbers(body.outputs, "I"),
    ]


def _node(tables: Tables, node: Node) -> list[Word]:
    def slots(numbers: Sequence[int | None]) -> list[Word]:
        return tables.numbers([_NO_SLOT if n is None else n for n in numbers], "I")

    return [
        Relocation(Fill.TABLE_INDEX_I32, 0, node.operator),
        tables.numbers(node.words, "i")[0],
        *slots(node.inputs),
        *slots(node.outputs),
        *slots(node.freed),
        *tables.table([_body(tables, body) for body in node.bodies]),
        Relocation(Fill.TABLE_INDEX_I32, 0, node.chain) if node.chain else 0,
        *tables.text(node.name),
    ]
