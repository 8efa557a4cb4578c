"""`wasmgraph check`, as somebody at a terminal or a CI job meets it."""

from __future__ import annotations

from pathlib import Path

import onnx
import pytest
from onnx import TensorProto, helper

from tests.cli.conftest import Command


def model_of(nodes: list[onnx.NodeProto], shape: list[int | str], path: Path) -> Path:
    """A model with the float32 input "x" and output "y", saved."""
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, None)
    graph = helper.make_graph(nodes, "graph", [x], [y])
    opsets = [helper.make_opsetid("", 18), helper.make_opsetid("my.domain", 3)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=9), path)
    return path


@pytest.fixture
def unsupported(tmp_path: Path) -> Path:
    """Two nodes that cannot be compiled and one that can."""
    nodes = [
        helper.make_node("Frob", ["x"], ["a"], "first", domain="my.domain"),
        helper.make_node("Relu", ["a"], ["b"], "fine"),
        helper.make_node("RandomNormalLike", ["b"], ["y"], "last"),
    ]
    return model_of(nodes, [1, 4], tmp_path / "unsupported.onnx")


def test_a_model_that_compiles_is_said_to(wasmgraph: Command, digits_onnx: Path) -> None:
    outcome = wasmgraph("check", digits_onnx)
    assert outcome.code == 0
    assert "digits.onnx compiles: 8 kernels in 8 steps" in outcome.stdout


def test_of_a_model_with_open_axes_operators_and_nodes_are_told(
    wasmgraph: Command, tmp_path: Path
) -> None:
    nodes = [
        helper.make_node("Transpose", ["x"], ["a"]),
        helper.make_node("Softmax", ["a"], ["b"]),
        helper.make_node("Transpose", ["b"], ["y"]),
    ]
    path = model_of(nodes, ["rows", "columns"], tmp_path / "open.onnx")
    outcome = wasmgraph("check", path)
    assert outcome.code == 0, outcome.stderr
    assert "open.onnx compiles: with dynamic shapes, 2 operators in 3 nodes" in outcome.stdout
    assert wasmgraph("check", path, "--json").json["dynamic"]


def test_every_obstacle_is_listed_with_its_opset_and_a_way_out(
    wasmgraph: Command, unsupported: Path
) -> None:
    outcome = wasmgraph("check", unsupported, "--json")
    assert outcome.code == 4
    found = {finding["node"]: finding for finding in outcome.json["findings"]}
    assert not outcome.json["compiles"]
    assert set(found) == {"first", "last"}
    assert found["first"]["op"] == "my.domain.Frob"
    assert found["first"]["opset"] == 3
    assert "my.domain" in found["first"]["advice"]
    assert found["last"]["opset"] == 18
    assert all(finding["reason"] for finding in found.values())
    table = wasmgraph("check", unsupported)
    assert table.code == 4
    assert "my.domain.Frob" in table.stdout
    assert "obstacles: 2" in table.stdout


def test_nothing_is_written(
    wasmgraph: Command, digits_onnx: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert wasmgraph("check", digits_onnx, "-q").code == 0
    assert list(tmp_path.iterdir()) == []


def test_what_is_no_model_is_an_error(wasmgraph: Command, tmp_path: Path) -> None:
    (tmp_path / "text.onnx").write_text("text")
    outcome = wasmgraph("check", tmp_path / "text.onnx", "--json")
    assert outcome.code == 3
    assert outcome.json["error"]["kind"] == "ModelError"


def test_a_shape_that_fits_no_input_is_an_error(wasmgraph: Command, digits_onnx: Path) -> None:
    assert wasmgraph("check", digits_onnx, "--shape", "none=1").code == 7
