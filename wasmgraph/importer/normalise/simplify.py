"""Remove nodes that do nothing at inference, and nodes nobody reads."""

from __future__ import annotations

from collections.abc import Sequence

import onnx

from wasmgraph.importer.network import Network, all_inputs, attributes, subgraphs


def remove_no_ops(network: Network) -> None:
    """Drop Identity, inference-time Dropout and casts to the same type; readers use the source.

    A no-op that produces a graph output stays, as an output must keep its name.
    """
    outputs = set(network.output_names)
    alias: dict[str, str] = {}
    kept = []
    for node in network.nodes:
        _rename_inputs(node, alias)
        if _is_no_op(node, network) and node.output[0] not in outputs:
            alias[node.output[0]] = node.input[0]
        else:
            kept.append(node)
    network.nodes = kept


def _is_no_op(node: onnx.NodeProto, network: Network) -> bool:
    if node.domain:
        return False
    if node.op_type == "Identity":
        return True
    if node.op_type == "Dropout":
        training = node.input[2] if len(node.input) > 2 else ""
        return not _is_read(network, node.output[1:]) and (
            not training
            or (training in network.weights and not bool(network.weights[training].any()))
        )
    if node.op_type == "Cast":
        known = network.types.get(node.input[0])
        target = attributes(node)["to"]
        return known is not None and (onnx.helper.np_dtype_to_tensor_dtype(known.dtype) == target)
    return False


def _is_read(network: Network, names: Sequence[str]) -> bool:
    wanted = {name for name in names if name}
    return bool(wanted) and (
        not wanted.isdisjoint(network.output_names)
        or any(not wanted.isdisjoint(all_inputs(node)) for node in network.nodes)
    )


def _rename_inputs(node: onnx.NodeProto, alias: dict[str, str]) -> None:
    if not alias:
        return
    for index, name in enumerate(node.input):
        if name in alias:
            node.input[index] = alias[name]
    for graph in subgraphs(node):
        for child in graph.node:
            _rename_inputs(child, alias)
        for value in graph.output:
            if value.name in alias:
                child = graph.node.add(op_type="Identity", name=f"{value.name}/Identity")
                child.input.append(alias[value.name])
                child.output.append(value.name)


def drop_empty_operands(network: Network) -> None:
    """Leave out optional inputs of Resize that exporters write as empty tensors."""
    for node in network.nodes:
        if node.op_type == "Resize" and not node.domain:
            for index in range(1, len(node.input)):
                weight = network.weights.get(node.input[index])
                if weight is not None and weight.size == 0:
                    node.input[index] = ""


def remove_dead_nodes(network: Network) -> None:
    """Drop nodes none of whose outputs is read, and weights nobody reads."""
    live = set(network.output_names)
    kept = []
    for node in reversed(network.nodes):
        if any(name in live for name in node.output):
            kept.append(node)
            live.update(all_inputs(node))
    network.nodes = kept[::-1]
    network.weights = {name: w for name, w in network.weights.items() if name in live}
