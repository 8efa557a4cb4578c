"""Support vector machines of ai.onnx.ml, which the operator library computes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from wasmgraph.importer.converters.classes import (
    class_labels,
    looked_up,
    rows_of,
    transform_number,
    vector,
)
from wasmgraph.importer.converters.library import counted, library_call
from wasmgraph.importer.converters.static import constant, shape_of

_KERNELS = ("LINEAR", "POLY", "RBF", "SIGMOID")


def _kernel(attrs: Mapping[str, Any]) -> list[int | float]:
    """Its number, gamma, constant and degree."""
    parameters = [float(number) for number in attrs.get("kernel_params") or (0.0, 0.0, 0.0)]
    return [_KERNELS.index(attrs.get("kernel_type", b"LINEAR").decode()), *parameters]


def svm_regressor(bb: Any, inputs: Sequence[Any], attrs: Mapping[str, Any]) -> Any:
    """SVMRegressor; without support vectors the coefficients are those of the features."""
    x = rows_of(bb, inputs[0])
    rows, features = shape_of(x)
    count = int(attrs.get("n_supports", 0))
    weights = vector(attrs["coefficients"], "float32")
    vectors = vector(attrs.get("support_vectors", ()), "float32")
    kernel = _kernel(attrs)
    if not count:
        kernel[0], count, vectors, weights = 0, 1, weights, np.ones(1, np.float32)
    _check_sizes(
        ("support vectors", vectors.size, count * features), ("weights", weights.size, count)
    )
    words = [*kernel, rows, features, count, int(attrs.get("one_class", 0))]
    rho = constant(vector(attrs["rho"], "float32")[:1])
    operands = [x, constant(vectors), constant(weights), rho]
    return library_call("svm_regressor_f32", operands, [("float32", (rows, 1))], words)


def svm_classifier(bb: Any, inputs: Sequence[Any], attrs: Mapping[str, Any]) -> Any:
    """SVMClassifier with support vectors: labels and scores."""
    if not attrs.get("vectors_per_class"):
        raise NotImplementedError(
            "SVMClassifier without support vectors is not supported; export a LinearClassifier"
        )
    x = rows_of(bb, inputs[0])
    rows, features = shape_of(x)
    labels = class_labels(attrs, "classlabels_ints")
    per_class = [int(number) for number in attrs["vectors_per_class"]]
    classes, total = len(labels), sum(per_class)
    pairs = classes * (classes - 1) // 2
    vectors, weights, rho, a, b = (
        vector(attrs.get(name, ()), "float32")
        for name in ("support_vectors", "coefficients", "rho", "prob_a", "prob_b")
    )
    with_probabilities = a.size > 0
    _check_sizes(
        ("vectors per class", len(per_class), classes),
        ("support vectors", vectors.size, total * features),
        ("coefficients", weights.size, (classes - 1) * total),
        ("rho", rho.size, pairs),
        ("prob_a", a.size, pairs if with_probabilities else 0),
        ("prob_b", b.size, pairs if with_probabilities else 0),
    )
    scores = classes if with_probabilities or classes == 2 else pairs
    words = [
        *_kernel(attrs),
        rows,
        features,
        transform_number(attrs),
        int(with_probabilities),
        *counted(per_class),
    ]
    nothing = np.zeros(1, np.float32)
    operands = [
        x,
        constant(vectors),
        constant(weights),
        constant(rho),
        constant(a if with_probabilities else nothing),
        constant(b if with_probabilities else nothing),
    ]
    outputs = [("int64", (rows,)), ("float32", (rows, scores))]
    found = bb.emit(library_call("svm_classifier_f32", operands, outputs, words))
    return [looked_up(bb, labels, bb.normalize(found[0])), found[1]]


def _check_sizes(*lists: tuple[str, int, int]) -> None:
    """Raise ValueError where an attribute has less elements than the library reads."""
    for name, found, wanted in lists:
        if found < wanted:
            raise ValueError(f"{name} has {found} elements, it needs {wanted}")
