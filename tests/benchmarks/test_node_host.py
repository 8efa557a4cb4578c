"""The benchmark's host of graphs in Node: threads give the same, and none is waited for in vain."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from benchmarks.node import FOLDER, find_node
from tests import bundles
from tests.runtime.test_threads import SHARES, X, Y, bundle, with_a_seven
from wasmgraph.link import link

# Prints the output of each run on the inputs given, or the error that ended it.
PROGRAM = """
const [host, file, threads, inputs] = process.argv.slice(2);
const { Graph } = await import(host);
const { readFileSync } = await import("node:fs");
const graph = await Graph.load(new Uint8Array(readFileSync(file)), Number(threads));
const results = JSON.parse(inputs).map((input) => {
  try {
    const [output] = graph.run([new Uint8Array(new Float32Array(input).buffer)]);
    return Array.from(new Float32Array(output.buffer));
  } catch (error) {
    return error.message;
  }
});
console.log(JSON.stringify(results));
process.exit(0);
"""
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


class HostError(Exception):
    """Node ended with an error; the message is what it said."""


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Runs the graph of a bundle in Node, e.g. run(bundle("double"), 2, [X])."""
    node = find_node(install=False)
    if node.path is None or node.missing:
        pytest.skip(str(node.missing))
    folder = tmp_path_factory.mktemp("node")
    program = folder / "program.mjs"
    program.write_text(PROGRAM, encoding="utf-8")

    def run_in_node(graph: Any, threads: int, inputs: list[np.ndarray]) -> list[Any]:
        file = link(graph, folder / "graph.wasm").path
        host = (FOLDER / "node" / "graph_host.mjs").as_uri()
        texts = json.dumps([x.tolist() for x in inputs])
        done = subprocess.run(
            [str(node.path), str(program), host, str(file), str(threads), texts],
            capture_output=True,
            text=True,
            timeout=120,  # a hang is a failure
            check=False,
        )
        if done.returncode != 0:
            raise HostError(done.stderr)
        results: list[Any] = json.loads(done.stdout)
        return results

    return run_in_node


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_any_number_of_threads_gives_the_same(run: Run, threads: int) -> None:
    inputs = [X + i for i in range(200)]
    outputs = run(bundle("double"), threads, inputs)
    assert len(outputs) == len(inputs)
    for i, output in enumerate(outputs):
        np.testing.assert_array_equal(output, Y + 16 * i)


def test_threads_run_at_the_same_time(run: Run) -> None:
    (output,) = run(bundle("meet"), 2, [X])
    np.testing.assert_array_equal(output, Y)


@pytest.mark.parametrize("share", [0, SHARES - 1])
def test_a_kernel_that_fails_in_any_thread_ends_the_run_only(run: Run, share: int) -> None:
    before, error, after = run(bundle("fail"), 2, [X, with_a_seven(share), X])
    np.testing.assert_array_equal(before, Y)
    np.testing.assert_array_equal(after, Y)
    assert error == "run: the kernel of node0 failed with code 7"


@pytest.mark.parametrize(
    ("share", "expected"), [(0, "unreachable"), (SHARES - 1, "run: the run was stopped")]
)
def test_a_trap_in_either_thread_is_an_error_and_no_hang(
    run: Run, share: int, expected: str
) -> None:
    features = ("-Ctarget-feature=+atomics,+bulk-memory",)
    graph = replace(bundle("together"), object_code=bundles.compiled(TOGETHER, features))
    np.testing.assert_array_equal(run(graph, 2, [X]), [Y])
    assert run(graph, 2, [with_a_seven(share)]) == [expected]


def test_a_graph_for_one_thread_refuses_more(run: Run) -> None:
    with pytest.raises(HostError, match="the graph was compiled for one thread"):
        run(bundles.scale_bundle(), 2, [])
