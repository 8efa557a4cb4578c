"""Weights are rounded per channel as documented; batch normalisation goes into them first."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.onnx_models import make_network, node
from wasmgraph.importer.network import Network, network_to_proto
from wasmgraph.importer.normalise.fold import infer_shapes
from wasmgraph.importer.normalise.narrow_tables import narrow_tables
from wasmgraph.importer.normalise.round_weights import fold_batch_normalisation, round_weights
from wasmgraph.kernels.exact_storage import store_exactly

ORT = pytest.importorskip("onnxruntime", reason="compares with onnxruntime")


def random(*shape: int, seed: int = 0) -> NDArray[np.float32]:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def network(*nodes: Any, weights: dict[str, Any], **shapes: tuple[int, ...]) -> Network:
    """From inputs of these shapes to "y"."""
    made = make_network(list(nodes), shapes, "y", weights)
    infer_shapes(made)
    return made


def outputs(made: Network, **feeds: NDArray[Any]) -> NDArray[Any]:
    proto = network_to_proto(made, small_bytes=1 << 30)
    for one in proto.graph.node:
        one.ClearField("name")
    session = ORT.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(["y"], feeds)[0]  # type: ignore[no-any-return]


def conv(filters: int = 64, channels: int = 16, **attributes: Any) -> Network:
    return network(
        node("Conv", "x w b", "y", **attributes),
        weights={"w": random(filters, channels, 3, 3), "b": random(filters)},
        x=(1, 16, 8, 8),
    )


def test_halves_are_the_nearest_ones_and_biases_stay():
    made = conv()
    before = {name: array.copy() for name, array in made.weights.items()}
    round_weights(made, "f16")
    expected = before["w"].astype(np.float16).astype(np.float32)
    np.testing.assert_array_equal(made.weights["w"], expected)
    np.testing.assert_array_equal(made.weights["b"], before["b"])


@pytest.mark.parametrize(
    ("op", "attributes", "shape", "axis"),
    [
        ("Conv", {}, (64, 16, 3, 3), 0),
        ("ConvTranspose", {}, (16, 64, 3, 3), 1),
        ("MatMul", {}, (64, 128), 1),
        ("Gemm", {}, (64, 128), 1),
        ("Gemm", {"transB": 1}, (128, 64), 0),
    ],
)
def test_int8_has_a_scale_per_output_channel(op, attributes, shape, axis):
    """Each weight is at most half a step from what it was, a step being 1/127 of the largest."""
    source = (1, 16, 8, 8) if "Conv" in op else (5, 64)
    before = random(*shape)
    made = network(node(op, "x w", "y", **attributes), weights={"w": before}, x=source)
    round_weights(made, "int8")
    after = np.moveaxis(made.weights["w"], axis, -1).reshape(-1, shape[axis])
    before = np.moveaxis(before, axis, -1).reshape(-1, shape[axis])
    step = abs(before).max(axis=0) / 127
    assert (abs(after - before) <= step / 2 * 1.0001).all()
    assert (abs(after - before).max(axis=0) > step / 4).all()
    # What was rounded is found to fit.
    assert store_exactly(np.ascontiguousarray(after)).stored == "int8"


@pytest.mark.parametrize(
    "made",
    [
        conv(filters=16, channels=1, group=16),
        conv(filters=4),
        network(node("MatMul", "x w", "y"), weights={"w": random(4096, 2)}, x=(3, 4096)),
        network(node("Gemm", "x w", "y", alpha=0.3), weights={"w": random(64, 128)}, x=(3, 64)),
        network(node("Mul", "x w", "y"), weights={"w": random(64, 128)}, x=(64, 128)),
    ],
    ids=["depthwise", "small", "thin", "scaled", "no product"],
)
@pytest.mark.parametrize("form", ["f16", "int8"])
def test_other_weights_stay_as_they_are(made, form):
    before = made.weights["w"].copy()
    round_weights(made, form)
    np.testing.assert_array_equal(made.weights["w"], before)


def test_a_weight_beyond_half_precision_keeps_its_tensor_in_float32():
    made = conv()
    before = made.weights["w"].copy()
    before[0, 0, 0, 0] = 7e4
    made.weights["w"] = before.copy()
    round_weights(made, "f16")
    np.testing.assert_array_equal(made.weights["w"], before)


def test_channels_without_weights_stay_zero():
    made = conv()
    made.weights["w"] = made.weights["w"] * (np.arange(64) != 3).reshape(-1, 1, 1, 1)
    round_weights(made, "int8")
    assert (made.weights["w"][3] == 0).all()
    assert np.isfinite(made.weights["w"]).all()


@pytest.mark.parametrize(
    ("op", "shape", "attributes", "has_bias"),
    [
        ("Conv", (64, 16, 3, 3), {}, True),
        ("Conv", (64, 4, 3, 3), {"group": 4}, False),
        ("ConvTranspose", (16, 64, 3, 3), {}, False),
    ],
)
def test_batch_normalisation_goes_into_the_convolution(op, shape, attributes, has_bias):
    """The tolerance is that of sums of 144 products which are rounded in another order."""
    weights = {name: random(64, seed=i) for i, name in enumerate(["gamma", "beta", "mean"])}
    weights |= {"var": abs(random(64, seed=4)) + 0.1, "w": random(*shape), "b": random(64)}
    made = network(
        node(op, "x w b" if has_bias else "x w", "h", **attributes),
        node("BatchNormalization", "h gamma beta mean var", "y", epsilon=0.01),
        weights=weights,
        x=(1, 16, 8, 8),
    )
    x = random(1, 16, 8, 8, seed=9)
    expected = outputs(made, x=x)
    fold_batch_normalisation(made)
    assert [n.op_type for n in made.nodes] == [op]
    np.testing.assert_allclose(outputs(made, x=x), expected, rtol=1e-4, atol=1e-4)


def test_a_result_that_others_read_is_normalised_apart():
    weights = {name: random(64, seed=i) for i, name in enumerate(["gamma", "beta", "mean"])}
    weights |= {"var": abs(random(64, seed=4)) + 0.1, "w": random(64, 16, 3, 3)}
    made = network(
        node("Conv", "x w", "h"),
        node("BatchNormalization", "h gamma beta mean var", "n"),
        node("Add", "n h", "y"),
        weights=weights,
        x=(1, 16, 8, 8),
    )
    fold_batch_normalisation(made)
    assert [n.op_type for n in made.nodes] == ["Conv", "BatchNormalization", "Add"]


@pytest.mark.parametrize(("form", "stored"), [("f16", "float16"), ("int8", "int8")])
def test_tables_stay_small_until_a_row_is_looked_up(form, stored):
    """The same bits: the rows were rounded before."""
    index = np.array([[3, 0], [511, -1]])
    made = make_network(
        [node("Gather", "table i", "y")], {"i": ("int64", (2, 2))}, "y", {"table": random(512, 24)}
    )
    infer_shapes(made)
    round_weights(made, form)
    expected = outputs(made, i=index)
    narrow_tables(made)
    assert made.weights["table"].dtype.name == stored
    assert made.wide_nbytes["table"] == 4 * 512 * 24
    infer_shapes(made)
    assert outputs(made, i=index).tobytes() == expected.tobytes()
    np.testing.assert_allclose(expected, random(512, 24)[index], atol=0.02)


def test_a_table_that_something_else_reads_stays_float32():
    made = make_network(
        [node("Gather", "t i", "h"), node("MatMul", "h t", "y")],
        {"i": ("int64", (64,))},
        "y",
        {"t": random(64, 64)},
    )
    infer_shapes(made)
    round_weights(made, "f16")
    narrow_tables(made)
    assert made.weights["t"].dtype == np.float32
