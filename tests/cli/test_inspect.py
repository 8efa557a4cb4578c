"""`wasmgraph inspect`: a model, a bundle or a graph, told apart by content."""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path

import onnx
import pytest

from tests.cli.conftest import Command
from tests.cli.test_compile import small_model
from wasmgraph.bundle import read_bundle
from wasmgraph.wasmfile import ABI_FUNCTIONS

OPERATORS = {"Conv": 2, "Flatten": 1, "Gemm": 1, "MaxPool": 1, "Relu": 2, "Softmax": 1}
INPUTS = [{"name": "image", "dtype": "float32", "shape": [1, 1, 8, 8]}]
OUTPUTS = [{"name": "probabilities", "dtype": "float32", "shape": [1, 10]}]
WEIGHTS = 29_066 * 4


def test_a_model(wasmgraph: Command, digits_onnx: Path) -> None:
    found = wasmgraph("inspect", digits_onnx, "--json").json
    assert found["kind"] == "model"
    assert found["sha256"] == hashlib.sha256(digits_onnx.read_bytes()).hexdigest()
    assert (found["inputs"], found["outputs"]) == (INPUTS, OUTPUTS)
    assert found["operators"] == OPERATORS
    assert found["opset"] == 17
    assert found["sizes"] == {"file": digits_onnx.stat().st_size, "weights": WEIGHTS}


def test_a_bundle(wasmgraph: Command, digits_bundle: Path) -> None:
    found = wasmgraph("inspect", digits_bundle, "--json").json
    graph = read_bundle(digits_bundle).graph
    assert found["kind"] == "bundle"
    assert (found["inputs"], found["outputs"]) == (INPUTS, OUTPUTS)
    assert found["operators"] == OPERATORS
    assert sum(kernel["calls"] for kernel in found["kernels"]) == len(graph.steps)
    assert [step["nodes"] for step in found["steps"]] == [list(s.nodes) for s in graph.steps]
    assert found["memory"]["arena"] == graph.arena_nbytes
    assert found["sizes"]["graph.o"] == (digits_bundle / "graph.o").stat().st_size


def test_a_graph(wasmgraph: Command, digits_wasm: Path, digits_onnx: Path) -> None:
    found = wasmgraph("inspect", digits_wasm, "--json").json
    assert (found["kind"], found["abi"]) == ("graph", 1)
    assert (found["inputs"], found["outputs"]) == (INPUTS, OUTPUTS)
    assert found["source"] == "digits.onnx"
    assert found["sha256"] == hashlib.sha256(digits_onnx.read_bytes()).hexdigest()
    assert found["operators"] == OPERATORS
    assert set(ABI_FUNCTIONS) < set(found["exports"])
    assert found["imports"]
    assert all(name.startswith("wasi_snapshot_preview1.") for name in found["imports"])
    sizes = found["sizes"]
    assert sizes["file"] == digits_wasm.stat().st_size
    assert sizes["code"] + sizes["weights"] == sizes["file"]
    assert found["memory"]["linear_memory"] > found["memory"]["weights"]


def test_names_do_not_matter(
    wasmgraph: Command, tmp_path: Path, digits_onnx: Path, digits_wasm: Path, digits_bundle: Path
) -> None:
    shutil.copy(digits_onnx, tmp_path / "model.wasm")
    shutil.copy(digits_wasm, tmp_path / "graph.onnx")
    shutil.copytree(digits_bundle, tmp_path / "bundle.onnx")
    kinds = [
        wasmgraph("inspect", name, "--json").json["kind"]
        for name in ("model.wasm", "graph.onnx", "bundle.onnx")
    ]
    assert kinds == ["model", "graph", "bundle"]


def test_a_person_reads_what_matters(
    wasmgraph: Command, digits_onnx: Path, digits_bundle: Path, digits_wasm: Path
) -> None:
    for file in (digits_onnx, digits_bundle, digits_wasm):
        shown = wasmgraph("inspect", file).stdout
        for text in ("image", "1x1x8x8", "probabilities", "2 Conv", "weights"):
            assert text in shown, file
    assert "arena" in wasmgraph("inspect", digits_bundle).stdout
    assert "wg_run" in wasmgraph("inspect", digits_wasm).stdout


