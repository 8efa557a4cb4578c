"""Graphs for several threads: results, errors, limits, and that no thread stays behind."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests import bundles
from tests.engines import need_engine
from wasmgraph.bundle import Batch, Buffer, Bundle, Kernel, Share, Step, Tensor
from wasmgraph.errors import InferenceError, LoadError, MemoryLimitExceeded, RunTimeout
from wasmgraph.link import link
from wasmgraph.runtime import Graph, load

SHARES = 16
STAGES = 4

# Each takes four floats and gives four. A first float of 7 is where the odd ones act.
KERNELS = """
#![no_std]
use core::sync::atomic::{AtomicU32, Ordering::SeqCst};
#[no_mangle]
pub unsafe extern "C" fn double(x: *const f32, out: *mut f32) -> i32 {
    for i in 0..4 { *out.add(i) = 2.0 * *x.add(i); }
    0
}
static COME: AtomicU32 = AtomicU32::new(0);
/// Does not end before two threads are in it.
#[no_mangle]
pub unsafe extern "C" fn meet(x: *const f32, out: *mut f32) -> i32 {
    COME.fetch_add(1, SeqCst);
    while COME.load(SeqCst) < 2 {}
    double(x, out)
}
#[no_mangle]
pub unsafe extern "C" fn fail(x: *const f32, out: *mut f32) -> i32 {
    if *x == 7.0 { 7 } else { double(x, out) }
}
#[no_mangle]
pub unsafe extern "C" fn trap(x: *const f32, out: *mut f32) -> i32 {
    if *x == 7.0 { core::arch::wasm32::unreachable() }
    double(x, out)
}
#[no_mangle]
pub unsafe extern "C" fn spin(x: *const f32, out: *mut f32) -> i32 {
    while x.read_volatile() == 7.0 {}
    double(x, out)
}
"""
X = np.arange(4 * SHARES, dtype=np.float32) + 100
Y = X * 2**STAGES


def with_a_seven(share: int) -> np.ndarray:
    """Inputs on which one share acts up in the first stage."""
    x = X.copy()
    x[4 * share] = 7
    return x


def bundle(symbol: str, *, whole: bool = False) -> Bundle:
    """Input "x" and output "y", float32 [4 * SHARES]; stages apply a kernel share by share.

    Where `whole`, every call is a stage of its own.
    """
    nbytes = 16 * SHARES
    places = [
        Buffer("io", 0, nbytes),
        *(Buffer("arena", nbytes * i, nbytes) for i in range(STAGES - 1)),
        Buffer("io", nbytes, nbytes),
    ]

    def share(stage: int, i: int) -> Step:
        buffers = (
            Buffer(place.region, place.offset + 16 * i, 16) for place in places[stage : stage + 2]
        )
        return Step(
            0, tuple(buffers), (f"node{stage}",), stage=stage * SHARES + i if whole else stage
        )

    graph = bundles.make_graph(
        inputs=(Tensor("x", "float32", (4 * SHARES,), places[0]),),
        outputs=(Tensor("y", "float32", (4 * SHARES,), places[-1]),),
        kernels=(Kernel(symbol, 2, symbol),),
        steps=tuple(share(stage, i) for stage in range(STAGES) for i in range(SHARES)),
        operators={"Identity": 1},
        io_nbytes=2 * nbytes,
        arena_nbytes=nbytes * (STAGES - 1),
    )
    features = "-Ctarget-feature=+atomics,+bulk-memory"
    return Bundle(replace(graph, threads=True), bundles.compiled(KERNELS, (features,)), b"")


@pytest.fixture(scope="module")
def linked(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The graph of a kernel, e.g. linked("double")."""
    folder = tmp_path_factory.mktemp("threads")

    def get(symbol: str) -> Path:
        path = folder / f"{symbol}.wasm"
        if not path.exists():
            link(bundle(symbol), path)
        return path

    return get


def helpers() -> int:
    """How many threads of graphs there are."""
    return sum(thread.name == "wasmgraph-helper" for thread in threading.enumerate())


def run(graph: Graph, x: np.ndarray = X) -> np.ndarray:
    return graph.run({"x": x})["y"]


@pytest.mark.parametrize("threads", [1, 2, 3, 8])
def test_any_number_of_threads_gives_the_same(linked: Callable[[str], Path], threads: int) -> None:
    with load(linked("double"), threads=threads) as graph:
        for _ in range(20):
            np.testing.assert_array_equal(run(graph), Y)


