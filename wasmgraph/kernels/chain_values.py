"""What a chain of element-wise operators gives, computed when compiling.

Not bit by bit what the kernels give: `exp`, `tanh` and so on are numpy's, which are more exact.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wasmgraph.kernels.chain import Chain

Values = NDArray[Any]


def chain_values(chain: Chain, operands: Sequence[Values]) -> Values | None:
    """The chain's result in float32, or None where it has an operator that is not known here."""
    values = [np.asarray(operand, np.float32) for operand in operands]
    with np.errstate(all="ignore"):
        for step in chain.steps:
            compute = _OPERATORS.get(step.op)
            if compute is None:
                return None
            result = compute([values[a] for a in step.args], [np.float32(n) for n in step.numbers])
            values.append(np.asarray(result, np.float32))
    return values[-1] if chain.steps else values[0]


def _quantise(args: Sequence[Values], numbers: Sequence[Any]) -> Values:
    scale, zero, low, high = numbers
    ratio = args[0] / scale
    bounded = np.where(ratio > low, np.minimum(ratio, high), low)
    return np.asarray(np.rint(bounded) + zero)


def _leaky_relu(args: Sequence[Values], numbers: Sequence[Any]) -> Values:
    return np.where(args[0] < 0, args[0] * numbers[0], args[0])


_erf = np.vectorize(math.erf, otypes=[np.float64])

_OPERATORS: dict[str, Callable[[Sequence[Values], Sequence[Any]], Values]] = {
    "add": lambda args, _: args[0] + args[1],
    "subtract": lambda args, _: args[0] - args[1],
    "multiply": lambda args, _: args[0] * args[1],
    "divide": lambda args, _: args[0] / args[1],
    "maximum": lambda args, _: np.maximum(args[0], args[1]),
    "minimum": lambda args, _: np.minimum(args[0], args[1]),
    "add_number": lambda args, numbers: args[0] + numbers[0],
    "subtract_number": lambda args, numbers: args[0] - numbers[0],
    "multiply_number": lambda args, numbers: args[0] * numbers[0],
    "divide_number": lambda args, numbers: args[0] / numbers[0],
    "maximum_number": lambda args, numbers: np.maximum(args[0], numbers[0]),
    "minimum_number": lambda args, numbers: np.minimum(args[0], numbers[0]),
    "number_minus": lambda args, numbers: numbers[0] - args[0],
    "number_over": lambda args, numbers: numbers[0] / args[0],
    "clip": lambda args, numbers: np.clip(args[0], numbers[0], numbers[1]),
    "negative": lambda args, _: -args[0],
    "abs": lambda args, _: np.abs(args[0]),
    "sqrt": lambda args, _: np.sqrt(args[0]),
    "floor": lambda args, _: np.floor(args[0]),
    "ceil": lambda args, _: np.ceil(args[0]),
    "round": lambda args, _: np.rint(args[0]),
    "rsqrt": lambda args, _: np.float32(1) / np.sqrt(args[0]),
    "square": lambda args, _: args[0] * args[0],
    "relu": lambda args, _: np.maximum(args[0], np.float32(0)),
    "leaky_relu": _leaky_relu,
    "prelu": lambda args, _: np.where(args[0] < 0, args[0] * args[1], args[0]),
    "exp": lambda args, _: np.exp(args[0].astype(np.float64)),
    "log": lambda args, _: np.log(args[0].astype(np.float64)),
    "sigmoid": lambda args, _: 1 / (1 + np.exp(-args[0].astype(np.float64))),
    "tanh": lambda args, _: np.tanh(args[0].astype(np.float64)),
    "erf": lambda args, _: _erf(args[0]),
    "quantise": _quantise,
}
