"""Keep tables that a Gather looks up in as few bytes as hold the same numbers.

Only the rows that were looked up become float32.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper

from wasmgraph.importer.network import Network, TensorType, all_inputs, attributes
from wasmgraph.kernels.exact_storage import store_exactly


def narrow_tables(network: Network) -> None:
    """Replace what looks up float32 rows by what looks up halves, or int8 and scales.

    `network.wide_nbytes` then says how large the tables were.
    """
    uses = Counter(name for node in network.nodes for name in all_inputs(node))
    uses.update(network.output_names)
    nodes = []
    for node in network.nodes:
        is_only = node.op_type == "Gather" and not node.domain and uses[node.input[0]] == 1
        found = _narrowed(node, network) if is_only else None
        nodes += [node] if found is None else found
    network.nodes = nodes


def _narrowed(node: onnx.NodeProto, network: Network) -> list[onnx.NodeProto] | None:
    """The nodes in the place of a Gather of rows; None where its table stays as it is."""
    name, index = node.input
    if attributes(node).get("axis", 0) != 0:
        return None
    table = network.weights.get(name)
    if table is None or table.dtype != np.float32 or table.ndim != 2:
        return None
    found = store_exactly(table.T)
    if found.stored == "float32":
        return None
    out = node.output[0]
    _add(network, name, found.array.T, table.nbytes)
    rows, wide = f"{out}/{found.stored}", f"{out}/float32"
    scaled = found.scales is not None
    nodes = [
        helper.make_node("Gather", [name, index], [rows], name=node.name),
        helper.make_node(
            "Cast", [rows], [wide if scaled else out], name=node.name, to=onnx.TensorProto.FLOAT
        ),
    ]
    if found.scales is not None:
        scales, chosen = f"{name}/scales", f"{out}/scales"
        _add(network, scales, found.scales.reshape(-1, 1), 0)
        nodes += [
            helper.make_node("Gather", [scales, index], [chosen], name=node.name),
            helper.make_node("Mul", [wide, chosen], [out], name=node.name),
        ]
    return nodes


def _add(network: Network, name: str, array: NDArray[Any], wide_nbytes: int) -> None:
    network.weights[name] = np.ascontiguousarray(array)
    network.types[name] = TensorType(array.dtype, array.shape)
    network.wide_nbytes[name] = wide_nbytes
