"""Tree ensembles of ai.onnx.ml that are no trees: children that are not there, circles, votes of
nobody."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import onnx
from onnx import TensorProto, numpy_helper

from wasmgraph.errors import ModelError
from wasmgraph.importer.network import Network, attributes
from wasmgraph.importer.normalise.machine_learning import MACHINE_LEARNING

_VOTES = {"TreeEnsembleRegressor": "target", "TreeEnsembleClassifier": "class"}
"""How the attributes of an ensemble call what its leaves vote for."""

_BY_IDS = ("treeids", "nodeids", "featureids", "modes", "truenodeids", "falsenodeids")
_BY_NUMBERS = ("featureids", "splits", "modes", "trueleafs", "falseleafs")


def check_ensembles(network: Network) -> None:
    """Check every ensemble, as far as it can be told without its input's shape.

    A vote for a node that is no leaf is left out by onnxruntime, and here.

    Raises:
        ModelError: the first that is invalid: the node's name and what it has.
    """
    for node in network.nodes:
        if node.domain != MACHINE_LEARNING:
            continue
        try:
            if node.op_type in _VOTES:
                _check_by_ids(attributes(node), _VOTES[node.op_type])
            elif node.op_type == "TreeEnsemble":
                _check_by_numbers(attributes(node))
        except ValueError as error:
            place = f"{node.name} ({MACHINE_LEARNING}.{node.op_type})"
            raise ModelError(f"{network.name}: {place}: {error}") from None


def _check_by_ids(attrs: Mapping[str, Any], votes: str) -> None:
    """Nodes are listed with the numbers of their tree and of themselves in it."""
    _require_lengths(attrs, [f"nodes_{name}" for name in _BY_IDS])
    keys = list(zip(attrs["nodes_treeids"], attrs["nodes_nodeids"], strict=True))
    known = set(keys)
    _require(len(known) == len(keys), "two nodes of a tree have the same number")
    branches: dict[tuple[int, int], list[tuple[int, int]]] = {}
    for number, key in enumerate(keys):
        if attrs["nodes_modes"][number] == b"LEAF":
            continue
        branches[key] = [
            (key[0], attrs[f"nodes_{side}nodeids"][number]) for side in ("true", "false")
        ]
        for child in branches[key]:
            _require(child in known, f"{_called(key)} has the child {child[1]}, which is not there")
            _require(child != key, f"{_called(key)} is its own child")
    _require_no_circle(branches)
    children = {child for both in branches.values() for child in both}
    for tree in dict.fromkeys(attrs["nodes_treeids"]):
        roots = [key for key in keys if key[0] == tree and key not in children]
        _require(len(roots) == 1, f"tree {tree} has {len(roots)} roots")
    places = [f"{votes}_{name}" for name in ("treeids", "nodeids", "ids")]
    _require_lengths(attrs, places)
    for key in zip(*(attrs.get(name, ()) for name in places[:2]), strict=True):
        _require(key in known, f"{_called(key)} votes and is not there")


def _called(key: tuple[int, int]) -> str:
    return f"node {key[1]} of tree {key[0]}"


def _check_by_numbers(attrs: Mapping[str, Any]) -> None:
    """Nodes and leaves are listed apart, and meet by their places in the lists."""
    _require_lengths(attrs, [f"nodes_{name}" for name in (*_BY_NUMBERS, "truenodeids")])
    _require_lengths(attrs, ["nodes_truenodeids", "nodes_falsenodeids"])
    _require_lengths(attrs, ["leaf_targetids", "leaf_weights"])
    nodes, leaves = len(attrs["nodes_featureids"]), _length(attrs["leaf_targetids"])
    branches: dict[int, list[int]] = {number: [] for number in range(nodes)}
    for number in range(nodes):
        for side in ("true", "false"):
            child = attrs[f"nodes_{side}nodeids"][number]
            is_leaf = attrs[f"nodes_{side}leafs"][number]
            what, count = ("leaf", leaves) if is_leaf else ("child", nodes)
            _require(0 <= child < count, f"node {number} has the {what} {child}, there are {count}")
            if not is_leaf:
                _require(child != number, f"node {number} is its own child")
                branches[number].append(child)
    _require_no_circle(branches)
    for root in attrs["tree_roots"]:
        _require(0 <= root < nodes, f"a tree begins at node {root}, there are {nodes}")


def _require_lengths(attrs: Mapping[str, Any], names: Sequence[str]) -> None:
    """Lists about the same things are of the same length."""
    lengths = {name: _length(attrs.get(name, ())) for name in names}
    if len(set(lengths.values())) > 1:
        told = ", ".join(f"{count} {name}" for name, count in lengths.items())
        raise ValueError(f"its lists differ in length: {told}")


def _length(values: Sequence[Any] | TensorProto) -> int:
    if isinstance(values, onnx.TensorProto):
        return int(numpy_helper.to_array(values).size)
    return len(values)


def _require_no_circle(branches: Mapping[Any, Iterable[Any]]) -> None:
    """No way down leads back to where it came from; reachable or not."""
    done: set[Any] = set()
    for start in branches:
        path: set[Any] = set()
        stack = [(start, False)]
        while stack:
            node, is_left = stack.pop()
            if is_left:
                path.discard(node)
                done.add(node)
            elif node in path:
                raise ValueError("a tree's branches form a circle")
            elif node not in done:
                path.add(node)
                stack += [(node, True), *((child, False) for child in branches.get(node, ()))]


def _require(holds: bool, reason: str) -> None:
    if not holds:
        raise ValueError(reason)
