"""The assembler's encodings, expressions, control flow and memory, as the engine sees them."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import wasmtime
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.kernels.runner import FILL, module_of, run_kernel
from wasmgraph.assembler import F32, I32, V128, Expr, Function
from wasmgraph.assembler.function import (
    binary,
    extract,
    f32,
    f32x4,
    i32,
    i32x4,
    load,
    load_f32,
    load_i32,
    load_lane,
    load_lanes,
    load_splat,
    select,
    shuffle,
    signed,
    splat,
    ternary,
    unary,
    unsigned,
    v128,
)
from wasmgraph.assembler.opcodes import SCALAR, VECTOR


def evaluate(value: Callable[[Function], Expr], dtype: type = np.float32) -> np.ndarray:
    """The four lanes of an expression."""
    f = Function("kernel", 1)
    f.store(f.params[0], value(f))
    return run_kernel(f, [], 16, dtype)


def integer(value: Callable[[Function], Expr]) -> int:
    f = Function("kernel", 1)
    f.store_i32(f.params[0], value(f))
    return int(run_kernel(f, [], 4, np.int32)[0])


@given(st.integers(0, 2**64))
def test_unsigned_leb128_decodes_to_the_number(value: int) -> None:
    encoded = unsigned(value)
    assert sum((byte & 0x7F) << 7 * i for i, byte in enumerate(encoded)) == value
    assert [byte >> 7 for byte in encoded] == [1] * (len(encoded) - 1) + [0]


@given(st.integers(-(2**40), 2**40))
def test_signed_leb128_decodes_to_the_number_in_the_fewest_bytes(value: int) -> None:
    encoded = signed(value)
    bits = 7 * len(encoded)
    total = sum((byte & 0x7F) << 7 * i for i, byte in enumerate(encoded))
    assert (total + 2 ** (bits - 1)) % 2**bits - 2 ** (bits - 1) == value
    assert len(encoded) == 1 or not -(2 ** (bits - 8)) <= value < 2 ** (bits - 8)


@settings(max_examples=30, deadline=None)
@given(st.integers(-(2**31), 2**32 - 1))
def test_i32_constants_wrap_like_addresses(value: int) -> None:
    assert integer(lambda _: i32(value)) % 2**32 == value % 2**32


def test_constants_fill_their_lanes() -> None:
    np.testing.assert_array_equal(evaluate(lambda _: f32x4(0.1)), np.full(4, 0.1, np.float32))
    np.testing.assert_array_equal(evaluate(lambda _: i32x4(-2), np.int32), [-2] * 4)
    np.testing.assert_array_equal(evaluate(lambda _: v128((1, 2, 3, 2**31)), np.uint32)[3], 2**31)
    np.testing.assert_array_equal(evaluate(lambda _: splat(f32(-7.25))), [-7.25] * 4)


@settings(max_examples=30, deadline=None)
@given(st.integers(-1000, 1000), st.integers(-1000, 1000))
def test_arithmetic_on_constants_folds_to_what_the_engine_computes(a: int, b: int) -> None:
    def variable(f: Function, value: int) -> Expr:
        return f.new(i32(value))

    assert integer(lambda f: variable(f, a) + b) == (i32(a) + b).value == a + b
    assert integer(lambda f: variable(f, a) - b) == a - b
    assert integer(lambda f: variable(f, a) * b) == (i32(a) * b).value == a * b


def test_neutral_operands_emit_nothing() -> None:
    f = Function("kernel", 1)
    pointer = f.params[0]
    assert (pointer + 0).code == (pointer - 0).code == (pointer * 1).code == pointer.code


def _stands_alone(name: str) -> bool:
    """Whether nothing but the opcode is encoded; the others are run by tests of their own."""
    return not name.startswith(("v128.load", "v128.store", "v128.const", "i8x16")) and (
        not name.endswith("_lane")
    )


@pytest.mark.parametrize("name", sorted(filter(_stands_alone, [*SCALAR, *VECTOR])))
def test_every_opcode_is_the_instruction_of_that_name(name: str) -> None:
    # The engine's text parser is the reference.
    prefix, operation = name.split(".")
    scalar = name in SCALAR
    kind = prefix if scalar else "v128"
    if operation == "splat":
        kinds = [prefix[:3]]
    elif _is_unary(operation):
        kinds = [kind]
    elif operation == "bitselect" or operation.startswith("relaxed"):
        kinds = [kind] * 3
    else:
        shifts = not scalar and operation.startswith("sh")
        kinds = [kind, "i32" if shifts else kind]
    compares = operation[:2] in ("eq", "ne", "lt", "gt", "le", "ge") and operation != "neg"
    result = "i32" if scalar and compares else kind if scalar else "v128"
    params = " ".join(f"(param {k})" for k in kinds)
    gets = " ".join(f"local.get {i}" for i in range(len(kinds)))
    module = wasmtime.wat2wasm(f"(module (func {params} (result {result}) {gets} {name}))")
    code = bytes([SCALAR[name]]) if scalar else b"\xfd" + unsigned(VECTOR[name])
    last = bytes([0x20, len(kinds) - 1])
    assert last + code + b"\x0b" in bytes(module)


def _is_unary(operation: str) -> bool:
    return operation in (
        *("eqz", "abs", "neg", "sqrt", "not", "ceil", "floor", "trunc", "nearest"),
        *("trunc_sat_f32x4_s", "convert_i32x4_s"),
    )


def test_operations_by_name() -> None:
    a, b = f32x4(3.0), f32x4(-4.0)
    assert evaluate(lambda _: a - b)[0] == 7
    assert evaluate(lambda _: unary("f32x4.abs", b))[0] == 4
    assert evaluate(lambda _: binary("f32x4.pmax", a, b))[0] == 3
    mask = v128((0xFFFFFFFF, 0, 0xFFFFFFFF, 0))
    picked = evaluate(lambda _: ternary("v128.bitselect", a, b, mask))
    np.testing.assert_array_equal(picked, [3, -4, 3, -4])


@pytest.mark.parametrize("lanes", [(0, 1, 2, 3), (7, 0, 4, 3), (5, 5, 1, 1)])
def test_shuffles_pick_lanes_of_both_vectors(lanes: tuple[int, int, int, int]) -> None:
    x = np.arange(8, dtype=np.float32)
    f = Function("kernel", 2)
    f.store(f.params[1], shuffle(load(f.params[0]), load(f.params[0], 16), lanes))
    np.testing.assert_array_equal(run_kernel(f, [x], 16), lanes)


@pytest.mark.parametrize("lane", range(4))
def test_lanes_are_taken_out_and_put_in(lane: int) -> None:
    x = np.arange(1, 6, dtype=np.float32)
    f = Function("kernel", 2)
    source, out = f.params
    f.store_f32(out, extract(load(source), lane))
    f.store(out, load_lane(source, 16, load(source), lane), 4)
    got = run_kernel(f, [x], 20)
    assert got[0] == x[lane]
    np.testing.assert_array_equal(got[1:], [5 if i == lane else x[i] for i in range(4)])


@pytest.mark.parametrize("lanes", [1, 2, 3, 4])
def test_partial_vectors_touch_their_lanes_only(lanes: int) -> None:
    x = np.arange(1, lanes + 1, dtype=np.float32)
    f = Function("kernel", 2)
    value = f.new(load_lanes(f.params[0], 0, lanes))
    f.store_lanes(f.params[1], value, 0, lanes)
    f.store(f.params[1], value, 4 * lanes)
    got = run_kernel(f, [x], 4 * lanes + 16)
    np.testing.assert_array_equal(got, [*x, *x, *[0] * (4 - lanes)])
    short = Function("kernel", 2)
    short.store_lanes(short.params[1], load_lanes(short.params[0], 0, lanes), 0, lanes)
    np.testing.assert_array_equal(run_kernel(short, [x], 4 * lanes), x)


@pytest.mark.parametrize("nbytes", [1, 2, 4, 8])
def test_items_of_every_size_are_spread_and_stored(nbytes: int) -> None:
    x = np.arange(1, 1 + nbytes, dtype=np.uint8)
    f = Function("kernel", 2)
    f.store(f.params[1], load_splat(f.params[0], 0, nbytes))
    for lane in range(16 // nbytes):
        spread = load_splat(f.params[0], 0, nbytes)
        f.store_item(f.params[1], spread, 16 + lane * nbytes, nbytes, lane)
    np.testing.assert_array_equal(run_kernel(f, [x], 32, np.uint8), np.tile(x, 32 // nbytes))


@pytest.mark.parametrize("nbytes", [1, 2, 4])
def test_integers_are_loaded_without_sign_and_stored_by_their_low_bytes(nbytes: int) -> None:
    x = np.full(nbytes, 0xFF, np.uint8)
    f = Function("kernel", 2)
    f.store_i32(f.params[1], load_i32(f.params[0], 0, nbytes))
    f.store_i32(f.params[1], i32(-2), 4, nbytes)
    got = run_kernel(f, [x], 4 + nbytes, np.uint8)
    assert int.from_bytes(got[:4].tobytes(), "little") == 256**nbytes - 1
    assert got[4:].tobytes() == (-2).to_bytes(4, "little", signed=True)[:nbytes]


def test_select_takes_the_first_where_the_condition_holds() -> None:
    assert integer(lambda f: select(f.new(i32(5)), i32(1), i32(2))) == 1
    assert integer(lambda f: select(f.new(i32(0)), i32(1), i32(2))) == 2


@pytest.mark.parametrize("count", [-1, 0, 1, 2, 7])
def test_repeat_runs_its_block_that_many_times(count: int) -> None:
    def body(f: Function) -> Expr:
        total = f.new(i32(0))
        with f.repeat(count):
            f.set(total, total + 1)
        return total

    assert integer(body) == max(count, 0)


def test_a_block_that_never_runs_leaves_nested_code_valid() -> None:
    def body(f: Function) -> Expr:
        total = f.new(i32(3))
        with f.repeat(0), f.repeat(5), f.block() as end:
            f.leave_if(end, total)
            f.set(total, i32(0))
        return total

    assert integer(body) == 3


@pytest.mark.parametrize(("start", "step", "end", "rounds"), [(0, 1, 1, 1), (2, 3, 14, 4)])
def test_repeat_until_stops_at_the_end(start: int, step: int, end: int, rounds: int) -> None:
    def body(f: Function) -> Expr:
        counter, total = f.new(i32(start)), f.new(i32(0))
        with f.repeat_until(counter, step, f.new(i32(end))):
            f.set(total, total + 1)
        return total * 100 + counter

    assert integer(body) == 100 * rounds + end


@pytest.mark.parametrize("condition", [0, 1, -1])
def test_when_runs_its_block_if_the_condition_is_not_zero(condition: int) -> None:
    def body(f: Function) -> Expr:
        result = f.new(i32(10))
        with f.when(f.new(i32(condition))):
            f.set(result, i32(20))
        return result

    assert integer(body) == (20 if condition else 10)


@pytest.mark.parametrize(("outer", "inner"), [(0, 0), (0, 1), (1, 0)])
def test_leaving_an_enclosing_block_skips_the_rest_of_it(outer: int, inner: int) -> None:
    def body(f: Function) -> Expr:
        result = f.new(i32(0))
        leave_outer, leave_inner = f.new(i32(outer)), f.new(i32(inner))
        with f.block() as first:
            with f.block() as second:
                f.leave_if(first, leave_outer)
                f.leave_if(second, leave_inner)
                f.set(result, result + 1)
            f.set(result, result + 10)
        return result

    assert integer(body) == (0 if outer else 10 if inner else 11)


def test_scratch_locals_are_used_again() -> None:
    f = Function("kernel", 0)
    with f.scratch(V128, 2) as first, f.scratch(F32, 1), f.scratch(I32, 1):
        pass
    with f.scratch(V128, 2) as second:
        assert {local.index for local in first} == {local.index for local in second}


@pytest.mark.parametrize("nbytes", [0, 1, 100])
def test_bulk_copies_and_fills(nbytes: int) -> None:
    x = np.arange(1, 101, dtype=np.uint8)
    f = Function("kernel", 2)
    f.copy(f.params[1], f.params[0], nbytes)
    f.fill_zero(f.params[1] + nbytes, i32(20))
    got = run_kernel(f, [x], 130, np.uint8)
    np.testing.assert_array_equal(got, [*x[:nbytes], *[0] * 20, *[FILL] * (110 - nbytes)])


def test_mixing_types_is_refused() -> None:
    f = Function("kernel", 1)
    with pytest.raises(AssertionError):
        f.set(f.params[0], f32(1.0))
    with pytest.raises(AssertionError):
        f32x4(1.0) + f32(1.0)
    with pytest.raises(AssertionError):
        load_f32(f.params[0], -4)


def test_a_module_of_several_functions_is_valid() -> None:
    functions = []
    for params in (0, 3, 1):
        f = Function(f"kernel{params}", params)
        f.locals(V128, 3)
        f.local(I32)
        f.local(V128)
        functions.append(f)
    wasmtime.Module.validate(wasmtime.Engine(), module_of(functions, 1))
