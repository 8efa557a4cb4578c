"""A function without SIMD does what the one with SIMD does, instruction by instruction.

Values are compared bit by bit. Only where an instruction computes with f32 may two NaNs differ:
wasm leaves their sign and payload open.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import wasmtime
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from tests.kernels.runner import module_of, run_kernel
from wasmgraph.assembler import opcodes as op
from wasmgraph.assembler.function import (
    F32,
    I32,
    V128,
    Expr,
    Function,
    binary,
    extract,
    f32,
    f32x4,
    i32,
    interleave,
    load,
    load_f32,
    load_halves,
    load_i32,
    load_lane,
    load_lanes,
    load_splat,
    load_widened,
    select,
    shuffle,
    splat,
    ternary,
    unary,
    unsigned,
    v128,
)
from wasmgraph.assembler.scalar import scalarise

Bits = NDArray[np.uint32]

FLOATS = np.array(
    [
        0.0, -0.0, 0.5, -0.5, 1.5, 2.5, -2.5, 0.49999997, 8388607.5, -8388608.0, 1e-45, -1e-40,
        1.1754944e-38, 3.4028235e38, -3.4028235e38, np.inf, -np.inf, np.nan, 2147483520.0,
        2147483648.0, -2147483648.0, -2147483904.0, 3e9, 1.0, -1.0, 3.1415927,
    ],
    np.float32,
).view(np.uint32)  # fmt: skip
QUIET_AND_SIGNALLING = np.array([0x7FC00001, 0xFFC12345, 0x7F800001, 0xFF812345], np.uint32)
INTEGERS = np.array([0, 1, 0xFFFFFFFF, 0x7FFFFFFF, 0x80000000, 0x00010001, 31, 32], np.uint32)
SPECIAL = np.concatenate([FLOATS, QUIET_AND_SIGNALLING, INTEGERS])

COMPUTES = frozenset(
    f"f32x4.{name}"
    for name in (
        *("ceil", "floor", "trunc", "nearest", "sqrt"),
        *("add", "sub", "mul", "div", "min", "max", "relaxed_madd", "relaxed_nmadd"),
    )
)
"""The instructions whose NaNs are not determined."""


def vectors(rng: np.random.Generator, count: int) -> list[Bits]:
    """Random bit patterns, half of them special ones, every pair of which meets in some lane."""
    a, b = (x.reshape(-1) for x in np.meshgrid(SPECIAL, SPECIAL))
    pool = [a, b, rng.choice(SPECIAL, a.size)]
    other = rng.integers(0, 2**32, (3, 200), dtype=np.uint32)
    columns = [np.concatenate([pool[i], other[i]]) for i in range(count)]
    return [np.ascontiguousarray(x[: x.size // 4 * 4]) for x in columns]


def both(f: Function, inputs: list[Bits], nbytes: int) -> tuple[Bits, Bits]:
    """What a function writes with SIMD and without."""
    without = scalarise(f)
    return run_kernel(f, inputs, nbytes, np.uint32), run_kernel(without, inputs, nbytes, np.uint32)


def check_equal(name: str, with_simd: Bits, without: Bits) -> None:
    differ = with_simd != without
    if name in COMPUTES:
        differ &= ~(np.isnan(with_simd.view(np.float32)) & np.isnan(without.view(np.float32)))
    assert not differ.any(), (name, with_simd[differ][:4], without[differ][:4])


def over(operands: int, make: Callable[..., Expr]) -> tuple[Function, list[Bits]]:
    """A function that applies `make` to as many vectors as there are in the inputs."""
    inputs = vectors(np.random.default_rng(operands), operands)
    f = Function("kernel", operands + 1)
    with f.repeat(inputs[0].size // 4):
        f.store(f.params[-1], make(*(load(p) for p in f.params[:-1])))
        for pointer in f.params:
            f.set(pointer, pointer + 16)
    return f, inputs


def by_name(name: str, operands: int) -> tuple[Function, list[Bits]]:
    """An instruction without immediates."""
    build = {1: unary, 2: binary, 3: ternary}[operands]
    return over(operands, lambda *values: build(name, *values))


def shift(name: str) -> tuple[Function, list[Bits]]:
    """All counts of bits, also beyond 32: shifted by the low byte of the second operand."""
    f = Function("kernel", 3)
    a, b, out = f.params
    inputs = vectors(np.random.default_rng(0), 2)
    with f.repeat(inputs[0].size // 4):
        f.store(out, binary(name, load(a), load_i32(b, 0, 1)))
        for pointer in f.params:
            f.set(pointer, pointer + 16)
    return f, inputs


def instruction(name: str, *immediates: int) -> bytes:
    return bytes([op.SIMD]) + unsigned(op.VECTOR[name]) + bytes(immediates)


def splat_of(name: str) -> tuple[Function, list[Bits]]:
    f = Function("kernel", 2)
    source, out = f.params
    item = load_i32(source, 8) if name.startswith("i32") else load_f32(source, 8)
    f.store(out, unary(name, item))
    return f, [QUIET_AND_SIGNALLING]


def loads(name: str) -> tuple[Function, list[Bits]]:
    """All loads that make a whole vector, at an address that is aligned and at one that is not."""
    made = {
        "v128.load": load,
        "v128.load8x8_s": lambda p, at: load_widened(p, at, True),
        "v128.load8x8_u": lambda p, at: load_widened(p, at, False),
        "v128.load16x4_s": load_halves,
        "v128.load32_zero": lambda p, at: load_lanes(p, at, 1),
        "v128.load64_zero": lambda p, at: load_lanes(p, at, 2),
        **{
            f"v128.load{8 * n}_splat": lambda p, at, n=n: load_splat(p, at, n) for n in (1, 2, 4, 8)
        },
    }[name]
    f = Function("kernel", 2)
    for index, at in enumerate((0, 8, 3)):
        f.store(f.params[1], made(f.params[0] + index, at), 16 * index)
    return f, [vectors(np.random.default_rng(0), 1)[0][-8:]]


def lanes(name: str) -> tuple[Function, list[Bits]]:
    """Every lane of `f32x4.extract_lane`, `f32x4.replace_lane` and `v128.load32_lane` in turn."""
    f = Function("kernel", 3)
    a, b, out = f.params
    for lane in range(4):
        if name == "f32x4.extract_lane":
            f.store_f32(out, extract(load(a), lane), 16 * lane)
        elif name == "f32x4.replace_lane":
            code = load(a).code + load_f32(b, 4).code + instruction(name, lane)
            f.store(out, Expr(V128, code), 16 * lane)
        else:
            f.store(out, load_lane(b, 4, load(a), lane), 16 * lane)
    return f, [QUIET_AND_SIGNALLING, INTEGERS[:4]]


def stores(name: str) -> tuple[Function, list[Bits]]:
    """Every item of a vector in turn, `v128.store` the whole of it."""
    f = Function("kernel", 2)
    source, out = f.params
    if name == "v128.store":
        f.store(out, load(source), 4)
        return f, [QUIET_AND_SIGNALLING]
    nbytes = int(name.removeprefix("v128.store").removesuffix("_lane")) // 8
    for lane in range(16 // nbytes):
        f.store_item(out, load(source), 3 + 9 * lane, nbytes, lane)
    return f, [np.array([0x03020100, 0x07060504, 0x0B0A0908, 0x0F0E0D0C], np.uint32)]


def constant(_: str) -> tuple[Function, list[Bits]]:
    f = Function("kernel", 2)
    f.store(f.params[1], v128((0x7F800001, 0xFFFFFFFF, 0x80000000, 7)))
    doubled = v128((0x7F800001, 3, 0, 0xC0000000))
    f.store(f.params[1], doubled + f32x4(1.5), 16)
    f.store(f.params[1], binary("i32x4.add", doubled, f32x4(-1.0)), 32)
    return f, [INTEGERS[:4]]


def shuffles(_: str) -> tuple[Function, list[Bits]]:
    return over(2, lambda a, b: shuffle(shuffle(a, b, (7, 0, 2, 0)), a + b, (1, 4, 0, 5)))


@pytest.mark.parametrize("half", [0, 1])
def test_16_bit_lanes_are_interleaved(half):
    f, inputs = over(2, lambda a, b: interleave(a, b, half))
    with_simd, without = both(f, inputs, inputs[0].nbytes)
    check_equal("i8x16.shuffle", with_simd, without)
    a, b = (x.view(np.uint16).reshape(-1, 8)[:, 4 * half :][:, :4] for x in inputs)
    np.testing.assert_array_equal(
        with_simd.view(np.uint16).reshape(-1, 8), np.stack([a, b], -1).reshape(-1, 8)
    )


CASES: dict[str, Callable[[str], tuple[Function, list[Bits]]]] = {
    "v128.const": constant,
    "i8x16.shuffle": shuffles,
    **dict.fromkeys(("i32x4.splat", "f32x4.splat"), splat_of),
    **dict.fromkeys(("i32x4.shl", "i32x4.shr_s", "i32x4.shr_u"), shift),
    **dict.fromkeys(("f32x4.extract_lane", "f32x4.replace_lane", "v128.load32_lane"), lanes),
    **{name: loads for name in op.VECTOR if name.startswith("v128.load")},
    "v128.load32_lane": lanes,
    **{name: stores for name in op.VECTOR if name.startswith("v128.store")},
    **dict.fromkeys(
        ("v128.bitselect", "f32x4.relaxed_madd", "f32x4.relaxed_nmadd"),
        lambda name: by_name(name, 3),
    ),
    **dict.fromkeys(
        (
            *("v128.not", "i32x4.trunc_sat_f32x4_s", "f32x4.convert_i32x4_s", "f32x4.sqrt"),
            *("f32x4.ceil", "f32x4.floor", "f32x4.trunc", "f32x4.nearest"),
            *("f32x4.abs", "f32x4.neg"),
            *(name for name in op.VECTOR if ".extend_" in name),
        ),
        lambda name: by_name(name, 1),
    ),
}
"""Functions that use an instruction; those not named here take two vectors."""


@pytest.mark.parametrize("name", op.VECTOR)
def test_every_vector_instruction_has_a_scalar_form(name):
    make = CASES.get(name, lambda name: by_name(name, 2))
    f, inputs = make(name)
    assert instruction(name) in f.instructions
    with_simd, without = both(f, inputs, max(256, inputs[0].nbytes))
    if "relaxed" in name:
        with_simd = fused_or_not(name, with_simd, inputs)
    check_equal(name, with_simd, without)


def fused_or_not(name: str, found: Bits, inputs: list[Bits]) -> Bits:
    """What rounds twice, after checking that the engine rounds once or twice."""
    a, b, c = (x.view(np.float32) for x in inputs)
    sign = np.float32(1 if name == "f32x4.relaxed_madd" else -1)
    with np.errstate(all="ignore"):
        twice = sign * (a * b) + c
        once = (sign * (a.astype(np.float64) * b) + c).astype(np.float32)
    result = found.view(np.float32)[: a.size]
    near = np.abs(result.view(np.int32) - once.view(np.int32)) <= 1
    assert (np.isnan(result) & np.isnan(once) | near | (result == twice)).all()
    padded = found.copy()
    padded[: a.size] = twice.view(np.uint32)
    return padded


@pytest.mark.parametrize("name", [n for n in op.SCALAR if n.startswith("i32.")])
def test_scalar_integer_instructions_stay_what_they_are(name):
    f = Function("kernel", 2)
    source, out = f.params
    a, b = load_i32(source), load_i32(source, 4)
    value = unary(name, a) if name == "i32.eqz" else binary(name, a, b)
    f.store_i32(out, value)
    f.store_i32(out, value, 4, 2)
    f.store_i32(out, value, 6, 1)
    for pair in ((5, 3), (2**32 - 1, 7), (4, 4)):
        with_simd, without = both(f, [np.array(pair, np.uint32)], 8)
        assert with_simd.tolist() == without.tolist()


@pytest.mark.parametrize("name", [n for n in op.SCALAR if n.startswith("f32.")])
def test_scalar_float_instructions_stay_what_they_are(name):
    f = Function("kernel", 2)
    source, out = f.params
    a, b = load_f32(source), load_f32(source, 4)
    one = name in ("f32.abs", "f32.neg", "f32.sqrt")
    f.store_f32(out, unary(name, a) if one else binary(name, a, b))
    with_simd, without = both(f, [np.array([2.25, -0.5], np.float32).view(np.uint32)], 4)
    assert with_simd.tolist() == without.tolist()


def test_lanes_are_read_before_the_local_they_come_from_changes():
    f = Function("kernel", 2)
    x = f.new(load(f.params[0]))
    f.set(x, shuffle(x, x, (3, 2, 1, 0)))
    f.set(x, x + shuffle(x, x, (2, 3, 0, 1)))
    f.store(f.params[1], x)
    lanes_ = np.array([1, 2, 4, 8], np.float32)
    expected = lanes_[::-1] + lanes_[[1, 0, 3, 2]]
    for kernel in (f, scalarise(f)):
        assert run_kernel(kernel, [lanes_], 16).tolist() == expected.tolist()


def test_a_store_over_what_it_reads_reads_first():
    f = Function("kernel", 1)
    (out,) = f.params
    f.store(out, shuffle(load(out, 4), load(out), (0, 7, 1, 4)), 8)
    before = np.arange(8, dtype=np.float32)
    for kernel in (f, scalarise(f)):
        after = run_kernel(kernel, [], 32, out_before=before)
        assert after.tolist() == [0, 1, 1, 3, 2, 0, 6, 7]


def test_a_store_beyond_the_memory_writes_nothing():
    f = Function("kernel", 1)
    f.store(f.params[0], f32x4(1.0))
    for kernel in (f, scalarise(f)):
        store = wasmtime.Store()
        module = wasmtime.Module(store.engine, module_of([kernel], 1))
        exports = wasmtime.Instance(store, module, []).exports(store)
        with pytest.raises(wasmtime.Trap):
            exports["kernel"](store, 65536 - 12)
        assert exports["memory"].read(store, 65536 - 12) == bytes(12)


def test_loops_conditions_copies_and_selection():
    """Sums of alternating signs, by everything that a function's control flow offers."""
    f = Function("kernel", 2)
    source, out = f.params
    total, turn, end = f.new(f32x4(0.0)), f.new(i32(0)), f.new(i32(12))
    with f.block() as label, f.repeat_until(turn, 1, end):
        value = load(source)
        is_odd = binary("i32.and", turn, i32(1))
        f.set(total, total + select(is_odd, unary("f32x4.neg", value), value))
        with f.when(binary("i32.eq", turn, i32(7))):
            f.fill_zero(source, 16)
        f.set(source, source + 16)
        f.leave_if(label, binary("i32.eq", turn, i32(9)))
    scale = select(binary("i32.gt_s", turn, i32(3)), f32(2.0), f32(3.0))
    f.store(out, total * splat(scale))
    f.copy(out + 16, out, 16)
    f.fill_zero(out + 32, 16)
    data = np.arange(48, dtype=np.float32).reshape(12, 4)
    expected = 2 * (data[0:10:2] - data[1:10:2]).sum(0)
    for kernel in (f, scalarise(f)):
        # The source is cleared in part, so only the last buffer may be the output.
        result = run_in_place(kernel, data)
        assert result[:8].tolist() == [*expected, *expected]
        assert result[8:].tolist() == [0] * 4


