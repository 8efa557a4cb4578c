"""`wasmgraph verify`: agreement with onnxruntime, as a table, as JSON, as an exit code."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest

from tests.bundles import SCALE_WEIGHTS, endless_bundle, scale_bundle
from tests.cli.conftest import Command
from tests.engines import need_engine
from tests.runtime.test_host_process import HOST
from tests.test_verification import scale_model
from wasmgraph.link import link


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """scale.wasm, endless.wasm, its model scale.onnx, and other.onnx with another third weight."""
    folder = tmp_path_factory.mktemp("verify")
    link(scale_bundle(), folder / "scale.wasm")
    link(endless_bundle(), folder / "endless.wasm")
    onnx.save(scale_model(SCALE_WEIGHTS), folder / "scale.onnx")
    other = SCALE_WEIGHTS.copy()
    other[2] += 1
    onnx.save(scale_model(other), folder / "other.onnx")
    return folder


def test_agreement_is_a_table_and_exit_code_0(wasmgraph: Command, folder: Path) -> None:
    outcome = wasmgraph("verify", folder / "scale.wasm", "--onnx", folder / "scale.onnx")
    assert outcome.code == 0
    for expected in ("y", "float32", "ULP", "agrees", "seed 0"):
        assert expected in outcome.stdout
    assert "disagrees" not in outcome.stdout


def test_disagreement_is_told_with_its_place_and_exit_code_11(
    wasmgraph: Command, folder: Path
) -> None:
    np.save("x.npy", np.ones(4, np.float32))
    outcome = wasmgraph(
        "verify", folder / "scale.wasm", "--onnx", folder / "other.onnx", "-i", "x.npy"
    )
    assert outcome.code == 11
    assert "disagrees" in outcome.stdout
    assert "[2] 0.5, expected 1.5" in outcome.stdout
    assert "output 'y'[2] is 0.5, onnxruntime has 1.5" in outcome.stderr


def test_json_is_one_object_with_the_figures(wasmgraph: Command, folder: Path) -> None:
    report = wasmgraph(
        *("verify", folder / "scale.wasm", "--onnx", folder / "scale.onnx", "--seed", "4"),
        *("--rtol", "0.5", "--atol", "0.25", "--json"),
    ).json
    assert report["agrees"] is True
    assert (report["seed"], report["rtol"], report["atol"]) == (4, 0.5, 0.25)
    assert report["outputs"][0]["max_ulp"] == 0
    assert "error" not in report


def test_json_of_a_disagreement_has_figures_and_error(wasmgraph: Command, folder: Path) -> None:
    outcome = wasmgraph("verify", folder / "scale.wasm", "--onnx", folder / "other.onnx", "--json")
    assert outcome.code == 11
    report = outcome.json
    assert report["agrees"] is False
    assert report["outputs"][0]["index"] == [2]
    assert report["error"]["kind"] == "VerificationError"
    assert report["error"]["exit_code"] == 11
    assert outcome.stderr == ""


def test_quiet_leaves_the_exit_code_and_the_error(wasmgraph: Command, folder: Path) -> None:
    graph = folder / "scale.wasm"
    assert wasmgraph("verify", graph, "--onnx", folder / "scale.onnx", "-q").stdout == ""
    outcome = wasmgraph("verify", graph, "--onnx", folder / "other.onnx", "-q")
    assert outcome.code == 11
    assert outcome.stdout == ""
    assert outcome.stderr != ""


def test_the_tolerance_options_decide(wasmgraph: Command, folder: Path) -> None:
    run = ("verify", folder / "scale.wasm", "--onnx", folder / "other.onnx")
    assert wasmgraph(*run, "--atol", "2").code == 0
    assert wasmgraph(*run, "--rtol", "2").code == 0


def test_values_that_are_not_finite_are_pointed_out(wasmgraph: Command, folder: Path) -> None:
    np.save("x.npy", np.float32([np.nan, 1, 1, 1]))
    outcome = wasmgraph(
        "verify", folder / "scale.wasm", "--onnx", folder / "scale.onnx", "-i", "x=x.npy"
    )
    assert outcome.code == 0
    assert "1 elements that are not finite" in outcome.stdout


@pytest.mark.parametrize(
    ("graph", "model", "options", "code"),
    [
        ("missing.wasm", "scale.onnx", (), 6),
        ("scale.wasm", "missing.onnx", (), 3),
        ("scale.wasm", "scale.wasm", (), 3),
        ("scale.wasm", "scale.onnx", ("-i", "z=random:0"), 7),
        ("scale.wasm", "scale.onnx", ("--rtol", "-1"), 2),
        ("endless.wasm", "scale.onnx", ("--timeout", "0.2s"), 9),
    ],
)
def test_every_failure_has_its_exit_code(
    wasmgraph: Command, folder: Path, graph: str, model: str, options: tuple[str, ...], code: int
) -> None:
    outcome = wasmgraph("verify", folder / graph, "--onnx", folder / model, *options)
    assert outcome.code == code
    assert "Traceback" not in outcome.stderr


def test_a_model_is_required(wasmgraph: Command, folder: Path) -> None:
    outcome = wasmgraph("verify", folder / "scale.wasm")
    assert outcome.code == 2
    assert "--onnx" in outcome.stderr


def test_as_a_process_stdout_is_json_alone(process: Command, folder: Path) -> None:
    outcome = process("verify", folder / "scale.wasm", "--onnx", folder / "scale.onnx", "--json")
    assert outcome.code == 0
    assert json.loads(outcome.stdout)["agrees"] is True
    assert outcome.stderr == ""


def test_a_disagreement_on_random_inputs_hints_at_their_range(
    wasmgraph: Command, folder: Path
) -> None:
    options = ("--rtol", "0", "--atol", "0", "--input-range", "0,255")
    outcome = wasmgraph("verify", folder / "scale.wasm", "--onnx", folder / "other.onnx", *options)
    assert outcome.code == 11
    assert "--input-range" in outcome.stderr


def test_a_range_is_two_ascending_numbers(wasmgraph: Command, folder: Path) -> None:
    files = (folder / "scale.wasm", "--onnx", folder / "scale.onnx")
    assert wasmgraph("verify", *files, "--input-range", "1,0").code == 2
    assert wasmgraph("verify", *files, "--input-range", "1").code == 2


def test_another_runtime_is_one_more_row(wasmgraph: Command, folder: Path) -> None:
    need_engine("node")
    run = ("verify", folder / "scale.wasm", "--onnx", folder / "scale.onnx", "--runtime", "node")
    outcome = wasmgraph(*run)
    assert outcome.code == 0, outcome.stderr
    for expected in ("wasmtime", "node", "agrees", "identical", "seed 0"):
        assert expected in outcome.stdout
    report = wasmgraph(*run, "--json").json
    assert [engine["runtime"] for engine in report["engines"]] == ["wasmtime", "node"]
    assert all(engine["identical"] for engine in report["engines"])


def test_a_missing_runtime_is_a_toolchain_error_by_name_and_a_line_among_all(
    wasmgraph: Command, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for engine in ("NODE", "GO", "CHROMIUM", "WASMTIME", "WASMER", "WASMEDGE"):
        monkeypatch.setenv(f"WASMGRAPH_{engine}", "/absent")
    run = ("verify", folder / "scale.wasm", "--onnx", folder / "scale.onnx", "--runtime")
    outcome = wasmgraph(*run, "wasmer")
    assert outcome.code == 5
    assert "WASMGRAPH_WASMER" in outcome.stderr
    outcome = wasmgraph(*run, "all")
    assert outcome.code == 0
    assert "wasmer: WASMGRAPH_WASMER names '/absent'" in outcome.stdout
    assert wasmgraph(*run, "v8").code == 2


def test_an_engine_that_disagrees_leaves_with_11(
    wasmgraph: Command, folder: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    host = tmp_path / "zeros"
    host.write_text(f"#!{sys.executable}\n{HOST.replace('MISBEHAVIOUR', '')}")
    host.chmod(0o755)
    monkeypatch.setenv("WASMGRAPH_NODE", str(host))
    run = ("verify", folder / "scale.wasm", "--onnx", folder / "scale.onnx", "--runtime", "node")
    outcome = wasmgraph(*run)
    assert outcome.code == 11
    assert "ULP apart" in outcome.stdout
    assert "node differs from wasmtime in 'y'" in outcome.stderr
    report = wasmgraph(*run, "--json")
    assert report.code == 11
    assert report.json["engines"][1]["identical"] is False
    assert report.json["error"]["kind"] == "VerificationError"
