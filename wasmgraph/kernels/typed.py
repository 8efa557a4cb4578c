"""Elements of other types than float32 at a kernel's edges: it computes with float32 in between.

Chains that give int8 or uint8 end in a "quantise" step, whose result is a whole number in the range
of the type, so that no rounding is left to be done when it is stored.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wasmgraph.assembler.function import (
    Expr,
    Function,
    Local,
    binary,
    f32x4,
    i32,
    load_i32,
    load_lanes,
    load_splat,
    unary,
)
from wasmgraph.kernels.chain import Chain, Step, clamped, emit_chain

NBYTES = {"int8": 1, "uint8": 1, "int16": 2, "int32": 4, "float32": 4}
"""Of the types that kernels read; int16 is an operand of products only."""

_BYTES = ("int8", "uint8")

# What the step is with an operand in the place of its number, and whether that comes first.
_BY_NUMBER = {
    "add_number": ("add", False),
    "subtract_number": ("subtract", False),
    "multiply_number": ("multiply", False),
    "divide_number": ("divide", False),
    "number_minus": ("subtract", True),
    "number_over": ("divide", True),
}

_ROUNDING = 12582912.0
_ROUNDING_BITS = 0x4B400000
"""1.5 * 2**23 and its bits: adding it rounds to the nearest whole number, half to even, and leaves
that number in the lowest bits (|x| <= 2**22)."""


def load_floats(pointer: Expr, offset: int, dtype: str, lanes: int) -> Expr:
    """The first `lanes` (1 to 4) consecutive elements as float32; `offset` in bytes."""
    if dtype == "float32":
        return load_lanes(pointer, offset, lanes)
    if dtype == "int32":
        return unary("f32x4.convert_i32x4_s", load_lanes(pointer, offset, lanes))
    if lanes == 4:
        return _floats(load_lanes(pointer, offset, 1), dtype)
    word = load_i32(pointer, offset, min(lanes, 2))
    if lanes == 3:
        last = binary("i32.shl", load_i32(pointer, offset + 2, 1), i32(16))
        word = binary("i32.or", word, last)
    return _floats(unary("i32x4.splat", word), dtype)


def load_floats_splat(pointer: Expr, offset: int, dtype: str) -> Expr:
    """One element as float32 in all lanes; `offset` in bytes."""
    value = load_splat(pointer, offset, NBYTES[dtype])
    if dtype == "float32":
        return value
    return unary("f32x4.convert_i32x4_s", value) if dtype == "int32" else _floats(value, dtype)


def _floats(value: Expr, dtype: str) -> Expr:
    """The lowest four bytes as float32."""
    sign = "s" if dtype == "int8" else "u"
    value = unary(f"i16x8.extend_low_i8x16_{sign}", value)
    return unary("f32x4.convert_i32x4_s", unary(f"i32x4.extend_low_i16x8_{sign}", value))


def numbers_apart(chain: Chain, dtype: str) -> tuple[Chain, NDArray[Any]]:
    """The chain with its numbers as further operands, so that layers can share a kernel.

    Scales and zero points differ from layer to layer, and little else does.

    Args:
        dtype: Of the chain's result.

    Returns:
        The chain, and its last operands: float32, one element each. A "quantise" step reads, behind
        its value, the zero point, the bounds and the scale if that is not 1. The last step of a
        chain that gives int8 or uint8 has `_ROUNDING_BITS` less the zero point in the place of it.
    """
    numbers: dict[bytes, int] = {}
    first = chain.operands

    def operand(value: float | np.int32) -> int:
        bits = (value if isinstance(value, np.int32) else np.float32(value)).tobytes()
        return first + numbers.setdefault(bits, len(numbers))

    split: list[tuple[str, tuple[int | None, ...], tuple[int, ...], tuple[float, ...]]] = []
    for index, step in enumerate(chain.steps):
        if step.op in _BY_NUMBER:
            op, is_left = _BY_NUMBER[step.op]
            number = operand(step.numbers[0])
            split.append((op, (number, None) if is_left else (None, number), step.args, ()))
        elif step.op == "quantise":
            scale, zero, low, high = step.numbers
            is_end = index + 1 == len(chain.steps) and dtype in _BYTES
            start = np.int32(_ROUNDING_BITS - int(zero)) if is_end else zero
            others = [operand(start), operand(low), operand(high)]
            others += [operand(scale)] if scale != 1.0 else []
            split.append((step.op, (None, *others), step.args, ()))
        else:
            split.append((step.op, (None,) * len(step.args), step.args, step.numbers))
    count = len(numbers)
    steps = []
    for op, places, args, kept in split:
        moved = iter([a if a < first else a + count for a in args])
        steps.append(Step(op, tuple(next(moved) if p is None else p for p in places), kept))
    values = np.frombuffer(b"".join(numbers), np.float32)
    return Chain(first + count, tuple(steps)), values


def load_numbers(pointer: Expr, count: int) -> list[Expr]:
    """The chain's last operands, as `numbers_apart` made them."""
    return [load_splat(pointer, 4 * index) for index in range(count)]


def emit_typed_chain(
    f: Function, chain: Chain, operands: Sequence[Expr], dtype: str
) -> tuple[Expr, list[Local]]:
    """The value of a chain as lanes of float32, or of int32 where `dtype` is int8 or uint8.

    Args:
        chain: From `numbers_apart`.

    Returns:
        The result, and the locals to release once it was used.
    """
    if dtype not in _BYTES:
        return emit_chain(f, chain, operands)
    *before, last = chain.steps
    assert last.op == "quantise", last
    if before:
        value, taken = emit_chain(f, replace(chain, steps=tuple(before)), operands)
    else:
        value, taken = operands[last.args[0]], []
    bits, *bounds = (operands[a] for a in last.args[1:])
    bounded = clamped([value, bits, *bounds])
    rounded = binary("f32x4.add", bounded, f32x4(_ROUNDING))
    return binary("i32x4.sub", rounded, bits), taken


def narrowed(vectors: Sequence[Expr], dtype: str) -> Expr:
    """One to four vectors of int32 as consecutive bytes; the bytes behind them mean nothing."""
    pairs = [
        binary("i16x8.narrow_i32x4_s", vectors[i], vectors[min(i + 1, len(vectors) - 1)])
        for i in range(0, len(vectors), 2)
    ]
    sign = "s" if dtype == "int8" else "u"
    return binary(f"i8x16.narrow_i16x8_{sign}", pairs[0], pairs[-1])
