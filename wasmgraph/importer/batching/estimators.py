"""Shapes of ai.onnx.ml's estimators, which ONNX does not infer: other nodes of the same shapes."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import TensorProto, helper

from wasmgraph.importer.network import Network, attributes

_MOST_COLUMNS = 1 << 20


def with_known_shapes(network: Network) -> None:
    """Put nodes that ONNX can tell the shapes of in the place of those that it cannot.

    What they compute means nothing: it is for shape inference alone.
    """
    nodes = []
    for node in network.nodes:
        stand_in = _STAND_INS.get(node.op_type) if node.domain == "ai.onnx.ml" else None
        nodes += [node] if stand_in is None else stand_in(node, network)
    network.nodes = nodes


def _regressor(node: onnx.NodeProto, network: Network) -> list[onnx.NodeProto]:
    """A row of targets per row of features."""
    return _scores(node, network, int(attributes(node).get("n_targets", 1)), node.output[0])


def _tree_classifier(node: onnx.NodeProto, network: Network) -> list[onnx.NodeProto]:
    return _classifier(node, network, len(_labels(node)))


def _svm_classifier(node: onnx.NodeProto, network: Network) -> list[onnx.NodeProto]:
    """Without probabilities, more than two classes are told apart in pairs."""
    classes = len(_labels(node))
    is_by_pairs = classes > 2 and not attributes(node).get("prob_a")
    return _classifier(node, network, classes * (classes - 1) // 2 if is_by_pairs else classes)


def _labels(node: onnx.NodeProto) -> list[object]:
    given = attributes(node)
    names = ("classlabels_int64s", "classlabels_ints", "classlabels_strings")
    return next((list(given[name]) for name in names if given.get(name)), [0, 1])


def _classifier(node: onnx.NodeProto, network: Network, columns: int) -> list[onnx.NodeProto]:
    """A label and a row of scores per row of features."""
    scores = (node.output[1] if len(node.output) > 1 else "") or f"{node.output[0]}/scores"
    nodes = _scores(node, network, columns, scores)
    if node.output[0] and nodes != [node]:
        nodes.append(helper.make_node("ArgMax", [scores], [node.output[0]], axis=1, keepdims=0))
    return nodes


def _scores(
    node: onnx.NodeProto, network: Network, columns: int, result: str
) -> list[onnx.NodeProto]:
    if not 0 < columns <= _MOST_COLUMNS:
        return [node]  # others say what is wrong with it
    x, total, axis, ones = (f"{result}/{part}" for part in ("x", "total", "axis", "ones"))
    network.weights[axis] = np.array([1], np.int64)
    network.weights[ones] = np.ones((1, columns), np.float32)
    return [
        helper.make_node("Cast", [node.input[0]], [x], to=TensorProto.FLOAT),
        helper.make_node("ReduceSum", [x, axis], [total], keepdims=1),
        helper.make_node("MatMul", [total, ones], [result]),
    ]


def _extractor(node: onnx.NodeProto, network: Network) -> list[onnx.NodeProto]:
    """Elements of the last axis, by a list of indices."""
    flat, indices = f"{node.output[0]}/flat", f"{node.output[0]}/indices"
    x = node.input[0]
    network.weights[flat] = np.array([-1], np.int64)
    if x in network.weights and network.weights[x].ndim == 1:
        x = f"{node.output[0]}/row"  # a vector is taken for a row
        network.weights[x] = network.weights[node.input[0]].reshape(1, -1)
    return [
        helper.make_node("Reshape", [node.input[1], flat], [indices]),
        helper.make_node("Gather", [x, indices], [node.output[0]], axis=-1),
    ]


_STAND_INS = {
    "ArrayFeatureExtractor": _extractor,
    "SVMClassifier": _svm_classifier,
    "SVMRegressor": _regressor,
    "TreeEnsemble": _regressor,
    "TreeEnsembleClassifier": _tree_classifier,
    "TreeEnsembleRegressor": _regressor,
}
