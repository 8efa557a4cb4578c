"""Tables in the place of functions of one byte, and the values that they hold."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.kernels import shares
from tests.kernels.runner import run_kernel
from wasmgraph.assembler.scalar import scalarise
from wasmgraph.kernels.chain import OPERATORS, Chain, Step
from wasmgraph.kernels.chain_values import chain_values
from wasmgraph.kernels.elementwise import Elementwise
from wasmgraph.kernels.lookup import Lookup

NUMBERS = {"clip": (-1.5, 2.0), "quantise": (0.25, 3.0, -20.0, 17.0)}
POSITIVE = frozenset(["log", "sqrt", "rsqrt"])


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.integers(1, 20), min_size=1, max_size=3),
    st.sampled_from([np.uint8, np.float32]),
    st.booleans(),
    st.booleans(),
)
def test_every_byte_finds_its_value(shape, dtype, is_turned, scalar):
    rng = np.random.default_rng(sum(shape))
    table = rng.integers(0, 256, 256).astype(dtype)
    x = rng.integers(0, 256, shape).astype(np.uint8)
    stored = np.ascontiguousarray(x.T) if is_turned else x
    source = stored.T.strides if is_turned else stored.strides
    out = tuple(s // x.itemsize for s in x.strides)
    function = Lookup(tuple(shape), source, out, table.itemsize).assemble("kernel")
    found = run_kernel(
        scalarise(function) if scalar else function,
        [table, stored],
        x.size * table.itemsize,
        dtype,
    )
    np.testing.assert_array_equal(found.reshape(shape), table[x])


@settings(max_examples=15, deadline=None)
@given(st.integers(1, 400), shares.COUNTS, shares.SEEDS)
def test_shares_write_what_the_whole_writes(length, count, seed):
    rng = np.random.default_rng(seed)
    inputs = [rng.integers(0, 256, n).astype(np.uint8) for n in (256, length)]
    shares.check_on(Lookup((length,), (1,), (1,), 1), count, inputs, length, seed)


@pytest.mark.parametrize("op", OPERATORS)
def test_values_are_those_of_the_kernels(op):
    """To 4e-6 relative: what the kernels' polynomials are good for, and a rounding or two."""
    x, y = (np.random.default_rng(seed).standard_normal(64).astype(np.float32) for seed in (0, 1))
    if op in POSITIVE:
        x = np.abs(x) + np.float32(0.1)
    takes_two = op in ("add", "subtract", "multiply", "divide", "maximum", "minimum", "prelu")
    takes_number = op.endswith("_number") or op.startswith("number_") or op == "leaky_relu"
    numbers = NUMBERS.get(op, (0.75,) if takes_number else ())
    operands = [x, y] if takes_two else [x]
    chain = Chain(len(operands), (Step(op, tuple(range(len(operands))), numbers),))
    expected = chain_values(chain, operands)
    if expected is None:
        pytest.skip(f"{op} is never in a table")
    spec = Elementwise((64,), (1,), ((1,),) * len(operands), chain)
    np.testing.assert_allclose(run_kernel(spec, operands, 256), expected, rtol=4e-6, atol=1e-6)
