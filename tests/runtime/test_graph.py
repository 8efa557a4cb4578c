"""Loading and running graphs: what a program that embeds one relies on."""

from __future__ import annotations

import gc
import multiprocessing
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import wasmgraph
from tests.runtime.wat_graphs import LOOPS_FOREVER, WatGraph, X, Y
from wasmgraph.errors import (
    InferenceError,
    InputError,
    LoadError,
    MemoryLimitExceeded,
    RunTimeout,
)
from wasmgraph.metadata import KernelInfo, TensorInfo
from wasmgraph.runtime import TensorSpec

Load = Callable[..., wasmgraph.Graph]
FOUR = np.arange(4, dtype=np.float32)


def test_a_graph_tells_its_inputs_and_outputs(load_wat: Load) -> None:
    graph = load_wat()
    assert graph.inputs == (TensorSpec("x", "float32", (4,)),)
    assert graph.outputs == (TensorSpec("y", "float32", (4,)),)
    assert graph.metadata.model.name == "hand-written"


def test_a_run_computes(load_wat: Load) -> None:
    np.testing.assert_array_equal(load_wat().run({"x": FOUR})["y"], 2 * FOUR)


def test_outputs_belong_to_the_caller(load_wat: Load) -> None:
    graph = load_wat()
    first = graph.run({"x": FOUR})["y"]
    graph.run({"x": FOUR + 10})
    np.testing.assert_array_equal(first, 2 * FOUR)
    graph.close()
    first += 1  # writable, and not in memory that is gone
    np.testing.assert_array_equal(first, 2 * FOUR + 1)


@pytest.mark.parametrize(
    "array",
    [
        np.arange(8, dtype=np.float32)[::2],
        np.arange(4, dtype=np.float32)[::-1],
        np.broadcast_to(np.float32(3), (4,)),
        np.arange(4, dtype=">f4"),
    ],
    ids=["strided", "reversed", "broadcast", "big-endian"],
)
def test_any_layout_of_an_input_is_read_right(load_wat: Load, array: np.ndarray) -> None:
    np.testing.assert_array_equal(load_wat().run({"x": array})["y"], 2 * array)


def test_outputs_have_the_native_byte_order(load_wat: Load) -> None:
    assert load_wat().run({"x": FOUR.astype(">f4")})["y"].dtype.isnative


def test_scalars_and_empty_tensors_pass(load_wat: Load) -> None:
    scalar = WatGraph(
        {"wg_output": "(func $wg_output (param i32) (result i32) i32.const 1024)"},
        inputs=(replace(X, shape=()),),
        outputs=(replace(Y, shape=()),),
    )
    result = load_wat(scalar).run({"x": 2.5})["y"]
    assert result.shape == ()
    assert result == 2.5
    empty = replace(scalar, inputs=(replace(X, shape=(0, 3)),), outputs=(replace(Y, shape=(2, 0)),))
    assert load_wat(empty).run({"x": np.zeros((0, 3), np.float32)})["y"].shape == (2, 0)


def test_threads_run_at_once_and_do_not_mix(load_wat: Load) -> None:
    graph = load_wat(timeout=60)
    failures: list[str] = []
    start = threading.Barrier(4)

    def work(number: int) -> None:
        start.wait()
        for step in range(200):
            x = np.full(4, number * 1000 + step, np.float32)
            if not np.array_equal(graph.run({"x": x})["y"], 2 * x):
                failures.append(f"thread {number}, step {step}")

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures


def test_an_instance_goes_with_its_thread(load_wat: Load) -> None:
    graph = load_wat()
    for _ in range(3):
        thread = threading.Thread(target=graph.run, args=({"x": FOUR},))
        thread.start()
        thread.join()
    gc.collect()
    assert len(graph._idle) == 1  # this thread's own


def test_a_closed_graph_refuses_to_run(load_wat: Load) -> None:
    graph = load_wat()
    graph.close()
    graph.close()
    with pytest.raises(ValueError, match="closed"):
        graph.run({"x": FOUR})


def test_closing_lets_a_run_in_another_thread_end_within_its_limit(load_wat: Load) -> None:
    graph = load_wat(WatGraph({"wg_run": LOOPS_FOREVER}), timeout=0.5)
    caught: list[BaseException] = []

    def work() -> None:
        try:
            graph.run({"x": FOUR})
        except RunTimeout as error:
            caught.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    time.sleep(0.1)
    graph.close()
    thread.join(5)
    assert not thread.is_alive()
    assert len(caught) == 1


def test_many_graphs_can_be_loaded_one_after_the_other(tmp_path: Path) -> None:
    path = WatGraph().write(tmp_path)
    before = threading.active_count()
    for _ in range(50):
        with wasmgraph.load(path, timeout=5) as graph:
            graph.run({"x": FOUR})
    time.sleep(0.2)
    assert threading.active_count() <= before + 1


