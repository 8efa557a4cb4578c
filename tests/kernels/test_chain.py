"""Chains of element-wise operators against numpy, run through the element-wise kernel."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from tests.kernels.runner import run_kernel
from tests.kernels.test_vector_math import REFERENCES, ULP, errors
from wasmgraph.kernels.chain import OPERATORS, Chain, Step
from wasmgraph.kernels.elementwise import Elementwise

Floats = NDArray[np.float32]
F = np.float32

# What is one operation, or several that round alike in numpy, is compared bit by bit.
ONE: dict[str, Callable[[Floats], Floats]] = {
    "negative": np.negative,
    "abs": np.abs,
    "sqrt": np.sqrt,
    "floor": np.floor,
    "ceil": np.ceil,
    "round": np.rint,
    "rsqrt": lambda x: F(1) / np.sqrt(x),
    "square": np.square,
    "relu": lambda x: np.maximum(x, F(0)),
}
TWO: dict[str, Callable[[Floats, Floats], Floats]] = {
    "add": np.add,
    "subtract": np.subtract,
    "multiply": np.multiply,
    "divide": np.divide,
    "maximum": np.maximum,
    "minimum": np.minimum,
    "prelu": lambda x, slope: np.where(x < 0, x * slope, x),
}
NUMBER: dict[str, Callable[[Floats, Any], Floats]] = {
    "add_number": np.add,
    "subtract_number": np.subtract,
    "multiply_number": np.multiply,
    "divide_number": np.divide,
    "maximum_number": np.maximum,
    "minimum_number": np.minimum,
    "number_minus": lambda x, n: n - x,
    "number_over": lambda x, n: n / x,
    "leaky_relu": lambda x, n: np.where(x < 0, x * n, x),
}

SPECIAL = np.array(
    [
        0.0,
        -0.0,
        1.0,
        -1.0,
        0.5,
        1.5,
        2.5,
        -0.5,
        1e-40,
        -1e-40,
        3e38,
        -3e38,
        np.inf,
        -np.inf,
        np.nan,
    ],
    np.float32,
)

floats = st.floats(width=32, allow_nan=True, allow_infinity=True)
numbers = st.floats(-100, 100, width=32)

# These tell zeros apart, whose signs numpy leaves open in `maximum` and `minimum`.
TELL_ZEROS_APART = {"divide", "number_over", "rsqrt", "divide_number"}


def run(chain: Chain, *operands: Floats) -> Floats:
    (size,) = operands[0].shape
    spec = Elementwise((size,), (1,), ((1,),) * len(operands), chain)
    return run_kernel(spec, operands, 4 * size)


def chain_of(op: str, operands: int, *numbers: float) -> Chain:
    return Chain(operands, (Step(op, tuple(range(operands)), numbers),))


def everything() -> tuple[Floats, Floats]:
    """Every pair of special values, and random ones."""
    a, b = (part.reshape(-1) for part in np.meshgrid(SPECIAL, SPECIAL))
    drawn = np.random.default_rng(0).standard_normal((2, 400)).astype(np.float32) * 10
    return np.concatenate([a, drawn[0]]), np.concatenate([b, drawn[1]])


def same(got: Floats, want: Floats) -> None:
    # Signs of zeros are compared as well, but not those of NaN.
    np.testing.assert_array_equal(got, want)
    numbers = ~np.isnan(want)
    np.testing.assert_array_equal(np.signbit(got[numbers]), np.signbit(want[numbers]))


def test_every_operator_is_tested_here_or_with_vector_math() -> None:
    assert set(OPERATORS) == {*ONE, *TWO, *NUMBER, *REFERENCES, "clip", "quantise"}


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@pytest.mark.parametrize("op", ONE)
def test_operators_with_one_operand_equal_numpy(op: str) -> None:
    x, _ = everything()
    want = ONE[op](x).astype(np.float32)
    got = run(chain_of(op, 1), x)
    if op == "relu":
        got, want = got + F(0), want + F(0)  # -0 may stay -0
    same(got, want)


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@pytest.mark.parametrize("op", TWO)
def test_operators_with_two_operands_equal_numpy(op: str) -> None:
    a, b = everything()
    want = TWO[op](a, b).astype(np.float32)
    got = run(chain_of(op, 2), a, b)
    if op in ("maximum", "minimum"):
        got, want = got + F(0), want + F(0)  # numpy leaves open which zero it takes
    same(got, want)


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@pytest.mark.parametrize("op", NUMBER)
@pytest.mark.parametrize("number", [-2.5, 0.0, 0.1, 1.0, 6.0])
def test_operators_with_a_number_equal_numpy(op: str, number: float) -> None:
    x, _ = everything()
    want = NUMBER[op](x, F(number)).astype(np.float32)
    got = run(chain_of(op, 1, number), x)
    if op in ("maximum_number", "minimum_number"):
        got, want = got + F(0), want + F(0)  # as above
    same(got, want)


@pytest.mark.parametrize(("low", "high"), [(0.0, 6.0), (-1.5, 1.5), (-np.inf, 2.0), (3.0, np.inf)])
def test_clip_equals_numpy_and_keeps_nan(low: float, high: float) -> None:
    x, _ = everything()
    got = run(Chain(1, (Step("clip", (0,), (low, high)),)), x)
    np.testing.assert_array_equal(got, np.clip(x, F(low), F(high)))


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@pytest.mark.parametrize("scale", [1.0, 0.25])
def test_quantise_rounds_to_even_and_saturates_and_takes_nan_for_the_lowest(scale: float) -> None:
    x, _ = everything()
    zero, low, high = 3.0, -3.0, 252.0
    got = run(Chain(1, (Step("quantise", (0,), (scale, zero, low, high)),)), x)
    want = np.rint(np.clip(x / F(scale), F(low), F(high))) + F(zero)
    np.testing.assert_array_equal(got, np.where(np.isnan(x), F(low + zero), want))


@pytest.mark.parametrize("op", sorted(set(OPERATORS) - {"quantise"}))
def test_nan_in_any_operand_is_nan_in_the_result(op: str) -> None:
    operands = 2 if op in TWO else 1
    count = {"clip": 2, **dict.fromkeys(NUMBER, 1)}.get(op, 0)
    for place in range(operands):
        inputs = [np.full(5, -0.5, np.float32) for _ in range(operands)]
        inputs[place][2] = np.nan
        got = run(
            Chain(operands, (Step(op, tuple(range(operands)), (0.25, 2.0)[:count]),)), *inputs
        )
        assert np.isnan(got[2]), place


@pytest.mark.parametrize("op", REFERENCES)
def test_functions_of_vector_math_are_reached(op: str) -> None:
    x = np.linspace(0.01, 5, 77, dtype=np.float32)
    assert errors(op, x, run(chain_of(op, 1), x)).max() <= ULP[op]


@st.composite
def chains(draw: st.DrawFn) -> Chain:
    """Chains whose result numpy repeats bit by bit, and whose steps read any earlier value."""
    operands = draw(st.integers(1, 3))
    steps = []
    for index in range(draw(st.integers(0, 8))):
        earlier = st.integers(0, operands + index - 1)
        group = draw(st.sampled_from([ONE, TWO, NUMBER]))
        op = draw(st.sampled_from(sorted(set(group) - TELL_ZEROS_APART)))
        args = tuple(draw(earlier) for _ in range(2 if group is TWO else 1))
        steps.append(Step(op, args, (draw(numbers),) if group is NUMBER else ()))
    return Chain(operands, tuple(steps))


@settings(max_examples=60, deadline=None)
@given(chains(), st.data())
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_any_chain_equals_numpy_step_by_step(chain: Chain, data: st.DataObject) -> None:
    rows = st.lists(floats, min_size=7, max_size=7)
    inputs = [np.array(data.draw(rows), np.float32) for _ in range(chain.operands)]
    values = list(inputs)
    for step in chain.steps:
        args = [values[a] for a in step.args]
        if step.op in NUMBER:
            values.append(NUMBER[step.op](args[0], F(step.numbers[0])).astype(np.float32))
        else:
            values.append({**ONE, **TWO}[step.op](*args).astype(np.float32))
    want = values[-1] if chain.steps else values[0]
    np.testing.assert_array_equal(np.abs(run(chain, *inputs)), np.abs(want))


def test_costly_chains_are_known() -> None:
    assert chain_of("sigmoid", 1).is_costly
    assert not Chain(2, (Step("add", (0, 1)), Step("relu", (2,)))).is_costly
