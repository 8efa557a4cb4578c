"""From the normalised network to Relax: names, obstacles, and silence."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from tvm import relax

from tests.onnx_models import import_network, make_model, node
from tests.optimise.relax_modules import bindings
from wasmgraph.errors import UnsupportedModelError
from wasmgraph.importer import (
    ImportedModel,
    describe_source,
    import_model,
    load_model,
    static_graph,
)
from wasmgraph.importer.converters import CONVERTERS
from wasmgraph.importer.provenance import marked_node, marker
from wasmgraph.importer.relax_graph import RelaxGraph

REFUSED = make_model(
    [
        node("CumSum", "x axis", "a", name="computed axis"),
        node("CumSum", "a axis", "b", name="another"),
        node("Relu", "b", "y", name="fine"),
    ],
    {"x": (2, 3), "axis": ("int64", ())},
    "y",
)


def imported(model: onnx.ModelProto) -> ImportedModel:
    return import_model(load_model(model))


def static(model: onnx.ModelProto) -> RelaxGraph:
    """Without the way out, a dynamic graph."""
    return static_graph(import_network(model))


def test_variables_carry_the_node_they_come_from() -> None:
    graph = imported(
        make_model(
            [node("Relu", "x", "a", name="first"), node("Exp", "a", "y", name="second")],
            {"x": (2, 3)},
            "y",
        )
    ).graph
    found = [marked_node(binding.var.name) for binding in bindings(graph.module)]
    assert [graph.nodes[index] for index in found if index is not None] == ["first", "second"]


def test_a_marker_is_read_back_with_tvm_s_suffixes() -> None:
    assert marked_node(marker(12)) == marked_node(marker(12) + "_1") == marked_node("n12o3") == 12
    assert marked_node("gv") is marked_node("lv12") is marked_node("n12") is None


def test_inputs_and_outputs_keep_names_types_and_order() -> None:
    graph = imported(
        make_model(
            [node("Neg", "b", "y"), node("Not", "a", "z")],
            {"b": ("int64", (3,)), "a": ("bool", ())},
            {"z": ("bool", ()), "y": ("int64", (3,))},
        )
    ).graph
    assert graph.inputs == (("b", "int64", (3,)), ("a", "bool", ()))
    assert graph.outputs == (("z", "bool", ()), ("y", "int64", (3,)))


def test_every_node_that_a_converter_refuses_is_listed() -> None:
    with pytest.raises(UnsupportedModelError) as caught:
        static(REFUSED)
    assert [obstacle.node for obstacle in caught.value.obstacles] == ["computed axis", "another"]


def test_nodes_behind_an_unknown_shape_are_not_blamed() -> None:
    model = make_model(
        [
            node("Cast", "s", "t", to=onnx.TensorProto.INT64),
            node("Reshape", "x t", "a", name="culprit"),
            node("MatMul", "a x", "b", name="innocent"),
            node("Concat", "b b", "y", name="innocent too", axis=0),
        ],
        {"x": (2, 3), "s": ("int32", (2,))},
        "y",
    )
    with pytest.raises(UnsupportedModelError) as caught:
        static(model)
    assert [obstacle.node for obstacle in caught.value.obstacles] == ["culprit"]
    assert "computed at run time" in caught.value.obstacles[0].reason


def test_a_refusal_is_all_that_is_said(tmp_path: Path) -> None:
    """TVM writes to the file descriptor itself, so this needs a process."""
    nodes = [
        node("DFT", ["x", "", "axis"], "a", name="computed axis"),
        node("DFT", ["a", "", "axis"], "y", name="another"),
    ]
    inputs = {"x": (1, 4, 2), "axis": ("int64", ())}
    onnx.save(make_model(nodes, inputs, "y", opset=20), tmp_path / "refused.onnx")
    done = subprocess.run(
        [sys.executable, "-m", "wasmgraph", "compile", tmp_path / "refused.onnx"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 4
    lines = done.stderr.splitlines()
    assert lines[0].startswith("error: refused.onnx cannot be compiled, 2 nodes are not supported")
    assert [line.split()[0] for line in lines[1:]] == ["-", "-"]


def test_the_source_is_described_as_the_file_has_it() -> None:
    model = make_model(
        [node("Dropout", "x", "a"), node("Relu", "a", "b"), node("Relu", "b", "y")],
        {"x": (2, 3)},
        "y",
        opset=12,
    )
    source = describe_source(load_model(model))
    assert (source.name, source.opset) == ("tiny", 12)
    assert source.operators == {"Dropout": 1, "Relu": 2}


def test_the_digest_covers_external_data(tmp_path: Path) -> None:
    digests = []
    for value in (1.0, 2.0):
        weight = np.full((2, 3), value, np.float32)
        model = make_model([node("Add", "x w", "y")], {"x": (2, 3)}, "y", {"w": weight})
        onnx.save(
            model,
            tmp_path / "apart.onnx",
            save_as_external_data=True,
            location="apart.bin",
            size_threshold=0,
        )
        digests.append(load_model(tmp_path / "apart.onnx").sha256)
        (tmp_path / "apart.bin").unlink()
    assert digests[0] != digests[1]


def test_training_is_refused() -> None:
    weights = {"ratio": np.float32(0.5), "training": np.array(True)}
    nodes = [node("Dropout", "x ratio training", "y")]
    with pytest.raises(UnsupportedModelError, match="training mode is not supported"):
        static(make_model(nodes, {"x": (1, 4)}, "y", weights))


def test_what_is_random_is_refused_for_that() -> None:
    """Also where a definition leads there: Bernoulli's is made of RandomUniformLike."""
    nodes = [node("RandomNormalLike", "x", "y"), node("Bernoulli", "x", "z")]
    with pytest.raises(UnsupportedModelError) as caught:
        imported(make_model(nodes, {"x": (1, 4)}, "y z"))
    assert "random" in caught.value.obstacles[0].reason


def test_an_output_of_another_shape_than_onnx_says_is_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def wrong(_bb: object, inputs: Sequence[Any], _attrs: object) -> Any:
        return relax.op.expand_dims(inputs[0], 0)

    monkeypatch.setitem(CONVERTERS, ("", "Relu"), wrong)
    with pytest.raises(UnsupportedModelError, match=r"ONNX has float32\[1, 4\]"):
        static(make_model([node("Relu", "x", "y")], {"x": (1, 4)}, "y"))


def test_outputs_that_nobody_reads_may_be_wrong() -> None:
    """Exporters write LayerNormalization with all three outputs."""
    model = make_model(
        [node("LayerNormalization", "x scale", "y mean deviation")],
        {"x": (1, 4, 4, 4)},
        "y",
        {"scale": np.ones(4, np.float32)},
    )
    graph = imported(model).graph
    assert [name for name, _, _ in graph.outputs] == ["y"]
    assert "layer_norm" in graph.module.script()  # one kernel, which gives nothing but y
