"""`wasmgraph bench`: latency, load times and memory, as tables and as JSON."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.bundles import scale_bundle
from tests.cli.conftest import Command
from tests.engines import need_engine
from wasmgraph.link import link

QUICK = ("--seconds", "0.05")


@pytest.fixture(scope="module")
def scale(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A graph of one kernel."""
    path = tmp_path_factory.mktemp("bench") / "scale.wasm"
    link(scale_bundle(), path)
    return path


def test_the_report_has_latency_load_and_memory(wasmgraph: Command, scale: Path) -> None:
    outcome = wasmgraph("bench", scale, *QUICK)
    assert outcome.code == 0
    for expected in ("median", "p95", "cold", "warm", "first run", "weights", "arena"):
        assert expected in outcome.stdout
    assert "GFLOP/s" not in outcome.stdout


def test_json_is_one_object_with_the_figures(wasmgraph: Command, scale: Path) -> None:
    report = wasmgraph("bench", scale, *QUICK, "--json").json
    latency, memory = report["latency_ms"], report["memory_bytes"]
    assert latency["runs"] >= 1
    assert 0 < latency["minimum"] <= latency["median"] <= latency["p95"]
    assert report["load_ms"]["cold"] > report["load_ms"]["warm"] > 0
    assert report["first_run_ms"] > 0
    assert memory["total"] == sum(memory[part] for part in ("weights", "io", "arena", "rest"))
    assert memory["grows"] is False
    assert report["threads"] == 1
    assert report["share_of_limit"] is None


def test_no_more_runs_than_asked_for(wasmgraph: Command, scale: Path) -> None:
    report = wasmgraph("bench", scale, "--runs", "2", *QUICK, "--json").json
    assert report["latency_ms"]["runs"] == 2


def test_the_model_adds_the_share_of_the_limit(
    wasmgraph: Command, digits_wasm: Path, digits_onnx: Path
) -> None:
    outcome = wasmgraph("bench", digits_wasm, "--onnx", digits_onnx, *QUICK, "--json")
    report = outcome.json
    assert report["flops"] > 1_000_000
    share = report["flops_per_second"] / report["limit_flops_per_second"]
    assert report["share_of_limit"] == pytest.approx(share)
    assert 0 < share < 1.5


def test_inputs_can_be_given(wasmgraph: Command, scale: Path) -> None:
    np.save("x.npy", np.ones(4, np.float32))
    assert wasmgraph("bench", scale, *QUICK, "-i", "x=x.npy").code == 0
    np.save("wrong.npy", np.ones(3, np.float32))
    assert wasmgraph("bench", scale, *QUICK, "-i", "x=wrong.npy").code == 7


@pytest.mark.parametrize(
    ("options", "code"),
    [
        (("--threads", "0"), 2),
        (("--threads", "2"), 6),
        (("--seconds", "0"), 2),
        (("--runs", "0"), 2),
        (("--onnx", "missing.onnx"), 3),
        (("-i", "z=random:0"), 7),
    ],
)
def test_every_failure_has_its_exit_code(
    wasmgraph: Command, scale: Path, options: tuple[str, ...], code: int
) -> None:
    outcome = wasmgraph("bench", scale, *QUICK, *options)
    assert outcome.code == code
    assert "Traceback" not in outcome.stderr


def test_what_is_no_graph_cannot_be_loaded(wasmgraph: Command, tmp_path: Path) -> None:
    assert wasmgraph("bench", "missing.wasm").code == 6
    (tmp_path / "text.wasm").write_text("text")
    assert wasmgraph("bench", tmp_path / "text.wasm").code == 6


def test_more_threads_than_the_graph_was_compiled_for_are_an_error(
    wasmgraph: Command, scale: Path
) -> None:
    outcome = wasmgraph("bench", scale, "--threads", "2")
    assert "was compiled for one thread" in outcome.stderr


def test_several_engines_are_a_row_each(wasmgraph: Command, scale: Path) -> None:
    need_engine("node")
    run = ("bench", scale, *QUICK, "--runtime", "wasmtime,node")
    outcome = wasmgraph(*run)
    assert outcome.code == 0, outcome.stderr
    for expected in ("wasmtime", "node", "median", "p95", "cold", "warm", "call", "arena"):
        assert expected in outcome.stdout
    assert "GFLOP/s" not in outcome.stdout
    report = wasmgraph(*run, "--json").json
    assert [engine["runtime"] for engine in report["engines"]] == ["wasmtime", "node"]
    for engine in report["engines"]:
        for figures in (engine["engine_ms"], engine["latency_ms"]):
            assert 0 <= figures["minimum"] <= figures["median"] <= figures["p95"]
        assert set(engine["load_ms"]) == {"cold", "warm"}
    assert report["memory_bytes"]["total"] > 0


def test_wasmtime_by_name_is_the_report_without_a_name(wasmgraph: Command, scale: Path) -> None:
    report = wasmgraph("bench", scale, *QUICK, "--runtime", "wasmtime", "--json").json
    assert set(report) == set(wasmgraph("bench", scale, *QUICK, "--json").json)


def test_all_engines_and_the_reasons_of_those_that_are_not_here(
    wasmgraph: Command, digits_wasm: Path, digits_onnx: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for engine in ("NODE", "GO", "CHROMIUM", "WASMTIME", "WASMER", "WASMEDGE"):
        monkeypatch.setenv(f"WASMGRAPH_{engine}", "/absent")
    run = ("bench", digits_wasm, *QUICK, "--onnx", digits_onnx, "--runtime")
    outcome = wasmgraph(*run, "all")
    assert outcome.code == 0, outcome.stderr
    assert "GFLOP/s" in outcome.stdout
    assert "wasmer: WASMGRAPH_WASMER names '/absent', which is no program (" in outcome.stdout
    outcome = wasmgraph(*run, "wasmtime,wasmer")
    assert outcome.code == 5
    assert "WASMGRAPH_WASMER" in outcome.stderr


@pytest.mark.parametrize("names", ["v8", "wasmtime,", "", "all,node"])
def test_a_runtime_that_there_is_not_is_a_usage_error(
    wasmgraph: Command, scale: Path, names: str
) -> None:
    outcome = wasmgraph("bench", scale, "--runtime", names)
    assert outcome.code == 2
    assert "wasmtime, node" in outcome.stderr
