"""One graph measured under several engines: figures, problems, and which of them are errors."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests.bundles import scale_bundle
from tests.engines import need_engine
from tests.runtime.test_host_process import HOST, on_run
from tests.runtime.wat_graphs import WatGraph
from wasmgraph.errors import InferenceError, InputError, LoadError, ToolchainError
from wasmgraph.link import link
from wasmgraph.measure import EngineMeasurement, EnginesMeasurement, measure_engines
from wasmgraph.measure.latency import Latency
from wasmgraph.measure.memory import GuestMemory
from wasmgraph.metadata import dump_metadata
from wasmgraph.runtime import Graph, load
from wasmgraph.runtime.registry import RUNTIMES
from wasmgraph.wasmfile import METADATA_SECTION, add_custom_section

X = {"x": np.float32([1, 2, 3, 4])}
Pretend = Callable[[str], None]


def given(graph: Graph) -> dict[str, np.ndarray]:
    """The inputs, whatever the engine."""
    assert [spec.name for spec in graph.inputs] == ["x"]
    return X


@pytest.fixture(scope="module")
def scale_wasm(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("scale") / "scale.wasm"
    link(scale_bundle(), path)
    return path


@pytest.fixture
def alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """No engine is here but Wasmtime."""
    for engine in ("NODE", "GO", "CHROMIUM", "WASMTIME", "WASMER", "WASMEDGE"):
        monkeypatch.setenv(f"WASMGRAPH_{engine}", "/absent")


@pytest.fixture
def pretend_node(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, alone: None) -> Pretend:
    """Makes a "node", beside Wasmtime, that misbehaves like this."""

    def make(misbehaviour: str) -> None:
        host = tmp_path / "node"
        host.write_text(f"#!{sys.executable}\n{HOST.replace('MISBEHAVIOUR', misbehaviour)}")
        host.chmod(0o755)
        monkeypatch.setenv("WASMGRAPH_NODE", str(host))

    return make


def test_every_engine_that_is_here_is_measured(scale_wasm: Path) -> None:
    found = measure_engines(scale_wasm, given, seconds=0.03, flops=4)
    assert [entry.runtime for entry in found.engines] == list(RUNTIMES)
    for entry in found.engines:
        if entry.problem is not None:
            assert not entry.failed, entry
            continue
        assert entry.engine is not None
        assert entry.call is not None
        assert entry.engine.runs == entry.call.runs >= 3  # one per turn
        assert entry.engine.minimum <= entry.engine.median <= entry.engine.p95
        # A run by the engine's clock is a part of the call.
        assert entry.engine.minimum <= entry.call.minimum
        assert min(entry.cold_load, entry.warm_load, entry.first_run) > 0
        assert entry.start >= entry.warm_load
    assert found.engines[0].problem is None
    assert found.guest.total > 0


def test_the_engines_clock_counts_not_the_callers(scale_wasm: Path, pretend_node: Pretend) -> None:
    pretend_node(on_run("time.sleep(0.002); honest(request, payload)"))
    found = measure_engines(scale_wasm, given, ["node"], seconds=0.05, flops=1_000_000)
    (node,) = found.engines
    assert node.engine is not None
    assert node.call is not None
    assert (node.engine.minimum, node.engine.p95) == (0.5, 0.5)  # as the host says
    assert node.call.minimum >= 2
    assert (node.cold_load, node.warm_load) == (1.5, 1.5)
    assert found.flops_per_second(node) == 2e9
    assert node.memory is not None
    assert node.memory > 1_000_000  # a Python


def test_no_more_runs_than_asked_for_in_all_turns(scale_wasm: Path, pretend_node: Pretend) -> None:
    pretend_node("")
    for runs in (1, 2, 7):
        found = measure_engines(scale_wasm, given, ["node"], seconds=60, runs=runs)
        assert found.engines[0].engine is not None
        assert found.engines[0].engine.runs == runs


def of_metadata(folder: Path, graph: WatGraph, **changed: object) -> Path:
    """The graph's file, with metadata that say something else."""
    metadata = dump_metadata(replace(graph.metadata(), **changed))  # type: ignore[arg-type]
    path = folder / "graph.wasm"
    path.write_bytes(add_custom_section(graph.module(), METADATA_SECTION, metadata))
    return path


