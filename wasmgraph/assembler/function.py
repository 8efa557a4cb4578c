"""Builds the body of one wasm function.

Expressions are trees that know their type and their postfix bytes; statements append to the body.
Nothing is optimised: what is written is what the engine gets, in that order. The one exception is
`relaxed_simd`, which fuses multiplications with the additions that follow them.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field

from wasmgraph.assembler import opcodes as op

I32, F32, V128 = 0x7F, 0x7D, 0x7B

_RELAXED = ContextVar("relaxed", default=False)
_FUSED = {"f32x4.add": "f32x4.relaxed_madd", "f32x4.sub": "f32x4.relaxed_nmadd"}


@contextmanager
def relaxed_simd() -> Iterator[None]:
    """Within it c + a * b and c - a * b on vectors are one instruction, rounded once or twice.

    Which of the two is the engine's choice: relaxed SIMD leaves it open. c is then evaluated last.

    Not quicker everywhere: Cranelift's vfmadd213 overwrites a factor, so that there are copies, and
    spills where registers are scarce. What that slows down is `unfused`, or has other shapes
    (`wasmgraph.kernels.tiles`). Speed relative to simd128, whole models in alternating runs (one
    Zen 4 core, whose separate multipliers and adders are as many; Wasmtime 50, 2026-11-20):
    super_resolution 1.16, yolox 1.09, fastestdet 1.07, mobilenet_v2 1.02, squeezenet 1.02, vit_tiny
    and minilm 1.01, resnet50 0.99.
    """
    with _fusing(True):
        yield


@contextmanager
def unfused() -> Iterator[None]:
    """Within it multiplications and additions stay apart, under `relaxed_simd` too."""
    with _fusing(False):
        yield


@contextmanager
def _fusing(wanted: bool) -> Iterator[None]:
    token = _RELAXED.set(wanted)
    try:
        yield
    finally:
        _RELAXED.reset(token)


def unsigned(value: int) -> bytes:
    """A non-negative integer as LEB128."""
    encoded = bytearray()
    while value >= 0x80:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    encoded.append(value)
    return bytes(encoded)


def signed(value: int) -> bytes:
    """An integer as signed LEB128."""
    encoded = bytearray()
    while not -64 <= value < 64:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    encoded.append(value & 0x7F)
    return bytes(encoded)


@dataclass(frozen=True)
class Expr:
    """A value on wasm's stack.

    Attributes:
        type: `I32`, `F32` or `V128` (four float32 lanes unless an operation says otherwise).
        code: The instructions that push it.
        value: The number, where it is an i32 constant.
        factors: The two factors, where it is a product of vectors.
    """

    type: int
    code: bytes
    value: int | None = None
    factors: tuple[Expr, Expr] | None = field(default=None, kw_only=True)

    def __add__(self, other: Expr | int) -> Expr:
        if isinstance(other, int):
            other = i32(other)
        if self.type == I32:
            if other.value == 0:
                return self
            if self.value == 0:
                return other
            if self.value is not None and other.value is not None:
                return i32(self.value + other.value)
        return self._with("add", other)

    def __sub__(self, other: Expr | int) -> Expr:
        if isinstance(other, int):
            other = i32(other)
        return self if self.type == I32 and other.value == 0 else self._with("sub", other)

    def __mul__(self, other: Expr | int) -> Expr:
        if isinstance(other, int):
            other = i32(other)
        if self.type == I32:
            if other.value == 1:
                return self
            if self.value is not None and other.value is not None:
                return i32(self.value * other.value)
            if other.value is not None and other.value > 0 and other.value & other.value - 1 == 0:
                return binary("i32.shl", self, i32(other.value.bit_length() - 1))
        return self._with("mul", other)

    def _with(self, name: str, other: Expr) -> Expr:
        assert self.type == other.type, (name, self.type, other.type)
        prefix = {I32: "i32.", F32: "f32.", V128: "f32x4."}[self.type]
        return binary(prefix + name, self, other)


@dataclass(frozen=True)
class Local(Expr):
    """A local variable; as an expression, its value."""

    index: int = -1


def i32(value: int) -> Expr:
    """An i32 constant; addresses from 2 GiB on wrap to negative numbers."""
    wrapped = (value + 2**31) % 2**32 - 2**31
    return Expr(I32, bytes([op.I32_CONST]) + signed(wrapped), value)


def f32(value: float) -> Expr:
    """An f32 constant, rounded to nearest."""
    return Expr(F32, bytes([op.F32_CONST]) + struct.pack("<f", value))


def f32x4(value: float) -> Expr:
    """Four equal f32 lanes."""
    return Expr(V128, _simd("v128.const") + struct.pack("<4f", *[value] * 4))


def i32x4(value: int) -> Expr:
    """Four equal i32 lanes."""
    return Expr(V128, _simd("v128.const") + struct.pack("<4I", *[value & 0xFFFFFFFF] * 4))


def v128(lanes: tuple[int, int, int, int]) -> Expr:
    """Four 32-bit lanes of any bits."""
    return Expr(V128, _simd("v128.const") + struct.pack("<4I", *lanes))


def _simd(name: str) -> bytes:
    return bytes([op.SIMD]) + unsigned(op.VECTOR[name])


def _instruction(name: str) -> bytes:
    return bytes([op.SCALAR[name]]) if name in op.SCALAR else _simd(name)


def _result_type(name: str) -> int:
    if name in op.VECTOR:
        return F32 if name == "f32x4.extract_lane" else V128
    return F32 if name.startswith("f32.") else I32


def unary(name: str, a: Expr) -> Expr:
    """An instruction with one operand, by its wasm name."""
    return Expr(_result_type(name), a.code + _instruction(name))


def binary(name: str, a: Expr, b: Expr) -> Expr:
    """An instruction with two operands."""
    if _RELAXED.get() and name in _FUSED:
        if b.factors:
            return _fused(_FUSED[name], b, a)
        if a.factors and name == "f32x4.add":
            return _fused(_FUSED[name], a, b)
    code = a.code + b.code + _instruction(name)
    return Expr(_result_type(name), code, factors=(a, b) if name == "f32x4.mul" else None)


def _fused(name: str, product: Expr, c: Expr) -> Expr:
    """c plus or minus a product.

    The second factor goes first: Cranelift overwrites the first operand (vfmadd213), which here is
    mostly the one that lives shorter. The other way round the contraction 240x256x240 spills
    accumulators in its inner loop: 21.7 instead of 36.3 GFLOP/s (one Zen 4 core, Wasmtime 50,
    2026-11-20).
    """
    assert product.factors is not None
    first, second = product.factors
    return ternary(name, second, first, c)


def ternary(name: str, a: Expr, b: Expr, c: Expr) -> Expr:
    """An instruction with three operands."""
    return Expr(_result_type(name), a.code + b.code + c.code + _instruction(name))


def splat(a: Expr) -> Expr:
    """An f32 in all four lanes."""
    return unary("f32x4.splat", a)


def extract(a: Expr, lane: int) -> Expr:
    """One f32 lane."""
    return Expr(F32, a.code + _simd("f32x4.extract_lane") + bytes([lane]))


def shuffle(a: Expr, b: Expr, lanes: tuple[int, int, int, int]) -> Expr:
    """Four of the eight 32-bit lanes of a and b."""
    picks = bytes(4 * lane + byte for lane in lanes for byte in range(4))
    return Expr(V128, a.code + b.code + _simd("i8x16.shuffle") + picks)


def select(condition: Expr, a: Expr, b: Expr) -> Expr:
    """a where the i32 condition is not zero, else b."""
    return Expr(a.type, a.code + b.code + condition.code + bytes([op.SELECT]))


def _memarg(align: int, offset: int) -> bytes:
    assert 0 <= offset < 2**32, offset
    return unsigned(align) + unsigned(offset)


def load(address: Expr, offset: int = 0) -> Expr:
    """Four consecutive f32; the address need not be aligned."""
    return Expr(V128, address.code + _simd("v128.load") + _memarg(2, offset))


def load_splat(address: Expr, offset: int = 0, nbytes: int = 4) -> Expr:
    """One item of 1, 2, 4 (an f32) or 8 bytes in all lanes."""
    align = nbytes.bit_length() - 1
    name = f"v128.load{8 * nbytes}_splat"
    return Expr(V128, address.code + _simd(name) + _memarg(min(align, 2), offset))


def load_lanes(address: Expr, offset: int, lanes: int) -> Expr:
    """The first `lanes` (1 to 4) consecutive f32; the other lanes are zero."""
    if lanes == 4:
        return load(address, offset)
    if lanes == 1:
        return Expr(V128, address.code + _simd("v128.load32_zero") + _memarg(2, offset))
    pair = Expr(V128, address.code + _simd("v128.load64_zero") + _memarg(2, offset))
    if lanes == 2:
        return pair
    code = address.code + pair.code + _simd("v128.load32_lane") + _memarg(2, offset + 8)
    return Expr(V128, code + bytes([2]))


def load_lane(address: Expr, offset: int, vector: Expr, lane: int) -> Expr:
    """`vector` with one lane replaced by an f32 from memory."""
    code = address.code + vector.code + _simd("v128.load32_lane") + _memarg(2, offset)
    return Expr(V128, code + bytes([lane]))


def load_f32(address: Expr, offset: int = 0) -> Expr:
    """One f32."""
    return Expr(F32, address.code + bytes([op.F32_LOAD]) + _memarg(2, offset))


def load_widened(address: Expr, offset: int, is_signed: bool) -> Expr:
    """Eight consecutive bytes as eight 16-bit lanes."""
    name = f"v128.load8x8_{'s' if is_signed else 'u'}"
    return Expr(V128, address.code + _simd(name) + _memarg(0, offset))


def load_halves(address: Expr, offset: int) -> Expr:
    """Four consecutive 16-bit integers with sign as 32-bit lanes."""
    return Expr(V128, address.code + _simd("v128.load16x4_s") + _memarg(1, offset))


def load_bytes(address: Expr, offset: int, nbytes: int) -> Expr:
    """`nbytes` (1, 2, 4, 8 or 16) bytes; up to 4 are repeated in all lanes, 8 are followed by 0."""
    if nbytes <= 4:
        return load_splat(address, offset, nbytes)
    return load_lanes(address, offset, nbytes // 4)


def interleave(a: Expr, b: Expr, half: int) -> Expr:
    """The 16-bit lanes of the lower (0) or upper (1) half of a, each followed by b's."""
    first = range(8 * half, 8 * half + 8, 2)
    picks = bytes(start + side + byte for start in first for side in (0, 16) for byte in (0, 1))
    return Expr(V128, a.code + b.code + _simd("i8x16.shuffle") + picks)


