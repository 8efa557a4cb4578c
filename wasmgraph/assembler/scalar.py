"""Rewrites a finished kernel for engines without SIMD: every vector becomes four scalars.

For `--simd none`, so that every kernel is written once. Not for speed: tiles keep the shapes that
suit vector registers, and scalar accumulators are spilled. Compared with simd128 (one Zen 4 core,
Wasmtime 50, 2026-11-20) the contraction 240x256x240 takes 13 to 19 times as long, squeezenet 6 to 9
times, mobilenet_v2 5 times; their code, executor included, is 1.6 to 1.7 times as large.

Instructions are read in order, over a stack of values that are not evaluated yet; a vector there is
four scalar expressions. A statement (setting a local, a store, a branch) writes them out, and what
is needed more than once goes through a temporary. Values may wait because nothing within one of
`Function`'s expressions changes memory or a local that a value on the stack reads, and because a
statement evaluates all four lanes before it writes the first.

Results are those of the vector instructions bit by bit, save for sign and payload of the NaNs that
arithmetic makes, which wasm leaves open for both. Locals hold lanes as f32 even where they are bit
patterns: loads, stores, locals, `select`, `abs`, `neg` and reinterpretation keep every bit of an
f32, NaNs included (core specification 3.0, "Numerics"). Lanes that nobody reads are not loaded.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable

from wasmgraph.assembler import opcodes as op
from wasmgraph.assembler.function import F32, V128, Expr, Function, Local, i32, unsigned
from wasmgraph.assembler.scalar_lanes import (
    COMPARED,
    CONVERSIONS,
    LOADS,
    ROUNDINGS,
    Lanes,
    access,
    apply,
    as_f32,
    choose,
    load_scalar,
)
from wasmgraph.assembler.scalar_packed import BINARY, UNARY, interleaved

_SCALAR_NAMES = {number: name for name, number in op.SCALAR.items()}
_VECTOR_NAMES = {number: name for name, number in op.VECTOR.items()}

_ONE_OPERAND = {"i32.eqz", *CONVERSIONS} | {
    f"f32.{name}" for name in ("abs", "neg", "sqrt", *ROUNDINGS)
}

# Vector instructions that are one scalar instruction per lane.
_LANE_WISE = {
    **{f"i32x4.{name}": f"i32.{name}" for name in ("add", "sub", "mul")},
    **{f"v128.{name}": f"i32.{name}" for name in ("and", "or", "xor")},
    **{f"f32x4.{name}": f"f32.{name}" for name in ("abs", "neg", "sqrt", *ROUNDINGS)},
    **{f"f32x4.{name}": f"f32.{name}" for name in ("add", "sub", "mul", "div", "min", "max")},
    "i32x4.trunc_sat_f32x4_s": "i32.trunc_sat_f32_s",
    "f32x4.convert_i32x4_s": "f32.convert_i32_s",
}
_COMPARISONS = {
    **{f"i32x4.{name}": f"i32.{name}" for name in ("eq", "gt_s")},
    **{f"f32x4.{name}": f"f32.{name}" for name in COMPARED},
}
_SHIFTS = {f"i32x4.{name}": f"i32.{name}" for name in ("shl", "shr_s", "shr_u")}

_STORES = frozenset([op.I32_STORE, op.I32_STORE8, op.I32_STORE16, op.F32_STORE])


def scalarise(function: Function) -> Function:
    """A function that does the same without a vector instruction, constant or local.

    Raises:
        AssertionError: it has an instruction that is not known here; the message names it.
    """
    return _Rewriting(function).run()


class _Reader:
    """Takes a function's instructions apart."""

    def __init__(self, code: bytes) -> None:
        self.code = code
        self.position = 0

    def is_done(self) -> bool:
        return self.position == len(self.code)

    def byte(self) -> int:
        self.position += 1
        return self.code[self.position - 1]

    def take(self, nbytes: int) -> bytes:
        self.position += nbytes
        return self.code[self.position - nbytes : self.position]

    def number(self) -> int:
        """An unsigned LEB128 number."""
        value = shift = 0
        while True:
            byte = self.byte()
            value |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                return value

    def signed_number(self) -> int:
        """A signed LEB128 number."""
        start = self.position
        value = self.number()
        bits = 7 * (self.position - start)
        return value - (1 << bits) if value >> (bits - 1) else value

    def access(self) -> tuple[int, int]:
        """Alignment and offset of an access to memory."""
        return self.number(), self.number()