def test_what_an_engine_lacks_is_an_error_by_name_and_a_line_among_all(
    tmp_path: Path, pretend_node: Pretend
) -> None:
    pretend_node("")
    path = of_metadata(tmp_path, WatGraph(), simd="relaxed")
    with pytest.raises(LoadError, match=r"node cannot run .* no relaxed SIMD"):
        measure_engines(path, given, ["wasmtime", "node"], seconds=0.01)
    found = measure_engines(path, given, seconds=0.01)
    entries = {entry.runtime: entry for entry in found.engines}
    assert entries["wasmtime"].engine is not None
    assert "no relaxed SIMD" in str(entries["node"].problem)
    assert not entries["node"].failed


def test_threads_that_an_engine_lacks_are_an_error(tmp_path: Path, pretend_node: Pretend) -> None:
    pretend_node("")
    graph = WatGraph(
        {
            "wg_work": "(func $wg_work (param i32 i32 i32) (result i32) i32.const 0)",
            "wg_stop": "(func $wg_stop)",
        },
        memory='(import "env" "memory" (memory 1 1 shared))',
    )
    path = of_metadata(tmp_path, graph, threads=True)
    with pytest.raises(LoadError, match=r"node cannot run .* no threads"):
        measure_engines(path, given, ["node"], seconds=0.01, threads=2)


def test_an_engine_that_is_not_here_is_an_error_by_name(scale_wasm: Path, alone: None) -> None:
    with pytest.raises(ToolchainError, match="WASMGRAPH_WASMER"):
        measure_engines(scale_wasm, given, ["wasmer"], seconds=0.01)
    found = measure_engines(scale_wasm, given, seconds=0.01)
    assert [entry.runtime for entry in found.engines if entry.problem is None] == ["wasmtime"]
    assert all(entry.fix for entry in found.engines[1:])
    with pytest.raises(ValueError, match="no runtime 'v8'"):
        measure_engines(scale_wasm, given, ["v8"], seconds=0.01)


@pytest.mark.parametrize(
    "fails",
    [
        "def answer(request, payload): sys.exit(4)",
        # Not before it is timed.
        "left = [3]\n"
        + on_run("left[0] -= 1; honest(request, payload) if left[0] else sys.exit(4)"),
    ],
)
def test_an_engine_that_fails_is_an_error_by_name_and_a_line_among_all(
    scale_wasm: Path, pretend_node: Pretend, fails: str
) -> None:
    pretend_node(fails)
    with pytest.raises((LoadError, InferenceError), match="exit code 4"):
        measure_engines(scale_wasm, given, ["node"], seconds=0.1)
    found = {
        entry.runtime: entry for entry in measure_engines(scale_wasm, given, seconds=0.1).engines
    }
    assert found["wasmtime"].engine is not None
    assert found["node"].failed
    assert "exit code 4" in str(found["node"].problem)
    assert found["node"].to_json()["failed"] is True


def test_a_graph_that_fails_under_wasmtime_fails(scale_wasm: Path, alone: None) -> None:
    with pytest.raises(InputError):
        measure_engines(scale_wasm, lambda _: {"z": np.zeros(4)}, seconds=0.01)


def test_a_component_is_measured_where_it_can_be(digits_component: Path, alone: None) -> None:
    image = {"image": np.zeros((1, 1, 8, 8), np.float32)}
    found = measure_engines(digits_component, lambda _: image, seconds=0.01)
    assert found.engines[0].engine is not None


def test_a_clock_that_is_too_coarse_gives_no_speed() -> None:
    none, some = Latency.of([0.0]), Latency.of([0.25])
    entry = EngineMeasurement("node", "1", engine=none, call=some)
    found = EnginesMeasurement("g.wasm", 1, (entry,), GuestMemory(0, 0, 0, 0, 0, grows=False), 100)
    assert found.flops_per_second(entry) is None
    assert found.to_json()["engines"][0]["flops_per_second"] is None


def test_memory_of_an_engines_process(scale_wasm: Path) -> None:
    need_engine("node")
    with load(scale_wasm, runtime="node") as graph:
        graph.run(X)
        assert graph.process_peak is not None
        assert graph.process_peak > 10_000_000
    with load(scale_wasm) as graph:
        graph.run(X)
        assert graph.process_peak is None
