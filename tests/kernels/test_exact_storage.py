"""Weights are stored small where that keeps every one of them, and only there."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from tests.kernels.shares import SEEDS
from wasmgraph.kernels.exact_storage import MIN_ELEMENTS, StoredWeights, store_exactly

ROWS = MIN_ELEMENTS // 8


def meaning(found: StoredWeights) -> NDArray[np.float32]:
    wide = found.array.astype(np.float32)
    return wide if found.scales is None else wide * found.scales


def random(*shape: int, seed: int = 0) -> NDArray[np.float32]:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def test_halves_are_stored_as_halves():
    halves = random(ROWS, 8).astype(np.float16)
    found = store_exactly(halves.astype(np.float32))
    assert found.stored == "float16"
    assert found.array.tobytes() == halves.tobytes()
    assert store_exactly(halves.astype(np.float32).reshape(2, -1, 4)).stored == "float16"


@pytest.mark.parametrize("odd", [1 + 2.0**-11, 65520.0, np.inf, np.nan, 2.0**-25])
def test_one_number_that_is_no_finite_half_keeps_all_in_float32(odd):
    array = random(ROWS, 8).astype(np.float16).astype(np.float32)
    array[-1, -1] = odd
    found = store_exactly(array)
    assert found.stored == "float32"
    np.testing.assert_array_equal(found.array, array)


def test_small_and_ordinary_weights_stay_as_they_are():
    assert store_exactly(np.ones((ROWS - 1, 8), np.float32)).stored == "float32"
    assert store_exactly(random(ROWS, 8)).stored == "float32"


@settings(max_examples=40, deadline=None)
@given(
    st.booleans(),
    st.sampled_from([3, 90, 127, 128]),
    st.floats(1e-6, 1e3),
    st.booleans(),
    SEEDS,
)
def test_steps_of_a_scale_are_stored_as_int8(per_column, limit, magnitude, one_empty, seed):
    """Whatever the scale: per column, or one for all, by which the largest may be few steps."""
    rng = np.random.default_rng(seed)
    steps = rng.integers(-limit, min(limit, 127) + 1, (ROWS, 8))
    steps[:, 1] //= 2
    steps[0, 0] = -limit
    steps[:, -1] *= not one_empty
    scales = rng.uniform(0.1, 1, 8 if per_column else 1).astype(np.float32)
    scales *= np.float32(magnitude)
    array = steps.astype(np.float32) * scales
    found = store_exactly(array)
    assert found.stored == "int8"
    np.testing.assert_array_equal(meaning(found), array)


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_whatever_is_stored_means_the_same(data):
    """Steps that are almost those of a scale, halves with a few others, any batches."""
    rng = np.random.default_rng(data.draw(SEEDS))
    shape: Any = data.draw(st.sampled_from([(ROWS, 8), (ROWS // 2, 16), (2, ROWS, 4)]))
    array = rng.integers(-130, 130, shape) * rng.uniform(0.1, 1, shape[-1])
    array = array.astype(data.draw(st.sampled_from([np.float16, np.float32]))).astype(np.float32)
    for _ in range(data.draw(st.integers(0, 2))):
        array.reshape(-1)[rng.integers(array.size)] = rng.standard_normal()
    np.testing.assert_array_equal(meaning(store_exactly(array)), array)
