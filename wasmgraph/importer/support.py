"""Refuse, in one error, every node that cannot be compiled."""

from __future__ import annotations

import onnx

from wasmgraph.errors import Obstacle, UnsupportedModelError
from wasmgraph.importer.converters import why_unsupported
from wasmgraph.importer.network import Network, subgraphs
from wasmgraph.importer.normalise.inline import has_function_body

# Operators that left ONNX; upgrading the opset replaces them by their successors.
REPLACED_BY_UPGRADE = frozenset(["Scatter", "Upsample"])


def reject_unsupported(network: Network, *, upgraded: bool) -> None:
    """Raise if any node has no converter.

    Args:
        network: Local functions are inlined already.
        upgraded: Whether the opset upgrade and the inlining of schema functions lie behind; until
            then what they will replace is let through.

    Raises:
        UnsupportedModelError: lists every such node.
    """
    obstacles = []
    for node in _all_nodes(network.nodes):
        reason = why_unsupported(node)
        if reason is None or (not upgraded and _will_be_replaced(node, network)):
            continue
        op = f"{node.domain}.{node.op_type}" if node.domain else node.op_type
        obstacles.append(Obstacle(node.name or node.output[0], op, reason))
    if obstacles:
        raise unsupported(network, obstacles)


def _all_nodes(nodes: list[onnx.NodeProto]) -> list[onnx.NodeProto]:
    found = []
    for node in nodes:
        found.append(node)
        for graph in subgraphs(node):
            found.extend(_all_nodes(list(graph.node)))
    return found


def _will_be_replaced(node: onnx.NodeProto, network: Network) -> bool:
    if has_function_body(node.domain, node.op_type, network):
        return True
    return not node.domain and node.op_type in REPLACED_BY_UPGRADE


def unsupported(network: Network, obstacles: list[Obstacle]) -> UnsupportedModelError:
    """The error that lists `obstacles`."""
    count = len(obstacles)
    return UnsupportedModelError(
        f"{network.name} cannot be compiled, {count} node{'s are' if count > 1 else ' is'} "
        "not supported:",
        obstacles=obstacles,
    )
