"""exp, tanh, erf, log and sigmoid of four float32 lanes, as polynomials.

Errors are in units in the last place of the result, against float64: the largest over every float32
for exp, over every seventh for the others, rounded up (2026-11-20; the test searches a part, and
`python -m tests.kernels.test_vector_math` all 2**32). NaN stays NaN.

Sources: Cephes (S. Moshier, netlib, expf and logf in single precision), XNNPACK (its polynomial of
degree 5 for e**x) and Eigen (its rational approximation of erf).
"""

from __future__ import annotations

from collections.abc import Sequence

from wasmgraph.assembler.function import (
    V128,
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

_EXP = tuple(
    float.fromhex(c)
    for c in ("0x1.0F9F9Cp-7", "0x1.573A1Ap-5", "0x1.555A80p-3", "0x1.FFFDC6p-2", "0x1.FFFFF6p-1")
)
_EXP_MINUS_ONE = (
    1.9875691500e-4,
    1.3981999507e-3,
    8.3334519073e-3,
    4.1665795894e-2,
    1.6666665459e-1,
    0.5,
)
_LOG2_E = 1.44269504088896341
_ROUND = 12582912.0
_LN2_HIGH, _LN2_LOW = 0.693359375, -2.12194440e-4
_EXP_OVERFLOW, _EXP_UNDERFLOW, _EXP_SMALLEST_NORMAL = 89.0, -104.0, -87.3

_TANH_SATURATION = 9.02
"""From here on tanh rounds to 1."""

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
_ERF_SATURATION = 3.832506856900711
"""From here on erf rounds to 1."""

_LOG = (
    -9.257275451091118e-06,
    0.00011765068484237418,
    -0.0006328719900920987,
    0.001667095348238945,
    -0.00016046852397266775,
    -0.019153021275997162,
    0.10277781635522842,
    0.6366193890571594,
    1.128379225730896,
)
"""-log(1 - erf(x)) / x on [0, 3.95], a polynomial fitted so that erf's relative error is least."""
_ERF_SATURATION = 3.93
"""From here on erf rounds to 1."""

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


def _polynomial(x: Expr, square: Expr, coefficients: Sequence[float]) -> Expr:
    """By Horner's rule in the square of x: half as long a chain of dependent instructions."""
    first, *rest = coefficients
    if len(coefficients) % 2 == 0:
        second, *rest = rest
        total = x * f32x4(first) + f32x4(second)
    else:
        total = f32x4(first)
    for odd, even in zip(rest[:-2:2], rest[1:-2:2], strict=True):
        total = total * square + (x * f32x4(odd) + f32x4(even))
    # The largest coefficient comes last, so that its sum is rounded once.
    return total * square + x * f32x4(rest[-2]) + f32x4(rest[-1])


def clamp(x: Expr, low: float, high: float) -> Expr:
    """x within [low, high]; NaN stays NaN. `pmin` and `pmax` are one instruction each on x86."""
    return binary("f32x4.pmin", binary("f32x4.pmax", x, f32x4(low)), f32x4(high))


def exp(f: Function, x: Expr) -> Local:
    """e**x, with overflow to infinity and gradual underflow; at most 2.3 ULP off."""
    with f.scratch(V128, 4) as (value, bits, half, square):
        f.set(value, clamp(x, _EXP_UNDERFLOW, _EXP_OVERFLOW))
        _reduce(f, value, bits)
        f.set(square, value * value)
        f.set(value, _polynomial(value, square, (*_EXP, 1.0)))
        # 2**n in two halves: n runs from -150 to 129, beyond one exponent field.
        f.set(bits, binary("i32x4.sub", bits, f32x4(_ROUND)))
        f.set(half, binary("i32x4.shr_s", bits, i32(1)))
        f.set(value, value * _power_of_two(half))
        return f.new(value * _power_of_two(binary("i32x4.sub", bits, half)))


def exp_nonpositive(f: Function, x: Expr) -> Local:
    """e**x for x <= 0 (and NaN), as exact as `exp` but 0 below e**-87.3. Quicker than `exp`."""
    with f.scratch(V128, 4) as (value, bits, square, power):
        f.set(value, x)
        f.set(power, binary("f32x4.pmax", value, f32x4(_EXP_SMALLEST_NORMAL)))
        _exp_within(f, power, bits, square)
        vanishes = binary("f32x4.lt", value, f32x4(_EXP_SMALLEST_NORMAL))
        return f.new(binary("v128.andnot", power, vanishes))


def _exp_within(f: Function, x: Local, bits: Local, square: Local) -> None:
    """x becomes e**x; for x from -87.3 to 89 (and NaN), with infinity from 88.4 on."""
    _reduce(f, x, bits)
    f.set(square, x * x)
    f.set(x, _polynomial(x, square, (*_EXP, 1.0)))
    f.set(x, x * _power_of_two(bits))


def _reduce(f: Function, x: Local, bits: Local) -> None:
    """x becomes x - n ln 2 with the nearest n; the low bits of `bits` are n.

    Adding 1.5 * 2**23 rounds to an integer and leaves it in the low bits of the sum: two
    instructions where a conversion is nine on x86.
    """
    with f.scratch(V128, 1) as (n,):
        f.set(bits, x * f32x4(_LOG2_E) + f32x4(_ROUND))
        f.set(n, bits - f32x4(_ROUND))
        f.set(x, (x - n * f32x4(_LN2_HIGH)) - n * f32x4(_LN2_LOW))


def _power_of_two(n: Expr) -> Expr:
    """2**n, from the low nine bits of integer lanes from -126 to 127; infinity for 128."""
    return binary("i32x4.add", binary("i32x4.shl", n, i32(23)), f32x4(1.0))


def sigmoid(f: Function, x: Expr) -> Local:
    """1 / (1 + e**-x), at most 3.6 ULP off; 0 below x = -88.37, where that is subnormal."""
    with f.scratch(V128, 3) as (power, bits, square):
        f.set(power, clamp(unary("f32x4.neg", x), _EXP_SMALLEST_NORMAL, _EXP_OVERFLOW))
        _exp_within(f, power, bits, square)
        return f.new(binary("f32x4.div", f32x4(1.0), power + f32x4(1.0)))


def _exp_minus_one(f: Function, x: Local) -> None:
    """x becomes e**x - 1; for -87 < x <= 0 (and NaN)."""
    with f.scratch(V128, 2) as (bits, square):
        _reduce(f, x, bits)
        f.set(square, x * x)
        f.set(x, _polynomial(x, square, _EXP_MINUS_ONE) * square + x)
        f.set(bits, _power_of_two(bits))
        f.set(x, bits * x + (bits - f32x4(1.0)))


def _with_sign(magnitude: Expr, sign: Expr) -> Expr:
    """A negative magnitude (or -0) gets the sign bit of `sign` for its own."""
    bit = binary("v128.and", sign, i32x4(0x80000000))
    return binary("v128.or", unary("f32x4.abs", magnitude), bit)


def tanh(f: Function, x: Expr) -> Local:
    """The hyperbolic tangent, (1 - p) / (1 + p) with p = e**(-2|x|); at most 2.6 ULP off."""
    with f.scratch(V128, 2) as (value, r):
        f.set(value, x)
        magnitude = binary("f32x4.pmin", unary("f32x4.abs", value), f32x4(_TANH_SATURATION))
        f.set(r, magnitude * f32x4(-2.0))
        _exp_minus_one(f, r)
        f.set(r, binary("f32x4.div", r, r + f32x4(2.0)))
        return f.new(_with_sign(r, value))


def erf(f: Function, x: Expr) -> Local:
    """The error function, as an odd polynomial over an even one; at most 6.5 ULP off.

    The roundings of the two polynomials add up to 3.8e-7 of the result for |x| > 1.3. 1 - e**-p
    with a polynomial p of |x| is exact to 3 ULP, but takes 2.6 times as long.
    """
    with f.scratch(V128, 3) as (value, square, fourth):
        f.set(value, clamp(x, -_ERF_SATURATION, _ERF_SATURATION))
        f.set(square, value * value)
        f.set(fourth, square * square)
        odd = value * _polynomial(square, fourth, _ERF_ODD)
        ratio = binary("f32x4.div", odd, _polynomial(square, fourth, _ERF_EVEN))
        return f.new(clamp(ratio, -1.0, 1.0))


def log(f: Function, x: Expr) -> Local:
    """The natural logarithm, at most 0.9 ULP off; -inf at 0, NaN below, infinity at infinity."""
    with f.scratch(V128, 5) as (value, exponent, mantissa, square, small):
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
        f.set(small, _polynomial(mantissa, square, _LOG) * mantissa * square)
        f.set(small, small + exponent * f32x4(_LN2_LOW) - square * f32x4(0.5))
        f.set(small, mantissa + small + exponent * f32x4(_LN2_HIGH))
        infinity, minus_infinity = f32x4(float("inf")), f32x4(float("-inf"))
        is_infinite = binary("f32x4.eq", value, infinity)
        f.set(small, ternary("v128.bitselect", infinity, small, is_infinite))
        is_zero = binary("f32x4.eq", value, f32x4(0.0))
        f.set(small, ternary("v128.bitselect", minus_infinity, small, is_zero))
        valid = binary("f32x4.ge", value, f32x4(0.0))
        return f.new(ternary("v128.bitselect", small, f32x4(float("nan")), valid))
