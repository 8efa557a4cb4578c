"""Chains of element-wise operators, applied to four lanes at a time.

A chain is what gets fused: into a kernel that computes something (its epilogue), or on its own.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from wasmgraph.assembler.function import (
    Expr,
    Function,
    Local,
    binary,
    f32x4,
    ternary,
    unary,
)
from wasmgraph.kernels import vector_math


@dataclass(frozen=True)
class Step:
    """One operator of a chain.

    Attributes:
        op: A key of `OPERATORS`.
        args: What it reads: values 0 to n-1 are the chain's operands, the next ones its steps.
        numbers: Compile-time numbers, e.g. the bounds of a clip.
    """

    op: str
    args: tuple[int, ...]
    numbers: tuple[float, ...] = ()


@dataclass(frozen=True)
class Chain:
    """Steps over `operands` inputs; the last step is the result (operand 0 if there is none).

    In an epilogue operand 0 is the value that the kernel computed.
    """

    operands: int
    steps: tuple[Step, ...] = ()

    @property
    def is_costly(self) -> bool:
        """Whether it has so many instructions that a kernel should not repeat it per register."""
        return any(step.op in COSTLY for step in self.steps)


IDENTITY = Chain(1)

Emit = Callable[[Function, Sequence[Expr], Sequence[float]], Expr]


def _two(name: str) -> Emit:
    return lambda _, args, __: binary(name, args[0], args[1])


def _one(name: str) -> Emit:
    return lambda _, args, __: unary(name, args[0])


def _leaky_relu(_: Function, args: Sequence[Expr], numbers: Sequence[float]) -> Expr:
    (x,), (alpha,) = args, numbers
    if 0.0 < alpha <= 1.0:
        # NaN in the second operand of pmax would be lost; x is the first.
        return binary("f32x4.pmax", x, x * f32x4(alpha))
    negative = binary("f32x4.lt", x, f32x4(0.0))
    return ternary("v128.bitselect", x * f32x4(alpha), x, negative)


def _prelu(_: Function, args: Sequence[Expr], __: Sequence[float]) -> Expr:
    x, slope = args
    return ternary("v128.bitselect", x * slope, x, binary("f32x4.lt", x, f32x4(0.0)))


def _clip(_: Function, args: Sequence[Expr], numbers: Sequence[float]) -> Expr:
    return vector_math.clamp(args[0], numbers[0], numbers[1])


def clamped(args: Sequence[Expr]) -> Expr:
    """What is rounded when quantising: value / scale, from `low` to `high` (NaN is `low`).

    Args:
        args: The value, something, `low` and `high`, and the scale unless it is 1.
    """
    value, _, low, high, *scale = args
    if scale:
        value = binary("f32x4.div", value, scale[0])
    # pmax and pmin return the first operand where the second is NaN.
    return binary("f32x4.pmin", high, binary("f32x4.pmax", low, value))


def _quantise(_: Function, args: Sequence[Expr], numbers: Sequence[float]) -> Expr:
    """By numbers, or by operands: zero point, bounds without it, scale."""
    scale, *others = numbers or (1.0,)
    args = [*args, *map(f32x4, others), *([f32x4(scale)] if scale != 1.0 else [])]
    return binary("f32x4.add", unary("f32x4.nearest", clamped(args)), args[1])


def _number(name: str) -> Emit:
    return lambda _, args, numbers: binary(name, args[0], f32x4(numbers[0]))


def _reversed_number(name: str) -> Emit:
    return lambda _, args, numbers: binary(name, f32x4(numbers[0]), args[0])


OPERATORS: dict[str, Emit] = {
    "add": _two("f32x4.add"),
    "subtract": _two("f32x4.sub"),
    "multiply": _two("f32x4.mul"),
    "divide": _two("f32x4.div"),
    "maximum": _two("f32x4.max"),
    "minimum": _two("f32x4.min"),
    "add_number": _number("f32x4.add"),
    "subtract_number": _number("f32x4.sub"),
    "multiply_number": _number("f32x4.mul"),
    "divide_number": _number("f32x4.div"),
    # The computed operand comes first: pmax and pmin return it where it is NaN.
    "maximum_number": _number("f32x4.pmax"),
    "minimum_number": _number("f32x4.pmin"),
    "number_minus": _reversed_number("f32x4.sub"),
    "number_over": _reversed_number("f32x4.div"),
    "clip": _clip,
    "negative": _one("f32x4.neg"),
    "abs": _one("f32x4.abs"),
    "sqrt": _one("f32x4.sqrt"),
    "floor": _one("f32x4.floor"),
    "ceil": _one("f32x4.ceil"),
    "round": _one("f32x4.nearest"),
    "quantise": _quantise,
    "rsqrt": lambda _, args, __: binary("f32x4.div", f32x4(1.0), unary("f32x4.sqrt", args[0])),
    "square": lambda _, args, __: binary("f32x4.mul", args[0], args[0]),
    "relu": lambda _, args, __: binary("f32x4.pmax", args[0], f32x4(0.0)),
    "leaky_relu": _leaky_relu,
    "prelu": _prelu,
    "exp": lambda f, args, _: vector_math.exp(f, args[0]),
    "log": lambda f, args, _: vector_math.log(f, args[0]),
    "sigmoid": lambda f, args, _: vector_math.sigmoid(f, args[0]),
    "tanh": lambda f, args, _: vector_math.tanh(f, args[0]),
    "erf": lambda f, args, _: vector_math.erf(f, args[0]),
}

COSTLY = frozenset(["exp", "log", "sigmoid", "tanh", "erf"])

# These name their operand more than once, so it must be in a local.
_REPEATS = frozenset(["leaky_relu", "prelu", "square"])


def emit_chain(f: Function, chain: Chain, operands: Sequence[Expr]) -> tuple[Expr, list[Local]]:
    """The value of a chain.

    Args:
        operands: Pushed once each if used once, else kept in a local here.

    Returns:
        The result, and the locals to release once it was used.
    """
    uses = [0] * (chain.operands + len(chain.steps))
    for step in chain.steps:
        for argument in step.args:
            uses[argument] += 2 if step.op in _REPEATS else 1
    taken: list[Local] = []

    def keep(value: Expr, count: int) -> Expr:
        if count < 2 or isinstance(value, Local):
            return value
        taken.append(f.new(value))
        return taken[-1]

    values = [keep(value, count) for value, count in zip(operands, uses, strict=False)]
    for index, step in enumerate(chain.steps):
        value = OPERATORS[step.op](f, [values[a] for a in step.args], step.numbers)
        if isinstance(value, Local):
            taken.append(value)
        values.append(keep(value, uses[chain.operands + index]))
    return values[-1] if chain.steps else values[0], taken
