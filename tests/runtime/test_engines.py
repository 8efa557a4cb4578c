"""Every engine that is here, on the same graphs: results, limits, lies, and what is left behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import wasmgraph
from tests.bundles import (
    SCALE_WEIGHTS,
    add_bundle,
    endless_bundle,
    hungry_bundle,
    scale_bundle,
    trapping_bundle,
)
from tests.engines import need_engine
from tests.hostile_graphs import HOSTILE, STRANGE, TIME_LIMIT, HostileGraph, StrangeGraph
from tests.runtime.wat_graphs import WatGraph
from wasmgraph.errors import (
    InferenceError,
    InputError,
    LoadError,
    MemoryLimitExceeded,
    RunTimeout,
    ToolchainError,
    WasmgraphError,
)
from wasmgraph.link import link
from wasmgraph.metadata import DTYPE_NBYTES, TensorInfo, dump_metadata
from wasmgraph.runtime.registry import RUNTIMES, examine_engines
from wasmgraph.wasmfile import METADATA_SECTION, add_custom_section

Load = Callable[..., wasmgraph.Graph]
Feeds = Mapping[str, Any]

HOSTED = ("node", "browser", "wazero")
"""Engines that call the ABI's functions in a process of their own."""

COMMANDS = ("wasmtime-cli", "wasmer", "wasmedge")
OTHERS = (*HOSTED, *COMMANDS)
QUICK = ("node", "wazero", *COMMANDS)
"""For what is checked in this process, whatever the engine; a browser takes seconds to start."""

X = {"x": np.float32([1, 2, 3, 4])}


@pytest.fixture
def load_on(tmp_path: Path) -> Iterator[Load]:
    """Loads a graph, given as a file or as bytes, under an engine; closes it after the test, when
    no process may be left of it."""
    graphs: list[wasmgraph.Graph] = []
    before = children()

    def load(name: str, graph: Path | bytes, **options: Any) -> wasmgraph.Graph:
        need_engine(name)
        if isinstance(graph, bytes):
            path = tmp_path / "graph.wasm"
            path.write_bytes(graph)
            graph = path
        graphs.append(wasmgraph.load(graph, runtime=name, **options))
        return graphs[-1]

    yield load
    for graph in graphs:
        graph.close()
    assert children() <= before


