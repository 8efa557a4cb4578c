"""A real benchmark of the sample, with every system that is there, in very short slices."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from benchmarks import __main__ as command_line
from benchmarks import session
from benchmarks.models import Model, find_models
from benchmarks.node import FOLDER, Node, find_node
from benchmarks.results import ModelResult, SystemResult
from benchmarks.session import Options, measure_model
from benchmarks.systems import LABELS, THREADS, System, all_systems
from tests.conftest import DIGITS
from wasmgraph.wasmfile import read_metadata

QUICK = {"seconds": 0.1, "warm_up": 0.0, "slices": 2}


@pytest.fixture(scope="module")
def node() -> Node:
    """What there is of Node here; nothing is installed for a test."""
    return find_node(install=False)


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Compiled graphs, shared by this module's tests."""
    return tmp_path_factory.mktemp("bench")


@pytest.fixture(scope="module")
def digits() -> Model:
    """The sample."""
    (model,) = find_models(DIGITS)
    return model


@pytest.fixture(scope="module")
def measured(node: Node, cache: Path, digits: Model) -> ModelResult:
    """One benchmark with all systems."""
    return measure_model(digits, all_systems(node), node, Options(cache, **QUICK))  # type: ignore[arg-type]


@pytest.mark.parametrize("threads", THREADS)
@pytest.mark.parametrize("name", LABELS)
def test_every_system_that_is_there_is_measured(
    measured: ModelResult, node: Node, name: str, threads: int
) -> None:
    key = f"{name}-{threads}"
    (system,) = (system for system in all_systems(node) if system.key == key)
    if system.missing:
        pytest.skip(system.missing)
    result = measured.system(key)
    assert result.problem is None
    assert result.latency is not None
    assert result.latency.runs >= 2
    assert 0 < result.latency.minimum <= result.latency.median <= result.latency.p95
    assert result.loaded is not None
    assert result.first is not None
    assert result.peak is not None
    assert result.max_abs is not None
    assert result.max_abs < 1e-4
    assert result.cpu_share is not None
    assert 0 < result.cpu_share < threads + 0.1


def test_the_graph_is_loaded_cold_and_warm_and_its_memory_known(measured: ModelResult) -> None:
    result = measured.system("wasmgraph-1")
    assert result.loaded is not None
    assert result.cold_loaded is not None
    assert result.cold_loaded > result.loaded
    assert result.guest is not None
    assert measured.sizes is not None
    assert result.guest["weights"] == measured.sizes["weights"]


def test_share_of_the_limit_and_bytes_to_ship_are_known(measured: ModelResult) -> None:
    assert measured.flops is not None
    assert measured.flops > 1_000_000
    share = measured.share_of_limit()
    assert share is not None
    assert 0 < share < 1.5
    graph = measured.shipped["wasmgraph"]
    assert graph.gzip < graph.raw
    assert graph.raw > 117_000  # the weights alone


def test_the_second_time_the_graph_is_not_compiled_again(
    measured: ModelResult, node: Node, cache: Path, digits: Model
) -> None:
    again = measure_model(digits, [], node, Options(cache, **QUICK))  # type: ignore[arg-type]
    assert not measured.compile_kept
    assert again.compile_kept
    assert again.compile_seconds == measured.compile_seconds


def test_two_threads_run_the_graph_that_was_compiled_for_several(
    measured: ModelResult, cache: Path
) -> None:
    if measured.system("wasmgraph-2").problem is not None:
        pytest.skip("this machine has 1 core")
    for folder, threads in (("graphs-1", False), ("graphs-2", True)):
        (graph,) = (cache / folder).glob("*.wasm")
        assert read_metadata(graph.read_bytes()).threads is threads


@pytest.mark.parametrize("key", ["wasmgraph-1", "wasmgraph-2"])
def test_a_system_that_disagrees_is_not_timed(
    measured: ModelResult,
    node: Node,
    cache: Path,
    digits: Model,
    monkeypatch: pytest.MonkeyPatch,
    key: str,
) -> None:
    assert measured.problem is None
    systems = [s for s in all_systems(node) if s.key in (key, "native-1") and not s.missing]
    if len(systems) < 2:
        pytest.skip("this machine has 1 core")
    honest = session.read_tensors

    def wrong_graph(folder: Path) -> dict[str, np.ndarray]:
        factor = np.float32(1.01) if folder.name == key else np.float32(1)
        return {name: array * factor for name, array in honest(folder).items()}

    monkeypatch.setattr(session, "read_tensors", wrong_graph)
    result = measure_model(digits, systems, node, Options(cache, **QUICK))  # type: ignore[arg-type]
    assert re.match("disagrees: output 'probabilities'", result.system(key).problem or "")
    assert result.system(key).latency is None
    assert result.system("native-1").latency is not None


def test_a_missing_system_is_reported_and_the_rest_measured(
    node: Node, cache: Path, digits: Model
) -> None:
    (native,) = (system for system in all_systems(node) if system.key == "native-1")
    absent = System("ort-web", 1, ("node",), "Node is not installed")
    result = measure_model(digits, [absent, native], node, Options(cache, **QUICK))  # type: ignore[arg-type]
    assert result.system("ort-web-1").problem == "Node is not installed"
    assert result.system("native-1").latency is not None


def test_one_command_prints_tables_and_writes_json(
    node: Node, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(command_line, "find_node", lambda: node)
    target = tmp_path / "results.json"
    options = ["--models", str(DIGITS), "--seconds", "0.1", "--warm-up", "0", "--only", "digits"]
    outcome = CliRunner().invoke(
        command_line.main, [*options, "--cache", str(cache), "--json", str(target)]
    )
    assert outcome.exit_code == 0
    for expected in ("digits", "1 thread", "2 threads", "Goals", str(target)):
        assert expected in outcome.stdout
    data = json.loads(target.read_text(encoding="utf-8"))
    assert data["environment"]["versions"]["onnxruntime"]
    assert data["environment"]["cpu"]
    assert data["models"][0]["systems"]["native-1"]["latency"]["median"] > 0
    assert len(data["goals"]) == 12


def test_a_model_on_which_wasmgraph_fails_with_any_threads_is_exit_code_1(
    node: Node, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing(model: Model, *_: object) -> ModelResult:
        problem = SystemResult(problem="disagrees: output 'y'")
        return ModelResult(model.name, systems={"wasmgraph-2": problem}, load_average=0.0)

    several = System("wasmgraph", 2, ("python",), None)
    monkeypatch.setattr(command_line, "find_node", lambda: node)
    monkeypatch.setattr(command_line, "measure_model", failing)
    monkeypatch.setattr(command_line, "all_systems", lambda _: [several])
    options = ["--models", str(DIGITS), "--only", "digits", "--cache", str(cache)]
    outcome = CliRunner().invoke(
        command_line.main, [*options, "--json", str(tmp_path / "results.json")]
    )
    assert outcome.exit_code == 1
    assert "digits, wasmgraph-2: disagrees: output 'y'" in outcome.stdout


def test_the_lock_file_names_no_registry_and_the_manifest_one_dependency() -> None:
    lock = (FOLDER / "package-lock.json").read_text(encoding="utf-8")
    assert "://" not in lock
    manifest = json.loads((FOLDER / "package.json").read_text(encoding="utf-8"))
    assert list(manifest["dependencies"]) == ["onnxruntime-web"]
