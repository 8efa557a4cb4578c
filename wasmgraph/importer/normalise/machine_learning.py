"""Write those of ai.onnx.ml's operators that are plain arithmetic as ONNX's; drop ZipMap.

Trees, support vectors and look-ups stay: the operator library has them. Where the standard is
vague, this does as onnxruntime does.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import onnx
from onnx import TensorProto

from wasmgraph.importer.network import Network, all_inputs, attributes
from wasmgraph.importer.normalise.writer import Expansion, NodeWriter, expand_nodes

MACHINE_LEARNING = "ai.onnx.ml"

STRING_LABELS = "classes labelled by strings are not supported; train on integer labels"


def drop_zip_maps(network: Network) -> None:
    """Give the tensor of probabilities where a model ends in a sequence of maps with it.

    And where nobody reads the labels of a classifier, it does not matter that they are strings.
    """
    read = {name for node in network.nodes for name in all_inputs(node)}
    wanted = read.union(network.output_names)
    for node in network.nodes:
        if node.domain != MACHINE_LEARNING:
            continue
        if is_dropped(node, network):
            _drop(node, network)
        elif node.op_type.endswith("Classifier") and node.output[0] not in wanted:
            _number_classes(node)


def is_dropped(node: onnx.NodeProto, network: Network) -> bool:
    """Whether a node is a ZipMap whose tensor tells the same: columns in the order of the map."""
    if (node.domain, node.op_type) != (MACHINE_LEARNING, "ZipMap"):
        return False
    labels = attributes(node)
    listed = list(labels.get("classlabels_int64s") or labels.get("classlabels_strings") or [])
    is_last = not any(node.output[0] in all_inputs(other) for other in network.nodes)
    return is_last and listed == sorted(listed)


def _drop(node: onnx.NodeProto, network: Network) -> None:
    node.op_type, node.domain = "Identity", ""
    del node.attribute[:]
    for value in network.outputs:
        if value.name == node.output[0]:
            value.type.Clear()
            value.type.tensor_type.elem_type = TensorProto.FLOAT


def _number_classes(node: onnx.NodeProto) -> None:
    for attribute in node.attribute:
        if attribute.name == "classlabels_strings":
            count = len(attribute.strings)
            # The tree classifier alone says how wide its integers are.
            wide = "64" if node.op_type.startswith("Tree") else ""
            numbers = onnx.helper.make_attribute(f"classlabels_int{wide}s", list(range(count)))
            node.attribute.remove(attribute)
            node.attribute.append(numbers)
            return


def expand_machine_learning(network: Network) -> None:
    """Replace every node that `is_plain`.

    Raises:
        UnsupportedModelError: some are on strings; lists every one.
    """
    expand_nodes(network, _expansion)


def is_plain(node: onnx.NodeProto) -> bool:
    """Whether there is a way to write a node out."""
    return _expansion(node) is not None


def _expansion(node: onnx.NodeProto) -> Expansion | None:
    return _EXPANSIONS.get(node.op_type) if node.domain == MACHINE_LEARNING else None


def _as_float(w: NodeWriter, x: str) -> str:
    """The same in float32; where that does not change it, the cast is removed later."""
    return w.add("Cast", [x], to=TensorProto.FLOAT)


def _scaler(w: NodeWriter) -> None:
    """(x - offset) * scale, per feature or for all of them."""
    x = _as_float(w, w.input(0))
    offset, scale = (
        w.constant(w.attribute(name, [0.0]), "float32") for name in ("offset", "scale")
    )
    w.give(0, w.add("Mul", [w.add("Sub", [x, offset]), scale]))


def _normalizer(w: NodeWriter) -> None:
    """Every row over its norm; where that is 0 the row stays."""
    x = _as_float(w, w.input(0))
    norm = w.attribute("norm", "MAX")
    last = w.ints(-1)
    if norm == "MAX":
        size = w.add("ReduceMax", [x, last], keepdims=1)
    else:
        size = w.add(f"Reduce{norm}", [x, last], keepdims=1)
    zero, one = w.constant(0, "float32"), w.constant(1, "float32")
    divisor = w.add("Where", [w.add("Equal", [size, zero]), one, size])
    w.give(0, w.add("Div", [x, divisor]))


def _imputer(w: NodeWriter) -> None:
    """What stands for a missing number is replaced, per feature or the same everywhere."""
    x, dtype = w.input(0), w.dtype(w.input(0))
    kind = "float" if dtype.kind == "f" else "int64"
    imputed = w.constant(w.attribute(f"imputed_value_{kind}s"), dtype)
    replaced = w.attribute(f"replaced_value_{kind}", 0)
    if isinstance(replaced, float) and math.isnan(replaced):
        missing = w.add("IsNaN", [x])
    else:
        missing = w.add("Equal", [x, w.constant(replaced, dtype)])
    w.give(0, w.add("Where", [missing, imputed, x]))


def _binarizer(w: NodeWriter) -> None:
    """1 where an element is above the threshold, else 0."""
    x, dtype = w.input(0), w.dtype(w.input(0))
    above = w.add("Greater", [x, w.constant(w.attribute("threshold", 0.0), dtype)])
    w.give(0, w.add("Cast", [above], to=onnx.helper.np_dtype_to_tensor_dtype(dtype)))


def _feature_vectorizer(w: NodeWriter) -> None:
    """All features side by side; of each input as many as are asked for, zeros if it has less."""
    parts = []
    wanted = w.attribute("inputdimensions", [])
    for index, name in enumerate(w.node.input):
        shape = w.shape(name)
        rows = 1 if len(shape) < 2 else shape[0]
        width = math.prod(shape) // max(rows, 1)
        part = w.add("Reshape", [_as_float(w, name), w.ints(rows, width)])
        extent = wanted[index] if index < len(wanted) else width
        if extent < width:
            part = w.add("Slice", [part, w.ints(0), w.ints(extent), w.ints(1)])
        elif extent > width:
            part = w.add("Pad", [part, w.ints(0, 0, 0, extent - width)])
        parts.append(part)
    w.give(0, w.add("Concat", parts, axis=1))


def _linear_scores(w: NodeWriter, targets: int) -> str:
    """Per row and target the weighted sum of the features, and what is added to it."""
    weights = np.array(w.attribute("coefficients"), np.float32).reshape(targets, -1)
    intercepts = w.attribute("intercepts") or [0.0] * targets
    # One row may come as a vector.
    rows = w.add("Reshape", [_as_float(w, w.input(0)), w.ints(-1, weights.shape[1])])
    return w.add("Gemm", [rows, *(w.constant(a, "float32") for a in (weights.T, intercepts))])


def _linear_regressor(w: NodeWriter) -> None:
    targets = int(w.attribute("targets", 1))
    w.give(0, _transformed(w, _linear_scores(w, targets), targets))


def _linear_classifier(w: NodeWriter) -> None:
    """Labels and scores. One row of coefficients tells two classes apart."""
    if w.attribute("classlabels_strings"):
        raise NotImplementedError(STRING_LABELS)
    labels = w.attribute("classlabels_ints") or [0, 1]
    targets = len(w.attribute("intercepts") or labels)
    scores = _linear_scores(w, targets)
    if targets > 1:
        best = w.add("ArgMax", [scores], axis=1, keepdims=0)
        w.give(0, w.add("Gather", [w.constant(labels, "int64"), best]))
        w.give(1, _transformed(w, scores, targets))
        return
    negative, positive = (w.constant(n, "int64") for n in (labels if len(labels) == 2 else (0, 1)))
    above = w.add("Greater", [w.add("Squeeze", [scores, w.ints(1)]), w.constant(0, "float32")])
    w.give(0, w.add("Where", [above, positive, negative]))
    transform = w.attribute("post_transform", "NONE")
    if len(labels) == 2 and transform != "PROBIT":
        if transform == "LOGISTIC":
            scores = w.add("Sigmoid", [scores])
        other = w.add("Sub", [w.constant(1, "float32"), scores])
        w.give(1, w.add("Concat", [other, scores], axis=1))
    else:
        w.give(1, _transformed(w, scores, 1))


def _transformed(w: NodeWriter, scores: str, columns: int) -> str:
    """Scores after the node's post transformation; of a single column only probit changes any."""
    transform = w.attribute("post_transform", "NONE")
    if transform == "NONE" or (columns == 1 and transform != "PROBIT"):
        return scores
    return _TRANSFORMS[transform](w, scores)


