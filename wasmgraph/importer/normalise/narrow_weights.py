"""Narrow weights of dynamic graphs, as numbers that their operators know.

Integers below a byte become integers of a byte, which DequantizeLinear takes as well. Floats of 8
and 4 bits become float32, with what they are scaled by; so do blocks of scales, and matrices that
only products read: these pack them as the codes that they were.
"""

from __future__ import annotations

import numpy as np
import onnx

from wasmgraph.importer.network import Network, TensorType, all_inputs, attributes
from wasmgraph.importer.normalise.fold import evaluated
from wasmgraph.importer.normalise.narrow_writer import INTEGERS
from wasmgraph.importer.normalise.quantised_values import block_scaled
from wasmgraph.metadata import NARROW_DTYPES

_NARROW = {onnx.helper.np_dtype_to_tensor_dtype(np.dtype(name)) for name in NARROW_DTYPES}


def mentions_narrow(node: onnx.NodeProto) -> bool:
    """Whether a node holds a narrow constant, converts one, or may convert one from outside."""
    return node.op_type in ("DequantizeLinear", "Cast", "CastLike") or any(
        attribute.t.data_type in _NARROW for attribute in node.attribute
    )


def widen_narrow_weights(network: Network) -> None:
    """Make every narrow weight wider; what can only be computed from it later stays narrow."""
    for name, array in network.weights.items():
        if array.dtype.name in INTEGERS:
            network.weights[name] = array.astype(INTEGERS[array.dtype.name])
            network.types[name] = TensorType(network.weights[name].dtype, array.shape)
    factors = _only_factors(network)
    kept = []
    for node in network.nodes:
        is_weight = _scales_weights(node, network, factors)
        values = evaluated(node, network) if is_weight else None
        if values is None:
            kept.append(node)
        else:
            network.block_scaled[node.output[0]] = block_scaled(node, network.weights)
            network.weights.update(values)
    network.nodes = kept


def _only_factors(network: Network) -> set[str]:
    """The tensors that are read by nothing but products, as right factors."""
    factors: set[str] = set()
    others = set(network.output_names)
    for node in network.nodes:
        is_product = not node.domain and node.op_type in ("MatMul", "Gemm")
        for place, name in enumerate(all_inputs(node)):
            (factors if is_product and place == 1 else others).add(name)
    return factors - others


def _scales_weights(node: onnx.NodeProto, network: Network, factors: set[str]) -> bool:
    if node.domain or node.op_type != "DequantizeLinear":
        return False
    weight = network.weights.get(node.input[0])
    if weight is None:
        return False
    is_float = weight.dtype.name in NARROW_DTYPES and weight.dtype.name not in INTEGERS
    is_factor = node.output[0] in factors and weight.ndim == 2
    return is_float or is_factor or bool(attributes(node).get("block_size", 0))
