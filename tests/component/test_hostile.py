"""Components of the right type that lie, trap or never end: a documented error, nothing worse."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import wasmtime

import wasmgraph
from tests.component.wat_components import (
    FLOAT32,
    TEXT,
    Given,
    WatComponent,
    answer,
    failure,
)
from wasmgraph.component.interface import MODEL, OUT_OF_MEMORY
from wasmgraph.errors import (
    InferenceError,
    InputError,
    LoadError,
    MemoryLimitExceeded,
    RunTimeout,
    WasmgraphError,
)
from wasmgraph.metadata import KernelInfo, TensorInfo

FOUR = {"x": np.arange(4, dtype=np.float32)}
Load = Callable[..., wasmgraph.Graph]


@pytest.fixture
def load(tmp_path: Path) -> Iterator[Load]:
    """Writes and loads a component, and closes it after the test."""
    with ExitStack() as stack:

        def write_and_load(component: WatComponent, **options: Any) -> wasmgraph.Graph:
            path = component.write(tmp_path)
            return stack.enter_context(wasmgraph.load(path, **options))

        yield write_and_load


def test_an_honest_one_runs_again_and_again(load: Load) -> None:
    graph = load(WatComponent())
    for _ in range(3):
        np.testing.assert_array_equal(graph.run(FOUR)["y"], np.ones(4, np.float32))


LIES = {
    "no outputs": (answer([]), "outputs"),
    "two outputs": (answer([Given(), Given(name_start=TEXT + 8)]), "outputs"),
    "another name": (answer([Given(name=b"z")]), "'z'"),
    "another dtype": (answer([Given(dtype=3)]), "int32"),
    "no such dtype": (answer([Given(dtype=200)]), "discriminant"),
    "another shape": (answer([Given(shape=(2, 2))]), r"\[2, 2\]"),
    "a shape whose product overflows": (answer([Given(shape=(2**32 - 1,) * 20)]), "y"),
    "too few bytes": (answer([Given(nbytes=12)]), "12 bytes"),
    "too many bytes": (answer([Given(nbytes=20)]), "20 bytes"),
    "no bytes": (answer([Given(nbytes=0)]), "0 bytes"),
    "bytes outside memory": (answer([Given(start=65530)]), "bounds"),
    "bytes that wrap around": (answer([Given(start=2**32 - 8)]), "bounds"),
    "a name outside memory": (answer([Given(name_start=65535, name=b"yy")]), "bounds"),
    "a name that is not UTF-8": (answer([Given(name=b"\xff")]), "utf-8"),
    "a shape outside memory": (answer([Given(shape_start=65536)]), "bounds"),
    "a shape at an odd address": (answer([Given(shape_start=1401)]), "align"),
    "tensors outside memory": (answer([Given()], start=65532), "bounds"),
    "as many tensors as there are addresses": (answer([Given()], count=2**32 - 1), "bounds"),
    "tensors at an odd address": (answer([Given()], start=1041), "align"),
}


@pytest.mark.parametrize("lie", list(LIES))
def test_a_lie_is_an_error(load: Load, lie: str) -> None:
    memory, expected = LIES[lie]
    with pytest.raises(InferenceError, match=f"(?i){expected}"):
        load(WatComponent(memory)).run(FOUR)


def test_an_answer_outside_memory_is_an_error(load: Load) -> None:
    with pytest.raises(InferenceError, match="bounds"):
        load(WatComponent(run="i32.const 65532")).run(FOUR)


def test_a_case_that_does_not_exist_is_an_error(load: Load) -> None:
    memory = {1024: b"\x07\0\0\0"}
    with pytest.raises(InferenceError, match="discriminant"):
        load(WatComponent(memory)).run(FOUR)


@pytest.mark.parametrize("address", ["65536", "-4", "-16", "65532", "1"])
def test_memory_for_inputs_outside_memory_is_an_error(load: Load, address: str) -> None:
    with pytest.raises(InferenceError, match=r"beyond end of memory|not aligned"):
        load(WatComponent(realloc=f"i32.const {address}")).run(FOUR)


def test_as_much_to_copy_as_would_fill_the_hosts_memory_is_an_error(load: Load) -> None:
    """Every tensor has the same 60 MiB; a thousand of them, as values of 32 bytes, are 2 TB."""
    pages = 1024
    many = [Given(nbytes=60 * 2**20, shape=(15 * 2**20,)) for _ in range(3)]
    memory = answer(many, count=3)
    outputs = (TensorInfo("y", "float32", ("N",)),)
    with pytest.raises(InferenceError, match="128 MiB of values"):
        load(WatComponent(memory, pages=pages, outputs=outputs)).run(FOUR)


@pytest.mark.parametrize(
    "case", ["load-error", "input-error", "inference-error", "run-timeout", "memory-limit-exceeded"]
)
def test_an_error_has_the_graphs_words(load: Load, case: str) -> None:
    with pytest.raises(InferenceError, match="it failed") as caught:
        load(WatComponent(failure(case, b"it failed"))).run(FOUR)
    assert type(caught.value) is InferenceError  # whatever the graph says that it is


def test_an_error_of_memory_names_the_limit(load: Load) -> None:
    graph = load(WatComponent(failure("memory-limit-exceeded", b"no more")), max_memory="1MiB")
    with pytest.raises(MemoryLimitExceeded, match=r"no more; the limit is 1.0 MiB"):
        graph.run(FOUR)


def test_a_trap_for_lack_of_memory_names_the_limit(load: Load) -> None:
    rest = f"(func ${OUT_OF_MEMORY} unreachable)"
    graph = load(
        WatComponent(run=f"call ${OUT_OF_MEMORY} i32.const 0", rest=rest), max_memory="1MiB"
    )
    with pytest.raises(MemoryLimitExceeded, match=r"the limit is 1\.0 MiB"):
        graph.run(FOUR)


def test_an_error_text_cannot_command_the_terminal_or_fill_it(load: Load) -> None:
    text = b"\x1b[2J" + 7000 * b"bad\0"
    with pytest.raises(InferenceError, match="bad") as caught:
        load(WatComponent(failure("inference-error", text))).run(FOUR)
    assert all(c == "\n" or c.isprintable() for c in caught.value.message)


def test_a_trap_names_the_kernel(load: Load) -> None:
    rest = "(func $wgk_0_conv2d unreachable)"
    kernels = (KernelInfo("wgk_0_conv2d", "conv2d + relu"),)
    graph = load(WatComponent(run="call $wgk_0_conv2d i32.const 0", rest=rest, kernels=kernels))
    with pytest.raises(InferenceError, match=r"trapped in kernel wgk_0_conv2d \(conv2d \+ relu\)"):
        graph.run(FOUR)


def test_endless_recursion_is_a_trap(load: Load) -> None:
    with pytest.raises(InferenceError, match="stack"):
        load(WatComponent(run="(call $run (i32.const 0) (i32.const 0))")).run(FOUR)


SPINS = "(loop $again (br $again)) i32.const 0"


@pytest.mark.parametrize("where", ["run", "realloc"])
def test_an_endless_loop_is_stopped(load: Load, where: str) -> None:
    graph = load(WatComponent(**{where: SPINS}), timeout=0.1)
    with pytest.raises(RunTimeout):
        graph.run(FOUR)


def test_an_endless_start_is_stopped(load: Load) -> None:
    rest = "(func $start (loop $again (br $again))) (start $start)"
    with pytest.raises(RunTimeout):
        load(WatComponent(rest=rest), timeout=0.1)


def test_a_trap_while_starting_is_a_load_error(load: Load) -> None:
    with pytest.raises(LoadError, match="unreachable"):
        load(WatComponent(rest="(func $boom unreachable) (start $boom)"))


def test_a_graph_runs_again_after_an_error(load: Load) -> None:
    """By a new instance: the second run of one traps."""
    once = "(if (global.get $ran) (then unreachable)) (global.set $ran (i32.const 1))"
    graph = load(
        WatComponent(run=f"{once} i32.const 1024", rest="(global $ran (mut i32) (i32.const 0))")
    )
    graph.run(FOUR)
    with pytest.raises(InferenceError):
        graph.run(FOUR)
    graph.run(FOUR)


def test_memory_beyond_the_limit_is_not_given(load: Load) -> None:
    grows = "(if (i32.eq (memory.grow (i32.const 100)) (i32.const -1)) (then unreachable))"
    graph = load(WatComponent(run=f"{grows} i32.const 1024"), max_memory="1MiB")
    with pytest.raises(InferenceError):
        graph.run(FOUR)


def test_too_much_memory_to_start_with_is_refused(load: Load) -> None:
    with pytest.raises(MemoryLimitExceeded, match=r"needs 2\.0 MiB"):
        load(WatComponent(pages=32), max_memory="1MiB")


def test_wrong_inputs_are_refused_before_anything_runs(load: Load) -> None:
    with pytest.raises(InputError, match="float64"):
        load(WatComponent(run="unreachable")).run({"x": np.zeros(4)})


OTHERS = {
    "no such interface": ("(component)", "does not export"),
    "an import": (
        '(component (import "wasi:cli/exit@0.2.0" (instance)))',
        "imports 'wasi:cli/exit",
    ),
    "a function of that name": (
        f"""(component (core module $m (func (export "f"))) (core instance $i (instantiate $m))
        (func $f (canon lift (core func $i "f"))) (instance $e (export "run" (func $f)))
        (export "{MODEL}" (instance $e)))""",
        "another type of 'run'",
    ),
    "an empty interface": (
        f'(component (instance $e) (export "{MODEL}" (instance $e)))',
        "exports no function 'run'",
    ),
}


@pytest.mark.parametrize("name", list(OTHERS))
def test_other_components_are_refused(tmp_path: Path, name: str) -> None:
    text, expected = OTHERS[name]
    path = tmp_path / "other.wasm"
    path.write_bytes(WatComponent().with_metadata(bytes(wasmtime.wat2wasm(text))))
    with pytest.raises(LoadError, match=expected):
        wasmgraph.load(path)


def test_without_metadata_it_is_no_graph(load: Load) -> None:
    with pytest.raises(LoadError, match="no custom section"):
        load(WatComponent(has_metadata=False))


def test_a_damaged_component_is_refused(tmp_path: Path) -> None:
    """Cut short, and with every byte of its outside changed: an error, or a component that runs."""
    whole = WatComponent().binary()
    path = tmp_path / "damaged.wasm"
    places = [*range(120), *range(len(whole) - 2000, len(whole), 7)]
    for place in places:
        for data in (
            whole[:place],
            whole[:place] + bytes([whole[place] ^ 0x55]) + whole[place + 1 :],
        ):
            path.write_bytes(data)
            try:
                with wasmgraph.load(path, max_memory="1MiB", timeout="10s", cache=False) as graph:
                    graph.run(FOUR)
            except WasmgraphError:
                pass


def test_dtypes_are_numbered_as_in_the_interface() -> None:
    assert FLOAT32 == 11
