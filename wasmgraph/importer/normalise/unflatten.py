"""Undo what onnxruntime's optimiser does for its matrix product: rows flat before, split after.

It makes a Gemm of a product and a sum by a Reshape on either side. As a product of tensors it can
be fused with what follows, such as the sum with what went around it; the reshapes are views.
"""

from __future__ import annotations

import numpy as np
import onnx
from onnx import helper

from wasmgraph.importer.network import Network, TensorType, all_inputs, attributes


def unflatten_products(network: Network) -> None:
    """Gemm, Reshape become Reshape, MatMul, Add where the rows are only split."""
    readers: dict[str, list[onnx.NodeProto]] = {}
    for node in network.nodes:
        for name in all_inputs(node):
            readers.setdefault(name, []).append(node)
    outputs = set(network.output_names)
    nodes: list[onnx.NodeProto] = []
    replaced: dict[int, list[onnx.NodeProto]] = {}
    for gemm in network.nodes:
        after = readers.get(gemm.output[0], []) if _is_plain_product(gemm, network) else []
        if len(after) != 1 or gemm.output[0] in outputs:
            continue
        if _splits_rows(gemm, after[0], network):
            replaced[id(gemm)] = _product(gemm, after[0], network)
            replaced[id(after[0])] = []
    for node in network.nodes:
        nodes += replaced.get(id(node), [node])
    network.nodes = nodes


def _is_plain_product(node: onnx.NodeProto, network: Network) -> bool:
    if node.op_type != "Gemm" or node.domain or node.input[1] not in network.weights:
        return False
    given = attributes(node)
    return (given.get("alpha", 1.0), given.get("beta", 1.0), given.get("transA", 0)) == (1, 1, 0)


def _splits_rows(gemm: onnx.NodeProto, after: onnx.NodeProto, network: Network) -> bool:
    """Whether a reshape leaves every row of the product as it is, and the bias is that of a row."""
    if (after.op_type, after.domain) != ("Reshape", "") or after.input[0] != gemm.output[0]:
        return False
    names = (gemm.input[0], gemm.output[0], after.output[0])
    shapes = [known.shape for name in names if (known := network.types.get(name)) is not None]
    if len(shapes) < len(names) or None in shapes:
        return False
    product, result = shapes[1] or (), shapes[2] or ()
    bias = network.weights.get(gemm.input[2]) if len(gemm.input) > 2 else None
    same_bias = len(gemm.input) < 3 or (bias is not None and bias.shape == product[1:])
    return len(result) > 2 and result[-1] == product[1] and same_bias


def _product(gemm: onnx.NodeProto, after: onnx.NodeProto, network: Network) -> list[onnx.NodeProto]:
    """The rows are split before they are multiplied; two reshapes in a row are one."""
    weights, result = gemm.input[1], after.output[0]
    if attributes(gemm).get("transB", 0):
        weights = f"{weights}/transposed"
        network.weights[weights] = network.weights[gemm.input[1]].T
    known = network.types[result]
    shape = (*(known.shape or ())[:-1], network.weights[weights].shape[0])
    rows = f"{gemm.name}/Reshape"
    network.weights[f"{rows}/shape"] = np.array(shape, np.int64)
    network.types[rows] = TensorType(known.dtype, shape)
    nodes = [helper.make_node("Reshape", [gemm.input[0], f"{rows}/shape"], [rows], name=rows)]
    if len(gemm.input) < 3:
        return [*nodes, helper.make_node("MatMul", [rows, weights], [result], name=gemm.name)]
    product = f"{gemm.name}/MatMul"
    network.types[product] = known
    return [
        *nodes,
        helper.make_node("MatMul", [rows, weights], [product], name=product),
        helper.make_node("Add", [product, gemm.input[2]], [result], name=gemm.name),
    ]