def test_verbose_shows_the_onnx_nodes_of_every_step(
    wasmgraph: Command, digits_bundle: Path
) -> None:
    assert "ONNX nodes" not in wasmgraph("inspect", digits_bundle).stdout
    shown = wasmgraph("inspect", digits_bundle, "-v").stdout
    assert "ONNX nodes" in shown
    assert "conv2" in shown


def test_a_dynamic_axis_shows_its_name(wasmgraph: Command, tmp_path: Path) -> None:
    import onnx
    from onnx import TensorProto, helper

    values = [
        helper.make_tensor_value_info(name, TensorProto.INT64, ["batch", None]) for name in "xy"
    ]
    node = helper.make_node("Identity", ["x"], ["y"])
    onnx.save(
        helper.make_model(helper.make_graph([node], "g", values[:1], values[1:]), ir_version=8),
        tmp_path / "dynamic.onnx",
    )
    found = wasmgraph("inspect", "dynamic.onnx", "--json").json
    assert found["inputs"] == [{"name": "x", "dtype": "int64", "shape": ["batch", "?"]}]


def test_of_a_dynamic_graph_operators_and_nodes_are_shown(
    wasmgraph: Command, tmp_path: Path
) -> None:
    onnx.save(small_model(shape=("rows", 3)), tmp_path / "open.onnx")
    compiled = wasmgraph("compile", "open.onnx", "--bundle", "kept")
    assert compiled.code == 0, compiled.stderr
    assert "nodes" in compiled.stdout
    for file in ("open.wasm", "kept"):
        shown = wasmgraph("inspect", file)
        assert " 1 of 1 operator\n" in shown.stdout, shown.stderr
        (count,) = wasmgraph("inspect", file, "--json").json["calls"].values()
        assert count == 1


def test_what_a_terminal_would_obey_is_not_shown(
    wasmgraph: Command, tmp_path: Path, digits_onnx: Path
) -> None:
    import onnx

    model = onnx.load(digits_onnx)
    model.producer_name = "evil\x1b]0;title\x07"
    model.graph.input[0].name = model.graph.node[0].input[0] = "im\x1b[2Jage"
    onnx.save(model, tmp_path / "evil.onnx")
    shown = wasmgraph("inspect", "evil.onnx")
    assert shown.code == 0, shown.stderr
    assert "\x1b" not in shown.stdout
    assert "\x07" not in shown.stdout
    found = wasmgraph("inspect", "evil.onnx", "--json").json
    assert found["inputs"][0]["name"] == "im\x1b[2Jage"


@pytest.mark.parametrize(
    ("content", "code", "text"),
    [
        (b"neither\n", 3, "not an ONNX model"),
        (b"\0asm\1\0\0\0", 6, "no graph"),
        (b"\0asm\2\0\0\0", 6, "version 1"),
        (b"\0asm", 6, "wasm"),
    ],
)
def test_what_is_none_of_them_is_refused(
    wasmgraph: Command, tmp_path: Path, content: bytes, code: int, text: str
) -> None:
    (tmp_path / "odd").write_bytes(content)
    outcome = wasmgraph("inspect", "odd")
    assert outcome.code == code
    assert text in outcome.stderr
    assert outcome.stdout == ""


def test_a_folder_that_is_no_bundle_is_refused(wasmgraph: Command, tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    outcome = wasmgraph("inspect", "folder")
    assert outcome.code == 3
    assert "folder is not a graph bundle" in outcome.stderr


def test_names_beyond_the_terminal_s_encoding_are_escaped(
    process: Command, tmp_path: Path, digits_onnx: Path
) -> None:
    shutil.copy(digits_onnx, tmp_path / "模型.onnx")
    outcome = process("inspect", "模型.onnx", PYTHONIOENCODING="latin-1")
    assert outcome.code == 0, outcome.stderr
    assert "\\u6a21\\u578b.onnx" in outcome.stdout
    found = process("inspect", "模型.onnx", "--json", PYTHONIOENCODING="latin-1").json
    assert found["path"] == "模型.onnx"


def test_what_is_not_there_is_refused(wasmgraph: Command) -> None:
    outcome = wasmgraph("inspect", "nothing")
    assert (outcome.code, outcome.stdout) == (3, "")
    assert "nothing" in outcome.stderr
