"""Branches and loop bodies as networks of their own, so that passes reach into them.

What a body reads from around it is an input of its network, or a weight where it is constant.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import onnx
from onnx import numpy_helper

from wasmgraph.importer.network import Network, all_inputs, subgraphs
from wasmgraph.importer.normalise.fold import inferred_proto

Pass = Callable[[Network], None]


def change_bodies(
    network: Network, is_wanted: Callable[[onnx.NodeProto], bool], step: Pass
) -> None:
    """Apply a pass to every branch and body that holds a node which wants it, outer ones first.

    Args:
        network: Its nodes' subgraphs are changed in place.
        is_wanted: Whether a body with this node is to be changed.
        step: Must not remove the body's inputs or outputs.

    Raises:
        ModelError: ONNX's shape inference finds a contradiction.
    """
    if not any(_mentions(graph, is_wanted) for n in network.nodes for graph in subgraphs(n)):
        return
    known = _known_values(network)
    for node in network.nodes:
        for number, graph in enumerate(subgraphs(node)):
            if not _mentions(graph, is_wanted):
                continue
            _name_nodes(graph, f"{node.name}/{number}")
            _complete_types(node, graph, known)
            inner = _network_of(graph, network, known)
            if inner is None:
                continue
            if any(map(is_wanted, graph.node)):
                step(inner)
            change_bodies(inner, is_wanted, step)
            _write(inner, graph, network)


def _mentions(graph: onnx.GraphProto, is_wanted: Callable[[onnx.NodeProto], bool]) -> bool:
    return any(
        is_wanted(node) or any(_mentions(inner, is_wanted) for inner in subgraphs(node))
        for node in graph.node
    )


def _known_values(network: Network) -> dict[str, onnx.ValueInfoProto]:
    graph = inferred_proto(network).graph
    return {value.name: value for value in (*graph.output, *graph.value_info, *graph.input)}


def _name_nodes(graph: onnx.GraphProto, place: str) -> None:
    """Names that no other node of the model has: new tensors are called after them."""
    for number, node in enumerate(graph.node):
        if not node.name.startswith(f"{place}/"):
            node.name = f"{place}/{node.name or f'{node.op_type}#{number}'}"


def _complete_types(
    node: onnx.NodeProto, graph: onnx.GraphProto, known: Mapping[str, onnx.ValueInfoProto]
) -> None:
    """Let inputs of a body without a type have the element type of what the node passes to them."""
    for value, name in zip(graph.input, node.input, strict=False):
        given = known.get(name)
        if not value.type.WhichOneof("value") and given is not None:
            value.type.CopyFrom(given.type)
            value.type.tensor_type.ClearField("shape")


def _network_of(
    graph: onnx.GraphProto, outer: Network, known: Mapping[str, onnx.ValueInfoProto]
) -> Network | None:
    """None where the type of something that the body reads is not known."""
    own = {name for node in graph.node for name in node.output}
    own.update(value.name for value in graph.input)
    weights = {t.name: np.asarray(numpy_helper.to_array(t)) for t in graph.initializer}
    read = {name for node in graph.node for name in all_inputs(node)}
    read.update(value.name for value in graph.output)
    inputs = list(graph.input)
    for name in sorted(read - own - weights.keys()):
        if name in outer.weights:
            weights[name] = outer.weights[name]
        elif name in known:
            inputs.append(known[name])
        else:
            return None
    if not all(value.type.WhichOneof("value") for value in inputs):
        return None
    return Network(
        name=outer.name,
        opset=outer.opset,
        opsets=outer.opsets,
        ir_version=outer.ir_version,
        nodes=list(graph.node),
        inputs=inputs,
        outputs=list(graph.output),
        weights=weights,
    )


def _write(inner: Network, graph: onnx.GraphProto, outer: Network) -> None:
    """Put a changed network back; its weights become initializers of the body."""
    nodes = [onnx.NodeProto.FromString(node.SerializeToString()) for node in inner.nodes]
    read = {name for node in nodes for name in all_inputs(node)}
    read.update(value.name for value in graph.output)
    kept = [
        numpy_helper.from_array(array, name)
        for name, array in inner.weights.items()
        if name in read and array is not outer.weights.get(name)
    ]
    del graph.node[:], graph.initializer[:], graph.value_info[:]
    graph.node.extend(nodes)
    graph.initializer.extend(kept)
