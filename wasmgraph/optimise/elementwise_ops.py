"""Relax's element-wise operators as steps of a chain."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from wasmgraph.importer.opaque import OpaqueCall
from wasmgraph.kernels.chain import Step
from wasmgraph.optimise.opgraph import Op, OpGraph, scalar_constant


@dataclass(frozen=True)
class ChainPart:
    """One operator as steps.

    Attributes:
        tensors: What it reads; numbered 0, 1, ... in the steps.
        steps: Numbered on from there; the last is the result.
    """

    tensors: tuple[int, ...]
    steps: tuple[Step, ...]


_UNARY = {
    "negative": "negative",
    "abs": "abs",
    "sqrt": "sqrt",
    "rsqrt": "rsqrt",
    "floor": "floor",
    "ceil": "ceil",
    "round": "round",
    "exp": "exp",
    "log": "log",
    "sigmoid": "sigmoid",
    "tanh": "tanh",
    "erf": "erf",
    "square": "square",
    "nn.relu": "relu",
}

# Operator: the step with a number on the right, and on the left (None: the operands may swap).
_BINARY: dict[str, tuple[str, str | None]] = {
    "add": ("add_number", None),
    "subtract": ("subtract_number", "number_minus"),
    "multiply": ("multiply_number", None),
    "divide": ("divide_number", "number_over"),
    "maximum": ("maximum_number", None),
    "minimum": ("minimum_number", None),
}


def steps_of(op: Op, graph: OpGraph) -> ChainPart | None:
    """The op as steps, or None if it is not element-wise or we have no step for it."""
    if op.kind in _UNARY:
        return ChainPart(op.inputs, (Step(_UNARY[op.kind], (0,)),))
    if op.kind in _BINARY:
        return _binary(op, graph)
    if is_conversion(op):
        return ChainPart(op.inputs, _conversion(op.attrs))
    special = _SPECIAL.get(op.kind)
    return special(op, graph) if special else None


def is_conversion(op: Op) -> bool:
    """Whether an op has another dtype on one side than float32: "quantize" or "dequantize"."""
    return op.kind == "opaque" and op.attrs.name in ("quantize", "dequantize")


def _conversion(call: OpaqueCall) -> tuple[Step, ...]:
    """(x - zero) * scale, or rounded: see the chain's step."""
    names = ("scale", "zero", "low", "high")
    scale, zero, *bounds = (float(call.parameters[n]) for n in names if n in call.parameters)
    if call.name == "quantize":
        return (Step("quantise", (0,), (scale, zero, *bounds)),)
    if not zero:
        return (Step("multiply_number", (0,), (scale,)),)
    return (Step("subtract_number", (0,), (zero,)), Step("multiply_number", (1,), (scale,)))


def _binary(op: Op, graph: OpGraph) -> ChainPart | None:
    right_number, left_number = _BINARY[op.kind]
    left, right = op.inputs
    shape = graph.tensors[op.outputs[0]].shape
    for tensor, other, step in (
        (left, right, right_number),
        (right, left, left_number or right_number),
    ):
        number = scalar_constant(graph.tensors[other])
        if number is not None and not math.isnan(number) and graph.tensors[tensor].shape == shape:
            return ChainPart((tensor,), (Step(step, (0,), (number,)),))
    if left == right:
        return ChainPart((left,), (Step(op.kind, (0, 0)),))
    return ChainPart((left, right), (Step(op.kind, (0, 1)),))


def _clip(op: Op, _: OpGraph) -> ChainPart | None:
    low, high = (float(getattr(value, "value", value)) for value in op.call.args[1:3])
    if math.isnan(low) or math.isnan(high):
        return None
    return ChainPart(op.inputs, (Step("clip", (0,), (low, high)),))


def _leaky_relu(op: Op, _: OpGraph) -> ChainPart | None:
    return ChainPart(op.inputs, (Step("leaky_relu", (0,), (float(op.attrs.alpha),)),))


def _silu(op: Op, _: OpGraph) -> ChainPart | None:
    return ChainPart(op.inputs, (Step("sigmoid", (0,)), Step("multiply", (0, 1))))


def _gelu(op: Op, _: OpGraph) -> ChainPart | None:
    """x / 2 * (1 + erf(x / sqrt 2))"""
    return ChainPart(
        op.inputs,
        (
            Step("multiply_number", (0,), (1 / math.sqrt(2),)),
            Step("erf", (1,)),
            Step("add_number", (2,), (1.0,)),
            Step("multiply", (0, 3)),
            Step("multiply_number", (4,), (0.5,)),
        ),
    )


def _power(op: Op, graph: OpGraph) -> ChainPart | None:
    exponent = scalar_constant(graph.tensors[op.inputs[1]])
    step = {2.0: "square", 0.5: "sqrt", -0.5: "rsqrt"}.get(exponent if exponent else 0.0)
    if step is None or graph.tensors[op.inputs[0]].shape != graph.tensors[op.outputs[0]].shape:
        return None
    return ChainPart(op.inputs[:1], (Step(step, (0,)),))


def _prelu(op: Op, graph: OpGraph) -> ChainPart | None:
    slope = graph.tensors[op.inputs[1]].constant
    return None if slope is None else ChainPart(op.inputs, (Step("prelu", (0, 1)),))


_SPECIAL: dict[str, Callable[[Op, OpGraph], ChainPart | None]] = {
    "clip": _clip,
    "nn.leakyrelu": _leaky_relu,
    "nn.prelu": _prelu,
    "nn.silu": _silu,
    "nn.gelu": _gelu,
    "power": _power,
}
