"""Upper bounds of open axes on the command line."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest

from tests.cli.conftest import Command
from tests.dynamic.test_bounds import BOUNDS, images


def test_states_the_bound_and_the_memory(wasmgraph: Command, tmp_path: Path) -> None:
    onnx.save(images(), tmp_path / "images.onnx")
    bounds = [f"--dynamic={axis}=..{bound}" for axis, bound in BOUNDS.items()]
    compiled = wasmgraph("compile", "images.onnx", *bounds)
    assert compiled.code == 0, compiled.stderr
    said = " ".join(compiled.stdout.split())
    assert "open axes batch up to 4, height up to 40, width up to 48" in said
    shown = wasmgraph("inspect", "images.wasm")
    assert "batch up to 4, height up to 40, width up to 48" in " ".join(shown.stdout.split())
    assert "for good" in shown.stdout
    found = wasmgraph("inspect", "images.wasm", "--json").json
    assert found["bounds"] == BOUNDS
    assert found["memory"]["is_fixed"]
    assert found["memory"]["arena"] > 0


def test_exits_with_7_for_what_is_larger(wasmgraph: Command, tmp_path: Path) -> None:
    onnx.save(images(), tmp_path / "images.onnx")
    wasmgraph("compile", "images.onnx", "--no-verify", "--dynamic", "batch=..4")
    np.save(tmp_path / "x.npy", np.zeros((5, 3, 8, 8), np.float32))
    outcome = wasmgraph("run", "images.wasm", "-i", "x.npy")
    assert outcome.code == 7
    assert "axis 'batch' is 5" in outcome.stderr


@pytest.mark.parametrize("text", ["batch=..", "batch=..x", "batch=..-1", "=..8"])
def test_refuses_what_is_no_bound(wasmgraph: Command, tmp_path: Path, text: str) -> None:
    onnx.save(images(), tmp_path / "images.onnx")
    assert wasmgraph("compile", "images.onnx", "--dynamic", text).code in (2, 7)
