"""Graphs with the right exports that lie: a documented error, never a crash or a foreign read."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import wasmgraph
from tests.hostile_graphs import (
    HOSTILE,
    OUTSIDE,
    STRANGE,
    Feeds,
    HostileGraph,
    StrangeGraph,
    write_hostile,
)
from tests.runtime.wat_graphs import FAILS, FUNCTIONS, WatGraph, X, returning
from wasmgraph.errors import InferenceError, InputError, LoadError, RunTimeout, WasmgraphError

Load = Callable[..., wasmgraph.Graph]
FOUR = {"x": np.arange(4, dtype=np.float32)}


@pytest.mark.parametrize("address", OUTSIDE)
def test_an_input_outside_memory_is_refused(load_wat: Load, address: str) -> None:
    graph = load_wat(WatGraph({"wg_input": returning("wg_input", address)}))
    with pytest.raises(InferenceError, match="outside its memory of 65536 bytes"):
        graph.run(FOUR)


@pytest.mark.parametrize("address", OUTSIDE)
def test_an_output_outside_memory_is_refused(load_wat: Load, address: str) -> None:
    graph = load_wat(WatGraph({"wg_output": returning("wg_output", address)}))
    with pytest.raises(InferenceError, match="outside its memory"):
        graph.run(FOUR)


def test_the_last_bytes_of_memory_are_inside(load_wat: Load) -> None:
    graph = load_wat(WatGraph({"wg_output": returning("wg_output", "65520")}))
    np.testing.assert_array_equal(graph.run(FOUR)["y"], np.zeros(4, np.float32))


def test_addresses_above_two_gigabytes_are_unsigned(load_wat: Load) -> None:
    graph = load_wat(
        WatGraph(
            {"wg_input": returning("wg_input", "-2147483648")},
            memory='(memory (export "memory") 32769)',
        )
    )
    graph.run(FOUR)


@pytest.mark.parametrize("name", ["wg_input", "wg_output"])
def test_a_null_address_is_an_error_with_the_graphs_words(load_wat: Load, name: str) -> None:
    with pytest.raises(InferenceError, match="it failed"):
        load_wat(WatGraph({name: returning(name, "0")})).run(FOUR)


@pytest.mark.parametrize(
    ("address", "length"), [("65530", "7"), ("16", "-1"), ("-1", "1"), ("-1", "-1")]
)
def test_an_error_text_outside_memory_is_refused(load_wat: Load, address: str, length: str) -> None:
    graph = WatGraph(
        {
            "wg_run": FAILS,
            "wg_error": returning("wg_error", address),
            "wg_error_len": returning("wg_error_len", length),
        }
    )
    with pytest.raises(InferenceError, match=r"error text .* outside its memory"):
        load_wat(graph).run(FOUR)


def test_a_gigantic_error_text_is_cut(load_wat: Load) -> None:
    graph = WatGraph(
        {
            "wg_run": FAILS,
            "wg_error": returning("wg_error", "0"),
            "wg_error_len": returning("wg_error_len", str(64 * 65536)),
        },
        memory='(memory (export "memory") 64)',
    )
    with pytest.raises(InferenceError) as caught:
        load_wat(graph).run(FOUR)
    assert len(caught.value.message) < 70_000


def test_an_error_text_cannot_command_the_terminal(load_wat: Load) -> None:
    graph = WatGraph(
        {"wg_run": FAILS},
        rest=r'(data (i32.const 16) "\1b[2J\ff\00bad")',
    )
    with pytest.raises(InferenceError) as caught:
        load_wat(graph).run(FOUR)
    assert "bad" in caught.value.message
    assert all(c == "\n" or c.isprintable() for c in caught.value.message)


def test_an_error_text_that_never_comes_is_bounded_in_time(load_wat: Load) -> None:
    spins = "(func $wg_error (result i32) (loop $again (br $again)) i32.const 0)"
    graph = load_wat(WatGraph({"wg_run": FAILS, "wg_error": spins}), timeout=0.1)
    with pytest.raises(RunTimeout):
        graph.run(FOUR)


def test_endless_recursion_is_a_trap(load_wat: Load) -> None:
    deep = "(func $wg_run (result i32) (call $wg_run))"
    with pytest.raises(InferenceError, match="stack overflow"):
        load_wat(WatGraph({"wg_run": deep})).run(FOUR)


def test_memory_that_grows_in_a_run_is_read_where_it_is_then(load_wat: Load) -> None:
    graph = load_wat(
        WatGraph(
            {
                "wg_run": """(func $wg_run (result i32)
                    (drop (memory.grow (i32.const 100)))
                    (f32.store (i32.const 6000000) (f32.const 5))
                    i32.const 0)""",
                "wg_output": returning("wg_output", "6000000"),
            }
        )
    )
    np.testing.assert_array_equal(graph.run(FOUR)["y"], np.float32([5, 0, 0, 0]))


def test_another_abi_is_a_load_error(tmp_path: Path) -> None:
    path = WatGraph({"wg_abi": returning("wg_abi", "2")}).write(tmp_path)
    with pytest.raises(LoadError, match="ABI 2"):
        wasmgraph.load(path)


@pytest.mark.parametrize("name", list(FUNCTIONS))
def test_a_missing_export_is_a_load_error(tmp_path: Path, name: str) -> None:
    path = WatGraph({name: None}).write(tmp_path)
    with pytest.raises(LoadError, match=name):
        wasmgraph.load(path)


@pytest.mark.parametrize("types", ["(param f64)", "(param v128)", "(param externref)"])
@pytest.mark.parametrize("name", [name for name in FUNCTIONS if name != "_start"])
def test_an_export_of_another_type_is_a_load_error(tmp_path: Path, name: str, types: str) -> None:
    wrong = f"(func ${name} {types} (result i64) i64.const 1)"
    path = WatGraph({name: wrong}).write(tmp_path)
    with pytest.raises(LoadError, match=f"incompatible import type for `graph::{name}`"):
        wasmgraph.load(path)


def test_a_trap_while_starting_is_a_load_error(tmp_path: Path) -> None:
    path = WatGraph(rest="(func $boom unreachable) (start $boom)").write(tmp_path)
    with pytest.raises(LoadError, match="unreachable"):
        wasmgraph.load(path)


def test_initialize_runs_once(load_wat: Load) -> None:
    graph = load_wat(
        WatGraph(
            rest="""(func (export "_initialize")
                (f32.store (i32.const 3072)
                    (f32.add (f32.load (i32.const 3072)) (f32.const 1))))""",
            functions={"wg_output": returning("wg_output", "3072")},
        )
    )
    graph.run(FOUR)
    assert graph.run(FOUR)["y"][0] == 1


@pytest.mark.parametrize(
    "field",
    [
        '(import "env" "abort" (func))',
        '(import "wasi_snapshot_preview1" "memory" (memory 1))',
        '(import "wasi_unstable" "fd_write" (func (param i32 i32 i32 i32) (result i32)))',
        '(import "wasi_snapshot_preview1" "fd_write" (func (param v128) (result i32)))',
        '(import "wasi_snapshot_preview1" "fd_write" (func (param i32) (result externref)))',
        '(import "wasi_snapshot_preview1" "fd_print" (func (param i32) (result i32)))',
    ],
)
def test_foreign_imports_are_a_load_error(tmp_path: Path, field: str) -> None:
    memory = '(export "memory" (memory 0))' if "(memory 1)" in field else WatGraph().memory
    path = WatGraph(imports=field, memory=memory).write(tmp_path)
    with pytest.raises(LoadError, match="import"):
        wasmgraph.load(path)


def test_a_table_without_bounds_is_refused(tmp_path: Path) -> None:
    path = WatGraph(rest="(table 4000000000 funcref)").write(tmp_path)
    with pytest.raises(LoadError):
        wasmgraph.load(path)


def test_names_that_a_terminal_would_obey_do_not_break_messages(load_wat: Load) -> None:
    graph = load_wat(WatGraph(inputs=(replace(X, name="\x1b[2J"),)))
    with pytest.raises(InputError) as caught:
        graph.run({})
    assert "\x1b" not in caught.value.message


def run_alone(binary: bytes, folder: Path, feeds: Feeds, **options: Any) -> dict[str, Any]:
    """Load a graph and run it once."""
    path = folder / "graph.wasm"
    path.write_bytes(binary)
    with wasmgraph.load(path, cache=False, **options) as graph:
        return graph.run(feeds)


@pytest.mark.parametrize("graph", HOSTILE, ids=lambda graph: graph.name)
def test_a_lie_ends_in_its_documented_error(graph: HostileGraph, tmp_path: Path) -> None:
    with pytest.raises(WasmgraphError) as caught:
        run_alone(
            graph.binary, tmp_path, graph.feeds, max_memory=graph.memory, timeout=graph.seconds
        )
    assert caught.value.kind == graph.kind, caught.value.message


@pytest.mark.parametrize("graph", STRANGE, ids=lambda graph: graph.name)
def test_a_strange_graph_runs_and_gets_nothing(graph: StrangeGraph, tmp_path: Path) -> None:
    outputs = run_alone(graph.binary, tmp_path, graph.feeds)
    assert outputs.keys() == graph.outputs.keys()
    for name, expected in graph.outputs.items():
        np.testing.assert_array_equal(outputs[name], expected, strict=True)


def test_the_manifest_names_every_graph(tmp_path: Path) -> None:
    entries = json.loads(write_hostile(tmp_path).read_text())
    names = [entry["name"] for entry in entries]
    assert len(set(names)) == len(names) == len(HOSTILE) + len(STRANGE)
    assert all((tmp_path / entry["file"]).is_file() for entry in entries)
    assert all(("kind" in entry) != ("outputs" in entry) for entry in entries)
