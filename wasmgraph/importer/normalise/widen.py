"""Compute half-precision models in single precision.

WebAssembly has no float16 arithmetic: TVM would convert before and after every operation, one
element at a time. Inputs and outputs stay float16; everything between them is float32, which is at
least as exact.
"""

from __future__ import annotations

import numpy as np
import onnx
from onnx import helper

from wasmgraph.importer.network import Network, tensor_type
from wasmgraph.importer.normalise.fold import infer_shapes

_HALF, _SINGLE = onnx.TensorProto.FLOAT16, onnx.TensorProto.FLOAT


def widen_float16(network: Network) -> None:
    """Make every float16 tensor but the graph's inputs and outputs float32.

    Runs after constant folding, when no Constant nodes are left.
    """
    half_outputs = [
        name
        for name in network.output_names
        if name in network.types and network.types[name].dtype == np.float16
    ]
    half_inputs = [
        value.name
        for value in network.inputs
        if (known := tensor_type(value)) is not None and known.dtype == np.float16
    ]
    if not any(known.dtype == np.float16 for known in network.types.values()):
        return
    for name, array in network.weights.items():
        if array.dtype == np.float16:
            network.weights[name] = array.astype(np.float32)
    renamed = {name: f"{name}/float32" for name in (*half_inputs, *half_outputs)}
    for node in network.nodes:
        for names in (node.input, node.output):
            for index, name in enumerate(names):
                names[index] = renamed.get(name, name)
        _widen_attributes(node)
    network.nodes[:0] = [_cast(name, renamed[name], _SINGLE) for name in half_inputs]
    for name in half_outputs:
        if name in network.weights:
            network.weights[renamed[name]] = network.weights.pop(name)
        if name not in half_inputs:
            network.nodes.append(_cast(renamed[name], name, _HALF))
    infer_shapes(network)


def _cast(source: str, target: str, dtype: int) -> onnx.NodeProto:
    return helper.make_node("Cast", [source], [target], name=f"{target}/Cast", to=dtype)


def _widen_attributes(node: onnx.NodeProto) -> None:
    """Types that a node names: what it casts to, and the value it fills with."""
    for attribute in node.attribute:
        if attribute.name in ("to", "dtype") and attribute.i == _HALF:
            attribute.i = _SINGLE
        elif attribute.HasField("t") and attribute.t.data_type == _HALF:
            value = onnx.numpy_helper.to_array(attribute.t).astype(np.float32)
            attribute.t.CopyFrom(onnx.numpy_helper.from_array(value, attribute.t.name))
