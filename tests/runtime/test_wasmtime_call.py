"""Calls of exports without wasmtime-py's conversions: numbers in, a number out, failures told."""

from __future__ import annotations

import pytest
import wasmtime

from wasmgraph.runtime.wasmtime_call import GuestFunction
from wasmgraph.runtime.wasmtime_memory import OwnMemory

MODULE = """(module
    (import "host" "fail" (func $fail))
    (memory (export "memory") 1)
    (func (export "add") (param i32 i32) (result i32)
        (i32.add (local.get 0) (local.get 1)))
    (func (export "store") (param i32 i32) (i32.store (local.get 0) (local.get 1)))
    (func (export "grow") (result i32) (memory.grow (i32.const 1)))
    (func (export "trap") (param i32) (result i32) unreachable)
    (func (export "fail") (call $fail))
)"""


class HostError(Exception):
    """What the host's function raises."""


def raise_host_error() -> None:
    raise HostError


@pytest.fixture
def store() -> wasmtime.Store:
    return wasmtime.Store()


@pytest.fixture
def exports(store: wasmtime.Store) -> dict[str, wasmtime.Func | wasmtime.Memory]:
    linker = wasmtime.Linker(store.engine)
    linker.define_func("host", "fail", wasmtime.FuncType([], []), raise_host_error)
    module = wasmtime.Module(store.engine, MODULE)
    return dict(linker.instantiate(store, module).exports(store))


@pytest.fixture
def functions(store: wasmtime.Store, exports: dict) -> dict[str, GuestFunction]:
    found = {name: e for name, e in exports.items() if isinstance(e, wasmtime.Func)}
    return {name: GuestFunction(store, function) for name, function in found.items()}


@pytest.mark.parametrize(
    ("a", "b", "result"), [(1, 2, 3), (-1, 0, 2**32 - 1), (2**31, 0, 2**31), (2**32 - 1, 3, 2)]
)
def test_numbers_of_32_bits_come_back_unsigned(functions, a: int, b: int, result: int) -> None:
    assert functions["add"](a, b) == result


def test_a_function_without_a_result_gives_0(store, exports, functions) -> None:
    assert functions["store"](8, 7) == 0
    assert OwnMemory(store, exports["memory"]).whole()[8] == 7


def test_a_trap_is_raised_and_the_next_call_works(functions) -> None:
    for _ in range(2):
        with pytest.raises(wasmtime.Trap) as caught:
            functions["trap"](1)
        assert caught.value.trap_code is wasmtime.TrapCode.UNREACHABLE
        assert functions["add"](1, 1) == 2


def test_what_a_function_of_the_host_raises_comes_through(functions) -> None:
    with pytest.raises(HostError):
        functions["fail"]()
    with pytest.raises(wasmtime.Trap):  # not the last one's
        functions["trap"](1)


@pytest.mark.parametrize("arguments", [(), (1,), (1, 2, 3)])
def test_another_number_of_arguments_is_refused(functions, arguments: tuple[int, ...]) -> None:
    with pytest.raises(TypeError):
        functions["add"](*arguments)


def test_a_closed_store_is_not_called(store, functions) -> None:
    store.close()
    with pytest.raises(ValueError, match="closed"):
        functions["add"](1, 1)


def test_memory_that_has_grown_is_seen_whole(store, exports, functions) -> None:
    memory = OwnMemory(store, exports["memory"])
    assert memory.whole().size == 65536
    assert functions["grow"]() == 1
    functions["store"](65536 + 4, 9)
    assert memory.whole().size == 2 * 65536
    assert memory.whole()[65536 + 4] == 9
