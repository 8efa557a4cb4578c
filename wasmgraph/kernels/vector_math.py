"""exp, tanh, erf, log and sigmoid of four float32 lanes, as polynomials.

Errors are the largest found over every float32 of the stated range, in units in the last place;
`tests/kernels/test_vector_math.py` repeats the search. Constants: Cephes (S. Moshier, netlib, single
precision: expf, logf) and the rational approximations of Eigen (ptanh, perf).
"""

from __future__ import annotations

from collections.abc import Sequence

from wasmgraph.assembler.function import (
    Expr,
    Function,
    Local,
    binary,
    f32x4,
    i32,
    i32x4,
    ternary,
    unary,
)

_EXP = (1.9875691500e-4, 1.3981999507e-3, 8.3334519073e-3, 4.1665795894e-2, 1.6666665459e-1, 0.5)
_LOG2_E = 1.44269504088896341
_LN2_HIGH, _LN2_LOW = 0.693359375, -2.12194440e-4
_EXP_OVERFLOW, _EXP_UNDERFLOW, _EXP_SMALLEST_NORMAL = 89.0, -104.0, -87.3

_TANH_ODD = (1.394553628e-8, 2.102733560e-5, 3.520756727e-3, 1.340216100e-1, 1.0)
_TANH_EVEN = (8.015776984e-7, 3.326951409e-4, 2.597254514e-2, 4.673548340e-1, 1.0)
_TANH_CLAMP = 8.66743755340576171875

_ERF_ODD = (
    2.2905065861350646e-4,
    3.4082910107109506e-3,
    5.0955695062380861e-2,
    1.8520832239976145e-1,
    1.128379143519084,
)
_ERF_EVEN = (
    -1.1791602954361697e-7,
    2.3547966471313185e-5,
    1.0179625278914885e-3,
    1.4070470171167667e-2,
    1.1098505178285362e-1,
    4.9746925110067538e-1,
    1.0,
)
_ERF_CLAMP = 3.832506856900711

_LOG = (
    7.0376836292e-2,
    -1.1514610310e-1,
    1.1676998740e-1,
    -1.2420140846e-1,
    1.4249322787e-1,
    -1.6668057665e-1,
    2.0000714765e-1,
    -2.4999993993e-1,
    3.3333331174e-1,
)
_SQRT_HALF = 0.707106781186547524


def _horner(x: Expr, coefficients: Sequence[float]) -> Expr:
    total = f32x4(coefficients[0])
    for coefficient in coefficients[1:]:
        total = total * x + f32x4(coefficient)
    return total


def clamp(x: Expr, low: float, high: float) -> Expr:
    """x within [low, high]; NaN stays NaN. `pmin` and `pmax` are one instruction each on x86."""
    return binary("f32x4.pmin", binary("f32x4.pmax", x, f32x4(low)), f32x4(high))


def exp(f: Function, x: Expr) -> Local:
    """e**x, with overflow to infinity and gradual underflow."""
    with f.scratch(x.type, 3) as (clamped, n, r):
        f.set(clamped, clamp(x, _EXP_UNDERFLOW, _EXP_OVERFLOW))
        f.set(n, unary("f32x4.nearest", clamped * f32x4(_LOG2_E)))
        f.set(r, (clamped - n * f32x4(_LN2_HIGH)) - n * f32x4(_LN2_LOW))
        f.set(clamped, _horner(r, _EXP) * (r * r) + r + f32x4(1.0))
        # 2**n in two halves: n runs from -150 to 129, beyond one exponent field.
        f.set(n, unary("i32x4.trunc_sat_f32x4_s", n))
        f.set(r, binary("i32x4.shr_s", n, i32(1)))
        scaled = clamped * _power_of_two(r)
        result = scaled * _power_of_two(binary("i32x4.sub", n, r))
        return f.new(result)


