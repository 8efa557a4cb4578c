"""Elements of other types than float32 at a kernel's edges: it computes with float32 in between.

Chains that give int8 or uint8 end in a "quantise" step, whose result is a whole number in the range
of the type, so that no rounding is left to be done when it is stored.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from wasmgraph.assembler.function import (
    Expr,
    Function,
    Local,
    binary,
    f32x4,
    i32,
    i32x4,
    load_i32,
    load_lanes,
    load_splat,
    unary,
)
from wasmgraph.kernels.chain import Chain, clamped, emit_chain

NBYTES = {"int8": 1, "uint8": 1, "int32": 4, "float32": 4}
"""The types that kernels read and write beside float32."""

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


def emit_typed_chain(
    f: Function, chain: Chain, operands: Sequence[Expr], dtype: str
) -> tuple[Expr, list[Local]]:
    """The value of a chain as lanes of float32, or of int32 where `dtype` is int8 or uint8.

    Returns:
        The result, and the locals to release once it was used.
    """
    if dtype not in ("int8", "uint8"):
        return emit_chain(f, chain, operands)
    *before, last = chain.steps
    assert last.op == "quantise", last
    if before:
        value, taken = emit_chain(f, replace(chain, steps=tuple(before)), operands)
    else:
        value, taken = operands[last.args[0]], []
    zero = int(last.numbers[1])
    rounded = binary("f32x4.add", clamped(value, last.numbers), f32x4(_ROUNDING))
    return binary("i32x4.sub", rounded, i32x4(_ROUNDING_BITS - zero)), taken


def narrowed(vectors: Sequence[Expr], dtype: str) -> Expr:
    """One to four vectors of int32 as consecutive bytes; the bytes behind them mean nothing."""
    pairs = [
        binary("i16x8.narrow_i32x4_s", vectors[i], vectors[min(i + 1, len(vectors) - 1)])
        for i in range(0, len(vectors), 2)
    ]
    sign = "s" if dtype == "int8" else "u"
    return binary(f"i8x16.narrow_i16x8_{sign}", pairs[0], pairs[-1])