def test_steps_of_a_stage_run_at_the_same_time(linked: Callable[[str], Path]) -> None:
    # With a time limit, so that a failure is no hang.
    with load(linked("meet"), threads=2, timeout=30) as graph:
        np.testing.assert_array_equal(run(graph), Y)
    with load(linked("meet"), threads=1, timeout=0.2) as graph, pytest.raises(RunTimeout):
        run(graph)


def test_a_thousand_runs_leave_no_thread_behind(linked: Callable[[str], Path]) -> None:
    before = threading.active_count()
    with load(linked("double"), threads=4) as graph:
        for i in range(1000):
            np.testing.assert_array_equal(run(graph, X + i), (X + i) * 2**STAGES)
        assert helpers() == 3
    assert helpers() == 0
    assert threading.active_count() <= before


def test_eight_graphs_side_by_side_leave_no_thread_behind(linked: Callable[[str], Path]) -> None:
    path = linked("double")
    results: list[np.ndarray] = []

    def work() -> None:
        with load(path, threads=3) as graph:
            results.extend(run(graph) for _ in range(20))

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(results) == 160
    for result in results:
        np.testing.assert_array_equal(result, Y)
    assert helpers() == 0


def test_one_graph_may_be_run_by_several_threads(linked: Callable[[str], Path]) -> None:
    results: list[np.ndarray] = []
    with load(linked("double"), threads=2) as graph:
        callers = [
            threading.Thread(target=lambda: results.extend(run(graph) for _ in range(20)))
            for _ in range(3)
        ]
        for caller in callers:
            caller.start()
        for caller in callers:
            caller.join()
    assert len(results) == 60
    for result in results:
        np.testing.assert_array_equal(result, Y)
    assert helpers() == 0


def test_a_graph_that_is_dropped_ends_its_threads(linked: Callable[[str], Path]) -> None:
    graph = load(linked("double"), threads=3)
    run(graph)
    del graph
    deadline = time.monotonic() + 10
    while helpers() and time.monotonic() < deadline:
        time.sleep(0.01)
    assert helpers() == 0


