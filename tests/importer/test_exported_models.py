"""Models as skl2onnx exports them from scikit-learn, and as they are written with onnxscript.

Data sets are those that scikit-learn brings along. The tolerance is that of `wasmgraph verify`;
labels must be equal.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import wasmgraph
from wasmgraph.errors import UnsupportedModelError

pytest.importorskip("sklearn", reason="scikit-learn is not installed")
to_onnx = pytest.importorskip("skl2onnx", reason="skl2onnx is not installed").to_onnx

from sklearn import (  # noqa: E402
    datasets,
    decomposition,
    ensemble,
    impute,
    linear_model,
    naive_bayes,
    neural_network,
    pipeline,
    preprocessing,
    svm,
)

ROWS = 40

Made = Callable[[], Any]

CLASSIFIERS: dict[str, tuple[Made, Made]] = {
    "random forest": (
        lambda: ensemble.RandomForestClassifier(20, max_depth=8, random_state=0),
        datasets.load_digits,
    ),
    "random forest of two classes": (
        lambda: ensemble.RandomForestClassifier(20, random_state=0),
        datasets.load_breast_cancer,
    ),
    "gradient boosting": (
        lambda: ensemble.GradientBoostingClassifier(n_estimators=20, random_state=0),
        datasets.load_wine,
    ),
    "gradient boosting of two classes": (
        lambda: ensemble.GradientBoostingClassifier(n_estimators=20, random_state=0),
        datasets.load_breast_cancer,
    ),
    "support vectors": (
        lambda: pipeline.make_pipeline(preprocessing.StandardScaler(), svm.SVC()),
        datasets.load_wine,
    ),
    "support vectors of two classes": (
        lambda: pipeline.make_pipeline(preprocessing.MinMaxScaler(), svm.SVC(kernel="poly")),
        datasets.load_breast_cancer,
    ),
    "imputer, scaler, logistic regression": (
        lambda: pipeline.make_pipeline(
            impute.SimpleImputer(),
            preprocessing.StandardScaler(),
            linear_model.LogisticRegression(),
        ),
        datasets.load_iris,
    ),
    "normaliser, logistic regression of two classes": (
        lambda: pipeline.make_pipeline(
            preprocessing.Normalizer(), linear_model.LogisticRegression()
        ),
        datasets.load_breast_cancer,
    ),
    "components, neural network": (
        lambda: pipeline.make_pipeline(
            preprocessing.StandardScaler(),
            decomposition.PCA(5),
            neural_network.MLPClassifier((16,), max_iter=50, random_state=0),
        ),
        datasets.load_wine,
    ),
    "naive Bayes": (naive_bayes.GaussianNB, datasets.load_iris),
}

REGRESSORS: dict[str, Made] = {
    "random forest": lambda: ensemble.RandomForestRegressor(10, random_state=0),
    "gradient boosting": lambda: ensemble.GradientBoostingRegressor(n_estimators=20),
    "support vectors": lambda: pipeline.make_pipeline(
        preprocessing.StandardScaler(), svm.SVR(C=50)
    ),
    "polynomials, ridge": lambda: pipeline.make_pipeline(
        preprocessing.PolynomialFeatures(2, interaction_only=True), linear_model.Ridge()
    ),
}


def fitted(estimator: Any, load: Made, labels: Any = None) -> tuple[Any, Any]:
    """The estimator after training, and a few of the rows it was trained on."""
    x, y = load(return_X_y=True)
    x = x.astype(np.float32)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of iterations that do not suffice
        estimator.fit(x, y if labels is None else labels(y))
    return estimator, x[np.random.default_rng(0).permutation(len(x))[:ROWS]]


def run_verified(model: Any, x: Any, tmp_path: Path) -> dict[str, Any]:
    """The outputs as WebAssembly, after onnxruntime agreed with them."""
    (name,) = (value.name for value in model.graph.input)
    target = tmp_path / "model.wasm"
    wasmgraph.compile(model, target, shapes={name: x.shape}, verify=False)
    with wasmgraph.load(target, timeout=60) as graph:
        wasmgraph.verify(graph, model, {name: x}).raise_if_disagree()
        return graph.run({name: x})


@pytest.mark.parametrize("name", CLASSIFIERS)
def test_classifier(name: str, tmp_path: Path) -> None:
    make, load = CLASSIFIERS[name]
    estimator, x = fitted(make(), load)
    model = to_onnx(estimator, x[:1], options={id(estimator): {"zipmap": False}})
    found = run_verified(model, x, tmp_path)
    np.testing.assert_array_equal(found["label"], estimator.predict(x))


@pytest.mark.parametrize("name", REGRESSORS)
def test_regressor(name: str, tmp_path: Path) -> None:
    estimator, x = fitted(REGRESSORS[name](), datasets.load_diabetes)
    (found,) = run_verified(to_onnx(estimator, x[:1]), x, tmp_path).values()
    np.testing.assert_allclose(found.reshape(-1), estimator.predict(x), rtol=1e-4)


def test_a_sequence_of_maps_at_the_end_becomes_the_tensor_of_probabilities(tmp_path: Path) -> None:
    estimator, x = fitted(linear_model.LogisticRegression(max_iter=500), datasets.load_iris)
    model = to_onnx(estimator, x[:1])
    assert any(node.op_type == "ZipMap" for node in model.graph.node)
    found = run_verified(model, x, tmp_path)
    np.testing.assert_allclose(
        found["output_probability"], estimator.predict_proba(x), rtol=1e-3, atol=1e-5
    )


def as_text(y: Any) -> Any:
    return np.array([f"class {number}" for number in y])


@pytest.mark.parametrize("make", [linear_model.LogisticRegression, ensemble.RandomForestClassifier])
def test_labels_that_are_strings_are_refused_with_the_way_out(make: Made, tmp_path: Path) -> None:
    estimator, x = fitted(make(), datasets.load_iris, labels=as_text)
    model = to_onnx(estimator, x[:1], options={id(estimator): {"zipmap": False}})
    with pytest.raises(UnsupportedModelError) as refused:
        run_verified(model, x, tmp_path)
    assert any("train on integer labels" in item.reason for item in refused.value.obstacles)


def test_labels_that_nobody_reads_may_be_strings(tmp_path: Path) -> None:
    estimator, x = fitted(
        ensemble.RandomForestClassifier(5, random_state=0), datasets.load_iris, labels=as_text
    )
    model = to_onnx(estimator, x[:1], options={id(estimator): {"zipmap": False}})
    model.graph.output.remove(model.graph.output[0])
    (found,) = run_verified(model, x, tmp_path).values()
    np.testing.assert_allclose(found, estimator.predict_proba(x), atol=1e-6)


def test_onnxscript(tmp_path: Path) -> None:
    """Functions of one's own, an attribute and Python's operators."""
    pytest.importorskip("onnxscript", reason="onnxscript is not installed")
    from tests.importer import scripted

    x = np.random.default_rng(3).normal(size=(5, 8)).astype(np.float32)
    found = run_verified(scripted.model(), x, tmp_path)
    np.testing.assert_allclose(found["return_val"], scripted.expected(x), rtol=1e-4, atol=1e-6)