def load_i32(address: Expr, offset: int = 0, nbytes: int = 4) -> Expr:
    """One i32, or 1 or 2 bytes without sign."""
    opcode = {1: op.I32_LOAD8_U, 2: op.I32_LOAD16_U, 4: op.I32_LOAD}[nbytes]
    return Expr(I32, address.code + bytes([opcode]) + _memarg(nbytes.bit_length() - 1, offset))


class Function:
    """One function under construction.

    Args:
        name: Its symbol.
        params: How many i32 parameters (pointers) it takes; it returns an i32.
    """

    def __init__(self, name: str, params: int) -> None:
        self.name = name
        self.params = [
            Local(I32, bytes([op.LOCAL_GET]) + unsigned(i), None, i) for i in range(params)
        ]
        self._types: list[int] = []
        self._free: dict[int, list[Local]] = {I32: [], F32: [], V128: []}
        self._body = bytearray()
        self._depth = 0

    def local(self, kind: int) -> Local:
        """A new local; its value is undefined where a released one is used again."""
        if self._free[kind]:
            return self._free[kind].pop()
        index = len(self.params) + len(self._types)
        self._types.append(kind)
        return Local(kind, bytes([op.LOCAL_GET]) + unsigned(index), None, index)

    def locals(self, kind: int, count: int) -> list[Local]:
        """Several new locals."""
        return [self.local(kind) for _ in range(count)]

    def release(self, *locals_: Local) -> None:
        """Let later code use these locals again; the fewer locals, the quicker the engine."""
        for item in locals_:
            self._free[item.type].append(item)

    @contextmanager
    def scratch(self, kind: int, count: int) -> Iterator[list[Local]]:
        """Locals that are released at the end of the block."""
        taken = self.locals(kind, count)
        yield taken
        self.release(*reversed(taken))

    def set(self, target: Local, value: Expr) -> None:
        """target = value"""
        assert target.type == value.type
        self._body += value.code + bytes([op.LOCAL_SET]) + unsigned(target.index)

    def new(self, value: Expr) -> Local:
        """A new local that holds `value`."""
        target = self.local(value.type)
        self.set(target, value)
        return target

    def store(self, address: Expr, value: Expr, offset: int = 0) -> None:
        """Store four f32 lanes."""
        self._body += address.code + value.code + _simd("v128.store") + _memarg(2, offset)

    def store_lanes(self, address: Expr, value: Expr, offset: int, lanes: int) -> None:
        """Store the first `lanes` (1 to 4) f32 lanes; `value` is evaluated more than once for 3."""
        if lanes == 4:
            self.store(address, value, offset)
        elif lanes == 1:
            self._lane(address, value, offset, "v128.store32_lane", 0)
        else:
            self._lane(address, value, offset, "v128.store64_lane", 0)
            if lanes == 3:
                self._lane(address, value, offset + 8, "v128.store32_lane", 2)

    def store_item(
        self, address: Expr, value: Expr, offset: int, nbytes: int, lane: int = 0
    ) -> None:
        """Store one lane of 1, 2, 4 (an f32) or 8 bytes of a vector."""
        self._lane(address, value, offset, f"v128.store{8 * nbytes}_lane", lane)

    def store_bytes(self, address: Expr, value: Expr, offset: int, nbytes: int) -> None:
        """Store the first `nbytes` (1 to 16) bytes; `value` is evaluated once per power of two."""
        if nbytes == 16:
            self.store(address, value, offset)
            return
        done = 0
        for size in (8, 4, 2, 1):
            if nbytes & size:
                self.store_item(address, value, offset + done, size, done // size)
                done += size

    def _lane(self, address: Expr, value: Expr, offset: int, name: str, lane: int) -> None:
        align = {"v128.store8_lane": 0, "v128.store16_lane": 1}.get(name, 2)
        memarg = _memarg(align, offset) + bytes([lane])
        self._body += address.code + value.code + _simd(name) + memarg

    def store_f32(self, address: Expr, value: Expr, offset: int = 0) -> None:
        """Store one f32."""
        self._body += address.code + value.code + bytes([op.F32_STORE]) + _memarg(2, offset)

    def store_i32(self, address: Expr, value: Expr, offset: int = 0, nbytes: int = 4) -> None:
        """Store an i32, or its lowest 1 or 2 bytes."""
        opcode = {1: op.I32_STORE8, 2: op.I32_STORE16, 4: op.I32_STORE}[nbytes]
        memarg = _memarg(nbytes.bit_length() - 1, offset)
        self._body += address.code + value.code + bytes([opcode]) + memarg

    def copy(self, target: Expr, source: Expr, nbytes: Expr | int) -> None:
        """memory.copy"""
        size = i32(nbytes) if isinstance(nbytes, int) else nbytes
        tail = bytes([op.MISC]) + unsigned(op.MEMORY_COPY) + b"\0\0"
        self._body += target.code + source.code + size.code + tail

    def fill_zero(self, target: Expr, nbytes: Expr | int) -> None:
        """memory.fill with zero bytes."""
        self.fill(target, 0, nbytes)

    def fill(self, target: Expr, byte: int, nbytes: Expr | int) -> None:
        """memory.fill"""
        size = i32(nbytes) if isinstance(nbytes, int) else nbytes
        tail = bytes([op.MISC]) + unsigned(op.MEMORY_FILL) + b"\0"
        self._body += target.code + i32(byte).code + size.code + tail

    @contextmanager
    def repeat(self, count: int) -> Iterator[None]:
        """Run the block `count` times, which may be 0; the block moves its own pointers."""
        if count == 1:
            yield
            return
        if count <= 0:
            mark = len(self._body)
            yield
            del self._body[mark:]
            return
        counter = self.new(i32(count))
        with self._nested(op.LOOP):
            yield
            rest = (counter - 1).code + bytes([op.LOCAL_TEE]) + unsigned(counter.index)
            self._body += rest + bytes([op.BR_IF, 0])
        self.release(counter)

    @contextmanager
    def repeat_until(self, counter: Local, step: int, end: Expr) -> Iterator[None]:
        """Run the block, then counter += step, until counter == end; at least once."""
        with self._nested(op.LOOP):
            yield
            self._body += (counter + step).code + bytes([op.LOCAL_TEE]) + unsigned(counter.index)
            self._body += end.code + bytes([op.SCALAR["i32.ne"], op.BR_IF, 0])

    @contextmanager
    def when(self, condition: Expr) -> Iterator[None]:
        """Run the block if the i32 condition is not zero."""
        self._body += condition.code
        with self._nested(op.IF):
            yield

    @contextmanager
    def block(self) -> Iterator[int]:
        """A block that `leave_if` can leave; yields its label."""
        with self._nested(op.BLOCK):
            yield self._depth

    def leave_if(self, label: int, condition: Expr) -> None:
        """Go to the end of an enclosing block if the i32 condition is not zero."""
        self._body += condition.code + bytes([op.BR_IF]) + unsigned(self._depth - label)

    @contextmanager
    def _nested(self, opcode: int) -> Iterator[None]:
        self._body += bytes([opcode, op.VOID])
        self._depth += 1
        yield
        self._depth -= 1
        self._body += bytes([op.END])

    @property
    def local_types(self) -> tuple[int, ...]:
        """Types of the locals behind the parameters, in the order of their indices."""
        return tuple(self._types)

    @property
    def instructions(self) -> bytes:
        """What was appended so far, without the 0 that is returned."""
        return bytes(self._body)

    def emit(self, code: bytes) -> None:
        """Append encoded instructions."""
        self._body += code

    def body(self) -> bytes:
        """The function's entry of the code section, without its length; it returns 0."""
        groups: list[tuple[int, int]] = []
        for kind in self._types:
            if groups and groups[-1][1] == kind:
                groups[-1] = (groups[-1][0] + 1, kind)
            else:
                groups.append((1, kind))
        declared = unsigned(len(groups)) + b"".join(unsigned(n) + bytes([k]) for n, k in groups)
        return declared + bytes(self._body) + i32(0).code + bytes([op.END])
