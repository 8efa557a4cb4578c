"""Which models treat every sample of a batch alone, and which part of the outputs is a sample's.

Tolerance where batches are compared with samples: 1e-4 relative and absolute; sums of a few dozen
float32 values come in another order.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx
import onnxruntime
import pytest
from hypothesis import HealthCheck, event, given, settings
from onnx import helper

from tests.batching.random_models import Builder, models
from tests.onnx_models import Array, import_network, make_model, node
from wasmgraph.bundle import Batch, Share
from wasmgraph.importer.batching import Mixed, batch_axis, separate
from wasmgraph.importer.network import Network
from wasmgraph.importer.shapes import fix_shapes

RNG = np.random.default_rng(0)


def separated(model: onnx.ModelProto) -> Batch:
    """What `separate` makes of a model.

    Raises:
        Mixed: it mixes samples.
    """

    def fresh() -> Network:
        network = import_network(model)
        fix_shapes(network, {})
        return network

    axis = batch_axis(fresh())
    assert axis is not None
    return separate(fresh, axis)


def session(model: onnx.ModelProto) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(model.SerializeToString(), options)


def in_batches(
    model: onnx.ModelProto, axis: int, x: Array
) -> tuple[list[Array], list[list[Array]]]:
    """The outputs of all samples together, and those of each alone."""
    run = session(model).run
    return run(None, {"x": x}), [
        run(None, {"x": part}) for part in np.split(x, x.shape[axis], axis)
    ]


@settings(
    max_examples=250, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck)
)
@given(models())
def test_samples_found_to_be_alone_are_alone(case: tuple[onnx.ModelProto, Builder]) -> None:
    model, built = case
    try:
        batch = separated(model)
    except Mixed:
        event("mixed")
        return
    event("alone")
    for samples in (2, 3, 4):
        x = RNG.normal(size=built.given(samples)).astype(np.float32)
        together, alone = in_batches(model, built.axis, x)
        for i, share in enumerate(batch.outputs):
            parts = [results[i] for results in alone]
            if share is None:
                expected = parts[0]
            else:
                assert parts[0].shape[share.axis] == share.extent
                expected = np.concatenate(parts, share.axis)
            np.testing.assert_allclose(together[i], expected, 1e-4, 1e-4)


def chain(*nodes: onnx.NodeProto, shape: Sequence[int | str] = ("N", 3, 8, 8), **w: object):
    """A model of nodes from "x" to "y"."""
    return make_model(nodes, {"x": shape}, "y", w)


def floats(*shape: int) -> Array:
    return RNG.normal(size=shape).astype(np.float32)


def ints(*values: int) -> Array:
    return np.array(values, np.int64)


IMAGES = floats(4, 3, 3, 3)
ALONE = {
    "convolution": (chain(node("Conv", "x w", "y"), w=IMAGES), Share(0, 1)),
    "statistics that are fixed": (
        chain(node("BatchNormalization", "x a a a b", "y"), a=floats(3), b=np.ones(3, np.float32)),
        Share(0, 1),
    ),
    "rows of a product": (
        chain(node("MatMul", "x w", "y"), shape=("N", 5, 8), w=floats(8, 4)),
        Share(0, 1),
    ),
    "columns of a product": (
        chain(node("MatMul", "w x", "y"), shape=(8, "N"), w=floats(4, 8)),
        Share(1, 1),
    ),
    "all rows of all samples": (
        chain(node("Reshape", "x s", "y"), shape=("N", 7, 4), s=ints(-1, 4)),
        Share(0, 7),
    ),
    "a transposed batch": (
        chain(node("Transpose", "x", "y", perm=[1, 0, 2]), shape=("N", 7, 4)),
        Share(1, 1),
    ),
    "a softmax over classes": (chain(node("Softmax", "x", "y", axis=1)), Share(0, 1)),
    "a slice to the end": (
        chain(node("Slice", "x b e", "y"), b=ints(0, 1), e=ints(2**63 - 1, 2)),
        Share(0, 1),
    ),
    "a shape of the exporter's": (
        chain(
            node("Shape", "x", "s"),
            node("Gather", "s zero", "n"),
            node("Unsqueeze", "n zeros", "n1"),
            node("Concat", "n1 rest", "t", axis=0),
            node("Reshape", "x t", "y"),
            zero=np.int64(0),
            zeros=ints(0),
            rest=ints(-1),
        ),
        Share(0, 1),
    ),
    "a token before every sample": (
        chain(
            node("Shape", "x", "s", end=1),
            node("Concat", "s rest", "t", axis=0),
            node("Expand", "token t", "tokens"),
            node("Concat", "tokens x", "y", axis=1),
            shape=("N", 7, 4),
            rest=ints(1, 4),
            token=floats(1, 1, 4),
        ),
        Share(0, 1),
    ),
    "upsampling to computed sizes": (
        chain(
            node("Shape", "x", "s"),
            node("Slice", "s a b", "nc"),
            node("Concat", "nc hw", "t", axis=0),
            node("Resize", ["x", "", "", "t"], "y", mode="linear"),
            a=ints(0),
            b=ints(2),
            hw=ints(16, 16),
        ),
        Share(0, 1),
    ),
    "a constant": (
        chain(node("Relu", "x", "z"), node("Identity", "w", "y"), w=floats(2)),
        None,
    ),
}


@pytest.mark.parametrize("name", ALONE)
def test_is_alone(name: str) -> None:
    model, share = ALONE[name]
    batch = separated(model)
    assert batch.outputs == (share,)
    assert batch.axis == "N"


def recurrent(op: str, gates: int, state: str, **w: object) -> onnx.ModelProto:
    """Over sequences of 5 steps; the initial state is `state`, of the shape [1, N, 3]."""
    return make_model(
        [
            node("Shape", "x", "s", start=1, end=2),
            node("Concat", "one s hidden", "t", axis=0),
            node("ConstantOfShape", "t", "zeros"),
            node(op, ["x", "w", "r", "", "", state], "all last", hidden_size=3),
        ],
        {"x": (5, "N", 4)},
        "all last",
        {
            "w": floats(1, 3 * gates, 4),
            "r": floats(1, 3 * gates, 3),
            "one": ints(1),
            "hidden": ints(3),
            **w,
        },
    )


@pytest.mark.parametrize(("op", "gates"), [("LSTM", 4), ("GRU", 3), ("RNN", 1)])
def test_sequences_are_alone_on_axis_1(op: str, gates: int) -> None:
    batch = separated(recurrent(op, gates, "zeros"))
    assert batch.inputs == (Share(1, 1),)
    assert batch.outputs == (Share(2, 1), Share(1, 1))


def test_an_initial_state_of_one_sample_is_refused() -> None:
    with pytest.raises(Mixed):
        separated(recurrent("GRU", 3, "fixed", fixed=floats(1, 1, 3)))


BRANCH = helper.make_graph(
    [node("ReduceMean", "x", "z", keepdims=1)], "b", [], [onnx.ValueInfoProto(name="z")]
)
MIXED = {
    "statistics of the batch": chain(
        node("BatchNormalization", "x a a a a", "y m v", training_mode=1), a=np.ones(3, np.float32)
    ),
    "a mean over everything": chain(node("ReduceMean", "x", "y")),
    "a sum over the batch": chain(node("ReduceSum", "x axes", "y"), axes=ints(0)),
    "a softmax over the batch": chain(node("Softmax", "x", "y", axis=0)),
    "a mean by the batch's size": chain(
        node("Shape", "x", "s", end=1),
        node("Cast", "s", "n", to=onnx.TensorProto.FLOAT),
        node("Div", "x n", "y"),
    ),
    "a product of samples": chain(
        node("Transpose", "x", "t", perm=[1, 0]), node("MatMul", "x t", "y"), shape=("N", 4)
    ),
    "samples beside each other": chain(node("Concat", "x x", "y", axis=0)),
    "every other sample": chain(
        node("Slice", "x b e a s", "y"), b=ints(0), e=ints(2**31 - 1), a=ints(0), s=ints(2)
    ),
    "samples backwards": chain(
        node("Slice", "x b e a s", "y"), b=ints(-1), e=ints(-(2**31)), a=ints(0), s=ints(-1)
    ),
    "the first hundred samples": chain(node("Slice", "x b e", "y"), b=ints(0), e=ints(100)),
    "the first sample": chain(node("Gather", "x zero", "y"), zero=np.int64(0)),
    "a position in the batch": chain(
        node("Shape", "x", "s"),
        node("Gather", "s zero", "n"),
        node("Range", "zero n one", "r"),
        node("Reshape", "r column", "c"),
        node("Cast", "c", "f", to=onnx.TensorProto.FLOAT),
        node("Add", "x f", "y"),
        shape=("N", 4),
        zero=np.int64(0),
        one=np.int64(1),
        column=ints(-1, 1),
    ),
    "rows and columns exchanged": chain(
        node("Reshape", "x s", "y"), shape=("N", 6, 4), s=ints(6, -1, 4)
    ),
    "pairs of samples": chain(node("Reshape", "x s", "y"), shape=("N", 4), s=ints(-1, 2, 4)),
    "every sample with every other": chain(
        node("Unsqueeze", "x one", "a"), node("Sub", "x a", "y"), shape=("N", 4), one=ints(1)
    ),
    "a scale from the whole batch": chain(
        node("DynamicQuantizeLinear", "x", "q s z"), node("DequantizeLinear", "q s z", "y")
    ),
    "indices into the batch": chain(node("MaxPool", "x", "p y", kernel_shape=[2, 2])),
    "a random mask": chain(node("Bernoulli", "x", "y")),
    "a choice by data": make_model(
        [
            node("ReduceMax", "x", "m", keepdims=0),
            node("Cast", "m", "c", to=onnx.TensorProto.BOOL),
            node("If", "c", "y", then_branch=BRANCH, else_branch=BRANCH),
        ],
        {"x": ("N", 4)},
        "y",
    ),
    "an odd number of samples": chain(
        node("Shape", "x", "s", end=1),
        node("Mod", "s two", "odd"),
        node("Cast", "odd", "f", to=onnx.TensorProto.FLOAT),
        node("Mul", "x f", "y"),
        two=ints(2),
    ),
    "a batch for one sample only": chain(node("Reshape", "x s", "y"), shape=("N", 4), s=ints(1, 4)),
    "how many samples there are": make_model(
        [node("Shape", "x", "y")], {"x": ("N", 4)}, {"y": ("int64", (2,))}
    ),
}


@pytest.mark.parametrize("name", MIXED)
def test_is_not_alone(name: str) -> None:
    with pytest.raises(Mixed):
        separated(MIXED[name])


def test_the_reason_names_the_node() -> None:
    model = chain(node("Relu", "x", "r"), node("ReduceMean", "r", "y", name="mean"))
    with pytest.raises(Mixed, match=r"node 'mean' \(ReduceMean\): it reduces over all axes"):
        separated(model)


def test_two_open_axes_are_no_batch() -> None:
    model = chain(node("Relu", "x", "y"), shape=("N", "L"))
    network = import_network(model)
    fix_shapes(network, {})
    assert batch_axis(network) is None


def test_rows_of_estimators_are_alone() -> None:
    tree = {
        "nodes_treeids": [0, 0, 0],
        "nodes_nodeids": [0, 1, 2],
        "nodes_featureids": [0, 0, 0],
        "nodes_values": [0.0, 0.0, 0.0],
        "nodes_modes": ["BRANCH_LEQ", "LEAF", "LEAF"],
        "nodes_truenodeids": [1, 0, 0],
        "nodes_falsenodeids": [2, 0, 0],
        "class_treeids": [0, 0],
        "class_nodeids": [1, 2],
        "class_ids": [0, 2],
        "class_weights": [1.0, 1.0],
        "classlabels_int64s": [3, 5, 8],
    }
    nodes = [
        node("TreeEnsembleClassifier", "x", "label scores", domain="ai.onnx.ml", **tree),
        node("ArgMax", "scores", "best", axis=1, keepdims=0),
        node("ArrayFeatureExtractor", "names best", "name", domain="ai.onnx.ml"),
    ]
    ports = {"label": ("int64", None), "scores": ("float32", None), "name": ("int64", None)}
    model = make_model(nodes, {"x": ("N", 3)}, ports, {"names": ints(3, 5, 8)})
    model.opset_import.append(helper.make_opsetid("ai.onnx.ml", 1))
    assert separated(model).outputs == (Share(0, 1), Share(0, 1), Share(1, 1))
