"""The ONNX backend: models and nodes given to it are compiled, run as wasm, and answer by name."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx.backend.base import Backend

from tests.onnx_models import make_model, node
from wasmgraph import backend
from wasmgraph.errors import InputError, RunTimeout, UnsupportedModelError

ADD = make_model([node("Add", "a b", "y")], {"a": [2, 3], "b": [2, 3]}, {"y": [2, 3]})
RESHAPE = make_model([node("Reshape", "x shape", "y")], {"x": [2, 6], "shape": ("int64", [2])}, "y")
A = np.arange(6, dtype=np.float32).reshape(2, 3)


def test_it_is_a_backend_for_the_cpu() -> None:
    assert issubclass(backend.WasmgraphBackend, Backend)
    assert backend.supports_device("CPU")
    assert not backend.supports_device("CUDA")
    with pytest.raises(InputError, match="no device 'CUDA'"):
        backend.prepare(ADD, "CUDA")


def test_inputs_go_by_order_or_by_name_and_outputs_come_by_both() -> None:
    prepared = backend.prepare(ADD)
    result = prepared.run([A, A])
    np.testing.assert_array_equal(result[0], A + A)
    np.testing.assert_array_equal(result["y"], A + A)
    [by_name] = prepared.run({"b": A, "a": np.ones_like(A)})
    np.testing.assert_array_equal(by_name, A + 1)
    assert prepared.promoted == ()


def test_a_wrong_number_of_inputs_or_a_wrong_name_is_an_input_error() -> None:
    prepared = backend.prepare(ADD)
    with pytest.raises(InputError, match="takes 2 inputs, 1 are given"):
        prepared.run([A])
    with pytest.raises(InputError, match="takes the inputs 'a', 'b'; given are 'a', 'c'"):
        prepared.run({"a": A, "c": A})


def test_an_open_axis_takes_the_extent_it_is_given_in_every_run() -> None:
    model = make_model([node("Neg", "x", "y")], {"x": ["N", 2]}, {"y": ["N", 2]})
    prepared = backend.prepare(model)
    for extent in (3, 1):
        x = np.ones((extent, 2), np.float32)
        [y] = prepared.run(x)
        np.testing.assert_array_equal(y, -x)


def test_a_fixed_shape_is_not_changed_by_what_is_given() -> None:
    with pytest.raises(InputError, match="shape"):
        backend.run_model(ADD, [A.T, A.T])


def test_an_input_that_decides_a_shape_is_an_input_of_a_dynamic_graph() -> None:
    prepared = backend.prepare(RESHAPE)
    x = np.arange(12, dtype=np.float32).reshape(2, 6)
    for shape in ([3, 4], [4, 3]):
        [y] = prepared.run([x, np.array(shape, np.int64)])
        assert y.shape == tuple(shape)
    assert prepared.promoted == ()


SPECTRUM = make_model(
    [node("DFT", ["x", "", "axis"], "y")], {"x": (2, 4, 2), "axis": ("int64", ())}, "y", opset=20
)


def test_an_input_that_no_graph_can_take_is_compiled_in_with_its_value() -> None:
    prepared = backend.prepare(SPECTRUM)
    x = np.arange(16, dtype=np.float32).reshape(2, 4, 2)
    for axis in (0, 1):
        [y] = prepared.run([x, np.array(axis)])
        expected = np.fft.fft(x[..., 0] + 1j * x[..., 1], axis=axis)
        np.testing.assert_allclose(y[..., 0] + 1j * y[..., 1], expected, atol=1e-4)
    assert prepared.promoted == ("axis",)


def test_without_promotion_such_a_model_is_refused() -> None:
    given = [np.zeros((2, 4, 2), np.float32), np.array(1)]
    with pytest.raises(UnsupportedModelError):
        backend.run_model(SPECTRUM, given, promote=False)


def test_an_operand_computed_from_an_input_is_traced_back_to_it() -> None:
    model = make_model(
        [
            node("Cast", "small", "wide", to=7),
            node("Shape", "x", "extents"),
            node("Concat", "extents wide", "target", axis=0),
            node("Expand", "z target", "y"),
        ],
        {"x": [4], "z": [1, 2], "small": ("int32", [1])},
        "y",
    )
    assert backend.deciding_inputs(model) == ("small",)


@pytest.mark.parametrize(
    ("op", "inputs"), [("Add", "x x"), ("NonZero", "x"), ("Compress", "x chosen")]
)
def test_data_are_never_compiled_in(op: str, inputs: str) -> None:
    model = make_model([node(op, inputs, "y")], {"x": [4], "chosen": ("bool", [4])}, "y")
    assert backend.deciding_inputs(model) == ()


def test_floats_behind_a_computed_operand_stay_inputs() -> None:
    model = make_model(
        [node("Cast", "x", "shape", to=7), node("Expand", "z shape", "y")],
        {"x": [2], "z": [1, 1]},
        "y",
    )
    assert backend.deciding_inputs(model) == ()


@settings(max_examples=5, deadline=None)
@given(st.lists(st.integers(1, 4), min_size=0, max_size=3), st.sampled_from(["float32", "int32"]))
def test_a_node_alone_runs_at_any_shape_and_dtype(shape: list[int], dtype: str) -> None:
    x = np.arange(np.prod(shape, dtype=int)).reshape(shape).astype(dtype)
    [y] = backend.run_node(node("Add", "a b", "y"), [x, x])
    assert y.dtype == x.dtype
    np.testing.assert_array_equal(y, x + x)


def test_a_node_may_be_of_an_older_opset() -> None:
    squeeze = node("Squeeze", "x", "y", axes=[0])
    [y] = backend.run_node(squeeze, [np.ones((1, 3), np.float32)], opset_version=11)
    assert y.shape == (3,)


def test_the_outputs_of_a_node_may_be_declared() -> None:
    info = [(np.dtype(np.float32), (2, 3))]
    [y] = backend.run_node(node("Neg", "x", "y"), {"x": A}, outputs_info=info)
    np.testing.assert_array_equal(y, -A)


def test_limits_reach_the_run() -> None:
    side = 1024
    big = make_model([node("MatMul", "x x", "y")], {"x": [side, side]}, {"y": [side, side]})
    x = np.ones((side, side), np.float32)
    with pytest.raises(RunTimeout):
        backend.run_model(big, x, timeout=0.001)


def test_an_option_that_is_not_there_is_a_type_error() -> None:
    with pytest.raises(TypeError, match="speed"):
        backend.prepare(ADD, speed=2)
