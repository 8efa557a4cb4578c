"""Sealing: a module of WASI becomes one that imports nothing and still works."""

from __future__ import annotations

import pytest
import wasmtime

from wasmgraph.component.sealing import seal
from wasmgraph.errors import ToolchainError
from wasmgraph.wasmfile import parse_wasm

WASI = "wasi_snapshot_preview1"
MODULE = f"""(module
    (import "{WASI}" "environ_sizes_get" (func $sizes (param i32 i32) (result i32)))
    (import "{WASI}" "proc_exit" (func $exit (param i32)))
    (import "{WASI}" "random_get" (func $random (param i32 i32) (result i32)))
    (import "{WASI}" "fd_write" (func $write (param i32 i32 i32 i32) (result i32)))
    (memory (export "memory") 1)
    (global $begun (mut i32) (i32.const 0))
    (table 2 funcref)
    (elem (i32.const 0) $random $own)
    (func (export "_initialize") (global.set $begun (i32.add (global.get $begun) (i32.const 1))))
    (func (export "begun") (result i32) global.get $begun)
    (func $own (param i32 i32) (result i32) i32.const 5)
    (func (export "sizes") (result i32) (call $sizes (i32.const 8) (i32.const 12)))
    (func (export "leave") (call $exit (i32.const 3)))
    (func (export "write") (result i32)
        (call $write (i32.const 2) (i32.const 0) (i32.const 0) (i32.const 0)))
    (func (export "by_table") (param i32) (result i32)
        (call_indirect (param i32 i32) (result i32) (i32.const 0) (i32.const 8) (local.get 0)))
    (data (i32.const 8) "\\ff\\ff\\ff\\ff\\ff\\ff\\ff\\ff"))"""


def wat(text: str) -> bytes:
    return bytes(wasmtime.wat2wasm(text))


def test_every_import_is_answered_inside() -> None:
    sealed = seal(wat(MODULE), "_initialize")
    assert parse_wasm(sealed).imports == ()
    store = wasmtime.Store()
    module = wasmtime.Instance(store, wasmtime.Module(store.engine, sealed), []).exports(store)
    assert module["begun"](store) == 1
    assert module["sizes"](store) == 0
    assert module["memory"].read(store, 8, 16) == bytes(8)
    assert module["write"](store) == 8
    assert [module["by_table"](store, i) for i in (0, 1)] == [76, 5]
    with pytest.raises(wasmtime.Trap, match="unreachable"):
        module["leave"](store)


def test_a_module_without_imports_only_gets_a_start() -> None:
    sealed = seal(wat('(module (func (export "_initialize")))'), "_initialize")
    assert parse_wasm(sealed).section_nbytes["start"] == 1


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('(module (import "env" "f" (func)) (func (export "_initialize")))', "func 'f' of 'env'"),
        (f'(module (import "{WASI}" "m" (memory 1)) (func (export "_initialize")))', "memory 'm'"),
        ('(module (func $f (export "_initialize")) (start $f))', "a start function of its own"),
        ('(module (func (export "other")))', "does not export"),
        ("(module)", "does not export"),
    ],
)
def test_what_cannot_be_sealed_is_an_error(text: str, expected: str) -> None:
    with pytest.raises(ToolchainError, match=expected):
        seal(wat(text), "_initialize")
