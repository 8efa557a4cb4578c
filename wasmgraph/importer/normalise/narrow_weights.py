"""Narrow weights of dynamic graphs, as numbers that their operators know.

Integers below a byte become integers of a byte, which DequantizeLinear takes as well. Floats of 8
and 4 bits become float32, with what they are scaled by; so do blocks of scales.
"""

from __future__ import annotations

import numpy as np
import onnx

from wasmgraph.importer.network import Network, TensorType, attributes
from wasmgraph.importer.normalise.fold import evaluated
from wasmgraph.importer.normalise.narrow_writer import INTEGERS
from wasmgraph.metadata import NARROW_DTYPES

_NARROW = {onnx.helper.np_dtype_to_tensor_dtype(np.dtype(name)) for name in NARROW_DTYPES}


def mentions_narrow(node: onnx.NodeProto) -> bool:
    """Whether a node holds a narrow constant, converts one, or may convert one from outside."""
    return node.op_type in ("DequantizeLinear", "Cast", "CastLike") or any(
        attribute.t.data_type in _NARROW for attribute in node.attribute
    )


def widen_narrow_weights(network: Network) -> None:
    """Make every narrow weight wider; what can only be computed from it later stays narrow."""
    kept = []
    for node in network.nodes:
        values = evaluated(node, network) if _scales_weights(node, network) else None
        if values is None:
            kept.append(node)
        else:
            network.weights.update(values)
    network.nodes = kept
    for name, array in network.weights.items():
        if array.dtype.name in INTEGERS:
            network.weights[name] = array.astype(INTEGERS[array.dtype.name])
            network.types[name] = TensorType(network.weights[name].dtype, array.shape)


def _scales_weights(node: onnx.NodeProto, network: Network) -> bool:
    if node.domain or node.op_type != "DequantizeLinear":
        return False
    weight = network.weights.get(node.input[0])
    if weight is None:
        return False
    is_float = weight.dtype.name in NARROW_DTYPES and weight.dtype.name not in INTEGERS
    return is_float or bool(attributes(node).get("block_size", 0))
