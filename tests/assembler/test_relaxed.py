"""Relaxed SIMD: a multiplication and the addition that follows it become one instruction."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.kernels.runner import run_kernel
from wasmgraph.assembler import opcodes as op
from wasmgraph.assembler.function import (
    Expr,
    Function,
    extract,
    f32,
    f32x4,
    load,
    relaxed_simd,
    splat,
    unsigned,
)
from wasmgraph.kernels.chain import Chain, Step
from wasmgraph.kernels.contraction import Contraction
from wasmgraph.kernels.elementwise import Elementwise
from wasmgraph.kernels.packing import pack_columns
from wasmgraph.kernels.tiles import FUSED
from wasmgraph.kernels.winograd import Winograd

Array = NDArray[np.float32]

MADD, NMADD, MUL = (
    bytes([op.SIMD]) + unsigned(op.VECTOR[name])
    for name in ("f32x4.relaxed_madd", "f32x4.relaxed_nmadd", "f32x4.mul")
)


def value_of(make: Callable[[Expr, Expr, Expr], Expr]) -> tuple[bytes, list[float]]:
    """The instructions of an expression of three vectors, and what it gives for 2, 3 and 10."""
    f = Function("kernel", 4)
    a, b, c = (f.new(load(p)) for p in f.params[:3])
    f.store(f.params[3], make(a, b, c))
    inputs = [np.full(4, x, np.float32) for x in (2, 3, 10)]
    return f.instructions, run_kernel(f, inputs, 16).tolist()


@pytest.mark.parametrize(
    ("make", "opcode", "expected"),
    [
        (lambda a, b, c: c + a * b, MADD, 16),
        (lambda a, b, c: a * b + c, MADD, 16),
        (lambda a, b, c: c - a * b, NMADD, 4),
        (lambda a, b, c: c + a * b - c * b, MADD, -14),
    ],
)
def test_a_product_and_a_sum_become_one_instruction(make, opcode, expected):
    with relaxed_simd():
        code, result = value_of(make)
    assert code.count(opcode) == 1
    assert result == [expected] * 4


def test_a_sum_of_two_products_has_one_of_them_fused():
    with relaxed_simd():
        code, result = value_of(lambda a, b, c: a * b + a * c)
    assert (code.count(MADD), code.count(MUL)) == (1, 1)
    assert result == [26] * 4


def test_a_product_less_something_has_no_such_instruction():
    with relaxed_simd():
        code, result = value_of(lambda a, b, c: a * b - c)
    assert MADD not in code
    assert NMADD not in code
    assert result == [-4] * 4


def test_scalars_are_not_fused():
    with relaxed_simd():
        code, result = value_of(lambda a, b, c: splat(extract(a, 0) * extract(b, 0) + f32(1.0)))
    assert MADD not in code
    assert result == [7] * 4


def test_nothing_is_fused_outside():
    with pytest.raises(KeyError), relaxed_simd():
        raise KeyError
    code, result = value_of(lambda a, b, c: c + a * b - c * f32x4(0.5))
    assert MADD not in code
    assert NMADD not in code
    assert result == [11] * 4


def test_a_matrix_product_agrees_within_the_rounding_of_its_sums():
    rng = np.random.default_rng(0)
    a = rng.standard_normal((13, 40)).astype(np.float32)
    b = rng.standard_normal((40, 22)).astype(np.float32)
    spec = Contraction((), ((13, 40),), 22, ((40, 1),), 22, tiles=FUSED)
    with relaxed_simd():
        f = spec.assemble("kernel")
    assert MADD in f.instructions
    assert MADD not in spec.assemble("kernel").instructions
    out = run_kernel(f, [a, pack_columns(b, FUSED)], 4 * 13 * 22).reshape(13, 22)
    exact = a.astype(np.float64) @ b
    # As without fusion: at most one rounding per product and one per addition.
    assert (abs(out - exact) <= 44 * 2.0**-24 * (abs(a) @ abs(b))).all()


@pytest.mark.parametrize(
    "kernel", [Contraction((), ((13, 40),), 22, ((40, 1),), 22), Winograd(1, 8, 8, 8, 8)]
)
def test_kernels_with_shapes_for_separate_instructions_keep_them(kernel):
    with relaxed_simd():
        relaxed = kernel.assemble("kernel").instructions
    assert relaxed == kernel.assemble("kernel").instructions


FUNCTIONS: dict[str, tuple[Callable[[NDArray[np.float64]], NDArray[np.float64]], float, float]] = {
    "exp": (np.exp, -87, 88),
    "log": (np.log, 1e-30, 40),
    "sigmoid": (lambda x: 1 / (1 + np.exp(-x)), -80, 80),
    "tanh": (np.tanh, -10, 10),
    "erf": (np.vectorize(math.erf), -4, 4),
}


def worst_ulps(f: Function, x: Array, exact: NDArray[np.float64]) -> float:
    """The largest error of a kernel of one operand, in units in the last place."""
    result = run_kernel(f, [x], x.nbytes).astype(np.float64)
    ulp = np.spacing(np.maximum(abs(exact), 1e-37).astype(np.float32)).astype(np.float64)
    return float((abs(result - exact) / ulp).max())


@pytest.mark.parametrize("name", FUNCTIONS)
def test_transcendental_functions_lose_no_accuracy(name):
    """Fusing rounds less often; what it changes stays within half a unit in the last place."""
    exact, low, high = FUNCTIONS[name]
    uniform = np.linspace(low, high, 20000)
    small = np.geomspace(1e-6, 1, 20000)
    x = np.concatenate([uniform, small, -small if low < 0 else small]).astype(np.float32)
    spec = Elementwise((x.size,), (1,), ((1,),), Chain(1, (Step(name, (0,)),)))
    with relaxed_simd():
        relaxed = spec.assemble("kernel")
    assert MADD in relaxed.instructions
    expected = exact(x.astype(np.float64))
    plain = worst_ulps(spec.assemble("kernel"), x, expected)
    assert worst_ulps(relaxed, x, expected) <= plain + 0.5


@pytest.mark.parametrize("name", FUNCTIONS)
def test_transcendental_functions_keep_their_limits(name):
    x = np.array([0, np.inf, -np.inf, np.nan, 1e-40, -1.0, 1.0, 3e38], np.float32)
    spec = Elementwise((8,), (1,), ((1,),), Chain(1, (Step(name, (0,)),)))
    with relaxed_simd():
        relaxed = spec.assemble("kernel")
    plain = run_kernel(spec, [x], 32)
    np.testing.assert_allclose(run_kernel(relaxed, [x], 32), plain, rtol=3e-7, atol=0)