# Limits


def test_a_graph_that_never_ends_is_stopped(load_wat: Load) -> None:
    graph = load_wat(WatGraph({"wg_run": LOOPS_FOREVER}), timeout="300ms")
    began = time.monotonic()
    with pytest.raises(RunTimeout, match=r"time limit of 0\.3 s"):
        graph.run({"x": FOUR})
    assert 0.3 <= time.monotonic() - began < 1.3


def test_a_time_limit_holds_for_the_start_function_too(tmp_path: Path) -> None:
    path = WatGraph(rest="(func $spin (loop $again (br $again))) (start $spin)").write(tmp_path)
    with pytest.raises(RunTimeout):
        wasmgraph.load(path, timeout=0.1)


def test_a_time_limit_is_for_each_run_anew(load_wat: Load) -> None:
    graph = load_wat(timeout=0.4)
    for _ in range(4):
        graph.run({"x": FOUR})
        time.sleep(0.15)


def test_runs_of_several_threads_have_their_own_deadlines(load_wat: Load) -> None:
    graph = load_wat(WatGraph({"wg_run": LOOPS_FOREVER}), timeout=0.4)
    durations: list[float] = []

    def work(delay: float) -> None:
        time.sleep(delay)
        began = time.monotonic()
        with pytest.raises(RunTimeout):
            graph.run({"x": FOUR})
        durations.append(time.monotonic() - began)

    threads = [threading.Thread(target=work, args=(delay,)) for delay in (0, 0.2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(durations) == 2
    assert min(durations) >= 0.4


def test_a_forked_process_keeps_its_time_limit(load_wat: Load) -> None:
    graph = load_wat(WatGraph({"wg_run": LOOPS_FOREVER}), timeout=0.2)
    with pytest.raises(RunTimeout):
        graph.run({"x": FOUR})  # the watchdog runs by now, and does not survive a fork

    def child() -> None:
        try:
            graph.run({"x": FOUR})
        except RunTimeout:
            raise SystemExit(42) from None

    process = multiprocessing.get_context("fork").Process(target=child)
    process.start()
    process.join(10)
    if process.exitcode is None:
        process.kill()
    assert process.exitcode == 42


def test_a_graph_that_needs_more_memory_than_allowed_is_refused(tmp_path: Path) -> None:
    path = WatGraph(memory='(memory (export "memory") 32)').write(tmp_path)
    with pytest.raises(MemoryLimitExceeded, match=r"needs 2\.0 MiB .* limit is 1\.0 MiB") as caught:
        wasmgraph.load(path, max_memory="1MiB")
    assert "2097152" in str(caught.value.hint)
    with wasmgraph.load(path, max_memory=2097152) as graph:
        graph.run({"x": FOUR})


def test_memory_cannot_grow_beyond_the_limit(load_wat: Load) -> None:
    grows = WatGraph(
        {"wg_run": "(func $wg_run (result i32) (memory.grow (i32.const 16)) i32.const -1 i32.eq)"}
    )
    load_wat(grows, max_memory=17 * 65536).run({"x": FOUR})
    with pytest.raises(InferenceError, match="it failed"):
        load_wat(grows, max_memory=16 * 65536).run({"x": FOUR})


def test_a_failed_allocation_under_a_limit_is_that_limit(load_wat: Load) -> None:
    graph = WatGraph(
        {
            "wg_run": "(func $wg_run (result i32) i32.const 1)",
            "wg_error": "(func $wg_error (result i32) i32.const 64)",
            "wg_error_len": "(func $wg_error_len (result i32) i32.const 17)",
        },
        rest='(data (i32.const 64) "ran out of memory")',
    )
    with pytest.raises(MemoryLimitExceeded, match=r"limit is 1\.0 MiB"):
        load_wat(graph, max_memory="1MiB").run({"x": FOUR})
    with pytest.raises(InferenceError, match="ran out of memory"):
        load_wat(graph).run({"x": FOUR})


@pytest.mark.parametrize("options", [{"max_memory": "much"}, {"max_memory": 0}, {"timeout": -1}])
def test_a_limit_that_cannot_be_understood_is_a_value_error(
    tmp_path: Path, options: dict[str, object]
) -> None:
    with pytest.raises(ValueError, match=r"limit must be|expected a"):
        wasmgraph.load(WatGraph().write(tmp_path), **options)  # type: ignore[arg-type]


# Failures of the graph


def test_a_trap_names_its_reason_and_kernel(load_wat: Load) -> None:
    graph = WatGraph(
        {"wg_run": "(func $wg_run (result i32) (call $fused_div) i32.const 0)"},
        rest="(func $fused_div (drop (i32.div_s (i32.const 1) (i32.const 0))))",
        kernels=(KernelInfo("fused_div", "divide + relu"),),
    )
    with pytest.raises(InferenceError) as caught:
        load_wat(graph).run({"x": FOUR})
    assert "in kernel fused_div (divide + relu): integer division by zero" in str(caught.value)


def test_an_error_code_carries_the_graphs_own_words(load_wat: Load) -> None:
    graph = WatGraph({"wg_run": "(func $wg_run (result i32) i32.const 7)"})
    with pytest.raises(InferenceError, match="failed with code 7: it failed"):
        load_wat(graph).run({"x": FOUR})


def test_after_a_trap_the_next_run_has_a_fresh_instance(load_wat: Load) -> None:
    # Traps where x[0] is negative, after having spoilt the place that wg_run adds.
    graph = load_wat(
        WatGraph(
            {
                "wg_run": """(func $wg_run (result i32)
                    (v128.store (i32.const 2048) (f32x4.add
                        (v128.load (i32.const 1024)) (v128.load (i32.const 3072))))
                    (if (f32.lt (f32.load (i32.const 1024)) (f32.const 0)) (then
                        (f32.store (i32.const 3072) (f32.const 100))
                        unreachable))
                    i32.const 0)"""
            }
        )
    )
    with pytest.raises(InferenceError, match="unreachable"):
        graph.run({"x": -FOUR - 1})
    np.testing.assert_array_equal(graph.run({"x": FOUR})["y"], FOUR)


def test_a_wrong_input_does_not_reach_the_graph(load_wat: Load) -> None:
    with pytest.raises(InputError, match="expected shape"):
        load_wat(WatGraph({"wg_run": "(func $wg_run (result i32) unreachable)"})).run(
            {"x": np.zeros(5, np.float32)}
        )


# Files that are no graphs


def test_a_missing_file_is_a_load_error(tmp_path: Path) -> None:
    with pytest.raises(LoadError, match=r"nothing\.wasm cannot be read: No such file"):
        wasmgraph.load(tmp_path / "nothing.wasm")
    with pytest.raises(LoadError, match="cannot be read"):
        wasmgraph.load(tmp_path)


@pytest.mark.parametrize("content", [b"", b"PK\3\4", b"just text", b"\0asm", b"\0asm\1\0\0\0"])
def test_a_file_that_is_no_graph_is_a_load_error(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "other.wasm"
    path.write_bytes(content)
    with pytest.raises(LoadError, match=r"other\.wasm"):
        wasmgraph.load(path)


def test_every_truncation_is_a_load_error(tmp_path: Path) -> None:
    whole = WatGraph().binary()
    path = tmp_path / "cut.wasm"
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        with pytest.raises(LoadError):
            wasmgraph.load(path, cache=False)


def test_flipped_bits_end_in_a_documented_error_or_a_graph(tmp_path: Path) -> None:
    whole = WatGraph().binary()
    path = tmp_path / "flipped.wasm"
    rng = np.random.default_rng(0)
    refused = 0
    for _ in range(300):
        damaged = bytearray(whole)
        damaged[rng.integers(len(whole))] ^= 1 << rng.integers(8)
        path.write_bytes(damaged)
        try:
            with wasmgraph.load(path, timeout=1, max_memory="64MiB", cache=False) as graph:
                graph.run({spec.name: np.zeros(spec.shape, spec.dtype) for spec in graph.inputs})
        except (LoadError, InferenceError, MemoryLimitExceeded, RunTimeout):
            refused += 1
    assert refused > 100


def test_code_that_does_not_validate_is_a_load_error(tmp_path: Path) -> None:
    whole = WatGraph().binary()
    # The bodies' first instruction that pushes 1: make it one that needs an operand.
    at = whole.index(b"\x41\x01\x0b")
    path = tmp_path / "invalid.wasm"
    path.write_bytes(whole[:at] + b"\x45" + whole[at + 1 :])
    with pytest.raises(LoadError, match="not a valid WebAssembly module"):
        wasmgraph.load(path, cache=False)


@pytest.mark.parametrize("dtype", ["bfloat16", "float8_e4m3fn", "int4"])
def test_a_dtype_that_numpy_lacks_needs_ml_dtypes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dtype: str
) -> None:
    path = WatGraph(inputs=(TensorInfo("x", dtype, (4,)),)).write(tmp_path)
    monkeypatch.setitem(sys.modules, "ml_dtypes", None)
    with pytest.raises(LoadError, match=f"'x' is {dtype}") as caught:
        wasmgraph.load(path)
    assert "ml_dtypes" in str(caught.value.hint)
