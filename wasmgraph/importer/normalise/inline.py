"""Replace calls of functions by their bodies: the model's own, and operators defined by others."""

from __future__ import annotations

import onnx
from onnx import defs, inliner

from wasmgraph.importer.converters import find_converter, is_supported
from wasmgraph.importer.network import Network, network_to_proto


def inline_local_functions(network: Network) -> None:
    """Inline the functions that the model itself defines."""
    if network.functions:
        _take_nodes(network, inliner.inline_local_functions(network_to_proto(network)))
        network.functions = []


def inline_schema_functions(network: Network) -> None:
    """Inline operators that ONNX defines in terms of simpler ones and that have no converter.

    Others stay whole: a fused Softmax is worth keeping.
    """
    hopeless: set[tuple[str, str]] = set()
    while True:
        for node in network.nodes:
            if find_converter(node) or has_function_body(node.domain, node.op_type, network):
                _write_out_defaults(node, network)
        wanted = _expandable(network) - hopeless
        if not wanted:
            return
        operator = min(wanted)
        try:
            proto = inliner.inline_selected_functions(
                # Weights as inputs, since the types of initializers are not looked at.
                network_to_proto(network, small_bytes=-1),
                [operator],
                exclude=False,
                inline_schema_functions=True,
            )
        except (RuntimeError, ValueError):
            # It cannot expand calls that leave out an input in the middle. The node stays, and is
            # refused with all the others.
            hopeless.add(operator)
            continue
        _take_nodes(network, proto)
        if operator in _expandable(network):
            hopeless.add(operator)


def _expandable(network: Network) -> set[tuple[str, str]]:
    return {
        (node.domain, node.op_type)
        for node in network.nodes
        if not is_supported(node) and has_function_body(node.domain, node.op_type, network)
    }


def _write_out_defaults(node: onnx.NodeProto, network: Network) -> None:
    """Give a node every attribute that has a default.

    Function bodies refer to the attributes of the call, and onnx's inliner and shape inference
    pass on only those that are written there: the Cast in HannWindow would end up without a type.
    Converters need not know that DFT's axis has another default from opset 20 on; and shape
    inference takes an STFT that does not say so for a two-sided one.
    """
    version = network.opsets.get(node.domain)
    if version is None or not defs.has(node.op_type, version, node.domain):
        return
    given = {attribute.name for attribute in node.attribute}
    schema = defs.get_schema(node.op_type, version, node.domain)
    for name, attribute in sorted(schema.attributes.items()):
        if name not in given and attribute.default_value.name:
            node.attribute.append(attribute.default_value)


def _take_nodes(network: Network, proto: onnx.ModelProto) -> None:
    network.nodes = list(proto.graph.node)
    for index, node in enumerate(network.nodes):
        if not node.name:
            node.name = f"{node.op_type}#{index}"


def has_function_body(domain: str, op_type: str, network: Network) -> bool:
    """Whether ONNX defines the operator by other operators."""
    version = network.opsets.get(domain)
    if version is None or not defs.has(op_type, version, domain):
        return False
    schema = defs.get_schema(op_type, version, domain)
    return bool(schema.has_function or schema.has_context_dependent_function)