@pytest.mark.parametrize("share", [0, 1, SHARES // 2, SHARES - 1])
def test_a_trap_in_any_thread_ends_the_run(linked: Callable[[str], Path], share: int) -> None:
    with load(linked("trap"), threads=3) as graph:
        for _ in range(10):
            with pytest.raises(InferenceError, match="trapped in kernel trap"):
                run(graph, with_a_seven(share))
        np.testing.assert_array_equal(run(graph), Y)
    assert helpers() == 0


@pytest.mark.parametrize("share", [0, SHARES - 1])
def test_a_kernel_that_fails_in_any_thread_is_an_error(
    linked: Callable[[str], Path], share: int
) -> None:
    with load(linked("fail"), threads=3) as graph:
        for _ in range(10):
            with pytest.raises(InferenceError, match="the kernel of node0 failed with code 7"):
                run(graph, with_a_seven(share))
        np.testing.assert_array_equal(run(graph), Y)


@pytest.mark.parametrize("share", [0, SHARES - 1])
def test_a_time_limit_ends_every_thread(linked: Callable[[str], Path], share: int) -> None:
    with load(linked("spin"), threads=3, timeout=0.2) as graph:
        began = time.monotonic()
        with pytest.raises(RunTimeout):
            run(graph, with_a_seven(share))
        assert time.monotonic() - began < 10
        np.testing.assert_array_equal(run(graph), Y)
    assert helpers() == 0


def test_a_memory_limit_holds_for_shared_memory(linked: Callable[[str], Path]) -> None:
    with pytest.raises(MemoryLimitExceeded, match="to start with"):
        load(linked("double"), max_memory="64KiB", threads=2)
    # Enough for the graph, not for the threads' stacks.
    with load(linked("double"), max_memory="1300KiB", threads=1) as graph:
        np.testing.assert_array_equal(run(graph), Y)
    with pytest.raises(MemoryLimitExceeded, match="no memory left for a thread's stack"):
        load(linked("double"), max_memory="1300KiB", threads=8)


def test_a_graph_for_one_thread_refuses_more(tmp_path: Path) -> None:
    path = link(bundles.add_bundle(), tmp_path / "add.wasm").path
    with pytest.raises(LoadError, match="was compiled for one thread, not for 2"):
        load(path, threads=2)


def test_no_threads_at_all_is_a_value_error(linked: Callable[[str], Path]) -> None:
    with pytest.raises(ValueError, match="threads"):
        load(linked("double"), threads=0)


def test_a_step_in_several_shares_is_described_and_timed_as_one(
    linked: Callable[[str], Path],
) -> None:
    with load(linked("double"), threads=2) as graph:
        assert [step.shares for step in graph.metadata.steps] == [SHARES] * STAGES
        assert [step.nodes for step in graph.metadata.steps] == [
            (f"node{stage}",) for stage in range(STAGES)
        ]
        run(graph)
        assert len(graph.time_steps(0.05)) == STAGES


def test_a_graph_without_shares_needs_no_helpers(tmp_path: Path) -> None:
    path = link(bundle("double", whole=True), tmp_path / "whole.wasm").path
    with load(path, threads=4) as graph:
        np.testing.assert_array_equal(run(graph), Y)
        assert helpers() == 0


SAMPLES = 5


@pytest.fixture(scope="module")
def batched(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The same graph for every sample of a batch: "x" and "y" are [N, 4 * SHARES]."""
    folder = tmp_path_factory.mktemp("batches")

    def get(symbol: str) -> Path:
        path = folder / f"{symbol}.wasm"
        if not path.exists():
            one = bundle(symbol)
            [x], [y] = one.graph.inputs, one.graph.outputs
            graph = replace(
                one.graph,
                inputs=(replace(x, shape=("N", 4 * SHARES)),),
                outputs=(replace(y, shape=("N", 4 * SHARES)),),
                batch=Batch("N", (Share(0, 1),), (Share(0, 1),)),
            )
            link(replace(one, graph=graph), path)
        return path

    return get


def samples(count: int) -> np.ndarray:
    return X + 1000 * np.arange(count, dtype=np.float32)[:, None]


@pytest.mark.parametrize("threads", [1, 2, 3, 8])
def test_threads_go_from_sample_to_sample(batched: Callable[[str], Path], threads: int) -> None:
    with load(batched("double"), threads=threads) as graph:
        for count in (SAMPLES, 1, 0, 300, 2, SAMPLES, 1):
            x = samples(count)
            np.testing.assert_array_equal(run(graph, x), x * 2**STAGES)
    assert helpers() == 0


def test_steps_of_a_later_sample_run_at_the_same_time(batched: Callable[[str], Path]) -> None:
    with load(batched("meet"), threads=2, timeout=30) as graph:
        x = samples(SAMPLES)
        np.testing.assert_array_equal(run(graph, x), x * 2**STAGES)


@pytest.mark.parametrize("sample", [0, 2, SAMPLES - 1])
@pytest.mark.parametrize("share", [0, SHARES - 1])
def test_what_goes_wrong_in_any_sample_ends_the_batch(
    batched: Callable[[str], Path], sample: int, share: int
) -> None:
    x = samples(SAMPLES)
    x[sample] = with_a_seven(share)
    with load(batched("fail"), threads=3) as graph:
        with pytest.raises(InferenceError, match="the kernel of node0 failed with code 7"):
            run(graph, x)
        np.testing.assert_array_equal(run(graph, samples(2)), samples(2) * 2**STAGES)
    with load(batched("trap"), threads=3) as graph:
        with pytest.raises(InferenceError, match="trapped in kernel trap"):
            run(graph, x)
        np.testing.assert_array_equal(run(graph, samples(2)), samples(2) * 2**STAGES)
    with load(batched("spin"), threads=3, timeout=0.2) as graph:
        with pytest.raises(RunTimeout):
            run(graph, x)
        np.testing.assert_array_equal(run(graph, samples(2)), samples(2) * 2**STAGES)
    assert helpers() == 0


@pytest.mark.parametrize("runtime", ["node", "browser"])
def test_other_engines_have_threads_too(linked: Callable[[str], Path], runtime: str) -> None:
    need_engine(runtime)
    # A minute is for a failure, so that it is no hang.
    with load(linked("meet"), threads=2, timeout=60, runtime=runtime) as graph:
        np.testing.assert_array_equal(run(graph), Y)


def test_another_engine_ends_the_run_where_one_thread_traps(linked: Callable[[str], Path]) -> None:
    need_engine("node")
    with load(linked("trap"), threads=2, timeout=60, runtime="node") as graph:
        for share in (0, 3):
            with pytest.raises(InferenceError):
                run(graph, with_a_seven(share))
        np.testing.assert_array_equal(run(graph), Y)


def test_an_engine_without_threads_says_so(linked: Callable[[str], Path]) -> None:
    need_engine("wazero")
    for threads in (1, 2):
        with pytest.raises(LoadError, match=r"wazero cannot run .* no threads") as caught:
            load(linked("double"), threads=threads, runtime="wazero")
        assert "--threads" in str(caught.value.hint)
