"""Operators of ai.onnx.ml against onnxruntime, node by node.

Labels must be equal. Scores are sums in double precision here and in single there: a few units in
the last place of what they are at most; near zero, probit cancels and keeps fewer of them.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from onnx import numpy_helper

from tests.onnx_models import Array
from tests.operators.foreign_cases import MACHINE_LEARNING, Foreign, compare, run_foreign
from tests.operators.node_cases import Fixed

RNG = np.random.default_rng(5)
BOTH = (True, True)
TRANSFORMS = ("NONE", "SOFTMAX", "LOGISTIC", "SOFTMAX_ZERO", "PROBIT")


def f32(*shape: int) -> Array:
    return RNG.normal(size=shape).astype(np.float32)


def case(
    op: str, what: str, x: Array, outputs: tuple[bool, ...] = (True,), **attrs: Any
) -> Foreign:
    return Foreign(what, op, (x,), attrs, outputs, MACHINE_LEARNING)


def floats(*shape: int, low: float = -1.0, high: float = 1.0) -> list[float]:
    return [float(x) for x in RNG.uniform(low, high, shape).astype(np.float32).reshape(-1)]


MODES = ("BRANCH_LEQ", "BRANCH_LT", "BRANCH_GTE", "BRANCH_GT", "BRANCH_EQ", "BRANCH_NEQ")


def trees(count: int, depth: int, features: int, modes: tuple[str, ...] = MODES) -> dict[str, Any]:
    """Full trees: node k has the children 2k + 1 and 2k + 2."""
    branches, nodes = 2**depth - 1, 2 ** (depth + 1) - 1
    one_tree = range(nodes)
    return {
        "nodes_treeids": [tree for tree in range(count) for _ in one_tree],
        "nodes_nodeids": [*one_tree] * count,
        "nodes_featureids": RNG.integers(0, features, count * nodes).tolist(),
        "nodes_values": RNG.integers(-2, 3, count * nodes).astype(float).tolist(),
        "nodes_modes": [
            str(RNG.choice(modes)) if node < branches else "LEAF"
            for _ in range(count)
            for node in one_tree
        ],
        "nodes_truenodeids": [2 * k + 1 if k < branches else 0 for k in one_tree] * count,
        "nodes_falsenodeids": [2 * k + 2 if k < branches else 0 for k in one_tree] * count,
        "nodes_missing_value_tracks_true": RNG.integers(0, 2, count * nodes).tolist(),
    }


def votes(
    prefix: str, count: int, depth: int, targets: list[int], low: float = -1.0, high: float = 1.0
) -> dict[str, Any]:
    """A vote for every one of the targets from every leaf."""
    leaves = range(2**depth - 1, 2 ** (depth + 1) - 1)
    total = count * len(leaves) * len(targets)
    return {
        f"{prefix}_treeids": [tree for tree in range(count) for _ in leaves for _ in targets],
        f"{prefix}_nodeids": [leaf for leaf in leaves for _ in targets] * count,
        f"{prefix}_ids": targets * (count * len(leaves)),
        f"{prefix}_weights": floats(total, low=low, high=high),
    }


def rows(count: int, features: int) -> Array:
    """Whole numbers, so that equality is met, and some that are missing."""
    x = RNG.integers(-3, 4, (count, features)).astype(np.float32)
    x[RNG.random(x.shape) < 0.1] = np.nan
    return x


def regressor(what: str, targets: int = 1, **attrs: Any) -> Foreign:
    return case(
        "TreeEnsembleRegressor",
        what,
        rows(9, 4),
        n_targets=targets,
        **{**trees(5, 3, 4), **votes("target", 5, 3, [*range(targets)]), **attrs},
    )


def classifier(
    what: str,
    labels: list[int],
    targets: list[int] | None = None,
    low: float = -1.0,
    high: float = 1.0,
    **attrs: Any,
) -> Foreign:
    classes = [*range(len(labels))] if targets is None else targets
    return case(
        "TreeEnsembleClassifier",
        what,
        rows(9, 4),
        BOTH,
        classlabels_int64s=labels,
        **{**trees(4, 3, 4), **votes("class", 4, 3, classes, low, high), **attrs},
    )


TREES = [
    regressor("one target"),
    regressor("three targets", 3, base_values=[0.5, -1.0, 2.0]),
    *(regressor(name, 2, aggregate_function=name) for name in ("AVERAGE", "MIN", "MAX")),
    regressor("average and base", aggregate_function="AVERAGE", base_values=[3.0]),
    *(regressor(f"two targets {name}", 2, post_transform=name) for name in TRANSFORMS[1:4]),
    regressor("logistic of one target", post_transform="LOGISTIC"),
    *(
        classifier(f"three classes {name}", [5, 3, 9], post_transform=name)
        for name in TRANSFORMS[:4]
    ),
    classifier("three classes and base", [0, 1, 2], base_values=[0.5, -0.5, 0.25]),
    classifier("no votes for a class", [0, 1, 2], [0, 2], high=-0.5),
    *(
        classifier(f"one of two, positive, {name}", [7, 8], [0], 0.0, 0.25, post_transform=name)
        for name in TRANSFORMS[:4]
    ),
    *(
        classifier(f"first of two, mixed, {name}", [7, 8], [0], post_transform=name)
        for name in TRANSFORMS[:4]
    ),
    *(
        classifier(f"second of two, mixed, {name}", [7, 8], [1], post_transform=name)
        for name in TRANSFORMS[:4]
    ),
    classifier("first of two, base", [0, 1], [0], base_values=[0.25]),
    classifier(
        "one of two, base, LOGISTIC", [0, 1], [0], base_values=[0.25], post_transform="LOGISTIC"
    ),
    classifier("second of two, positive", [0, 1], [1], 0.0, 0.25),
]

X = rows(6, 5)
X[np.isnan(X)] = 0.5


def linear(what: str, targets: int, labels: list[int], **attrs: Any) -> Foreign:
    return case(
        "LinearClassifier",
        what,
        X,
        BOTH,
        coefficients=floats(targets, 5),
        intercepts=floats(targets),
        classlabels_ints=labels,
        **attrs,
    )


LINEAR = [
    *(
        linear(f"three classes {name}", 3, [4, 2, 7], post_transform=name)
        for name in TRANSFORMS[:4]
    ),
    *(linear(f"two classes {name}", 2, [0, 1], post_transform=name) for name in TRANSFORMS[:3]),
    *(linear(f"one row {name}", 1, [3, 4], post_transform=name) for name in TRANSFORMS[:3]),
    linear("integers", 3, [0, 1, 2]),
    case("LinearRegressor", "one", X, coefficients=floats(5), intercepts=[0.5]),
    case("LinearRegressor", "no intercept", X, coefficients=floats(5)),
    case(
        "LinearRegressor",
        "three, SOFTMAX",
        X,
        coefficients=floats(15),
        intercepts=floats(3),
        targets=3,
        post_transform="SOFTMAX",
    ),
    case(
        "LinearRegressor",
        "PROBIT",
        X,
        coefficients=floats(5, low=0, high=0.01),
        intercepts=[0.5],
        post_transform="PROBIT",
    ),
]


def svm(what: str, classes: int, kernel: str, probabilities: bool = False, **attrs: Any) -> Foreign:
    pairs = classes * (classes - 1) // 2
    with_probabilities = {"prob_a": floats(pairs), "prob_b": floats(pairs)} if probabilities else {}
    return case(
        "SVMClassifier",
        what,
        X,
        BOTH,
        classlabels_ints=[3 * k for k in range(classes)],
        kernel_type=kernel,
        kernel_params=[0.2, 0.5, 3.0],
        vectors_per_class=[2] * classes,
        support_vectors=floats(2 * classes, 5),
        coefficients=floats(classes - 1, 2 * classes),
        rho=floats(pairs),
        **with_probabilities,
        **attrs,
    )


def svr(what: str, kernel: str, **attrs: Any) -> Foreign:
    return case(
        "SVMRegressor",
        what,
        X,
        kernel_type=kernel,
        kernel_params=[0.2, 0.5, 2.0],
        n_supports=4,
        support_vectors=floats(4, 5),
        coefficients=floats(4),
        rho=[0.25],
        **attrs,
    )


KERNELS = ("LINEAR", "POLY", "RBF", "SIGMOID")
MACHINES = [
    *(svm(f"three classes {kernel}", 3, kernel) for kernel in KERNELS),
    svm("two classes", 2, "RBF"),
    svm("two classes LOGISTIC", 2, "RBF", post_transform="LOGISTIC"),
    svm("probabilities of two", 2, "RBF", probabilities=True),
    svm("probabilities of four", 4, "RBF", probabilities=True),
    *(svr(kernel, kernel) for kernel in KERNELS),
    svr("one class", "RBF", one_class=1),
    case(
        "SVMRegressor",
        "coefficients",
        X,
        n_supports=0,
        coefficients=floats(5),
        rho=[1.5],
        kernel_type="LINEAR",
        kernel_params=[0.0, 0.0, 0.0],
    ),
]

WITH_NAN = np.array([[1, np.nan, 3], [np.nan, 0, -1]], np.float32)
NUMBERS = np.array([[3, -1], [7, 4]], np.int64)
PREPARATIONS = [
    case("Scaler", "per feature", X, offset=floats(5), scale=floats(5)),
    case("Scaler", "one for all", X, offset=[0.5], scale=[2.0]),
    case("Scaler", "integers", NUMBERS, offset=[1.0, 2.0], scale=[0.5, 0.25]),
    *(case("Normalizer", norm, np.abs(X) + 0.5, norm=norm) for norm in ("MAX", "L1", "L2")),
    case("Normalizer", "L1 of zeros", np.zeros((2, 3), np.float32), norm="L1"),
    case("Normalizer", "signs", X, norm="L1"),
    case(
        "Imputer",
        "NaN",
        WITH_NAN,
        imputed_value_floats=[10.0, 20.0, 30.0],
        replaced_value_float=float("nan"),
    ),
    case("Imputer", "a number", WITH_NAN, imputed_value_floats=[5.0], replaced_value_float=3.0),
    case("Imputer", "integers", NUMBERS, imputed_value_int64s=[9], replaced_value_int64=-1),
    case("Binarizer", "", X, threshold=0.5),
    case(
        "LabelEncoder",
        "integers",
        NUMBERS,
        keys_int64s=[3, 4, 7, 3],
        values_int64s=[30, 40, 70, 99],
        default_int64=-5,
    ),
    case("LabelEncoder", "to integers", WITH_NAN, keys_floats=[1.0], values_int64s=[4]),
    case("OneHotEncoder", "", np.array([[3, 7], [9, 4]], np.int64), cats_int64s=[4, 3, 7], zeros=1),
    case("OneHotEncoder", "all known", np.array([4, 7], np.int64), cats_int64s=[4, 7], zeros=0),
    Foreign(
        "matrix",
        "ArrayFeatureExtractor",
        (X, Fixed(np.array([3, 0, 3], np.int64))),
        domain=MACHINE_LEARNING,
    ),
    Foreign(
        "vector",
        "ArrayFeatureExtractor",
        (f32(5), Fixed(np.array([[3, 0]], np.int64))),
        domain=MACHINE_LEARNING,
    ),
    Foreign(
        "",
        "FeatureVectorizer",
        (f32(3, 2), f32(3, 4)),
        {"inputdimensions": [2, 4]},
        domain=MACHINE_LEARNING,
    ),
]


def tensor(values: object, dtype: str) -> Any:
    return numpy_helper.from_array(np.array(values, dtype))


def tree_ensemble(what: str, dtype: str = "float32", **attrs: Any) -> Foreign:
    """Two trees: one asks whether feature 0 is 1, 2 or 5, then for feature 1; one for feature 2."""
    trees = {
        "tree_roots": [0, 2],
        "nodes_featureids": [0, 1, 2],
        "nodes_splits": tensor([0, 0.5, -1], dtype),
        "nodes_modes": tensor([6, 0, 3], "uint8"),
        "nodes_truenodeids": [1, 0, 2],
        "nodes_trueleafs": [0, 1, 1],
        "nodes_falsenodeids": [1, 3, 0],
        "nodes_falseleafs": [1, 1, 1],
        "leaf_targetids": [0, 1, 1, 0],
        "leaf_weights": tensor([1.5, -2.0, 0.25, 4.0], dtype),
        "membership_values": tensor([1, 2, 5, np.nan], dtype),
        "n_targets": 2,
    }
    x = RNG.integers(-2, 6, (9, 3)).astype(dtype)
    return case("TreeEnsemble", what, x, **{**trees, **attrs})


LATER = [
    tree_ensemble("sum"),
    tree_ensemble("double", "float64"),
    *(tree_ensemble(f"aggregate {k}", aggregate_function=k) for k in (0, 2, 3)),
    case(
        "LabelEncoder",
        "floats, one missing",
        WITH_NAN,
        keys_floats=[1.0, float("nan"), 3.0],
        values_floats=[10.0, 20.0, 30.0],
        default_float=-1.0,
    ),
]
CASES = [*TREES, *LINEAR, *MACHINES, *PREPARATIONS]


@pytest.fixture(scope="module")
def found() -> dict[str, list[tuple[Array, Array]]]:
    return run_foreign(CASES)


def test_the_number_of_a_transformation_is_that_of_the_standard() -> None:
    """1 is SOFTMAX; onnxruntime 1.31 computes LOGISTIC."""
    plain, soft = tree_ensemble("plain"), tree_ensemble("soft", post_transform=1)
    soft = Foreign("soft", soft.op, plain.operands, soft.attributes, domain=MACHINE_LEARNING)
    results = run_foreign([plain, soft], ml_opset=5)
    powers = np.exp(results[str(plain)][0][0])
    expected = powers / powers.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(results[str(soft)][0][0], expected, rtol=1e-5)


@pytest.fixture(scope="module")
def found_later() -> dict[str, list[tuple[Array, Array]]]:
    return run_foreign(LATER, ml_opset=5)


@pytest.mark.parametrize("case", LATER, ids=str)
def test_later_operators_agree_with_onnxruntime(
    case: Foreign, found_later: dict[str, list[tuple[Array, Array]]]
) -> None:
    compare(found_later[str(case)], rtol=1e-5, atol=2e-5)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_agrees_with_onnxruntime(
    case: Foreign, found: dict[str, list[tuple[Array, Array]]]
) -> None:
    compare(found[str(case)], rtol=1e-5, atol=2e-5)
