"""Element-wise operators of the executor as steps of chains (`wasmgraph.kernels.chain`)."""

from __future__ import annotations

import math
import struct
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from wasmgraph.dynamic.view import Array
from wasmgraph.kernels.chain import Chain, Step

MOST_OPERANDS = 8
"""toolchain/executor/src/dynamic/fast/kernels.rs"""

MOST_STEPS = 24

Argument = tuple[str, int]
"""("operand", its number) or ("step", its number)"""


@dataclass
class ChainBuilder:
    """A chain under construction.

    Attributes:
        slots: The operands' slots; None for what the operator before the chain computes.
        least_rank: The result has at least so many axes: constants that became numbers had them.
    """

    slots: list[int | None] = field(default_factory=list)
    steps: list[tuple[str, tuple[Argument, ...], tuple[float, ...]]] = field(default_factory=list)
    least_rank: int = 0

    def copy(self) -> ChainBuilder:
        """Another one, to try something with."""
        return ChainBuilder(list(self.slots), list(self.steps), self.least_rank)

    def operand(self, slot: int | None) -> Argument:
        """A slot as an operand."""
        if slot not in self.slots:
            self.slots.append(slot)
        return ("operand", self.slots.index(slot))

    def add(self, op: str, *args: Argument, numbers: Sequence[float] = ()) -> Argument:
        """Another step; its value."""
        self.steps.append((op, args, tuple(numbers)))
        return ("step", len(self.steps) - 1)

    @property
    def fits(self) -> bool:
        """Whether the executor and the engine take it."""
        return len(self.slots) <= MOST_OPERANDS and len(self.steps) <= MOST_STEPS

    def finish(self) -> Chain:
        """The chain; its last step is the result."""
        count = len(self.slots)
        steps = [
            Step(op, tuple(i if kind == "operand" else count + i for kind, i in args), numbers)
            for op, args, numbers in self.steps
        ]
        return Chain(count, tuple(steps))


@dataclass(frozen=True)
class Call:
    """One element-wise node.

    Attributes:
        args: Its operands within the chain; of those that are numbers, None.
        numbers: Its operands that are constants of one element; of others, None.
        words: Its parameters as float32.
    """

    chain: ChainBuilder
    args: tuple[Argument | None, ...]
    numbers: tuple[float | None, ...]
    words: tuple[float, ...]


Emit = Callable[[Call], Argument | None]
"""Appends a node's steps and gives its value; None where the node cannot be in a chain."""

_SWAPPED = {"subtract": "number_minus", "divide": "number_over"}


def _binary(op: str) -> Emit:
    def emit(call: Call) -> Argument | None:
        (a, b), (x, y) = call.args, call.numbers
        if a is not None and b is not None:
            return call.chain.add(op, a, b)
        if a is not None and y is not None:
            return call.chain.add(f"{op}_number", a, numbers=[y])
        if b is not None and x is not None:
            return call.chain.add(_SWAPPED.get(op, f"{op}_number"), b, numbers=[x])
        return None

    return emit


def _unary(op: str) -> Emit:
    return lambda call: None if call.args[0] is None else call.chain.add(op, call.args[0])


def _with(make: Callable[[ChainBuilder, Argument, tuple[float, ...]], Argument]) -> Emit:
    """An operator of one operand made of several steps."""
    return lambda call: None if call.args[0] is None else make(call.chain, call.args[0], call.words)


def _leaky_relu(chain: ChainBuilder, x: Argument, words: tuple[float, ...]) -> Argument:
    return chain.add("leaky_relu", x, numbers=words)


def _hard_sigmoid(chain: ChainBuilder, x: Argument, words: tuple[float, ...]) -> Argument:
    alpha, beta = words
    scaled = chain.add("multiply_number", x, numbers=[alpha])
    return chain.add("clip", chain.add("add_number", scaled, numbers=[beta]), numbers=[0.0, 1.0])


def _hard_swish(chain: ChainBuilder, x: Argument, _: tuple[float, ...]) -> Argument:
    return chain.add("multiply", x, _hard_sigmoid(chain, x, (1 / 6, 0.5)))


def _swish(chain: ChainBuilder, x: Argument, words: tuple[float, ...]) -> Argument:
    scaled = x if words == (1.0,) else chain.add("multiply_number", x, numbers=words)
    return chain.add("multiply", x, chain.add("sigmoid", scaled))


def _half(chain: ChainBuilder, x: Argument, y: Argument) -> Argument:
    """x / 2 * (1 + y)"""
    more = chain.add("add_number", y, numbers=[1.0])
    return chain.add("multiply", chain.add("multiply_number", x, numbers=[0.5]), more)


def _gelu(chain: ChainBuilder, x: Argument, _: tuple[float, ...]) -> Argument:
    scaled = chain.add("multiply_number", x, numbers=[math.sqrt(0.5)])
    return _half(chain, x, chain.add("erf", scaled))


def _gelu_tanh(chain: ChainBuilder, x: Argument, _: tuple[float, ...]) -> Argument:
    square = chain.add("square", x)
    factor = chain.add("multiply_number", square, numbers=[0.044715])
    cubic = chain.add("multiply", x, chain.add("add_number", factor, numbers=[1.0]))
    scaled = chain.add("multiply_number", cubic, numbers=[math.sqrt(2 / math.pi)])
    return _half(chain, x, chain.add("tanh", scaled))


def _pow(call: Call) -> Argument | None:
    x, exponent = call.args[0], call.numbers[1]
    if x is None or exponent not in (2.0, 3.0):
        return None
    square = call.chain.add("square", x)
    return square if exponent == 2.0 else call.chain.add("multiply", square, x)


def _reciprocal(chain: ChainBuilder, x: Argument, _: tuple[float, ...]) -> Argument:
    return chain.add("number_over", x, numbers=[1.0])


_PLAIN = ("abs", "ceil", "erf", "exp", "floor", "log", "relu", "round", "sigmoid", "sqrt", "tanh")

ELEMENTWISE: Mapping[str, Emit] = {
    "wgd_add_f32": _binary("add"),
    "wgd_sub_f32": _binary("subtract"),
    "wgd_mul_f32": _binary("multiply"),
    "wgd_div_f32": _binary("divide"),
    "wgd_max_f32": _binary("maximum"),
    "wgd_min_f32": _binary("minimum"),
    **{f"wgd_{name}_f32": _unary(name) for name in _PLAIN},
    "wgd_neg_f32": _unary("negative"),
    "wgd_leaky_relu_f32": _with(_leaky_relu),
    "wgd_hard_sigmoid_f32": _with(_hard_sigmoid),
    "wgd_hard_swish_f32": _with(_hard_swish),
    "wgd_swish_f32": _with(_swish),
    "wgd_gelu_f32": _with(_gelu),
    "wgd_gelu_tanh_f32": _with(_gelu_tanh),
    "wgd_reciprocal_f32": _with(_reciprocal),
    "wgd_pow_f32": _pow,
}
"""By the executor's symbol."""


def words_as_floats(words: Sequence[int]) -> tuple[float, ...]:
    """Parameters that are float32."""
    return tuple(struct.unpack(f"<{len(words)}f", struct.pack(f"<{len(words)}i", *words)))


def number_of(array: Array | None) -> float | None:
    """The value of a constant of one element."""
    return None if array is None or array.size != 1 else float(np.asarray(array).reshape(-1)[0])
