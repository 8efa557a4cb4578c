"""Which slots can be freed after which node, and which nodes nobody needs."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from wasmgraph.dynamic.program import Body, Node


def with_liveness(body: Body, kept: frozenset[int]) -> Body:
    """The body without nodes whose outputs nobody reads, every slot freed after its last reader.

    A body frees only what it has computed or was given: what an inner body reads from outside
    lives until the node that holds the inner body is done, as the next iteration reads it again.

    Args:
        body: Nodes that free nothing yet.
        kept: Slots that are never freed: constants.
    """
    live = set(body.outputs)
    own = {slot for node in body.nodes for slot in node.outputs if slot is not None}
    own.update(body.inputs)
    nodes: list[Node] = []
    for node in reversed(body.nodes):
        if not any(slot in live for slot in node.outputs):
            continue
        bodies = tuple(with_liveness(inner, kept) for inner in node.bodies)
        written = {slot for slot in node.outputs if slot is not None}
        read = set(reads(node))
        ends = (read - live) & own - kept
        outputs = tuple(slot if slot in live else None for slot in node.outputs)
        nodes.append(replace(node, outputs=outputs, bodies=bodies, freed=tuple(sorted(ends))))
        live = live - written | read
    return replace(body, nodes=tuple(reversed(nodes)))


def reads(node: Node) -> Iterator[int]:
    """The slots that a node reads, by its bodies too."""
    yield from (slot for slot in node.inputs if slot is not None)
    for body in node.bodies:
        own = {slot for inner in body.nodes for slot in inner.outputs} | set(body.inputs)
        read = {slot for inner in body.nodes for slot in reads(inner)} | set(body.outputs)
        yield from (slot for slot in read if slot not in own)
