"""Tree ensembles of ai.onnx.ml, which the operator library walks.

That they are trees, `normalise.ensembles` has seen to.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wasmgraph.importer.converters.classes import (
    class_labels,
    looked_up,
    numbers_of,
    rows_of,
    transform_number,
    vector,
)
from wasmgraph.importer.converters.library import library_call, suffix
from wasmgraph.importer.converters.static import constant, dtype_of, shape_of

_MODES = (
    "BRANCH_LEQ",
    "BRANCH_LT",
    "BRANCH_GTE",
    "BRANCH_GT",
    "BRANCH_EQ",
    "BRANCH_NEQ",
)
_EQUAL, _LEAF, _MISSING = 4, 6, 8
_MEMBER = 6
"""TreeEnsemble's number of the mode that asks for one of several values."""

_AGGREGATES = ("AVERAGE", "SUM", "MIN", "MAX")


@dataclass
class Forest:
    """Trees as the library takes them.

    Attributes:
        nodes: Four numbers each: mode, feature, first and second child; or leaf, first vote, votes.
        splits: What the feature is compared with, per node.
        roots: The first node of every tree.
        targets, weights: Of each vote, in the order of the leaves.
    """

    nodes: list[tuple[int, int, int, int]] = field(default_factory=list)
    splits: list[float] = field(default_factory=list)
    roots: list[int] = field(default_factory=list)
    targets: list[int] = field(default_factory=list)
    weights: list[float] = field(default_factory=list)

    def add_leaf(self, votes: Sequence[tuple[int, float]]) -> int:
        """A leaf with (target, weight) pairs; the answer is its number."""
        self.nodes.append((_LEAF, len(self.targets), len(votes), 0))
        self.splits.append(0.0)
        self.targets += [target for target, _ in votes]
        self.weights += [weight for _, weight in votes]
        return len(self.nodes) - 1

    def add_branch(self, mode: int, feature: int, split: float) -> int:
        """A branch, whose children are told later."""
        self.nodes.append((mode, feature, -1, -1))
        self.splits.append(split)
        return len(self.nodes) - 1

    def connect(self, node: int, first: int, second: int) -> None:
        """Tell a branch its children."""
        self.nodes[node] = (*self.nodes[node][:2], first, second)

    def check(self, features: int, targets: int) -> None:
        """Raise ValueError where the library would read or write outside of a row."""
        used = [node[1] for node in self.nodes if node[0] != _LEAF]
        if used and not 0 <= min(used) <= max(used) < features:
            raise ValueError(f"a tree asks for feature {max(used)}, the input has {features}")
        if self.targets and not 0 <= min(self.targets) <= max(self.targets) < targets:
            raise ValueError(f"a leaf votes for target {max(self.targets)} of {targets}")

    def operands(self, dtype: str) -> list[Any]:
        """Nodes, splits, roots, targets and weights as constants."""
        return [
            constant(np.array(self.nodes, np.int32).reshape(-1, 4)),
            constant(self.splits, dtype),
            constant(self.roots, "int32"),
            constant(self.targets, "int32"),
            constant(self.weights, dtype),
        ]

    @property
    def counts(self) -> list[int]:
        """Nodes, roots and votes."""
        return [len(self.nodes), len(self.roots), len(self.targets)]


def tree_regressor(bb: Any, inputs: Sequence[Any], attrs: Mapping[str, Any]) -> Any:
    """TreeEnsembleRegressor, whose output is float32."""
    x = rows_of(bb, inputs[0], keep_double=True)
    forest = _forest_by_ids(attrs, "target")
    aggregate = _AGGREGATES.index(attrs.get("aggregate_function", b"SUM").decode())
    targets = int(attrs.get("n_targets", 1))
    base = numbers_of(attrs, "base_values", dtype_of(x))
    scores = _scores(x, forest, targets, aggregate, transform_number(attrs), base)
    return bb.normalize(scores) if dtype_of(x) == "float32" else _narrowed(bb, scores)


def tree_ensemble(bb: Any, inputs: Sequence[Any], attrs: Mapping[str, Any]) -> Any:
    """TreeEnsemble, whose output has the input's dtype; all that it lists it lists by number."""
    if dtype_of(inputs[0]) not in ("float32", "float64"):
        raise NotImplementedError(f"TreeEnsemble of {dtype_of(inputs[0])} is not supported")
    x = rows_of(bb, inputs[0], keep_double=True)
    targets = int(attrs.get("n_targets", 1))
    aggregate, transform = int(attrs.get("aggregate_function", 1)), int(attrs["post_transform"])
    return _scores(x, _forest_by_numbers(attrs), targets, aggregate, transform, np.zeros(0))


def _narrowed(bb: Any, scores: Any) -> Any:
    from tvm import relax

    return bb.normalize(relax.op.astype(bb.normalize(scores), "float32"))


def _scores(
    x: Any, forest: Forest, targets: int, aggregate: int, transform: int, base: NDArray[Any]
) -> Any:
    (rows, features), dtype = shape_of(x), dtype_of(x)
    forest.check(features, targets)
    if base.size not in (0, targets):
        raise ValueError(f"there are {base.size} base values for {targets} targets")
    words = [*forest.counts, rows, features, targets, aggregate, transform]
    added = constant(base if base.size else np.zeros(targets), dtype)
    operands = [x, *forest.operands(dtype), added]
    return library_call(
        f"tree_regressor_{suffix(dtype)}", operands, [(dtype, (rows, targets))], words
    )


