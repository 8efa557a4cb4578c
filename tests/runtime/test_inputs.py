"""What callers feed: nothing is cast silently, and every problem is told at once."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from wasmgraph.errors import InputError
from wasmgraph.runtime.base import TensorSpec
from wasmgraph.runtime.inputs import check_inputs

IMAGE = TensorSpec("image", "float32", (1, 2))
IDS = TensorSpec("input_ids", "int64", (3,))


def problem(specs: list[TensorSpec], given: dict[str, Any]) -> InputError:
    with pytest.raises(InputError) as caught:
        check_inputs(specs, given)
    return caught.value


def test_arrays_come_in_the_graphs_order() -> None:
    ids, image = np.arange(3), np.ones((1, 2), np.float32)
    assert check_inputs([IMAGE, IDS], {"input_ids": ids, "image": image}) == [image, ids]


def test_a_missing_input_is_named_with_what_it_takes() -> None:
    error = problem([IMAGE, IDS], {"image": np.ones((1, 2), np.float32)})
    assert "input input_ids: int64[3] is missing" in error.message


@pytest.mark.parametrize("name", ["Image", "imgae", "images"])
def test_a_misnamed_input_brings_the_nearest_name(name: str) -> None:
    error = problem([IMAGE, IDS], {name: 1, "input_ids": np.arange(3)})
    assert f"no input named {name!r}; did you mean 'image'?" in error.message


def test_a_name_unlike_any_brings_no_guess_but_the_list() -> None:
    error = problem([IMAGE], {"image": np.ones((1, 2), np.float32), "qqqq": 1})
    assert "did you mean" not in error.message
    assert "image: float32[1, 2]" in str(error.hint)


def test_a_wrong_dtype_says_what_to_cast_to() -> None:
    error = problem([IMAGE], {"image": np.ones((1, 2))})
    assert "expected dtype float32, found float64" in error.message
    assert '.astype("float32")' in str(error.hint)


def test_a_numpy_scalar_is_not_cast_either() -> None:
    scalar = TensorSpec("s", "float32", ())
    assert "found float64" in problem([scalar], {"s": np.float64(1)}).message
    assert check_inputs([scalar], {"s": np.float32(1)})[0].shape == ()


def test_a_wrong_shape_says_both_and_whether_a_reshape_would_do() -> None:
    error = problem([IMAGE], {"image": np.ones((3,), np.float32)})
    assert "expected shape [1, 2], found [3]" in error.message
    assert "reshape" not in str(error.hint)
    assert "reshape" in str(problem([IMAGE], {"image": np.ones(2, np.float32)}).hint)


def test_all_problems_stand_in_one_message() -> None:
    message = problem([IMAGE, IDS], {"image": np.ones((1, 2)), "ids": np.arange(3)}).message
    assert "found float64" in message
    assert "no input named 'ids'" in message
    assert "input_ids: int64[3] is missing" in message


@pytest.mark.parametrize(
    ("dtype", "value", "result"),
    [
        ("float32", [1, 2], [1.0, 2.0]),
        ("float32", [0.1, 2.5], np.float32([0.1, 2.5])),
        ("float32", [float("inf"), float("nan")], [np.inf, np.nan]),
        ("int64", [1, -2], [1, -2]),
        ("uint8", [0, 255], [0, 255]),
        ("bool", [True, False], [True, False]),
        ("uint64", [2**64 - 1, 2**63], [2**64 - 1, 2**63]),
    ],
)
def test_python_numbers_are_taken_where_they_keep_their_value(
    dtype: str, value: list[Any], result: Any
) -> None:
    array = check_inputs([TensorSpec("x", dtype, (2,))], {"x": value})[0]
    assert array.dtype == dtype
    np.testing.assert_array_equal(array, np.asarray(result, dtype))


@pytest.mark.parametrize(
    ("dtype", "value"),
    [
        ("int64", [1.0, 2.0]),
        ("uint8", [256, 0]),
        ("uint8", [-1, 0]),
        ("float32", [2**24 + 1, 0]),
        ("float32", [1e39, 0.0]),
        ("bool", [0, 1]),
        ("int64", [True, False]),
        ("float32", ["1", "2"]),
        ("float32", [None, 1.0]),
        ("int64", [2**70, 0]),
        ("float32", [[1.0], [1.0, 2.0]]),
        ("float32", object()),
    ],
)
def test_python_values_that_would_change_are_refused(dtype: str, value: object) -> None:
    assert "input 'x'" in problem([TensorSpec("x", dtype, (2,))], {"x": value}).message


@pytest.mark.parametrize(
    ("dtype", "fits", "too_much"),
    [("int4", [-8, 7], [8, 0]), ("uint2", [0, 3], [-1, 0]), ("bfloat16", [0.1, 256], [2.0, 1e39])],
)
def test_python_numbers_become_what_numpy_lacks(
    dtype: str, fits: list[float], too_much: list[float]
) -> None:
    pytest.importorskip("ml_dtypes")
    spec = TensorSpec("x", dtype, (2,))
    assert check_inputs([spec], {"x": fits})[0].dtype == dtype
    assert "does not fit" in problem([spec], {"x": too_much}).message


def test_an_empty_list_fits_an_empty_tensor() -> None:
    assert check_inputs([TensorSpec("x", "int64", (0,))], {"x": []})[0].dtype == np.int64


def test_a_graph_without_inputs_takes_none() -> None:
    assert check_inputs([], {}) == []
    assert "takes no inputs" in str(problem([], {"x": 1}).hint)