def run_in_place(kernel: Function, data: NDArray[np.float32]) -> NDArray[np.float32]:
    """Run a kernel that changes its input: source at 0, output behind it."""
    store = wasmtime.Store()
    module = wasmtime.Module(store.engine, module_of([kernel], 1))
    exports = wasmtime.Instance(store, module, []).exports(store)
    exports["memory"].write(store, data.tobytes(), 0)
    assert exports["kernel"](store, 0, data.nbytes) == 0
    assert not any(exports["memory"].read(store, 7 * 16, 8 * 16))
    return np.frombuffer(exports["memory"].read(store, data.nbytes, data.nbytes + 48), np.float32)


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_expressions_of_any_shape(data):
    """Trees over four locals, set and stored one after the other; integers, so sums are exact."""
    f = Function("kernel", 2)
    source, out = f.params
    places = [f.new(load(source, 16 * i)) for i in range(4)]

    def tree(depth: int) -> Expr:
        kind = data.draw(st.integers(0, 6)) if depth else 0
        if kind <= 1:
            return data.draw(st.sampled_from(places))
        if kind == 2:
            picks = tuple(data.draw(st.integers(0, 7)) for _ in range(4))
            return shuffle(tree(depth - 1), tree(depth - 1), picks)
        if kind == 3:
            mask = binary("f32x4.lt", tree(depth - 1), tree(depth - 1))
            return ternary("v128.bitselect", tree(depth - 1), tree(depth - 1), mask)
        if kind == 4:
            return splat(extract(tree(depth - 1), data.draw(st.integers(0, 3))))
        if kind == 5:
            return load_lane(source, 4, tree(depth - 1), data.draw(st.integers(0, 3)))
        name = data.draw(st.sampled_from(["f32x4.add", "v128.xor", "i32x4.sub", "f32x4.pmin"]))
        return binary(name, tree(depth - 1), tree(depth - 1))

    for _ in range(data.draw(st.integers(1, 5))):
        f.set(data.draw(st.sampled_from(places)), tree(3))
    for index, place in enumerate(places):
        f.store(out, place, 16 * index)
    with_simd, without = both(f, [np.arange(16, dtype=np.float32).view(np.uint32)], 64)
    check_equal("f32x4.add", with_simd, without)


