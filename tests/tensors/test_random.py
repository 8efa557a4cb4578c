"""Seeded random inputs."""

from __future__ import annotations

import numpy as np
import pytest

from wasmgraph.runtime.base import TensorSpec
from wasmgraph.tensors.random import random_input, random_inputs


@pytest.mark.parametrize(
    ("dtype", "name", "low", "high"),
    [
        ("float16", "x", 0, 1),
        ("float32", "x", 0, 1),
        ("float64", "x", 0, 1),
        ("uint8", "x", 0, 256),
        ("int8", "x", -128, 128),
        ("int32", "bytes", 0, 10),
        ("int64", "input_ids", 0, 10),
        ("uint64", "x", 0, 10),
        ("int64", "attention_mask", 0, 2),
        ("int64", "token_type_ids", 0, 2),
        ("bool", "x", 0, 2),
    ],
)
def test_values_fill_the_documented_range(dtype: str, name: str, low: int, high: int) -> None:
    array = random_input(TensorSpec(name, dtype, (100, 100)), 0)
    assert array.dtype == dtype
    assert array.shape == (100, 100)
    assert low <= array.min() < low + 0.1 * (high - low)
    assert high - 0.1 * (high - low) - 1 <= array.max() < high


def test_the_seed_and_the_name_decide() -> None:
    spec = TensorSpec("x", "float32", (8,))
    np.testing.assert_array_equal(random_input(spec, 1), random_input(spec, 1))
    assert not np.array_equal(random_input(spec, 1), random_input(spec, 2))
    other = TensorSpec("y", "float32", (8,))
    assert not np.array_equal(random_input(spec, 1), random_input(other, 1))


def test_other_inputs_do_not_change_an_inputs_values() -> None:
    x, y = TensorSpec("x", "float32", (8,)), TensorSpec("y", "int64", (2,))
    np.testing.assert_array_equal(random_inputs([y, x], 3)["x"], random_inputs([x], 3)["x"])


@pytest.mark.parametrize("shape", [(), (0,), (2, 0, 3)])
@pytest.mark.parametrize("dtype", ["float32", "uint8", "int64", "bool"])
def test_scalars_and_empty_tensors_have_values_too(dtype: str, shape: tuple[int, ...]) -> None:
    array = random_input(TensorSpec("x", dtype, shape), 0)
    assert (array.shape, array.dtype) == (shape, np.dtype(dtype))


def test_floats_lie_in_the_range_asked_for() -> None:
    spec = TensorSpec("image", "float32", (1000,))
    pixels = random_input(spec, 3, (0, 255))
    assert pixels.min() >= 0
    assert 200 < pixels.max() < 255
    np.testing.assert_allclose(pixels, random_input(spec, 3) * 255, rtol=1e-6)


@pytest.mark.parametrize(
    ("dtype", "low", "high"),
    [("bfloat16", 0, 1), ("float8_e4m3fn", 0, 1), ("int4", -8, 7), ("uint2", 0, 3)],
)
def test_narrow_values_fill_their_range(dtype: str, low: int, high: int) -> None:
    ml_dtypes = pytest.importorskip("ml_dtypes")
    array = random_input(TensorSpec("x", dtype, (100, 100)), 0)
    assert array.dtype == getattr(ml_dtypes, dtype)
    values = array.astype(np.float32)
    assert values.min() == pytest.approx(low, abs=0.01)
    assert values.max() == high
