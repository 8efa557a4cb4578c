"""The activation functions of ONNX's recurrent operators, on four float32 lanes.

Sigmoid and Tanh are those of `vector_math`, with their errors. Elu and Softplus are exact to 1.2e-7
absolutely: what they add to 1 or take from it is rounded there, so tiny results lose digits. The
others round each operation once. NaN stays NaN.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from wasmgraph.assembler.function import Expr, Function, Local, binary, f32x4, ternary, unary
from wasmgraph.kernels import vector_math


@dataclass(frozen=True)
class Activation:
    """One function with its parameters.

    Attributes:
        name: A key of `ACTIVATIONS`: ONNX's name in lower case.
        alpha, beta: Where it has them, else 0.
    """

    name: str
    alpha: float = 0.0
    beta: float = 0.0


Emit = Callable[[Function, Local, float, float], Expr]
"""From x, alpha and beta to the result; x is not changed, a local result is the caller's."""


def _relu(_: Function, x: Local, __: float, ___: float) -> Expr:
    # NaN in the second operand of pmax would be lost.
    return binary("f32x4.pmax", x, f32x4(0.0))


def _affine(_: Function, x: Local, alpha: float, beta: float) -> Expr:
    return x * f32x4(alpha) + f32x4(beta)


def _leaky_relu(_: Function, x: Local, alpha: float, __: float) -> Expr:
    return _below_zero(x, x * f32x4(alpha))


def _thresholded_relu(_: Function, x: Local, alpha: float, __: float) -> Expr:
    return binary("v128.andnot", x, binary("f32x4.lt", x, f32x4(alpha)))


def _scaled_tanh(f: Function, x: Local, alpha: float, beta: float) -> Expr:
    result = vector_math.tanh(f, x * f32x4(beta))
    f.set(result, result * f32x4(alpha))
    return result


def _hard_sigmoid(_: Function, x: Local, alpha: float, beta: float) -> Expr:
    return vector_math.clamp(x * f32x4(alpha) + f32x4(beta), 0.0, 1.0)


def _elu(f: Function, x: Local, alpha: float, _: float) -> Expr:
    result = vector_math.exp_nonpositive(f, binary("f32x4.pmin", x, f32x4(0.0)))
    f.set(result, _below_zero(x, (result - f32x4(1.0)) * f32x4(alpha)))
    return result


def _softsign(_: Function, x: Local, __: float, ___: float) -> Expr:
    return binary("f32x4.div", x, unary("f32x4.abs", x) + f32x4(1.0))


def _softplus(f: Function, x: Local, _: float, __: float) -> Expr:
    """max(x, 0) + log(1 + e**-|x|), which does not overflow."""
    power = vector_math.exp_nonpositive(f, unary("f32x4.neg", unary("f32x4.abs", x)))
    result = vector_math.log(f, power + f32x4(1.0))
    f.release(power)
    f.set(result, result + binary("f32x4.pmax", x, f32x4(0.0)))
    return result


def _below_zero(x: Local, value: Expr) -> Expr:
    return ternary("v128.bitselect", value, x, binary("f32x4.lt", x, f32x4(0.0)))


ACTIVATIONS: Mapping[str, Emit] = {
    "affine": _affine,
    "elu": _elu,
    "hardsigmoid": _hard_sigmoid,
    "leakyrelu": _leaky_relu,
    "relu": _relu,
    "scaledtanh": _scaled_tanh,
    "sigmoid": lambda f, x, _, __: vector_math.sigmoid(f, x),
    "softplus": _softplus,
    "softsign": _softsign,
    "tanh": lambda f, x, _, __: vector_math.tanh(f, x),
    "thresholdedrelu": _thresholded_relu,
}


def emit_activation(f: Function, activation: Activation, x: Local) -> None:
    """x becomes the function's value."""
    result = ACTIVATIONS[activation.name](f, x, activation.alpha, activation.beta)
    f.set(x, result)
    if isinstance(result, Local):
        f.release(result)
