"""What a dynamic graph runs: nodes over slots. dtypes are fixed, shapes come with the tensors."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

PREFIX = "wgd_"
"""With which the symbols of the executor's operators begin."""


@dataclass(frozen=True)
class Node:
    """One call of an operator.

    Attributes:
        operator: The executor's symbol, e.g. "wgd_add_f32".
        words: Its parameters, 32-bit numbers in the order that its documentation lists them.
        inputs: Slots that it reads; None for an input that is left out.
        outputs: Slots that it writes; None for an output that nobody reads.
        freed: Slots that nobody reads after it.
        bodies: The branches of a condition, the body of a loop.
        name: The ONNX node, for messages.
        chain: The symbol of the chain of element-wise operators that belongs to it, or "".
    """

    operator: str
    words: tuple[int, ...]
    inputs: tuple[int | None, ...]
    outputs: tuple[int | None, ...]
    freed: tuple[int, ...]
    bodies: tuple[Body, ...]
    name: str
    chain: str = ""


@dataclass(frozen=True)
class Body:
    """Nodes in order, the slots that are filled before and those read afterwards."""

    nodes: tuple[Node, ...]
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]


@dataclass(frozen=True)
class DynamicProgram:
    """A whole graph.

    Attributes:
        slots: How many there are.
        constants: The slot of every constant of the bundle, in their order.
        body: The graph's own nodes, inputs and outputs.
    """

    slots: int
    constants: tuple[int, ...]
    body: Body


def all_nodes(body: Body) -> Iterator[Node]:
    """The nodes, those of inner bodies included."""
    for node in body.nodes:
        yield node
        for inner in node.bodies:
            yield from all_nodes(inner)


def operators(program: DynamicProgram) -> list[str]:
    """The distinct symbols that it calls, in order."""
    return list(dict.fromkeys(node.operator for node in all_nodes(program.body)))


def calls(program: DynamicProgram) -> dict[str, int]:
    """How many nodes call each operator, by its name without the executor's prefix."""
    counts = Counter(node.operator.removeprefix(PREFIX) for node in all_nodes(program.body))
    return dict(sorted(counts.items()))


def chains(program: DynamicProgram) -> list[str]:
    """The distinct symbols of its chains, in order."""
    return [s for s in dict.fromkeys(node.chain for node in all_nodes(program.body)) if s]


def program_from_json(data: dict[str, Any]) -> DynamicProgram:
    """A program as `dataclasses.asdict` and JSON have it.

    Raises:
        KeyError, TypeError, ValueError: it is none, or names a slot that is not there.
    """
    slots = int(data["slots"])

    def slot(number: Any) -> int:
        if type(number) is not int or not 0 <= number < slots:
            raise ValueError(f"there is no slot {number!r}")
        return number

    def optional(numbers: list[Any]) -> tuple[int | None, ...]:
        return tuple(None if number is None else slot(number) for number in numbers)

    def node(item: dict[str, Any]) -> Node:
        words = tuple(item["words"])
        if not all(type(word) is int and -(2**31) <= word < 2**31 for word in words):
            raise ValueError(f"the words of {item['name']!r} are not 32-bit numbers")
        return Node(
            item["operator"],
            words,
            optional(item["inputs"]),
            optional(item["outputs"]),
            tuple(map(slot, item["freed"])),
            tuple(map(body, item["bodies"])),
            item["name"],
            item["chain"],
        )

    def body(item: dict[str, Any]) -> Body:
        return Body(
            tuple(map(node, item["nodes"])),
            tuple(map(slot, item["inputs"])),
            tuple(map(slot, item["outputs"])),
        )

    return DynamicProgram(slots, tuple(map(slot, data["constants"])), body(data["body"]))
