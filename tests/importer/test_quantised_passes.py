"""What the passes on quantised networks make of networks of a few nodes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tests.onnx_models import make_network, node, operators
from wasmgraph.importer.network import Network
from wasmgraph.importer.normalise import normalise

SCALES = {"s": np.float32(0.1), "z": np.uint8(3), "s2": np.float32(0.2), "z2": np.uint8(9)}
CONV = {
    "w": np.arange(-9, 9, dtype=np.int8).reshape(2, 1, 3, 3),
    "sw": np.array([0.5, 0.25], np.float32),
    "zw": np.zeros(2, np.int8),
}


def normalised(
    nodes: list[Any], shape: tuple[int, ...], output: tuple[str, str], **weights: Any
) -> Network:
    """A network with an input x of uint8."""
    name, dtype = output
    network = make_network(
        nodes, {"x": ("uint8", shape)}, {name: (dtype, None)}, {**SCALES, **weights}
    )
    normalise(network)
    return network


def test_a_move_between_two_equal_quantisations_moves_integers():
    nodes = [
        node("DequantizeLinear", "x s z", "f"),
        node("Transpose", "f", "t", perm=[1, 0]),
        node("QuantizeLinear", "t s z", "q"),
        node("Flatten", "q", "y"),
    ]
    assert operators(normalised(nodes, (2, 3), ("y", "uint8"))) == ["Transpose", "Flatten"]


def test_other_parameters_are_kept():
    nodes = [
        node("DequantizeLinear", "x s z", "f"),
        node("Transpose", "f", "t", perm=[1, 0]),
        node("QuantizeLinear", "t s2 z2", "q"),
        node("Flatten", "q", "y"),
    ]
    found = operators(normalised(nodes, (2, 3), ("y", "uint8")))
    assert found == ["Transpose", "DequantizeLinear", "QuantizeLinear", "Flatten"]


def test_an_output_keeps_its_name_and_type():
    nodes = [node("DequantizeLinear", "x s z", "f"), node("QuantizeLinear", "f s z", "y")]
    network = normalised(nodes, (2, 3), ("y", "uint8"))
    assert [list(item.output) for item in network.nodes][-1] == ["y"]


def test_parts_of_a_concatenation_are_quantised_alone():
    nodes = [
        node("DequantizeLinear", "x s z", "f"),
        node("DequantizeLinear", "x s2 z2", "g"),
        node("Concat", "f g", "c", axis=0),
        node("QuantizeLinear", "c s z", "q"),
        node("Flatten", "q", "y"),
    ]
    found = operators(normalised(nodes, (2, 3), ("y", "uint8")))
    assert found == ["DequantizeLinear", "QuantizeLinear", "Concat", "Flatten"]


def test_a_convolution_of_integers_takes_zero_points_into_its_bias():
    nodes = [
        node("DequantizeLinear", "x s z", "f"),
        node("DequantizeLinear", "w sw zw", "g", axis=0),
        node("Conv", "f g", "y", auto_pad="SAME_UPPER", strides=[2, 2]),
    ]
    network = normalised(nodes, (1, 1, 5, 5), ("y", "float32"), **CONV)
    (conv,) = network.nodes
    assert (conv.op_type, conv.input[0]) == ("IntegerConv", "x")
    weights, multipliers, bias = (network.weights[name] for name in conv.input[1:])
    np.testing.assert_array_equal(weights, CONV["w"])
    np.testing.assert_array_equal(multipliers, np.float32(0.1) * CONV["sw"])
    np.testing.assert_array_equal(bias, -3 * CONV["w"].sum(axis=(1, 2, 3)))
    pads = next(a.ints for a in conv.attribute if a.name == "pads")
    assert list(pads) == [1, 1, 1, 1]


def test_weights_with_a_zero_point_that_leaves_bytes_stay_bytes():
    nodes = [
        node("DequantizeLinear", "x s z", "f"),
        node("DequantizeLinear", "w sw zw", "g"),
        node("MatMul", "f g", "y"),
    ]
    for values, zero, dtype in (([100, 150], 128, "int8"), ([0, 255], 100, "int16")):
        weights = {
            "w": np.array([values, values], np.uint8),
            "sw": np.float32(0.5),
            "zw": np.uint8(zero),
        }
        network = normalised(nodes, (3, 2), ("y", "float32"), **weights)
        (product,) = network.nodes
        assert product.op_type == "IntegerMatMul"
        stored = network.weights[product.input[1]]
        assert stored.dtype == dtype
        np.testing.assert_array_equal(stored, np.array([values, values]) - zero)


def test_a_bias_of_floats_is_added_afterwards():
    nodes = [
        node("DequantizeLinear", "x s z", "f"),
        node("DequantizeLinear", "w sw zw", "g", axis=0),
        node("Conv", "f g b", "y"),
    ]
    bias = np.array([1.5, -2], np.float32)
    network = normalised(nodes, (1, 1, 5, 5), ("y", "float32"), b=bias, **CONV)
    assert operators(network) == ["IntegerConv", "Add"]
    added = network.weights[network.nodes[1].input[1]]
    np.testing.assert_array_equal(added.reshape(-1), bias)


def test_transposed_weights_of_a_linear_layer_are_found():
    """As PyTorch exports them: scales per row of weights that are transposed then."""
    nodes = [
        node("DequantizeLinear", "x s z", "f"),
        node("DequantizeLinear", "w sw zw", "g", axis=0),
        node("Transpose", "g", "t", perm=[1, 0]),
        node("MatMul", "f t", "y"),
    ]
    weights = {
        "w": np.arange(6, dtype=np.int8).reshape(3, 2),
        "sw": np.array([0.5, 0.25, 1], np.float32),
        "zw": np.zeros(3, np.int8),
    }
    network = normalised(nodes, (4, 2), ("y", "float32"), **weights)
    (product,) = network.nodes
    np.testing.assert_array_equal(network.weights[product.input[1]], weights["w"].T)


def test_weights_quantised_in_the_model_itself_are_integers():
    nodes = [
        node("DequantizeLinear", "x s z", "f"),
        node("QuantizeLinear", "w sw zw", "q", axis=0),
        node("DequantizeLinear", "q sw zw", "g", axis=0),
        node("Conv", "f g", "y"),
    ]
    weights = {**CONV, "w": CONV["w"] * np.array([0.5, 0.25], np.float32)[:, None, None, None]}
    network = normalised(nodes, (1, 1, 5, 5), ("y", "float32"), **weights)
    assert operators(network) == ["IntegerConv"]
    np.testing.assert_array_equal(network.weights[network.nodes[0].input[1]], CONV["w"])


@pytest.mark.parametrize("dtype", ["int8", "int4"])
def test_weights_alone_become_floats(dtype):
    """Activations are floats: there is no product of integers."""
    import ml_dtypes

    values = np.arange(-8, 8).reshape(8, 2)
    stored = values.astype(np.int8 if dtype == "int8" else ml_dtypes.int4)
    nodes = [
        node("Cast", "x", "f", to=1),
        node("DequantizeLinear", "w sw", "g"),
        node("MatMul", "f g", "y"),
    ]
    weights = {"w": stored, "sw": np.float32(0.5)}
    network = make_network(
        nodes, {"x": ("uint8", (3, 8))}, {"y": ("float32", None)}, weights, opset=21
    )
    normalise(network)
    assert operators(network) == ["Cast", "MatMul"]
    np.testing.assert_array_equal(network.weights["g"], values * np.float32(0.5))
