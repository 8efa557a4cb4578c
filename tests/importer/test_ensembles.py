"""Tree ensembles that are no trees are invalid models; each says what is wrong with which node."""

from __future__ import annotations

from typing import Any

import onnx
import pytest
from onnx import TensorProto, helper

import wasmgraph
from tests.onnx_models import make_model, node
from tests.refusals import Refusal
from wasmgraph.errors import ModelError

DOMAIN = "ai.onnx.ml"

# Tree 0 has the root 0 with the leaves 1 and 2; nodes 3, 4 and 5 are one more branch and its
# leaves, which belong to tree 1.
BY_IDS: dict[str, Any] = {
    "n_targets": 1,
    "nodes_treeids": [0, 0, 0, 1, 1, 1],
    "nodes_nodeids": [0, 1, 2, 0, 1, 2],
    "nodes_featureids": [0, 0, 0, 2, 0, 0],
    "nodes_modes": ["BRANCH_LEQ", "LEAF", "LEAF", "BRANCH_LEQ", "LEAF", "LEAF"],
    "nodes_values": [0.5, 0.0, 0.0, -0.25, 0.0, 0.0],
    "nodes_truenodeids": [1, 0, 0, 1, 0, 0],
    "nodes_falsenodeids": [2, 0, 0, 2, 0, 0],
    "target_treeids": [0, 0, 1, 1],
    "target_nodeids": [1, 2, 1, 2],
    "target_ids": [0, 0, 0, 0],
    "target_weights": [1.0, 2.0, 3.0, 4.0],
}

# Two nodes and three leaves.
BY_NUMBERS: dict[str, Any] = {
    "n_targets": 1,
    "tree_roots": [0],
    "nodes_featureids": [0, 1],
    "nodes_splits": helper.make_tensor("s", TensorProto.FLOAT, (2,), [0.0, 0.5]),
    "nodes_modes": helper.make_tensor("m", TensorProto.UINT8, (2,), [0, 0]),
    "nodes_truenodeids": [1, 0],
    "nodes_trueleafs": [0, 1],
    "nodes_falsenodeids": [2, 1],
    "nodes_falseleafs": [1, 1],
    "leaf_targetids": [0, 0, 0],
    "leaf_weights": helper.make_tensor("w", TensorProto.FLOAT, (3,), [1.0, 2.0, 3.0]),
}


def model(op: str, version: int, attributes: dict[str, Any]) -> onnx.ModelProto:
    ensemble = node(op, "x", "y", name="forest", domain=DOMAIN, **attributes)
    made = make_model([ensemble], {"x": (4, 3)}, {"y": ("float32", (4, 1))})
    made.opset_import.append(helper.make_opsetid(DOMAIN, version))
    return made


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"nodes_truenodeids": [0, 0, 0, 1, 0, 0]}, "node 0 of tree 0 is its own child"),
        ({"nodes_falsenodeids": [7, 0, 0, 2, 0, 0]}, "node 0 of tree 0 has the child 7, which"),
        ({"nodes_falsenodeids": [-1, 0, 0, 2, 0, 0]}, "node 0 of tree 0 has the child -1, which"),
        ({"nodes_falsenodeids": [1, 0, 0, 2, 0, 0]}, "tree 0 has 2 roots"),
        ({"nodes_nodeids": [0, 1, 1, 0, 1, 2]}, "two nodes of a tree have the same number"),
        ({"target_nodeids": [1, 9, 1, 2]}, "node 9 of tree 0 votes and is not there"),
        ({"target_treeids": [0, 0, 1, 5]}, "node 2 of tree 5 votes and is not there"),
        ({"target_ids": [0, 0, 0]}, "its lists differ in length: 4 target_treeids"),
        ({"nodes_truenodeids": [1]}, "its lists differ in length: 6 nodes_treeids"),
        (
            # A branch beside the tree whose way down ends nowhere.
            {
                "nodes_modes": ["BRANCH_LEQ", "LEAF", "LEAF", "LEAF", "BRANCH_LT", "BRANCH_LT"],
                "nodes_truenodeids": [1, 0, 0, 0, 2, 1],
                "nodes_falsenodeids": [2, 0, 0, 0, 2, 1],
            },
            "a tree's branches form a circle",
        ),
    ],
)
def test_trees_by_ids(refuse: Refusal, changes: dict[str, Any], expected: str) -> None:
    bad = model("TreeEnsembleRegressor", 3, {**BY_IDS, **changes})
    refuse(bad, ModelError, f"forest ({DOMAIN}.TreeEnsembleRegressor): {expected}")


def test_trees_of_a_classifier(refuse: Refusal) -> None:
    votes = {k.replace("target_", "class_"): v for k, v in BY_IDS.items() if k != "n_targets"}
    changes = {"class_nodeids": [1, 2, 1, 3], "classlabels_int64s": [0, 1]}
    ensemble = node(
        "TreeEnsembleClassifier", "x", "l y", name="forest", domain=DOMAIN, **{**votes, **changes}
    )
    bad = make_model([ensemble], {"x": (4, 3)}, {"l": ("int64", (4,)), "y": (4, 2)})
    bad.opset_import.append(helper.make_opsetid(DOMAIN, 3))
    refuse(bad, ModelError, "forest", "node 3 of tree 1 votes and is not there")


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"nodes_truenodeids": [0, 0]}, "node 0 is its own child"),
        ({"nodes_truenodeids": [2, 0]}, "node 0 has the child 2, there are 2"),
        ({"nodes_truenodeids": [-1, 0]}, "node 0 has the child -1, there are 2"),
        ({"nodes_falsenodeids": [3, 1]}, "node 0 has the leaf 3, there are 3"),
        ({"nodes_falsenodeids": [-1, 1]}, "node 0 has the leaf -1, there are 3"),
        ({"nodes_trueleafs": [0, 0]}, "a tree's branches form a circle"),
        ({"tree_roots": [2]}, "a tree begins at node 2, there are 2"),
        ({"tree_roots": [-1]}, "a tree begins at node -1, there are 2"),
        ({"leaf_targetids": [0, 0]}, "its lists differ in length: 2 leaf_targetids"),
    ],
)
def test_trees_by_numbers(refuse: Refusal, changes: dict[str, Any], expected: str) -> None:
    bad = model("TreeEnsemble", 5, {**BY_NUMBERS, **changes})
    refuse(bad, ModelError, f"forest ({DOMAIN}.TreeEnsemble): {expected}")


@pytest.mark.parametrize(
    ("op", "version", "attributes"),
    [("TreeEnsembleRegressor", 3, BY_IDS), ("TreeEnsemble", 5, BY_NUMBERS)],
)
def test_what_they_were_damaged_from_is_sound(
    op: str, version: int, attributes: dict[str, Any]
) -> None:
    assert wasmgraph.check(model(op, version, attributes)).compiles
