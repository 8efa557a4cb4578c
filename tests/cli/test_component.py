"""`--kind component`, and the commands that take a graph, on a component."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.cli.conftest import Command
from tests.engines import why_missing
from wasmgraph.component.interface import MODEL


def test_the_command_line(
    wasmgraph: Command, digits_onnx: Path, digits_bundle: Path, tmp_path: Path
) -> None:
    out, linked = tmp_path / "digits.wasm", tmp_path / "linked.wasm"
    found = wasmgraph("compile", digits_onnx, "-o", out, "--kind", "component", "--json").json
    assert found["kind"] == "component"
    assert found["verification"]["agrees"]
    assert found["sizes"]["file"] == out.stat().st_size
    wasmgraph("link", digits_bundle, "-o", linked, "--kind", "component")
    assert linked.read_bytes() == out.read_bytes()


def test_inspect_tells_what_it_is(
    wasmgraph: Command, digits_component: Path, digits_wasm: Path
) -> None:
    found = wasmgraph("inspect", digits_component, "--json").json
    module = wasmgraph("inspect", digits_wasm, "--json").json
    assert (found["kind"], found["abi"]) == ("component", None)
    assert (found["imports"], found["exports"]) == ([], [MODEL])
    assert found["memory"]["linear_memory"] > found["memory"]["weights"]
    assert found["sizes"]["file"] == digits_component.stat().st_size
    for same in ("inputs", "outputs", "kernels", "steps", "source", "sha256", "operators", "simd"):
        assert found[same] == module[same]
    assert "component" in wasmgraph("inspect", digits_component).stdout


def test_run_and_bench_take_a_component(
    wasmgraph: Command, digits_component: Path, digits_wasm: Path, tmp_path: Path
) -> None:
    for graph, name in ((digits_component, "a.npy"), (digits_wasm, "b.npy")):
        done = wasmgraph("run", graph, "-i", "random:1", "-o", tmp_path / name, "-q")
        assert (done.code, done.stderr) == (0, "")
    np.testing.assert_array_equal(np.load(tmp_path / "a.npy"), np.load(tmp_path / "b.npy"))
    measured = wasmgraph("bench", digits_component, "--runs", 2, "--seconds", 0.1, "--json")
    assert measured.code == 0


def test_verify_takes_a_component(
    wasmgraph: Command, digits_component: Path, digits_onnx: Path
) -> None:
    found = wasmgraph("verify", digits_component, "--onnx", digits_onnx, "--json").json
    assert found["agrees"]
    # That the other engines take modules only is no failure of theirs.
    outcome = wasmgraph("verify", digits_component, "--onnx", digits_onnx, "--runtime", "all")
    assert outcome.code == 0, outcome.stderr
    if why_missing("node") is None:
        assert "node: the runtime node takes modules" in outcome.stdout


@pytest.mark.parametrize(
    ("command", "code", "expected"),
    [
        (("run", "GRAPH", "-i", "random:0", "--threads", "2"), 6, "runs on one thread, not on 2"),
        (("profile", "GRAPH"), 10, "cannot run its steps one by one"),
    ],
)
def test_what_a_component_cannot_do_is_said(
    wasmgraph: Command,
    digits_component: Path,
    command: tuple[str, ...],
    code: int,
    expected: str,
) -> None:
    words = (digits_component if word == "GRAPH" else word for word in command)
    done = wasmgraph(*words)
    assert done.code == code
    assert expected in done.stderr


def test_threads_and_component_exclude_each_other(wasmgraph: Command, digits_onnx: Path) -> None:
    done = wasmgraph("compile", digits_onnx, "--kind", "component", "--threads")
    assert done.code == 4
    assert "one thread" in done.stderr