def exp_nonpositive(f: Function, x: Expr) -> Local:
    """e**x for x <= 0 (and NaN); 0 where e**x is subnormal. Quicker than `exp`."""
    with f.scratch(x.type, 4) as (value, n, r, power):
        f.set(value, x)
        f.set(power, binary("f32x4.pmax", value, f32x4(_EXP_SMALLEST_NORMAL)))
        f.set(n, unary("f32x4.nearest", power * f32x4(_LOG2_E)))
        f.set(r, (power - n * f32x4(_LN2_HIGH)) - n * f32x4(_LN2_LOW))
        f.set(power, _horner(r, _EXP) * (r * r) + r + f32x4(1.0))
        f.set(power, power * _power_of_two(unary("i32x4.trunc_sat_f32x4_s", n)))
        vanishes = binary("f32x4.lt", value, f32x4(_EXP_SMALLEST_NORMAL))
        return f.new(binary("v128.andnot", power, vanishes))


def _power_of_two(n: Expr) -> Expr:
    """2**n for integer lanes from -126 to 127."""
    return binary("i32x4.shl", binary("i32x4.add", n, i32x4(127)), i32(23))


def sigmoid(f: Function, x: Expr) -> Local:
    """1 / (1 + e**-x)"""
    power = exp(f, unary("f32x4.neg", x))
    f.set(power, binary("f32x4.div", f32x4(1.0), power + f32x4(1.0)))
    return power


def tanh(f: Function, x: Expr) -> Local:
    """The hyperbolic tangent, as an odd polynomial over an even one; x itself where it is tiny."""
    return _rational(f, x, _TANH_CLAMP, _TANH_ODD, _TANH_EVEN)


def erf(f: Function, x: Expr) -> Local:
    """The error function, as an odd polynomial over an even one."""
    return _rational(f, x, _ERF_CLAMP, _ERF_ODD, _ERF_EVEN)


def _rational(
    f: Function, x: Expr, limit: float, odd: Sequence[float], even: Sequence[float]
) -> Local:
    with f.scratch(x.type, 2) as (clamped, square):
        f.set(clamped, clamp(x, -limit, limit))
        f.set(square, clamped * clamped)
        ratio = binary("f32x4.div", _horner(square, odd) * clamped, _horner(square, even))
        return f.new(ratio)


def log(f: Function, x: Expr) -> Local:
    """The natural logarithm; -inf at 0, NaN below, infinity at infinity."""
    with f.scratch(x.type, 5) as (value, exponent, mantissa, square, small):
        f.set(value, x)
        # Subnormals are scaled into the normal range first.
        f.set(small, binary("f32x4.lt", value, f32x4(1.1754943508222875e-38)))
        f.set(mantissa, ternary("v128.bitselect", value * f32x4(8388608.0), value, small))
        f.set(exponent, binary("i32x4.sub", binary("i32x4.shr_u", mantissa, i32(23)), i32x4(126)))
        f.set(
            exponent,
            unary("f32x4.convert_i32x4_s", exponent) - binary("v128.and", small, f32x4(23.0)),
        )
        bits = binary("v128.and", mantissa, i32x4(0x007FFFFF))
        f.set(mantissa, binary("v128.or", bits, i32x4(0x3F000000)))
        f.set(small, binary("f32x4.lt", mantissa, f32x4(_SQRT_HALF)))
        f.set(exponent, exponent - binary("v128.and", small, f32x4(1.0)))
        f.set(mantissa, mantissa + binary("v128.and", small, mantissa) - f32x4(1.0))
        f.set(square, mantissa * mantissa)
        f.set(small, _horner(mantissa, _LOG) * mantissa * square)
        f.set(small, small + exponent * f32x4(_LN2_LOW) - square * f32x4(0.5))
        f.set(small, mantissa + small + exponent * f32x4(_LN2_HIGH))
        infinity, minus_infinity = f32x4(float("inf")), f32x4(float("-inf"))
        is_infinite = binary("f32x4.eq", value, infinity)
        f.set(small, ternary("v128.bitselect", infinity, small, is_infinite))
        is_zero = binary("f32x4.eq", value, f32x4(0.0))
        f.set(small, ternary("v128.bitselect", minus_infinity, small, is_zero))
        valid = binary("f32x4.ge", value, f32x4(0.0))
        return f.new(ternary("v128.bitselect", small, f32x4(float("nan")), valid))
