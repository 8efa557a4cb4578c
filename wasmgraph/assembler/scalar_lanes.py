"""What a vector is to `scalar`: four scalar expressions, and the scalar instructions over them."""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import TypeAlias

from wasmgraph.assembler import opcodes as op
from wasmgraph.assembler.function import F32, I32, Expr, unsigned

Lanes: TypeAlias = tuple[Expr, ...]
"""A vector: four scalars, each an i32 or an f32 that stands for the same 32 bits."""

Share: TypeAlias = Callable[[Expr], Expr]
"""Makes a value that may be written out more than once."""

COMPARED = ("eq", "ne", "lt", "gt", "le", "ge")
ROUNDINGS = ("ceil", "floor", "trunc", "nearest")

# With those that only this rewriting uses; source: as in `opcodes`.
_SCALAR = {
    **{name: bytes([number]) for name, number in op.SCALAR.items()},
    **{f"f32.{name}": bytes([0x5B + index]) for index, name in enumerate(COMPARED)},
    "i32.xor": b"\x73",
    "i32.shr_s": b"\x75",
    **{f"f32.{name}": bytes([0x8D + index]) for index, name in enumerate(ROUNDINGS)},
    "f32.convert_i32_s": b"\xb2",
    "i32.trunc_sat_f32_s": b"\xfc\0",
}
_I32_REINTERPRET_F32, _F32_REINTERPRET_I32 = b"\xbc", b"\xbe"

CONVERSIONS = frozenset(["f32.convert_i32_s", "i32.trunc_sat_f32_s"])

LOADS = {op.I32_LOAD: I32, op.I32_LOAD8_U: I32, op.I32_LOAD16_U: I32, op.F32_LOAD: F32}


def as_f32(lane: Expr) -> Expr:
    if lane.type == F32:
        return lane
    if lane.value is not None:
        return Expr(F32, bytes([op.F32_CONST]) + struct.pack("<I", lane.value & 0xFFFFFFFF))
    return Expr(F32, lane.code + _F32_REINTERPRET_I32)


def as_i32(lane: Expr) -> Expr:
    return lane if lane.type == I32 else Expr(I32, lane.code + _I32_REINTERPRET_F32)


def apply(name: str, *operands: Expr) -> Expr:
    """A scalar instruction by its name; operands are reinterpreted as what it takes."""
    takes_f32 = name.startswith("f32.") != (name in CONVERSIONS)
    code = b"".join((as_f32(x) if takes_f32 else as_i32(x)).code for x in operands)
    gives_f32 = name.startswith("f32.") and name[4:] not in COMPARED
    return Expr(F32 if gives_f32 else I32, code + _SCALAR[name])


def choose(condition: Expr, a: Expr, b: Expr) -> Expr:
    """a where the i32 condition is not zero, else b."""
    if a.type != b.type:
        a, b = as_f32(a), as_f32(b)
    return Expr(a.type, a.code + b.code + condition.code + bytes([op.SELECT]))


def access(opcode: int, align: int, offset: int) -> bytes:
    return bytes([opcode]) + unsigned(align) + unsigned(offset)


def load_scalar(address: Expr, offset: int, opcode: int = op.F32_LOAD, align: int = 2) -> Expr:
    return Expr(LOADS[opcode], address.code + access(opcode, align, offset))
