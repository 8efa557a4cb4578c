"""Comparing a graph with its model: what counts as agreement, and what is told where it fails."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper, parser

import wasmgraph
from tests.bundles import SCALE_WEIGHTS, add_bundle, endless_bundle, scale_bundle
from tests.onnx_models import make_model, node
from wasmgraph.errors import (
    InputError,
    LoadError,
    ModelError,
    RunTimeout,
    ToolchainError,
    VerificationError,
)
from wasmgraph.link import link
from wasmgraph.reference import reference_outputs
from wasmgraph.runtime.base import TensorSpec
from wasmgraph.verification import PART_ELEMENTS, VerifyReport, compare, ulp_distance, verify


def scale_model(weights: np.ndarray, *, as_input: bool = False) -> onnx.ModelProto:
    """y = x * weights over 4 float32, as `scale_bundle`; the weights may be listed as an input."""
    x, y, w = (helper.make_tensor_value_info(n, TensorProto.FLOAT, [4]) for n in ("x", "y", "w"))
    graph = helper.make_graph(
        [helper.make_node("Mul", ["x", "w"], ["y"])],
        "scale",
        [x, w] if as_input else [x],
        [y],
        [numpy_helper.from_array(weights.astype(np.float32), "w")],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


@pytest.fixture(scope="module")
def scale_wasm(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("scale") / "scale.wasm"
    link(scale_bundle(), path)
    return path


# Whole comparisons, through Wasmtime and onnxruntime


def test_a_graph_agrees_with_its_model(scale_wasm: Path) -> None:
    report = verify(scale_wasm, scale_model(SCALE_WEIGHTS), seed=3)
    assert report.agrees
    report.raise_if_disagree()
    (output,) = report.outputs
    assert (output.name, output.dtype, output.shape) == ("y", "float32", (4,))
    assert (output.max_abs, output.max_rel, output.max_ulp) == (0, 0, 0)
    assert (report.model, report.seed) == ("scale", 3)


def test_a_disagreement_says_which_output_where_and_how_far(scale_wasm: Path) -> None:
    other = SCALE_WEIGHTS.copy()
    other[2] += 1
    inputs = {"x": np.float32([1, 1, 1, 1])}
    report = verify(scale_wasm, scale_model(other), inputs)
    assert not report.agrees
    (output,) = report.outputs
    assert output.index == (2,)
    assert (output.value, output.expected) == (0.5, 1.5)
    assert output.max_abs == 1
    with pytest.raises(VerificationError, match=r"output 'y'\[2\] is 0\.5, onnxruntime has 1\.5"):
        report.raise_if_disagree()


def test_the_tolerances_decide(scale_wasm: Path) -> None:
    model = scale_model(SCALE_WEIGHTS * np.float32(1.0005))
    inputs = {"x": np.ones(4, np.float32)}
    assert verify(scale_wasm, model, inputs, rtol=1e-3, atol=0).agrees
    assert not verify(scale_wasm, model, inputs, rtol=1e-4, atol=0).agrees
    assert verify(scale_wasm, model, inputs, rtol=0, atol=1e-2).agrees


def test_random_inputs_are_the_seeds(scale_wasm: Path) -> None:
    model = scale_model(SCALE_WEIGHTS + 1)
    first, again, other = (verify(scale_wasm, model, seed=seed) for seed in (1, 1, 2))
    assert first == again
    assert first.outputs != other.outputs


def test_a_loaded_graph_stays_open(scale_wasm: Path) -> None:
    with wasmgraph.load(scale_wasm) as graph:
        verify(graph, scale_model(SCALE_WEIGHTS))
        graph.run({"x": np.ones(4, np.float32)})


def test_initializers_listed_as_inputs_are_no_inputs(scale_wasm: Path) -> None:
    assert verify(scale_wasm, scale_model(SCALE_WEIGHTS, as_input=True)).agrees


def test_external_data_beside_the_model_is_found(scale_wasm: Path, tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    onnx.save(
        scale_model(SCALE_WEIGHTS),
        path,
        save_as_external_data=True,
        location="weights.bin",
        size_threshold=0,
    )
    assert (tmp_path / "weights.bin").exists()
    assert verify(scale_wasm, path).agrees
    (tmp_path / "weights.bin").unlink()
    with pytest.raises(ModelError, match="onnxruntime cannot run"):
        verify(scale_wasm, path)


def test_dynamic_axes_take_the_graphs_shape(scale_wasm: Path) -> None:
    model = scale_model(SCALE_WEIGHTS)
    for value in (*model.graph.input, *model.graph.output):
        value.type.tensor_type.shape.dim[0].dim_param = "n"
    assert verify(scale_wasm, model).agrees


# The axes of a state that follow from another input's, and a size that a model insists on.
INSISTING = """
<ir_version: 8, opset_import: ["": 18]>
g (float[x0, x1] x, float[2, s1, 7] state) => (float[a, b] y) {
    shape = Constant <value = int64[3] {-1, 7, 11}> ()
    parts = Reshape (x, shape)
    last = Constant <value = int64[1] {2}> ()
    sums = ReduceSum <keepdims = 0> (parts, last)
    first = Constant <value = int64 {0}> ()
    before = Gather <axis = 0> (state, first)
    y = Mul (sums, before)
}
"""


def test_open_axes_get_sizes_that_suit_the_model(tmp_path: Path) -> None:
    model = parser.parse_model(INSISTING)
    report = wasmgraph.compile(model, tmp_path / "out.wasm")
    assert report.verification is not None
    (output,) = report.verification.outputs
    assert output.shape == (2, 7)


def test_sizes_too_small_for_a_window_are_passed_over(tmp_path: Path) -> None:
    """Onnxruntime computes something for 32, and the graph refuses it as ONNX would have it."""
    pool = node("MaxPool", "x", "p", kernel_shape=[33, 33], strides=[64, 64])
    model = make_model([pool, node("Relu", "p", "y")], {"x": ["N", 1, "H", "W"]}, "y")
    report = wasmgraph.compile(model, tmp_path / "out.wasm")
    assert report.verification is not None
    (output,) = report.verification.outputs
    assert output.shape == (2, 1, 1, 1)
    assert output.agrees


def test_the_wrong_model_is_a_model_error_with_every_difference(tmp_path: Path) -> None:
    path = tmp_path / "add.wasm"
    link(add_bundle(), path)
    with pytest.raises(ModelError) as caught:
        verify(path, scale_model(SCALE_WEIGHTS))
    for expected in ("also takes 'x'", "takes no 'a'", "takes no 'b'", "gives no 'sum'"):
        assert expected in caught.value.message


@pytest.mark.parametrize("content", [None, b"", b"no model"])
def test_a_file_that_is_no_model_is_a_model_error(
    scale_wasm: Path, tmp_path: Path, content: bytes | None
) -> None:
    path = tmp_path / "model.onnx"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ModelError, match=r"model\.onnx"):
        verify(scale_wasm, path)


def test_what_loading_and_running_raise_comes_through(scale_wasm: Path, tmp_path: Path) -> None:
    model = scale_model(SCALE_WEIGHTS)
    with pytest.raises(LoadError):
        verify(tmp_path / "missing.wasm", model)
    with pytest.raises(InputError):
        verify(scale_wasm, model, {"z": 1})
    endless = tmp_path / "endless.wasm"
    link(endless_bundle(), endless)
    with pytest.raises(RunTimeout):
        verify(endless, model, timeout=0.2)


def test_without_onnxruntime_the_error_says_what_to_install(
    scale_wasm: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(ToolchainError) as caught:
        verify(scale_wasm, scale_model(SCALE_WEIGHTS))
    assert caught.value.hint == "pip install 'wasmgraph[verify]'"


def test_the_reference_is_onnxruntimes() -> None:
    outputs = (TensorSpec("y", "float32", (4,)),)
    found = reference_outputs(scale_model(SCALE_WEIGHTS), {"x": np.ones(4, np.float32)}, outputs)
    np.testing.assert_array_equal(found["y"], SCALE_WEIGHTS)


def test_a_report_is_json_even_where_numbers_are_not(scale_wasm: Path) -> None:
    report = verify(scale_wasm, scale_model(np.float32([1, np.nan, np.inf, 4])))
    data = json.loads(json.dumps(report.to_json(), allow_nan=False))
    assert data["agrees"] is False
    assert data["outputs"][0]["max_abs"] == "inf"
    assert data["outputs"][0]["non_finite"] == 2


# Single outputs


def f32(*values: float) -> np.ndarray:
    return np.array(values, np.float32)


def test_nan_equals_nan_and_infinity_its_own_kind() -> None:
    special = f32(np.nan, np.inf, -np.inf, 0.0)
    agreement = compare("y", special, special)
    assert agreement.agrees
    assert (agreement.max_abs, agreement.max_rel, agreement.max_ulp) == (0, 0, 0)
    assert agreement.non_finite == 3
    assert compare("y", f32(0.0), f32(-0.0)).agrees


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        (np.nan, 1),
        (1, np.nan),
        (np.inf, -np.inf),
        (np.inf, 1),
        (3.4e38, np.inf),
        (np.nan, np.inf),
        (np.inf, np.nan),
    ],
)
def test_one_special_value_against_another_disagrees(found: float, expected: float) -> None:
    agreement = compare("y", f32(0, found), f32(0, expected), rtol=1, atol=1e30)
    assert not agreement.agrees
    assert agreement.max_abs == np.inf
    assert agreement.index == (1,)


def test_the_worst_element_is_the_one_furthest_beyond_its_tolerance() -> None:
    # The second differs more, yet is within its tolerance.
    agreement = compare("y", f32(0.001, 1001), f32(0, 1000), rtol=1e-2, atol=1e-4)
    assert agreement.index == (0,)
    assert agreement.max_abs == 1


def test_the_worst_element_is_told_where_all_agree_too() -> None:
    agreement = compare("y", f32(1e-9, 1000.5, 0), f32(0, 1000, 0), rtol=1e-3, atol=1e-4)
    assert agreement.agrees
    assert agreement.index == (1,)


def test_the_tolerance_is_relative_to_the_reference() -> None:
    assert compare("y", f32(1.0), f32(2.0), rtol=0.5, atol=0).agrees
    assert not compare("y", f32(2.0), f32(1.0), rtol=0.5, atol=0).agrees


@pytest.mark.parametrize("dtype", ["int64", "uint64", "int8", "uint8", "bool"])
def test_integers_and_bools_must_be_equal(dtype: str) -> None:
    a = np.array([1, 0, 1], dtype)
    b = np.array([1, 1, 1], dtype)
    assert compare("y", a, a, atol=0).agrees
    agreement = compare("y", a, b, rtol=10, atol=10)
    assert not agreement.agrees
    assert (agreement.index, agreement.max_ulp, agreement.max_abs) == ((1,), 1, 1)


def test_integers_beyond_the_precision_of_floats_are_told_apart() -> None:
    big = np.array([2**62], np.int64)
    assert not compare("y", big, big + 1).agrees
    assert ulp_distance(np.int64([-(2**63)]), np.int64([2**63 - 1]))[0] == 2**64 - 1
    assert ulp_distance(np.uint8([0]), np.uint8([255]))[0] == 255


def test_another_dtype_or_shape_disagrees_without_numbers() -> None:
    other_dtype = compare("y", f32(1), np.array([1.0]))
    assert not other_dtype.agrees
    assert "float32[1], onnxruntime has float64[1]" in str(other_dtype)
    other_shape = compare("y", np.ones((2, 1), np.float32), np.ones((1, 2), np.float32))
    assert not other_shape.agrees


def test_an_empty_output_agrees_and_a_scalar_has_an_index() -> None:
    empty = np.zeros((0, 3), np.float32)
    assert compare("y", empty, empty).agrees
    assert compare("y", empty, empty).index is None
    scalar = compare("y", np.array(1.5, np.float32), np.array(1.0, np.float32))
    assert (scalar.index, scalar.value, scalar.expected) == ((), 1.5, 1.0)
    assert "output 'y' is 1.5" in str(scalar)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_a_ulp_is_the_step_to_the_next_float(dtype: type[np.floating]) -> None:
    values = np.array([0, 1, -1, 1e-4, -60000, np.finfo(dtype).smallest_subnormal], dtype)
    upwards = np.nextafter(values, np.array(np.inf, dtype))
    np.testing.assert_array_equal(ulp_distance(values, upwards), 1)
    np.testing.assert_array_equal(ulp_distance(upwards, values), 1)
    np.testing.assert_array_equal(ulp_distance(values, values), 0)


def test_ulps_count_across_zero() -> None:
    tiny = np.finfo(np.float32).smallest_subnormal
    assert ulp_distance(f32(-tiny), f32(tiny))[0] == 2
    assert ulp_distance(f32(-0.0), f32(0.0))[0] == 0


def test_a_nan_is_further_away_than_any_number() -> None:
    apart = ulp_distance(np.array([-np.inf, np.nan]), np.array([np.inf, 0.0]))
    assert apart[1] > apart[0]


def test_a_report_names_only_the_outputs_that_disagree() -> None:
    good = compare("good", f32(1), f32(1))
    bad = replace(compare("bad", f32(1), f32(2)))
    report = VerifyReport("g.wasm", "m.onnx", 1e-3, 1e-4, 0, (good, bad))
    with pytest.raises(VerificationError) as caught:
        report.raise_if_disagree()
    assert "1 of 2 outputs" in caught.value.message
    assert "'good'" not in caught.value.message


@pytest.mark.parametrize("dtype", ["bfloat16", "float8_e4m3fn", "float8_e5m2fnuz", "int4", "uint4"])
def test_dtypes_that_numpy_lacks_are_compared_as_their_numbers(tmp_path: Path, dtype: str) -> None:
    """onnxruntime takes no arrays of them in Python, so its model gets float32 at both ends."""
    elem_type = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
    # onnxruntime rounds where it casts to int4; ONNX's reference, as numpy, cuts off.
    factor = 1 if "int" in dtype else 0.25
    nodes = [
        node("Cast", "x", "wide", to=TensorProto.FLOAT),
        node("Mul", "wide w", "scaled"),
        node("Cast", "scaled", "y", to=elem_type),
    ]
    ports = {"x": (dtype, (2, 3))}, {"y": (dtype, (2, 3))}
    model = make_model(nodes, *ports, {"w": np.float32(factor)}, opset=21)
    report = wasmgraph.compile(model, tmp_path / "narrow.wasm").verification
    assert report is not None
    assert report.agrees
    assert report.outputs[0].dtype == dtype


def test_neighbours_of_a_narrow_float_agree() -> None:
    a, b, c = (np.array([x], np.float32).astype("bfloat16") for x in (1, 1 + 2**-7, 1 + 2**-6))
    assert compare("y", a, b).agrees
    assert not compare("y", a, c).agrees


def test_a_large_output_is_compared_part_by_part() -> None:
    """The part with the worst element is not the one with the largest difference."""
    expected = np.ones((3, PART_ELEMENTS), np.float32)
    expected[2] = 1e4
    found = expected.copy()
    found[1, 5] += 0.5
    found[2, 7] += 1
    agreement = compare("y", found, expected)
    assert not agreement.agrees
    assert (agreement.index, agreement.max_abs, agreement.max_rel) == ((1, 5), 1.0, 0.5)
    assert (agreement.value, agreement.expected, agreement.largest) == (1.5, 1.0, 1e4)
    assert compare("y", found, expected, response=np.full(expected.size, 0.2)).agrees
