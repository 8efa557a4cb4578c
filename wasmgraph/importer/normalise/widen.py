"""Compute models of 16-bit floats in single precision.

WebAssembly has no float16 and no bfloat16 arithmetic: TVM would convert before and after every
operation, one element at a time. Inputs and outputs stay as they are; everything between them is
float32, which is at least as exact.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx
from onnx import helper

from wasmgraph.importer.network import Network, TensorType, subgraphs, tensor_type
from wasmgraph.importer.normalise.fold import infer_shapes

_SINGLE = onnx.TensorProto.FLOAT
_HALVES = {"float16": onnx.TensorProto.FLOAT16, "bfloat16": onnx.TensorProto.BFLOAT16}


def widen_halves(network: Network) -> None:
    """Make every float16 and bfloat16 tensor but the graph's inputs and outputs float32.

    BitCast's operands are left, too: it is their bits that matter.

    Runs after constant folding, when no Constant nodes are left.
    """
    half_outputs = {
        name: network.types[name].dtype.name
        for name in network.output_names
        if _is_half(network.types.get(name))
    }
    half_inputs = [value.name for value in network.inputs if _is_half(tensor_type(value))]
    has_bodies = any(any(subgraphs(node)) for node in network.nodes)
    if not any(map(_is_half, network.types.values())) and not has_bodies:
        return
    for name, array in network.weights.items():
        if array.dtype.name in _HALVES:
            network.weights[name] = array.astype(np.float32)
    renamed = {name: f"{name}/float32" for name in (*half_inputs, *half_outputs)}
    nodes = [_cast(name, renamed[name], _SINGLE) for name in half_inputs]
    for node in network.nodes:
        is_bits = node.op_type == "BitCast" and not node.domain
        halves = [network.types.get(name) for name in (*node.input, *node.output)]
        for names in (node.input, node.output):
            for index, name in enumerate(names):
                names[index] = renamed.get(name, name)
        if is_bits:
            nodes += _with_halves(node, *halves)
        else:
            _widen_attributes(node)
            for graph in subgraphs(node):
                _widen_body(graph, renamed)
            nodes.append(node)
    network.nodes = nodes
    for name, dtype in half_outputs.items():
        if name in network.weights:
            network.weights[renamed[name]] = network.weights.pop(name)
        if name not in half_inputs:
            network.nodes.append(_cast(renamed[name], name, _HALVES[dtype]))
    infer_shapes(network)


def _widen_body(graph: onnx.GraphProto, renamed: Mapping[str, str]) -> None:
    """The same inside of a branch or body, whose own inputs and outputs are float32 then."""
    for value in (*graph.input, *graph.output, *graph.value_info):
        tensor = value.type.tensor_type
        if tensor.elem_type in _HALVES.values():
            tensor.elem_type = _SINGLE
    for tensor in graph.initializer:
        if tensor.data_type in _HALVES.values():
            _widen_tensor(tensor)
    for node in graph.node:
        node.input[:] = [renamed.get(name, name) for name in node.input]
        _widen_attributes(node)
        for inner in subgraphs(node):
            _widen_body(inner, renamed)
    for value in graph.output:
        value.name = renamed.get(value.name, value.name)


def _widen_tensor(tensor: onnx.TensorProto) -> None:
    value = onnx.numpy_helper.to_array(tensor).astype(np.float32)
    tensor.CopyFrom(onnx.numpy_helper.from_array(value, tensor.name))


def _is_half(known: TensorType | None) -> bool:
    return known is not None and known.dtype.name in _HALVES


def _with_halves(
    node: onnx.NodeProto, source: TensorType | None, target: TensorType | None
) -> list[onnx.NodeProto]:
    """A BitCast, whose own operands stay 16 bits wide, with what converts them."""
    before, after, place = [], [], node.output[0]
    if source is not None and _is_half(source):
        before.append(_cast(node.input[0], f"{place}/bits", _HALVES[source.dtype.name]))
        node.input[0] = f"{place}/bits"
    if _is_half(target):
        after.append(_cast(f"{place}/half", place, _SINGLE))
        node.output[0] = f"{place}/half"
    return [*before, node, *after]


def _cast(source: str, target: str, dtype: int) -> onnx.NodeProto:
    return helper.make_node("Cast", [source], [target], name=f"{target}/Cast", to=dtype)


def _widen_attributes(node: onnx.NodeProto) -> None:
    """Types that a node names: what it casts to, and the value it fills with."""
    for attribute in node.attribute:
        if attribute.name in _TYPE_NAMES and attribute.i in _HALVES.values():
            attribute.i = _SINGLE
        elif attribute.HasField("t") and attribute.t.data_type in _HALVES.values():
            _widen_tensor(attribute.t)


_TYPE_NAMES = (
    *("to", "dtype", "output_dtype", "output_datatype"),
    *("precision", "stash_type", "softmax_precision"),
)
