"""What the commands say of models whose batch is open."""

from __future__ import annotations

from pathlib import Path

import onnx
import pytest

from tests.batching.models import attention, ints
from tests.cli.conftest import Command
from tests.onnx_models import make_model, node
from wasmgraph import compile as compile_model
from wasmgraph.bundle import ONE_BY_ONE, read_bundle
from wasmgraph.compiler import make_bundle


@pytest.fixture(scope="module")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A model and its graph."""
    folder = tmp_path_factory.mktemp("batch")
    onnx.save(attention(), folder / "attention.onnx")
    compile_model(folder / "attention.onnx", folder / "attention.wasm", verify=False)
    return folder / "attention.onnx", folder / "attention.wasm"


def test_the_report_says_which_way_was_taken(
    wasmgraph: Command, compiled: tuple[Path, Path]
) -> None:
    model, graph = compiled
    sentence = f"batch axis 'batch': {ONE_BY_ONE}"
    assert sentence in wasmgraph("check", model).stdout
    assert wasmgraph("check", model, "--json").json["openness"] == sentence
    assert sentence in " ".join(wasmgraph("inspect", graph).stdout.split())
    assert wasmgraph("inspect", graph, "--json").json["openness"] == sentence
    assert wasmgraph("verify", graph, "--onnx", model).code == 0
    assert wasmgraph("verify", graph, "--onnx", model, "--shape", "x=5,11,24").code == 0


def test_a_named_axis_stays_open(
    wasmgraph: Command, tmp_path: Path, compiled: tuple[Path, Path]
) -> None:
    model = compiled[0]
    outcome = wasmgraph(
        *("compile", model, "-o", "a.wasm", "--dynamic", "batch", "--bundle", "kept", "--json")
    )
    assert outcome.code == 0, outcome.stderr
    assert outcome.json["openness"] == f"batch axis 'batch': {ONE_BY_ONE}"
    assert read_bundle(tmp_path / "kept").graph.batch is not None
    assert wasmgraph("link", "kept", "-o", "b.wasm").code == 0
    assert (tmp_path / "a.wasm").read_bytes() == (tmp_path / "b.wasm").read_bytes()
    outcome = wasmgraph("compile", model, "--shape", "x=2,11,24", "--no-verify", "--json")
    assert outcome.json["openness"] == ""


def test_the_reason_is_given_where_samples_mix(wasmgraph: Command, tmp_path: Path) -> None:
    nodes = [node("ReduceMean", "x axes", "m", name="mean"), node("Sub", "x m", "y")]
    onnx.save(
        make_model(nodes, {"x": ("N", 64, 64)}, "y", {"axes": ints(0)}), tmp_path / "mix.onnx"
    )
    sentence = (
        "dynamic (open axes N); not sample by sample: node 'mean' (ReduceMean): "
        "it reduces over the batch; fixed shapes (--shape) run faster"
    )
    assert wasmgraph("check", "mix.onnx", "--json").json["openness"] == sentence
    assert sentence in " ".join(wasmgraph("check", "mix.onnx").stdout.split())


def test_samples_of_little_work_are_not_run_one_by_one(wasmgraph: Command, tmp_path: Path) -> None:
    onnx.save(make_model([node("Relu", "x", "y")], {"x": ("N", 4)}, "y"), tmp_path / "little.onnx")
    sentence = wasmgraph("check", "little.onnx", "--json").json["openness"]
    assert "a sample is less work than" in sentence


def test_a_fixed_axis_can_be_opened() -> None:
    model = attention()
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_param = ""
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 1
    # Every axis of an input is opened, which leaves no batch alone.
    graph = make_bundle(model, dynamic=["x"]).graph
    assert graph.openness.startswith("dynamic (open axes x:0, x:1, x:2)")
