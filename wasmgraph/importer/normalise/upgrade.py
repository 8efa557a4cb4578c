"""Bring old models to one opset, so that the converters need to know only that one."""

from __future__ import annotations

import re

import onnx
from onnx import version_converter
from onnx.shape_inference import InferenceError

from wasmgraph.errors import ModelError
from wasmgraph.importer.network import Network, network_to_proto

TARGET_OPSET = 18
"""The newest opset whose operators TVM 0.27's importer mostly knows; newer models stay as is."""

# The place in onnx's own sources at which it gave up.
_CHECK = re.compile(r"^.*Assertion .*? failed: ", re.DOTALL)


def upgrade_opset(network: Network) -> None:
    """Rewrite the nodes in `TARGET_OPSET` where the model's opset is older.

    Raises:
        ModelError: ONNX's version converter cannot do it.
    """
    if "" not in network.opsets and all(node.domain for node in network.nodes):
        # Nothing but operators of other domains, such as ai.onnx.ml: any opset will do.
        network.opset = network.opsets[""] = TARGET_OPSET
    if network.opset >= TARGET_OPSET:
        return
    proto = network_to_proto(network)
    try:
        upgraded = version_converter.convert_version(proto, TARGET_OPSET)
    except (RuntimeError, ValueError, InferenceError, version_converter.ConvertError) as error:
        raise ModelError(
            f"{network.name}: cannot upgrade from opset {network.opset} to {TARGET_OPSET}: "
            + _CHECK.sub("", str(error)).strip(),
            hint="export the model with a newer opset",
        ) from error
    names = {tuple(node.output): node.name for node in network.nodes}
    produced = {name: node.name for node in network.nodes for name in node.output}
    nodes = list(upgraded.graph.node)
    for index, node in enumerate(nodes):
        if not node.name:
            node.name = names.get(tuple(node.output)) or _name_of_insertion(nodes, index, produced)
    for tensor in upgraded.graph.initializer:
        network.weights[tensor.name] = onnx.numpy_helper.to_array(tensor)
    network.nodes = nodes
    network.opset = TARGET_OPSET
    network.opsets[""] = TARGET_OPSET


def _name_of_insertion(nodes: list[onnx.NodeProto], index: int, produced: dict[str, str]) -> str:
    """Name a node the converter inserted after the model's node that it serves."""
    for node in nodes[index:]:
        for name in node.output:
            if name in produced:
                return f"{produced[name]}/{nodes[index].op_type}"
    return f"{nodes[index].op_type}#{index}"


_AXES_INPUT_OPSET = {"ReduceSum": 13, "Squeeze": 13, "Unsqueeze": 13}
"""From here on their axes are an input; of the other reductions from `TARGET_OPSET` on."""


def write_older_axes(network: Network) -> None:
    """Give nodes their constant axes as an attribute where the opset has them so.

    What passes write is of `TARGET_OPSET`, which branches and bodies are not upgraded to.
    """
    for node in network.nodes:
        if node.domain or not node.op_type.startswith(("Reduce", "Squeeze", "Unsqueeze")):
            continue
        axes = network.weights.get(node.input[1]) if len(node.input) > 1 else None
        if axes is not None and network.opset < _AXES_INPUT_OPSET.get(node.op_type, TARGET_OPSET):
            node.input.pop()
            node.attribute.append(onnx.helper.make_attribute("axes", axes.reshape(-1).tolist()))