def tree_classifier(bb: Any, inputs: Sequence[Any], attrs: Mapping[str, Any]) -> Any:
    """TreeEnsembleClassifier: labels and scores."""
    x = rows_of(bb, inputs[0], keep_double=True)
    (rows, features), dtype = shape_of(x), dtype_of(x)
    forest = _forest_by_ids(attrs, "class")
    labels = class_labels(attrs, "classlabels_int64s")
    forest.check(features, len(labels))
    base = numbers_of(attrs, "base_values", dtype)
    one_sided = len(labels) == 2 and len(set(forest.targets)) == 1
    if one_sided and base.size:
        if base.size > 1 or forest.targets[0]:
            # onnxruntime ignores some of them, and onnx's reference does something else.
            raise NotImplementedError("base values where only the second class has votes")
    elif base.size not in (0, len(labels)):
        raise ValueError(f"there are {base.size} base values for {len(labels)} classes")
    words = [
        *forest.counts,
        rows,
        features,
        len(labels),
        transform_number(attrs),
        base.size,
        int(one_sided),
        int(all(weight >= 0 for weight in forest.weights)),
    ]
    operands = [x, *forest.operands(dtype), constant(base if base.size else np.zeros(1), dtype)]
    outputs = [("int64", (rows,)), ("float32", (rows, len(labels)))]
    found = bb.emit(library_call(f"tree_classifier_{suffix(dtype)}", operands, outputs, words))
    return [looked_up(bb, labels, bb.normalize(found[0])), found[1]]


def _forest_by_ids(attrs: Mapping[str, Any], votes: str) -> Forest:
    """Trees whose nodes are listed with the numbers of their tree and of themselves in it."""
    trees, ids = attrs["nodes_treeids"], attrs["nodes_nodeids"]
    keys = list(zip(trees, ids, strict=True))
    numbers = {key: number for number, key in enumerate(keys)}
    by_leaf: dict[tuple[int, int], list[tuple[int, float]]] = {}
    weights = numbers_of(attrs, f"{votes}_weights", "float64").tolist()
    places = [attrs.get(f"{votes}_{name}", ()) for name in ("treeids", "nodeids", "ids")]
    for tree, node, target, weight in zip(*places, weights, strict=True):
        by_leaf.setdefault((tree, node), []).append((int(target), weight))
    forest = Forest()
    missing = attrs.get("nodes_missing_value_tracks_true") or [0] * len(keys)
    splits = numbers_of(attrs, "nodes_values", "float64").tolist()
    modes = [mode.decode() for mode in attrs["nodes_modes"]]
    children: set[int] = set()
    for number, (key, mode) in enumerate(zip(keys, modes, strict=True)):
        if mode == "LEAF":
            forest.add_leaf(by_leaf.get(key, []))
            continue
        flag = _MISSING if missing[number] else 0
        feature = int(attrs["nodes_featureids"][number])
        forest.add_branch(_MODES.index(mode) + flag, feature, splits[number])
        both = [
            numbers[key[0], int(attrs[f"nodes_{side}nodeids"][number])]
            for side in ("true", "false")
        ]
        forest.connect(number, *both)
        children.update(both)
    forest.roots = [number for number in range(len(keys)) if number not in children]
    return forest


def _forest_by_numbers(attrs: Mapping[str, Any]) -> Forest:
    """Trees whose nodes and leaves are listed apart, and meet by their places in the lists.

    One that asks whether a feature is among several values becomes one per value.
    """
    forest = Forest()
    targets = vector(attrs["leaf_targetids"], "int64").tolist()
    weights = vector(attrs["leaf_weights"], "float64").tolist()
    leaves = [forest.add_leaf([vote]) for vote in zip(targets, weights, strict=True)]
    splits = vector(attrs["nodes_splits"], "float64").tolist()
    modes = vector(attrs["nodes_modes"], "int64").tolist()
    features = vector(attrs["nodes_featureids"], "int64").tolist()
    missing = attrs.get("nodes_missing_value_tracks_true") or [0] * len(modes)
    members = _member_lists(attrs, modes.count(_MEMBER))
    chains: list[list[int]] = []
    for mode, feature, split, flag in zip(modes, features, splits, missing, strict=True):
        kind, values = (mode, [split]) if mode != _MEMBER else (_EQUAL, members.pop(0))
        kind += _MISSING if flag else 0
        chains.append([forest.add_branch(kind, feature, value) for value in values])
    for number, chain in enumerate(chains):
        first, second = (_child(attrs, side, number, leaves, chains) for side in ("true", "false"))
        for node, after in zip(chain, [*chain[1:], second], strict=True):
            forest.connect(node, first, after)
    forest.roots = [chains[int(root)][0] for root in attrs["tree_roots"]]
    return forest


def _child(
    attrs: Mapping[str, Any], side: str, node: int, leaves: list[int], chains: list[list[int]]
) -> int:
    number = int(attrs[f"nodes_{side}nodeids"][node])
    return leaves[number] if attrs[f"nodes_{side}leafs"][node] else chains[number][0]


def _member_lists(attrs: Mapping[str, Any], count: int) -> list[list[float]]:
    """The values per node that asks for membership; in the attribute NaN ends each list."""
    lists: list[list[float]] = [[]]
    for value in vector(attrs.get("membership_values", ()), "float64").tolist():
        if np.isnan(value):
            lists.append([])
        else:
            lists[-1].append(value)
    if len(lists) < count or not all(lists[:count]):
        raise ValueError("nodes that ask for one of several values have none")
    return lists[:count]
