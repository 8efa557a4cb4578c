"""Refuse, in one error, every node that cannot be compiled."""

from __future__ import annotations

from collections.abc import Callable, Container

import onnx

from wasmgraph.errors import ModelError, Obstacle, UnsupportedModelError
from wasmgraph.importer.converters import why_unsupported
from wasmgraph.importer.network import Network, TensorType, subgraphs
from wasmgraph.importer.normalise.contrib import is_contrib
from wasmgraph.importer.normalise.expand_quantised import is_expanded
from wasmgraph.importer.normalise.inline import has_function_body
from wasmgraph.importer.normalise.legacy import is_legacy
from wasmgraph.importer.normalise.machine_learning import is_dropped, is_plain
from wasmgraph.metadata import DTYPE_NBYTES, MAX_TENSOR_NBYTES, NARROW_DTYPES

# Operators that left ONNX; upgrading the opset replaces them by their successors.
REPLACED_BY_UPGRADE = frozenset(["Scatter", "Upsample"])


def reject_unsupported(
    network: Network,
    *,
    upgraded: bool,
    why: Callable[[onnx.NodeProto], str | None] = why_unsupported,
    hint: str | None = None,
) -> None:
    """Raise if any node has no converter.

    Args:
        network: Local functions are inlined already.
        upgraded: Whether the opset upgrade and the inlining of schema functions lie behind; until
            then what they will replace is let through.
        why: The reason why a node cannot be compiled, or None.
        hint: The way out.

    Raises:
        UnsupportedModelError: lists every such node.
    """
    obstacles = []
    for node in _all_nodes(network.nodes):
        reason = why(node)
        if reason is None or (not upgraded and _will_be_replaced(node, network)):
            continue
        op = f"{node.domain}.{node.op_type}" if node.domain else node.op_type
        obstacles.append(Obstacle(node.name or node.output[0], op, reason))
    if obstacles:
        raise unsupported(network, obstacles, hint)


DTYPES = frozenset(DTYPE_NBYTES) - NARROW_DTYPES
"""What kernels and numpy both have."""


def why_impossible(known: TensorType, dtypes: Container[str] = DTYPES) -> str | None:
    """The reason why no tensor of this type can be in a graph, or None if one can.

    Args:
        known: The type.
        dtypes: Those that can be; before `store_narrow`, all of `DTYPE_NBYTES`.
    """
    if known.dtype.name not in dtypes:
        return f"has the dtype {known.dtype.name}, which is not supported"
    nbytes = known.nbytes
    if nbytes is None or nbytes <= MAX_TENSOR_NBYTES:
        return None
    return (
        f"{known.dtype.name}{list(known.shape or ())} takes {nbytes / 2**30:.4g} GiB, "
        "a tensor in 32-bit memory has less than 2 GiB"
    )


def reject_impossible_tensors(network: Network) -> None:
    """Raise if any tensor exceeds 32-bit memory, or is of a dtype or shape that cannot be.

    This comes before somebody allocates a tensor to fold it.

    Raises:
        ModelError: a window is larger than what it slides over.
        UnsupportedModelError: tensors are too large or of another dtype; lists every node that
            makes one out of others.
    """
    reasons = {name: why_impossible(known) for name, known in network.types.items()}
    obstacles = [
        Obstacle(name, "", f"this tensor {reason}")
        for name in (*network.input_names, *network.weights)
        if (reason := reasons.get(name))
    ]
    for node in network.nodes:
        _check_extents(node, network)
        if any(reasons.get(name) for name in node.input):
            continue
        for reason in filter(None, map(reasons.get, node.output)):
            obstacles.append(Obstacle(node.name, node.op_type, f"its output {reason}"))
    if obstacles:
        raise unsupported(network, obstacles)


_INT32 = range(-(2**31), 2**31)


def reject_wide_attributes(network: Network) -> None:
    """Refuse integers among ai.onnx's attributes that TVM and the kernels would cut to 32 bits.

    Raises:
        UnsupportedModelError: lists every node that has one.
    """
    obstacles = []
    for node in network.nodes:
        for attribute in () if node.domain else node.attribute:
            wide = [number for number in (attribute.i, *attribute.ints) if number not in _INT32]
            if wide:
                reason = f"its {attribute.name} {wide[0]} does not fit 32 bits"
                obstacles.append(Obstacle(node.name, node.op_type, reason))
    if obstacles:
        raise unsupported(network, obstacles)


def _check_extents(node: onnx.NodeProto, network: Network) -> None:
    def shape(name: str) -> tuple[int, ...]:
        known = network.types.get(name)
        return () if known is None or known.shape is None else known.shape

    lowest = 1 if node.op_type in ("Conv", "ConvTranspose") and 0 not in shape(node.input[0]) else 0
    for name in node.output:
        if any(extent < lowest for extent in shape(name)):
            raise ModelError(
                f"{network.name}: the output of {node.name} ({node.op_type}) would have the shape "
                f"{list(shape(name))}: its input of shape {list(shape(node.input[0]))} is too small"
            )


def _all_nodes(nodes: list[onnx.NodeProto]) -> list[onnx.NodeProto]:
    found = []
    for node in nodes:
        found.append(node)
        for graph in subgraphs(node):
            found.extend(_all_nodes(list(graph.node)))
    return found


def _will_be_replaced(node: onnx.NodeProto, network: Network) -> bool:
    if is_legacy(node, network) or is_contrib(node) or is_expanded(node):
        return True
    if is_plain(node) or is_dropped(node, network):
        return True
    if has_function_body(node.domain, node.op_type, network):
        return True
    return not node.domain and node.op_type in REPLACED_BY_UPGRADE


def unsupported(
    network: Network, obstacles: list[Obstacle], hint: str | None = None
) -> UnsupportedModelError:
    """The error that lists `obstacles`."""
    what = f"{network.name} cannot be compiled"
    if all(obstacle.op for obstacle in obstacles):
        count = len(obstacles)
        what += f", {count} node{'s are' if count > 1 else ' is'} not supported"
    return UnsupportedModelError(f"{what}:", hint=hint, obstacles=obstacles)
