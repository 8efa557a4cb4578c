"""A graph gets no capability: whatever it asks of the system, it gets nothing."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

import wasmgraph
from tests.runtime.wat_graphs import WatGraph
from wasmgraph.errors import InferenceError, RunTimeout
from wasmgraph.metadata import TensorInfo

Load = Callable[..., wasmgraph.Graph]
FOUR = {"x": np.arange(4, dtype=np.float32)}
BADF, FAULT, INVAL, NOTCAPABLE = 8, 21, 28, 76
CODE = (TensorInfo("code", "int32", (1,)),)


def calling(name: str, types: str, arguments: str) -> WatGraph:
    """A graph whose output is what the WASI function returns."""
    return WatGraph(
        {
            "wg_run": f"""(func $wg_run (result i32)
                (i32.store (i32.const 2048) (call $asked {arguments})) i32.const 0)"""
        },
        imports=f'(import "wasi_snapshot_preview1" "{name}" (func $asked {types}))',
        outputs=CODE,
    )


def words(*values: int | str) -> str:
    """Constants for a call: i32, or i64 where written as such."""
    return " ".join(
        f"(i64.const {v[3:]})" if isinstance(v, str) else f"(i32.const {v})" for v in values
    )


I = "i32"  # noqa: E741
ASKED = {
    "path_open": (
        f"(param {I} {I} {I} {I} {I} i64 i64 {I} {I}) (result i32)",
        words(3, 0, 16, 9, 0, "i640", "i640", 0, 4096),
    ),
    "fd_read": ("(param i32 i32 i32 i32) (result i32)", words(0, 4096, 1, 4000)),
    "clock_time_get": ("(param i32 i64 i32) (result i32)", words(0, "i640", 4096)),
    "random_get": ("(param i32 i32) (result i32)", words(4096, 8)),
    "poll_oneoff": ("(param i32 i32 i32 i32) (result i32)", words(0, 64, 1, 4096)),
    "sock_send": ("(param i32 i32 i32 i32 i32) (result i32)", words(3, 0, 0, 0, 0)),
    "fd_prestat_dir_name": ("(param i32 i32 i32) (result i32)", words(3, 0, 8)),
}


@pytest.mark.parametrize("name", ASKED)
def test_everything_that_would_be_a_capability_is_refused(load_wat: Load, name: str) -> None:
    assert load_wat(calling(name, *ASKED[name])).run(FOUR)["code"] == NOTCAPABLE


def test_there_are_no_preopened_folders(load_wat: Load) -> None:
    graph = calling("fd_prestat_get", "(param i32 i32) (result i32)", words(3, 4096))
    assert load_wat(graph).run(FOUR)["code"] == BADF


@pytest.mark.parametrize("name", ["args_sizes_get", "environ_sizes_get"])
def test_there_are_no_arguments_and_no_environment(load_wat: Load, name: str) -> None:
    graph = calling(name, "(param i32 i32) (result i32)", words(2052, 2056))
    sizes = WatGraph(
        graph.functions,
        imports=graph.imports,
        rest='(data (i32.const 2048) "\\ff\\ff\\ff\\ff\\ff\\ff\\ff\\ff\\ff\\ff\\ff\\ff")',
        outputs=(TensorInfo("code", "int32", (3,)),),
    )
    np.testing.assert_array_equal(load_wat(sizes).run(FOUR)["code"], [0, 0, 0])


WRITE = "(param i32 i32 i32 i32) (result i32)"


def writing(descriptor: int, vectors: int = 32, count: int = 1, written: int = 2052) -> WatGraph:
    """Writes "it failed" (9 bytes at 16) to a descriptor; the output is code and count."""
    graph = calling("fd_write", WRITE, words(descriptor, vectors, count, written))
    return WatGraph(
        graph.functions,
        imports=graph.imports,
        rest='(data (i32.const 32) "\\10\\00\\00\\00\\09\\00\\00\\00")',
        outputs=(TensorInfo("code", "int32", (2,)),),
    )


def test_what_a_graph_prints_goes_nowhere(
    load_wat: Load, capfd: pytest.CaptureFixture[str]
) -> None:
    for descriptor in (1, 2):
        np.testing.assert_array_equal(load_wat(writing(descriptor)).run(FOUR)["code"], [0, 9])
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("graph", "code"),
    [
        (writing(0), BADF),
        (writing(3), BADF),
        (writing(2, vectors=65532), FAULT),
        (writing(2, vectors=-8), FAULT),
        (writing(2, count=-1), INVAL),
        (writing(2, written=-1), FAULT),
        (writing(2, vectors=12), FAULT),  # a vector of text, read as an address
    ],
    ids=["stdin", "a file", "beyond the end", "negative", "too many", "no answer", "wild vector"],
)
def test_a_write_with_wild_arguments_fails(load_wat: Load, graph: WatGraph, code: int) -> None:
    assert load_wat(graph).run(FOUR)["code"][0] == code


def test_a_panic_message_is_part_of_the_error(load_wat: Load) -> None:
    graph = writing(2)
    panics = str(graph.functions["wg_run"]).removesuffix("i32.const 0)") + "unreachable)"
    with pytest.raises(InferenceError, match=r"trapped: unreachable\nit failed"):
        load_wat(WatGraph({"wg_run": panics}, imports=graph.imports, rest=graph.rest)).run(FOUR)


def test_leaving_is_an_error_and_ends_nothing(load_wat: Load) -> None:
    graph = WatGraph(
        {"wg_run": "(func $wg_run (result i32) (call $exit (i32.const 3)) unreachable)"},
        imports='(import "wasi_snapshot_preview1" "proc_exit" (func $exit (param i32)))',
    )
    with pytest.raises(InferenceError, match="left with exit code 3"):
        load_wat(graph).run(FOUR)


def test_calling_the_host_for_ever_is_stopped(load_wat: Load) -> None:
    types, arguments = ASKED["clock_time_get"]
    graph = calling("clock_time_get", types, arguments)
    loop = (
        f"(func $wg_run (result i32) (loop $l (drop (call $asked {arguments})) br $l) i32.const 0)"
    )
    with pytest.raises(RunTimeout):
        load_wat(WatGraph({"wg_run": loop}, imports=graph.imports), timeout=0.2).run(FOUR)
