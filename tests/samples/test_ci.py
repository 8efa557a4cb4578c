"""samples/ci/wasmgraph-step.sh, run for real: what passes, what fails, what it keeps."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import wasmgraph

CI = Path(__file__).resolve().parents[2] / "samples" / "ci"
STEP = CI / "wasmgraph-step.sh"


@pytest.fixture
def wasmgraph_command(tmp_path: Path) -> Path:
    """An executable `wasmgraph` that runs this checkout under this Python."""
    command = tmp_path / "bin" / "wasmgraph"
    command.parent.mkdir()
    command.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m wasmgraph "$@"\n')
    command.chmod(0o755)
    return command


def step(command: Path, *args: object, **env: str) -> subprocess.CompletedProcess[str]:
    """Run the step beside `command`'s folder."""
    return subprocess.run(
        [STEP, *map(str, args)],
        cwd=command.parents[1],
        env={**os.environ, "WASMGRAPH": str(command), **env},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


def test_an_agreeing_model_passes_and_leaves_the_wasm_and_both_reports(
    wasmgraph_command: Path, tmp_path: Path, digits_onnx: Path
) -> None:
    done = step(wasmgraph_command, digits_onnx, "kept")
    assert done.returncode == 0, done.stderr
    assert "agrees with" in done.stdout
    kept = tmp_path / "kept"
    assert sorted(path.name for path in kept.iterdir()) == [
        "digits.compile.json",
        "digits.verify.json",
        "digits.wasm",
    ]
    compiled = json.loads((kept / "digits.compile.json").read_text())
    assert compiled["sizes"]["file"] == (kept / "digits.wasm").stat().st_size
    assert json.loads((kept / "digits.verify.json").read_text())["agrees"] is True


def test_a_disagreement_fails_with_11_and_keeps_the_report_but_not_the_wasm(
    wasmgraph_command: Path, tmp_path: Path, digits_onnx: Path
) -> None:
    done = step(wasmgraph_command, digits_onnx, "kept", WASMGRAPH_RTOL="0", WASMGRAPH_ATOL="0")
    assert done.returncode == 11, done.stderr
    assert "failed with exit code 11" in done.stderr
    kept = tmp_path / "kept"
    assert sorted(path.name for path in kept.iterdir()) == [
        "digits.compile.json",
        "digits.verify.json",
    ]
    assert "probabilities" in (kept / "digits.verify.json").read_text()
    json.loads((kept / "digits.verify.json").read_text())


def test_a_model_that_does_not_compile_fails_with_its_code_and_keeps_the_error(
    wasmgraph_command: Path, tmp_path: Path
) -> None:
    (tmp_path / "text.onnx").write_text("no model\n")
    kept = tmp_path / "kept"
    kept.mkdir()
    (kept / "text.wasm").write_bytes(b"of an earlier build")
    done = step(wasmgraph_command, "text.onnx", "kept")
    assert done.returncode == 3, done.stderr
    assert [path.name for path in kept.iterdir()] == ["text.compile.json"]
    error = json.loads((kept / "text.compile.json").read_text())["error"]
    assert (error["kind"], error["exit_code"]) == ("ModelError", 3)


def test_options_go_to_compile(wasmgraph_command: Path, tmp_path: Path, digits_onnx: Path) -> None:
    done = step(wasmgraph_command, digits_onnx, "kept", "--shape", "picture=1,1,8,8")
    assert done.returncode == 7, done.stderr
    assert "'picture'" in (tmp_path / "kept" / "digits.compile.json").read_text()


def test_no_model_shows_the_usage(wasmgraph_command: Path) -> None:
    done = step(wasmgraph_command)
    assert done.returncode != 0
    assert "usage: wasmgraph-step.sh MODEL.onnx" in done.stderr


def test_the_workflow_calls_the_step() -> None:
    assert f"ci/{STEP.name} " in (CI / "workflow.yml").read_text(encoding="utf-8")


def test_the_workflow_installs_this_version() -> None:
    workflow = (CI / "workflow.yml").read_text(encoding="utf-8")
    assert f"/wasmgraph-{wasmgraph.__version__}-py3-none-any.whl\n" in workflow