class _Rewriting:
    """One function on its way: what is left to read, the values that wait, what is written."""

    def __init__(self, function: Function) -> None:
        self.read = _Reader(function.instructions)
        self.out = Function(function.name, len(function.params))
        self.places: list[Local | tuple[Local, ...]] = list(self.out.params)
        for kind in function.local_types:
            vector = kind == V128
            self.places.append(tuple(self.out.locals(F32, 4)) if vector else self.out.local(kind))
        self.stack: list[Expr | Lanes] = []
        self.temporaries: list[Local] = []

    def run(self) -> Function:
        while not self.read.is_done():
            self.instruction(self.read.byte())
        assert not self.stack, "values are left on the stack"
        return self.out

    def pop(self) -> Expr:
        value = self.stack.pop()
        assert isinstance(value, Expr), "a scalar is expected"
        return value

    def pop_lanes(self) -> Lanes:
        value = self.stack.pop()
        assert isinstance(value, tuple), "a vector is expected"
        return value

    def push(self, value: Expr) -> None:
        self.stack.append(value)

    def push_lanes(self, lanes: Iterable[Expr]) -> None:
        self.stack.append(tuple(lanes))

    def shared(self, value: Expr) -> Expr:
        """A value that may be written out more than once: a constant or a local."""
        is_f32_constant = len(value.code) == 5 and value.code[0] == op.F32_CONST
        if isinstance(value, Local) or value.value is not None or is_f32_constant:
            return value
        self.temporaries.append(self.out.new(value))
        return self.temporaries[-1]

    def statement(self, code: bytes) -> None:
        """Write what no value waits behind."""
        assert not self.stack, "a statement within an expression"
        self.out.emit(code)
        self.out.release(*self.temporaries)
        self.temporaries.clear()

    def instruction(self, opcode: int) -> None:
        if opcode in _SCALAR_NAMES:
            name = _SCALAR_NAMES[opcode]
            operands = [self.pop() for _ in range(1 if name in _ONE_OPERAND else 2)]
            self.push(apply(name, *reversed(operands)))
        elif opcode in LOADS:
            align, offset = self.read.access()
            self.push(load_scalar(self.pop(), offset, opcode, align))
        elif opcode in _STORES:
            align, offset = self.read.access()
            value, address = self.pop(), self.pop()
            self.statement(address.code + value.code + access(opcode, align, offset))
        elif opcode == op.SIMD:
            self.vector_instruction(self.read.number())
        else:
            assert opcode in _OTHERS, f"instruction 0x{opcode:02X} is not known"
            _OTHERS[opcode](self, opcode)

    def constant(self, opcode: int) -> None:
        if opcode == op.I32_CONST:
            self.push(i32(self.read.signed_number()))
        else:
            self.push(Expr(F32, bytes([opcode]) + self.read.take(4)))

    def get(self, _: int) -> None:
        self.stack.append(self.places[self.read.number()])

    def set(self, opcode: int) -> None:
        """local.set and local.tee."""
        place = self.places[self.read.number()]
        if isinstance(place, Local):
            value = self.pop()
            self.statement(value.code + bytes([op.LOCAL_SET]) + unsigned(place.index))
        else:
            # All lanes come first: they may be made of the same local's other lanes.
            code = b"".join(as_f32(lane).code for lane in self.pop_lanes())
            code += b"".join(bytes([op.LOCAL_SET]) + unsigned(p.index) for p in reversed(place))
            self.statement(code)
        if opcode == op.LOCAL_TEE:
            self.stack.append(place)

    def select(self, _: int) -> None:
        condition, b, a = self.pop(), self.stack.pop(), self.stack.pop()
        if isinstance(a, tuple) and isinstance(b, tuple):
            condition = self.shared(condition)
            self.push_lanes(choose(condition, x, y) for x, y in zip(a, b, strict=True))
        else:
            assert isinstance(a, Expr), "select between a vector and a scalar"
            assert isinstance(b, Expr), "select between a scalar and a vector"
            self.push(choose(condition, a, b))

    def control(self, opcode: int) -> None:
        """block, loop, if, br_if and end."""
        condition = self.pop().code if opcode in (op.IF, op.BR_IF) else b""
        immediate = b"" if opcode == op.END else unsigned(self.read.number())
        has_type = opcode in (op.BLOCK, op.LOOP, op.IF)
        assert not has_type or immediate == bytes([op.VOID]), "a block has a result"
        self.statement(condition + bytes([opcode]) + immediate)

    def bulk(self, opcode: int) -> None:
        """memory.copy and memory.fill."""
        number = self.read.number()
        assert number in (op.MEMORY_COPY, op.MEMORY_FILL), f"instruction 0xFC {number} is not known"
        memories = self.read.take(2 if number == op.MEMORY_COPY else 1)
        nbytes, source, target = self.pop(), self.pop(), self.pop()
        operands = target.code + source.code + nbytes.code
        self.statement(operands + bytes([opcode]) + unsigned(number) + memories)

    def vector_instruction(self, number: int) -> None:
        name = _VECTOR_NAMES.get(number, f"0xFD {number}")
        if name in _LANE_WISE:
            scalar = _LANE_WISE[name]
            operands = [self.pop_lanes() for _ in range(1 if scalar in _ONE_OPERAND else 2)]
            self.push_lanes(apply(scalar, *x) for x in zip(*reversed(operands), strict=True))
        elif name in _COMPARISONS:
            b, a = self.pop_lanes(), self.pop_lanes()
            flags = [apply(_COMPARISONS[name], x, y) for x, y in zip(a, b, strict=True)]
            self.push_lanes(apply("i32.sub", i32(0), flag) for flag in flags)
        elif name in UNARY:
            self.push_lanes(UNARY[name](self.shared, self.pop_lanes()))
        elif name in BINARY:
            b, a = self.pop_lanes(), self.pop_lanes()
            self.push_lanes(BINARY[name](self.shared, a, b))
        elif name in _SHIFTS:
            bits = self.shared(self.pop())
            self.push_lanes(apply(_SHIFTS[name], x, bits) for x in self.pop_lanes())
        else:
            assert name in _VECTOR, f"vector instruction {name} has no scalar form"
            _VECTOR[name](self)

    def load_lanes(self, count: int, spread: tuple[int, ...]) -> None:
        """Load `count` neighbours; `spread` says which becomes which lane, -1 is zero."""
        _, offset = self.read.access()
        address = self.pop()
        if count > 1:
            address = self.shared(address)
        items = [load_scalar(address, offset + 4 * index) for index in range(count)]
        if len(set(spread) - {-1}) < len([index for index in spread if index >= 0]):
            items = [self.shared(item) for item in items]
        self.push_lanes(items[index] if index >= 0 else i32(0) for index in spread)

    def load_widened(self, widened: str) -> None:
        """Eight bytes, whose lower lanes an instruction extends."""
        self.load_lanes(2, (0, 1, -1, -1))
        widen = UNARY[widened]
        self.push_lanes(widen(self.shared, self.pop_lanes()))

    def load_narrow(self, opcode: int, align: int, ones: int) -> None:
        """An item of 1 or 2 bytes in all places; `ones` has a one at each."""
        _, offset = self.read.access()
        item = load_scalar(self.pop(), offset, opcode, align)
        self.push_lanes([self.shared(apply("i32.mul", item, i32(ones)))] * 4)

    def load_lane(self) -> None:
        _, offset = self.read.access()
        lane = self.read.byte()
        lanes = list(self.pop_lanes())
        lanes[lane] = load_scalar(self.pop(), offset)
        self.push_lanes(lanes)

    def store_lanes(self, per_item: int, has_lane: bool) -> None:
        """Store `per_item` neighbouring lanes; the instruction may say which."""
        _, offset = self.read.access()
        first = per_item * self.read.byte() if has_lane else 0
        lanes = self.pop_lanes()[first : first + per_item]
        address = self.pop()
        if per_item > 1:
            address = self.shared(address)
        # All lanes come first: they may be read from where the others are written. The last is
        # written first: if any is out of bounds, it is, and none is written.
        code = b"".join(address.code + as_f32(lane).code for lane in lanes)
        for index in reversed(range(per_item)):
            code += access(op.F32_STORE, 2, offset + 4 * index)
        self.statement(code)

    def store_narrow(self, opcode: int, nbytes: int) -> None:
        align, offset = self.read.access()
        lane, place = divmod(nbytes * self.read.byte(), 4)
        value = apply("i32.shr_u", self.pop_lanes()[lane], i32(8 * place))
        self.statement(self.pop().code + value.code + access(opcode, align, offset))

    def vector_constant(self) -> None:
        self.push_lanes(i32(bits) for bits in struct.unpack("<4I", self.read.take(16)))

    def shuffle(self) -> None:
        picks = self.read.take(16)
        if any(first % 4 for first in picks[::4]) or picks[2] % 4 != 2:
            b, a = self.pop_lanes(), self.pop_lanes()
            self.push_lanes(interleaved(self.shared, a, b, picks))
            return
        chosen = [first // 4 for first in picks[::4]]
        whole = bytes(4 * lane + index for lane in chosen for index in range(4))
        assert picks == whole, "i8x16.shuffle of parts of 32-bit lanes has no scalar form"
        b, a = self.pop_lanes(), self.pop_lanes()
        both = list(a + b)
        for lane in {lane for lane in chosen if chosen.count(lane) > 1}:
            both[lane] = self.shared(both[lane])
        self.push_lanes(both[lane] for lane in chosen)

    def splat(self) -> None:
        self.push_lanes([self.shared(self.pop())] * 4)

    def extract_lane(self) -> None:
        self.push(as_f32(self.pop_lanes()[self.read.byte()]))

    def replace_lane(self) -> None:
        lane, value = self.read.byte(), self.pop()
        lanes = list(self.pop_lanes())
        lanes[lane] = value
        self.push_lanes(lanes)

    def complement(self) -> None:
        self.push_lanes(apply("i32.xor", x, i32(-1)) for x in self.pop_lanes())

    def and_not(self) -> None:
        self.complement()
        b, a = self.pop_lanes(), self.pop_lanes()
        self.push_lanes(apply("i32.and", x, y) for x, y in zip(a, b, strict=True))

    def bit_select(self) -> None:
        """((a ^ b) & mask) ^ b"""
        mask, b, a = self.pop_lanes(), self.pop_lanes(), self.pop_lanes()
        b = tuple(self.shared(x) for x in b)
        differ = [apply("i32.xor", x, y) for x, y in zip(a, b, strict=True)]
        taken = [apply("i32.and", x, m) for x, m in zip(differ, mask, strict=True)]
        self.push_lanes(apply("i32.xor", x, y) for x, y in zip(taken, b, strict=True))

    def pseudo_extremum(self, is_minimum: bool) -> None:
        """b where b < a (pmin) or a < b (pmax), else a: a where one of them is NaN."""
        b, a = ([self.shared(x) for x in self.pop_lanes()] for _ in range(2))
        takes_b = [
            apply("f32.lt", y, x) if is_minimum else apply("f32.lt", x, y)
            for x, y in zip(a, b, strict=True)
        ]
        self.push_lanes(choose(c, y, x) for c, x, y in zip(takes_b, a, b, strict=True))

    def multiply_add(self, scalar: str) -> None:
        """c + a * b or c - a * b, rounded twice as relaxed SIMD allows."""
        c, b, a = self.pop_lanes(), self.pop_lanes(), self.pop_lanes()
        products = [apply("f32.mul", x, y) for x, y in zip(a, b, strict=True)]
        self.push_lanes(apply(scalar, z, p) for z, p in zip(c, products, strict=True))


_OTHERS: dict[int, Callable[[_Rewriting, int], None]] = {
    op.I32_CONST: _Rewriting.constant,
    op.F32_CONST: _Rewriting.constant,
    op.LOCAL_GET: _Rewriting.get,
    op.LOCAL_SET: _Rewriting.set,
    op.LOCAL_TEE: _Rewriting.set,
    op.SELECT: _Rewriting.select,
    **dict.fromkeys((op.BLOCK, op.LOOP, op.IF, op.BR_IF, op.END), _Rewriting.control),
    op.MISC: _Rewriting.bulk,
}

_VECTOR: dict[str, Callable[[_Rewriting], None]] = {
    "v128.load": lambda r: r.load_lanes(4, (0, 1, 2, 3)),
    "v128.load8x8_s": lambda r: r.load_widened("i16x8.extend_low_i8x16_s"),
    "v128.load8x8_u": lambda r: r.load_widened("i16x8.extend_low_i8x16_u"),
    "v128.load16x4_s": lambda r: r.load_widened("i32x4.extend_low_i16x8_s"),
    "v128.load8_splat": lambda r: r.load_narrow(op.I32_LOAD8_U, 0, 0x01010101),
    "v128.load16_splat": lambda r: r.load_narrow(op.I32_LOAD16_U, 1, 0x00010001),
    "v128.load32_splat": lambda r: r.load_lanes(1, (0, 0, 0, 0)),
    "v128.load64_splat": lambda r: r.load_lanes(2, (0, 1, 0, 1)),
    "v128.load32_zero": lambda r: r.load_lanes(1, (0, -1, -1, -1)),
    "v128.load64_zero": lambda r: r.load_lanes(2, (0, 1, -1, -1)),
    "v128.load32_lane": _Rewriting.load_lane,
    "v128.store": lambda r: r.store_lanes(4, has_lane=False),
    "v128.store8_lane": lambda r: r.store_narrow(op.I32_STORE8, 1),
    "v128.store16_lane": lambda r: r.store_narrow(op.I32_STORE16, 2),
    "v128.store32_lane": lambda r: r.store_lanes(1, has_lane=True),
    "v128.store64_lane": lambda r: r.store_lanes(2, has_lane=True),
    "v128.const": _Rewriting.vector_constant,
    "i8x16.shuffle": _Rewriting.shuffle,
    "i32x4.splat": _Rewriting.splat,
    "f32x4.splat": _Rewriting.splat,
    "f32x4.extract_lane": _Rewriting.extract_lane,
    "f32x4.replace_lane": _Rewriting.replace_lane,
    "v128.not": _Rewriting.complement,
    "v128.andnot": _Rewriting.and_not,
    "v128.bitselect": _Rewriting.bit_select,
    "f32x4.pmin": lambda r: r.pseudo_extremum(is_minimum=True),
    "f32x4.pmax": lambda r: r.pseudo_extremum(is_minimum=False),
    "f32x4.relaxed_madd": lambda r: r.multiply_add("f32.add"),
    "f32x4.relaxed_nmadd": lambda r: r.multiply_add("f32.sub"),
}
