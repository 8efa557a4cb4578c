"""Objects that wasm-ld links; here only their structure, tests/link links them."""

from __future__ import annotations

import wasmtime

from wasmgraph.assembler import V128, Function, write_object
from wasmgraph.assembler.function import f32x4, load


def functions() -> list[Function]:
    made = []
    for name, params in (("first", 2), ("second", 1), ("third", 2)):
        f = Function(name, params)
        f.store(f.params[-1], load(f.params[0]) + f.new(f32x4(1.0)))
        f.release(f.local(V128))
        made.append(f)
    return made


def test_an_object_is_a_valid_module_that_imports_its_memory() -> None:
    module = wasmtime.Module(wasmtime.Engine(), write_object(functions()))
    assert [(i.module, i.name) for i in module.imports] == [("env", "__linear_memory")]
    assert not module.exports


def test_every_function_has_a_symbol() -> None:
    data = write_object(functions())
    for name in (b"\5first", b"\6second", b"\5third", b"\7linking"):
        assert data.count(name) == 1


def test_the_same_functions_make_the_same_bytes() -> None:
    assert write_object(functions()) == write_object(functions())


def test_no_functions_make_a_valid_object() -> None:
    wasmtime.Module.validate(wasmtime.Engine(), write_object([]))
