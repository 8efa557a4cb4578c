"""`wasmgraph profile`: every step with its time and nodes, and a picture."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.cli.conftest import Command


def test_json_has_every_step_with_its_nodes(wasmgraph: Command, digits_wasm: Path) -> None:
    result = wasmgraph("profile", digits_wasm, "--seconds", "0.1", "--json")
    assert result.code == 0, result.output
    profile = json.loads(result.stdout)
    steps = profile["steps"]
    assert [step["step"] for step in steps] == list(range(len(steps)))
    assert sum(step["share"] for step in steps) == pytest.approx(1)
    products = [step for step in steps if step["flops"]]
    # Two convolutions and one matrix product (samples/digits/train.py).
    assert len(products) == 3
    assert all(step["gflops"] > 0 for step in products)
    assert all(step["nodes"] for step in products)


def test_the_table_shows_the_slowest_steps(wasmgraph: Command, digits_wasm: Path) -> None:
    result = wasmgraph("profile", digits_wasm, "--seconds", "0.1", "--steps", "2")
    assert result.code == 0, result.output
    assert "of the limit" in result.stdout
    assert "conv2d" in result.stdout


@pytest.mark.parametrize(("suffix", "start"), [("svg", b"<?xml"), ("png", b"\x89PNG")])
def test_a_picture(
    wasmgraph: Command, digits_wasm: Path, tmp_path: Path, suffix: str, start: bytes
) -> None:
    pytest.importorskip("matplotlib", reason="pictures need matplotlib")
    picture = tmp_path / f"profile.{suffix}"
    result = wasmgraph("profile", digits_wasm, "--seconds", "0.1", "--picture", picture, "-q")
    assert result.code == 0, result.output
    assert picture.read_bytes().startswith(start)


def test_another_suffix_is_refused_and_leaves_no_file(
    wasmgraph: Command, digits_wasm: Path, tmp_path: Path
) -> None:
    result = wasmgraph("profile", digits_wasm, "--seconds", "0.1", "--picture", tmp_path / "p.jpg")
    assert result.code == 1
    assert ".svg or .png" in result.stderr
    assert list(tmp_path.iterdir()) == []
