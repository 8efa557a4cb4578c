"""Half-precision models are computed in single precision, from and to float16."""

from __future__ import annotations

import numpy as np
import onnx

from tests.onnx_models import import_network, make_model, node, run_as_wasm
from wasmgraph.importer.normalise import normalise
from wasmgraph.importer.shapes import fix_shapes

HALF = "float16"
W = np.linspace(-1, 1, 12).astype(np.float16).reshape(3, 4)
B = np.array([0.5, -0.25, 2, 1], np.float16)


def half_model() -> onnx.ModelProto:
    nodes = [
        node("MatMul", "x w", "a"),
        node("Cast", "a", "c", to=onnx.TensorProto.FLOAT16),
        node("Add", "c b", "s"),
        node("Relu", "s", "y"),
        node("Identity", "x", "same"),
        node("Identity", "b", "fixed"),
    ]
    outputs = {"y": (HALF, (2, 4)), "same": (HALF, (2, 3)), "fixed": (HALF, (4,))}
    return make_model(nodes, {"x": (HALF, (2, 3))}, outputs, {"w": W, "b": B})


def test_only_inputs_and_outputs_stay_half() -> None:
    network = import_network(half_model())
    fix_shapes(network, {})
    normalise(network)
    half = {name for name, known in network.types.items() if known.dtype == np.float16}
    assert half <= {"x", "y", "same", "fixed"}
    assert all(array.dtype == np.float32 for name, array in network.weights.items() if name in "wb")


def test_the_outputs_are_the_rounded_float32_results() -> None:
    x = np.array([[1, 2, 3], [-1, 0.5, 0.25]], np.float16)
    found = run_as_wasm(half_model(), {"x": x})
    exact = np.maximum(x.astype(np.float32) @ W.astype(np.float32) + B, 0)
    assert found["y"].dtype == np.float16
    np.testing.assert_array_equal(found["y"], exact.astype(np.float16))
    np.testing.assert_array_equal(found["same"], x)
    np.testing.assert_array_equal(found["fixed"], B)


def test_a_float32_model_is_left_alone() -> None:
    network = import_network(make_model([node("Relu", "x", "y")], {"x": (2,)}, "y"))
    fix_shapes(network, {})
    normalise(network)
    assert [item.op_type for item in network.nodes] == ["Relu"]