def test_no_engine_feature_for_vectors_is_needed():
    """An engine without SIMD takes the scalar function and refuses the vector one."""
    config = wasmtime.Config()
    config.wasm_relaxed_simd = False
    config.wasm_simd = False
    engine = wasmtime.Engine(config)
    f = Function("kernel", 2)
    f.local(V128)
    f.store(f.params[1], load(f.params[0]) * f32x4(2.0))
    wasmtime.Module(engine, module_of([scalarise(f)], 1))
    with pytest.raises(wasmtime.WasmtimeError, match="SIMD"):
        wasmtime.Module(engine, module_of([f], 1))


def test_locals_keep_their_types_and_order():
    f = Function("kernel", 1)
    f.local(I32), f.local(V128), f.local(F32)
    assert scalarise(f).local_types == (I32, F32, F32, F32, F32, F32)


@pytest.mark.parametrize(
    ("code", "message"),
    [
        (b"\xfd\x23", "vector instruction 0xFD 35 has no scalar form"),
        (b"\x42\x00", "instruction 0x42 is not known"),
        (b"\xfc\x08", "instruction 0xFC 8 is not known"),
    ],
)
def test_unknown_instructions_are_named(code, message):
    f = Function("kernel", 0)
    f.emit(code)
    with pytest.raises(AssertionError, match=message):
        scalarise(f)


def test_shuffles_of_parts_of_lanes_are_refused():
    f = Function("kernel", 1)
    value = load(f.params[0])
    f.set(f.local(V128), Expr(V128, value.code * 2 + instruction("i8x16.shuffle", *range(1, 17))))
    with pytest.raises(AssertionError, match="single bytes"):
        scalarise(f)