def _softmax_zero(w: NodeWriter, scores: str) -> str:
    """Softmax over the scores that are not zero; the others stay zero."""
    last, zero = w.ints(-1), w.constant(0, "float32")
    counts = w.add("Greater", [w.add("Abs", [scores]), w.constant(1e-7, "float32")])
    most = w.add("ReduceMax", [scores, last], keepdims=1)
    powers = w.add("Exp", [w.add("Sub", [scores, most])])
    powers = w.add("Where", [counts, powers, zero])
    return w.add("Div", [powers, w.add("ReduceSum", [powers, last], keepdims=1)])


def _probit(w: NodeWriter, p: str) -> str:
    """The quantile of the normal distribution, by the approximation that onnx and onnxruntime have.

    Winitzki's of the inverse error function of x = 2p - 1, with a = 0.147.
    """

    def number(value: float) -> str:
        return w.constant(value, "float32")

    a = 0.147
    x = w.add("Sub", [w.add("Mul", [p, number(2)]), number(1)])
    product = w.add("Mul", [w.add("Sub", [number(1), x]), w.add("Add", [number(1), x])])
    log = w.add("Log", [product])
    half = w.add("Add", [w.add("Mul", [log, number(0.5)]), number(2 / (math.pi * a))])
    inner = w.add("Sub", [w.add("Mul", [half, half]), w.add("Div", [log, number(a)])])
    root = w.add("Sqrt", [w.add("Sub", [w.add("Sqrt", [inner]), half])])
    signed = w.add("Mul", [w.add("Sign", [x]), root])
    return w.add("Mul", [signed, number(math.sqrt(2))])


_TRANSFORMS: dict[str, Callable[[NodeWriter, str], str]] = {
    "SOFTMAX": lambda w, scores: w.add("Softmax", [scores], axis=-1),
    "LOGISTIC": lambda w, scores: w.add("Sigmoid", [scores]),
    "SOFTMAX_ZERO": _softmax_zero,
    "PROBIT": _probit,
}

_EXPANSIONS: dict[str, Expansion] = {
    "Binarizer": _binarizer,
    "FeatureVectorizer": _feature_vectorizer,
    "Imputer": _imputer,
    "LinearClassifier": _linear_classifier,
    "LinearRegressor": _linear_regressor,
    "Normalizer": _normalizer,
    "Scaler": _scaler,
}
