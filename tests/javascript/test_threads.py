"""Several threads in Node: the same bits, and no thread that is waited for in vain."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests import bundles
from tests.javascript.conftest import RunGraph
from tests.runtime.test_threads import SHARES, X, Y, bundle, with_a_seven
from wasmgraph.link import link

# Does not begin before two threads are in it, so that the second is sure to have the last share.
TOGETHER = """
#![no_std]
use core::sync::atomic::{AtomicU32, Ordering::SeqCst};
static COME: AtomicU32 = AtomicU32::new(0);
#[no_mangle]
pub unsafe extern "C" fn together(x: *const f32, out: *mut f32) -> i32 {
    COME.fetch_add(1, SeqCst);
    while COME.load(SeqCst) < 2 {}
    if *x == 7.0 { core::arch::wasm32::unreachable() }
    for i in 0..4 { *out.add(i) = 2.0 * *x.add(i); }
    0
}
"""
Run = Callable[..., list[Any]]
IN_WORKERS = pytest.mark.parametrize("worker", [False, True], ids=["here", "in-a-worker"])


@pytest.fixture
def run(run_graph: RunGraph, tmp_path: Path) -> Run:
    """Runs the graph of a bundle in Node, e.g. run(bundle("double"), 2, [X]): arrays and errors."""

    def run_in_node(
        graph: Any, threads: int, inputs: list[np.ndarray], **options: Any
    ) -> list[Any]:
        file = link(graph, tmp_path / "graph.wasm").path
        runs = [{"x": x} for x in inputs]
        found = run_graph(file, runs, threads=threads, **options)
        return [result.get("y", result) for result in found]

    return run_in_node


@IN_WORKERS
@pytest.mark.parametrize("threads", [1, 2, 3])
def test_any_number_of_threads_gives_the_same(run: Run, threads: int, worker: bool) -> None:
    inputs = [X + i for i in range(200)]
    outputs = run(bundle("double"), threads, inputs, worker=worker)
    assert len(outputs) == len(inputs)
    for i, output in enumerate(outputs):
        np.testing.assert_array_equal(output, Y + 16 * i)


def test_threads_run_at_the_same_time(run: Run) -> None:
    (output,) = run(bundle("meet"), 2, [X])
    np.testing.assert_array_equal(output, Y)


@IN_WORKERS
@pytest.mark.parametrize("share", [0, SHARES - 1])
def test_a_kernel_that_fails_in_any_thread_ends_the_run_only(
    run: Run, share: int, worker: bool
) -> None:
    before, error, after = run(bundle("fail"), 2, [X, with_a_seven(share), X], worker=worker)
    np.testing.assert_array_equal(before, Y)
    np.testing.assert_array_equal(after, Y)
    assert error["kind"] == "InferenceError"
    assert "the kernel of node0 failed with code 7" in error["message"]


@IN_WORKERS
@pytest.mark.parametrize("share", [0, SHARES - 1])
def test_a_trap_in_either_thread_ends_the_run_only(run: Run, share: int, worker: bool) -> None:
    features = ("-Ctarget-feature=+atomics,+bulk-memory",)
    graph = replace(bundle("together"), object_code=bundles.compiled(TOGETHER, features))
    before, error, after = run(graph, 2, [X, with_a_seven(share), X], worker=worker)
    np.testing.assert_array_equal(before, Y)
    np.testing.assert_array_equal(after, Y)
    assert error["kind"] == "InferenceError"
    assert error["message"].startswith("the graph trapped")
    assert "unreachable" in error["message"]


def test_a_run_without_end_is_stopped_with_all_its_threads(run: Run) -> None:
    stopped, after = run(bundle("spin"), 2, [with_a_seven(SHARES - 1), X], timeout=3000)
    assert stopped["kind"] == "RunTimeout"
    np.testing.assert_array_equal(after, Y)


def test_memory_that_is_too_little_for_the_threads_is_a_limit(run: Run) -> None:
    (error,) = run(bundle("double"), 64, [X], maxMemory=4 << 20)
    assert error["kind"] == "MemoryLimitExceeded"


def test_a_graph_for_one_thread_refuses_more(run: Run) -> None:
    (error,) = run(bundles.scale_bundle(), 2, [X])
    assert error["kind"] == "LoadError"
    assert "it was compiled for one thread, not for 2" in error["message"]
