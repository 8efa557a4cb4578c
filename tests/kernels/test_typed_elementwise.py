"""Element-wise chains over bytes: what is read, rounded and written, bit by bit."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.kernels import shares
from tests.kernels.runner import run_kernel
from tests.kernels.test_contraction import span, view
from tests.kernels.test_integer_contraction import quantise, quantised, random
from wasmgraph.assembler.scalar import scalarise
from wasmgraph.kernels.chain import Chain, Step
from wasmgraph.kernels.typed import numbers_apart
from wasmgraph.kernels.typed_elementwise import TypedElementwise

DTYPES = st.sampled_from(["int8", "uint8", "int32", "float32"])
OUTPUTS = st.sampled_from(["int8", "uint8", "float32"])


def made_of(rng: np.random.Generator, dtype: str, size: int) -> Any:
    if dtype in ("int8", "uint8"):
        return random(rng, dtype, size)
    return rng.integers(-1000, 1000, size).astype(dtype)


def chain_to(dtype: str) -> Chain:
    """(x - 3) / 4 + 0.5 y, quantised where that is wanted; exact in float32 up to the division."""
    steps = [
        Step("subtract_number", (0,), (3.0,)),
        Step("divide_number", (2,), (4.0,)),
        Step("multiply_number", (1,), (0.5,)),
        Step("add", (3, 4)),
    ]
    if dtype != "float32":
        steps.append(quantise(dtype, 1.7, 11, argument=5))
    return Chain(2, tuple(steps))


def computed(x: Any, y: Any, dtype: str) -> Any:
    x, y = (np.asarray(each).astype(np.float32) for each in (x, y))
    value = (x - np.float32(3)) / np.float32(4) + np.float32(0.5) * y
    return value if dtype == "float32" else quantised(value, quantise(dtype, 1.7, 11), dtype)


@settings(max_examples=80, deadline=None)
@given(st.data(), DTYPES, DTYPES, OUTPUTS, st.booleans())
def test_every_mixture_of_types_and_strides(data, x_dtype, y_dtype, dtype, scalar):
    shape = tuple(data.draw(st.lists(st.integers(1, 21), min_size=1, max_size=3)))
    dense = tuple(np.cumprod((*shape[1:], 1)[::-1])[::-1].tolist())
    broadcast = tuple(s * data.draw(st.booleans()) for s in dense)
    chain, numbers = numbers_apart(chain_to(dtype), dtype)
    spec = TypedElementwise(shape, dense, (dense, broadcast), chain, (x_dtype, y_dtype, dtype))
    rng = np.random.default_rng(len(shape))
    axes = [tuple(zip(shape, strides, strict=True)) for strides in (dense, broadcast)]
    x, y = (
        made_of(rng, each, span(where))
        for each, where in zip((x_dtype, y_dtype), axes, strict=True)
    )
    expected = computed(view(x, axes[0]), view(y, axes[1]), dtype)
    function = spec.assemble("kernel")
    out = run_kernel(
        scalarise(function) if scalar else function, [numbers, x, y], expected.nbytes, dtype
    )
    np.testing.assert_array_equal(out.reshape(shape), expected)


@pytest.mark.parametrize("length", range(1, 40))
def test_rows_of_all_lengths(length):
    """Bytes are stored sixteen at a time, and the rest in pieces."""
    chain, numbers = numbers_apart(chain_to("uint8"), "uint8")
    spec = TypedElementwise(
        (3, length), (length, 1), ((length, 1), (0, 1)), chain, ("int8", "uint8", "uint8")
    )
    rng = np.random.default_rng(length)
    x, y = made_of(rng, "int8", 3 * length), made_of(rng, "uint8", length)
    out = run_kernel(spec, [numbers, x, y], 3 * length, np.uint8)
    expected = computed(x.reshape(3, length), y, "uint8")
    np.testing.assert_array_equal(out.reshape(3, length), expected)


def test_quantising_rounds_half_to_even_and_saturates():
    values = np.array([-1e30, -129, -2.5, -1.5, -0.5, 0.5, 1.5, 2.5, 127.5, 3e38, np.inf, -np.inf])
    x = values.astype(np.float32)
    for dtype, zero in (("int8", 0), ("int8", 1), ("uint8", 0), ("uint8", 128)):
        step = quantise(dtype, 1.0, zero)
        chain, numbers = numbers_apart(Chain(1, (step,)), dtype)
        spec = TypedElementwise((x.size,), (1,), ((1,),), chain, ("float32", dtype))
        out = run_kernel(spec, [numbers, x], x.size, dtype)
        np.testing.assert_array_equal(out, quantised(x, step, dtype))


def test_what_is_quantised_within_a_chain_is_rounded_there():
    steps = (quantise("int8", 0.5, 7), Step("multiply_number", (1,), (10.0,)))
    chain, numbers = numbers_apart(Chain(1, steps), "float32")
    x = np.linspace(-100, 100, 401, dtype=np.float32)
    spec = TypedElementwise((x.size,), (1,), ((1,),), chain, ("float32", "float32"))
    out = run_kernel(spec, [numbers, x], 4 * x.size)
    np.testing.assert_array_equal(out, quantised(x, steps[0], "int8").astype(np.float32) * 10)


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 9), st.integers(1, 300), shares.COUNTS, shares.SEEDS)
def test_shares_write_what_the_whole_writes(rows, columns, count, seed):
    chain, numbers = numbers_apart(chain_to("int8"), "int8")
    spec = TypedElementwise(
        (rows, columns), (columns, 1), ((columns, 1), (0, 1)), chain, ("uint8", "float32", "int8")
    )
    rng = np.random.default_rng(seed)
    inputs = [numbers, made_of(rng, "uint8", rows * columns), made_of(rng, "float32", columns)]
    shares.check_on(spec, count, inputs, rows * columns, seed)


def test_layers_that_differ_in_numbers_only_share_a_kernel():
    made = [
        numbers_apart(Chain(1, (quantise("int8", scale, zero),)), "int8")
        for scale, zero in ((0.25, 3), (1.75, -60))
    ]
    assert made[0][0] == made[1][0]
    assert made[0][1].tolist() != made[1][1].tolist()