def children(parent: int | None = None) -> set[int]:
    """Processes that a process has started, and those that they have."""
    parents = {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            fields = (folder / "stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue  # it has ended meanwhile
        if fields[0] != "Z":
            parents[int(folder.name)] = int(fields[1])
    found: set[int] = set()
    rest = {parent or os.getpid()}
    while rest:
        rest = {pid for pid, owner in parents.items() if owner in rest} - found
        found |= rest
    return found


@pytest.fixture(scope="module")
def linked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of linked graphs: add, endless, hungry, scale and trapping (.wasm)."""
    folder = tmp_path_factory.mktemp("linked")
    for make in (add_bundle, endless_bundle, hungry_bundle, scale_bundle, trapping_bundle):
        link(make(), folder / f"{make.__name__.removesuffix('_bundle')}.wasm")
    return folder


@pytest.mark.parametrize("name", OTHERS)
class TestEveryEngine:
    def test_the_sample_gives_the_same_bits_as_under_wasmtime(
        self, load_on: Load, name: str, digits_wasm: Path
    ) -> None:
        image = {"image": np.random.default_rng(7).random((1, 1, 8, 8), np.float32)}
        with wasmgraph.load(digits_wasm) as reference:
            (wanted,) = reference.run(image).values()
        graph = load_on(name, digits_wasm)
        for _ in range(3):
            (found,) = graph.run(image).values()
            np.testing.assert_array_equal(found.view(np.uint32), wanted.view(np.uint32))
        assert graph.load_ms > 0
        assert graph.run_ms > 0

    def test_several_inputs_of_any_strides(self, load_on: Load, name: str, linked: Path) -> None:
        a = np.arange(6, dtype=np.float32).reshape(3, 2).T
        b = np.arange(6, dtype=">f4").reshape(2, 3)[:, ::-1]
        outputs = load_on(name, linked / "add.wasm").run({"b": b, "a": a})
        np.testing.assert_array_equal(outputs["sum"], a + b)
        outputs["sum"][0, 0] = 5  # it is the caller's

    def test_a_trap_is_an_inference_error_and_the_graph_goes_on(
        self, load_on: Load, name: str, linked: Path
    ) -> None:
        graph = load_on(name, linked / "trapping.wasm")
        for _ in range(1 if name == "browser" else 2):
            with pytest.raises(InferenceError):
                graph.run(X)

    def test_a_run_without_end_is_stopped(self, load_on: Load, name: str, linked: Path) -> None:
        graph = load_on(name, linked / "endless.wasm", timeout=TIME_LIMIT)
        with pytest.raises(RunTimeout, match=r"time limit of 1 s"):
            graph.run(X)

    def test_memory_beyond_the_limit_is_not_given(
        self, load_on: Load, name: str, linked: Path
    ) -> None:
        graph = load_on(name, linked / "hungry.wasm", max_memory="8MiB")
        graph.run({"x": np.float32([1, 0, 0, 0])})  # one block of 1 MiB is within it
        with pytest.raises(MemoryLimitExceeded):
            graph.run({"x": np.float32([100, 0, 0, 0])})

    def test_invalid_code_is_a_load_error(self, load_on: Load, name: str) -> None:
        binary = WatGraph().binary()
        broken = binary.replace(bytes([0x41, 0x80, 0x08]), bytes([0x43, 0x80, 0x08]), 1)
        assert broken != binary
        with pytest.raises(LoadError):
            load_on(name, broken)


@pytest.mark.parametrize("name", QUICK)
class TestBeforeAnythingRuns:
    def test_wrong_inputs_are_told_before_they_go_anywhere(
        self, load_on: Load, name: str, linked: Path
    ) -> None:
        graph = load_on(name, linked / "scale.wasm")
        with pytest.raises(InputError, match="expected shape"):
            graph.run({"x": np.zeros(5, np.float32)})
        np.testing.assert_array_equal(graph.run(X)["y"], X["x"] * SCALE_WEIGHTS)

    def test_more_memory_to_start_with_than_allowed(
        self, load_on: Load, name: str, linked: Path
    ) -> None:
        with pytest.raises(MemoryLimitExceeded, match="to start with"):
            load_on(name, linked / "scale.wasm", max_memory=65536)

    def test_a_graph_for_one_thread_is_not_run_on_two(
        self, load_on: Load, name: str, linked: Path
    ) -> None:
        with pytest.raises(LoadError, match="one thread"):
            load_on(name, linked / "scale.wasm", threads=2)

    def test_a_file_that_is_no_graph(self, load_on: Load, name: str) -> None:
        with pytest.raises(LoadError, match="not a wasm file"):
            load_on(name, b"#!/bin/sh\n")

    def test_relaxed_simd_where_there_is_none(self, load_on: Load, name: str) -> None:
        (status,) = examine_engines([name])
        if status.capabilities is None or status.capabilities.relaxed_simd:
            pytest.skip(f"{name} has relaxed SIMD, or is not here")
        graph = WatGraph()
        metadata = dump_metadata(replace(graph.metadata(), simd="relaxed"))
        binary = add_custom_section(graph.module(), METADATA_SECTION, metadata)
        with pytest.raises(LoadError, match="no relaxed SIMD") as caught:
            load_on(name, binary)
        assert "--simd simd128" in str(caught.value.hint)

    def test_threads_of_python_run_at_the_same_time(
        self, load_on: Load, name: str, linked: Path
    ) -> None:
        graph = load_on(name, linked / "scale.wasm")
        with ThreadPoolExecutor(3) as pool:
            outputs = list(pool.map(lambda n: graph.run({"x": X["x"] * n})["y"], range(6)))
        for n, found in enumerate(outputs):
            np.testing.assert_array_equal(found, X["x"] * n * SCALE_WEIGHTS)


ECHO = tuple(
    TensorInfo(f"{dtype} {shape}", dtype, shape)
    for dtype in DTYPE_NBYTES
    for shape in ((), (2, 3), (0, 5))
)


@pytest.mark.parametrize("name", HOSTED)
class TestHosts:
    def test_every_dtype_scalars_and_nothing_at_all_go_there_and_back(
        self, load_on: Load, name: str
    ) -> None:
        pytest.importorskip(
            "ml_dtypes", reason="ml_dtypes, which has the narrow dtypes, is missing"
        )
        place = "(i32.add (i32.const 8192) (i32.mul (local.get 0) (i32.const 64)))"
        echo = WatGraph(
            {
                "wg_input": f"(func $wg_input (param i32 i32 i32) (result i32) {place})",
                "wg_output": f"(func $wg_output (param i32) (result i32) {place})",
            },
            inputs=ECHO,
            outputs=ECHO,
        )
        graph = load_on(name, echo.binary())
        bits = np.random.default_rng(3)
        feeds = {}
        for spec in graph.inputs:
            dtype = np.dtype(spec.dtype)
            # Small numbers and ones with all kinds of bits, as far as the dtype has them.
            most = {"bool": 2, "int2": 2, "uint2": 4, "int4": 8, "uint4": 16}.get(spec.dtype, 16)
            size = max(1, int(np.prod(spec.extents))) * dtype.itemsize
            raw = bits.integers(0, most if dtype.itemsize == 1 else 256, size, np.uint8)
            feeds[spec.name] = raw.view(dtype)[: int(np.prod(spec.extents))].reshape(spec.extents)
        outputs = graph.run(feeds)
        for key, value in feeds.items():
            found = outputs[key]
            assert (found.dtype, found.shape) == (value.dtype, value.shape)
            assert found.tobytes() == value.tobytes(), key

    def test_open_axes_decide_in_every_run(self, load_on: Load, name: str) -> None:
        rows = (TensorInfo("x", "float32", ("rows", 2)),)
        graph = WatGraph(
            {
                # Keeps the shape it is told, which the output then has.
                "wg_input": """(func $wg_input (param i32 i32 i32) (result i32)
                    (i64.store (i32.const 64) (i64.load (local.get 1)))
                    (i64.store (i32.const 72) (i64.load (i32.add (local.get 1) (i32.const 8))))
                    (i32.store (i32.const 80) (local.get 2))
                    i32.const 1024)""",
                "wg_output_shape": """(func $wg_output_shape (param i32 i32) (result i32)
                    (if (local.get 1) (then
                        (i64.store (local.get 1) (i64.load (i32.const 64)))
                        (i64.store (i32.add (local.get 1) (i32.const 8))
                            (i64.load (i32.const 72)))))
                    (i32.load (i32.const 80)))""",
                "wg_output": "(func $wg_output (param i32) (result i32) i32.const 1024)",
            },
            inputs=rows,
            outputs=(TensorInfo("y", "float32", ("...",)),),
        )
        loaded = load_on(name, graph.binary())
        for extent in (3, 0, 7):
            x = np.random.default_rng(extent).random((extent, 2), np.float32)
            np.testing.assert_array_equal(loaded.run({"x": x})["y"], x, strict=True)

    def test_single_steps(self, load_on: Load, name: str, linked: Path) -> None:
        graph = load_on(name, linked / "scale.wasm")
        graph.run(X)
        (seconds,) = graph.time_steps(0.05)
        assert 0 <= seconds < 60
        np.testing.assert_array_equal(graph.run(X)["y"], X["x"] * SCALE_WEIGHTS)


# One of every family; the hosts' own tests try all of them.
FEW = frozenset(
    [
        *("wg_input-at--16", "wg_output-at-65521", "wg_output-at-0", "input-larger-than-memory"),
        *("shape-rank-2-to-the-31", "shape-extent-negative", "shape-product-wraps-to-four"),
        *("shape-product-hidden-by-zero", "shape-written-at-65535", "input-shape-read-at--8"),
        *("error-at--1-of--1", "error-gigantic", "error-not-utf-8", "run-returns--1"),
        *("wg_run-of-i64", "wg_output-of-f64", "abi-function-says-2", "start-traps"),
        *("trap-unreachable", "trap-endless-recursion", "leaves-with-code-0"),
        *("loops", "grows-to-the-limit"),
    ]
)
FEWER = frozenset(["wg_output-at-65521", "shape-product-wraps-to-four"])
"""In a browser."""


@pytest.mark.parametrize(
    ("name", "graph"),
    [
        pytest.param(name, graph, id=f"{name}-{graph.name}")
        for name in HOSTED
        for graph in HOSTILE
        if graph.name in (FEWER if name == "browser" else FEW)
    ],
)
def test_a_lie_ends_in_its_documented_error(load_on: Load, name: str, graph: HostileGraph) -> None:
    with pytest.raises(WasmgraphError) as caught:
        load_on(name, graph.binary, max_memory=graph.memory, timeout=graph.seconds).run(graph.feeds)
    assert caught.value.kind == graph.kind, caught.value.message
    assert all(c == "\n" or c.isprintable() for c in caught.value.message)


ASKED = (
    *("asks-clock_time_get", "asks-random_get", "asks-path_open", "asks-environ_sizes_get"),
    *("asks-fd_prestat_get", "prints-to-1", "unaligned-tensors", "memory-that-moves"),
)


@pytest.mark.parametrize(
    ("name", "graph"),
    [
        pytest.param(name, graph, id=f"{name}-{graph.name}")
        for name in HOSTED
        for graph in STRANGE
        if graph.name in (ASKED[:1] if name == "browser" else ASKED)
    ],
)
def test_a_graph_that_asks_gets_nothing(load_on: Load, name: str, graph: StrangeGraph) -> None:
    outputs = load_on(name, graph.binary).run(graph.feeds)
    for key, expected in graph.outputs.items():
        np.testing.assert_array_equal(outputs[key], expected, strict=True)


@pytest.mark.parametrize("name", COMMANDS)
@pytest.mark.parametrize("asked", ["asks-clock_time_get", "asks-random_get", "asks-sock_accept"])
def test_commands_refuse_graphs_that_ask(load_on: Load, name: str, asked: str) -> None:
    (graph,) = (graph for graph in STRANGE if graph.name == asked)
    with pytest.raises(LoadError, match="imports"):
        load_on(name, graph.binary)


@pytest.mark.parametrize("name", COMMANDS)
@pytest.mark.parametrize(
    ("lie", "kind"),
    [
        ("wg_output-at-65521", "InferenceError"),  # it is never asked where; it writes no file
        ("start-traps", "InferenceError"),
        ("loops-in-start", "RunTimeout"),
        ("imports-wasi-of-v128", "InferenceError"),
        ("imports-wasi-without-it", "LoadError"),
        ("starts-beyond-the-limit", "MemoryLimitExceeded"),
    ],
)
def test_a_lie_is_an_error_of_a_command_too(load_on: Load, name: str, lie: str, kind: str) -> None:
    (graph,) = (graph for graph in HOSTILE if graph.name == lie)
    with pytest.raises(WasmgraphError) as caught:
        load_on(name, graph.binary, max_memory=graph.memory, timeout=graph.seconds).run(graph.feeds)
    assert caught.value.kind == kind, caught.value.message


RUNS_FOREVER = """
import sys
import numpy as np
import wasmgraph
graph = wasmgraph.load(sys.argv[1], runtime=sys.argv[2])
print("loaded", flush=True)
graph.run({"x": np.zeros(4, np.float32)})
"""


@pytest.mark.parametrize("how", ["SIGINT", "SIGKILL"])
@pytest.mark.parametrize("name", HOSTED)
def test_nothing_runs_on_when_python_is_ended(linked: Path, name: str, how: str) -> None:
    need_engine(name)
    parent = subprocess.Popen(
        [sys.executable, "-c", RUNS_FOREVER, linked / "endless.wasm", name],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        cwd=Path(__file__).parents[2],
        start_new_session=True,
    )
    assert parent.stdout is not None
    assert parent.stdout.readline() == "loaded\n"
    hosts = children(parent.pid)
    assert hosts
    time.sleep(0.5)  # most of the time enough to be in the run; it must do at any time
    parent.send_signal(signal.Signals[how])
    parent.wait(120)
    parent.stdout.close()
    deadline = time.monotonic() + 60
    while (left := hosts & running()) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not left


@pytest.mark.parametrize("name", HOSTED)
def test_a_host_that_is_killed_in_a_run_is_an_inference_error(
    load_on: Load, linked: Path, name: str
) -> None:
    before = children()
    graph = load_on(name, linked / "endless.wasm")

    def kill() -> None:
        for pid in children() - before:
            command = Path(f"/proc/{pid}/cmdline").read_bytes()
            # Of a browser, only the page: all the rest lives on.
            if name != "browser" or b"--type=renderer" in command:
                os.kill(pid, signal.SIGKILL)

    timer = threading.Timer(1, kill)
    timer.start()
    with pytest.raises(InferenceError, match="SIGKILL" if name != "browser" else "its page ended"):
        graph.run(X)
    timer.join()


def running() -> set[int]:
    """Processes of this machine that have not ended."""
    return children(1) | children()


def test_the_names_are_those_of_the_registry() -> None:
    assert set(RUNTIMES) == {"wasmtime", *OTHERS}
    assert [status.name for status in examine_engines()] == list(RUNTIMES)


def test_an_unknown_runtime_is_a_value_error(linked: Path) -> None:
    with pytest.raises(ValueError, match="no runtime 'v8'; there are wasmtime, node"):
        wasmgraph.load(linked / "scale.wasm", runtime="v8")


@pytest.mark.parametrize(
    ("name", "variable"),
    [
        ("node", "WASMGRAPH_NODE"),
        ("wazero", "WASMGRAPH_GO"),
        ("browser", "WASMGRAPH_CHROMIUM"),
        ("wasmtime-cli", "WASMGRAPH_WASMTIME"),
        ("wasmer", "WASMGRAPH_WASMER"),
        ("wasmedge", "WASMGRAPH_WASMEDGE"),
    ],
)
def test_an_engine_that_is_not_here_says_how_to_get_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, linked: Path, name: str, variable: str
) -> None:
    monkeypatch.setenv(variable, str(tmp_path / "absent"))
    (status,) = examine_engines([name])
    assert not status.available
    assert status.fix
    assert variable in status.detail
    with pytest.raises(ToolchainError, match=variable) as caught:
        wasmgraph.load(linked / "scale.wasm", runtime=name)
    assert caught.value.hint


def test_a_program_that_is_no_host_is_told(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, linked: Path
) -> None:
    program = tmp_path / "node"
    program.write_text("#!/bin/sh\necho 'too old' >&2\nexit 1\n")
    program.chmod(0o755)
    monkeypatch.setenv("WASMGRAPH_NODE", str(program))
    with pytest.raises(ToolchainError, match=r"does not start: it ended with exit code 1\ntoo old"):
        wasmgraph.load(linked / "scale.wasm", runtime="node")
