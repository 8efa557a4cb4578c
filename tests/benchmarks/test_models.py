"""Which models of a folder are measured, and on which inputs."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from benchmarks.models import Model, ModelsError, find_models, make_inputs, prepare

FILL = """
import numpy as np
from onnx import numpy_helper

def fill(model):
    model.graph.initializer[0].CopyFrom(numpy_helper.from_array(np.float32([7]), "w"))
    return model
"""


def save(path: Path, *shape: int | str) -> Path:
    """A model that adds a weight to its input."""
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        [helper.make_node("Add", ["x", "w"], ["y"])],
        "add",
        [value("x", TensorProto.FLOAT, shape)],
        [value("y", TensorProto.FLOAT, shape)],
        [helper.make_tensor("w", TensorProto.FLOAT, [1], [1.0])],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)]), path)
    return path


def model(path: Path, **fields: object) -> Model:
    """The model of that file."""
    return Model(path.stem, path, **{"shapes": {}, **fields})  # type: ignore[arg-type]


def names(models: list[Model]) -> list[str]:
    """Their names."""
    return [found.name for found in models]


def test_a_folder_of_other_models_is_measured_whole(tmp_path: Path) -> None:
    for name in ("b", "a"):
        save(tmp_path / f"{name}.onnx", 2)
    assert names(find_models(tmp_path)) == ["a", "b"]


def test_of_a_folder_with_the_default_models_only_those_are_measured(tmp_path: Path) -> None:
    for name in ("other", "vit_tiny.arch", "mobilenet_v2.arch"):
        save(tmp_path / f"{name}.onnx", 2)
    assert names(find_models(tmp_path)) == ["mobilenet_v2", "vit_tiny"]
    assert names(find_models(tmp_path, ["other"])) == ["other"]
    assert set(names(find_models(tmp_path, ["all"]))) == {"mobilenet_v2", "other", "vit_tiny"}


def test_an_unknown_model_is_an_error_that_lists_those_there_are(tmp_path: Path) -> None:
    save(tmp_path / "a.onnx", 2)
    with pytest.raises(ModelsError, match=r"no model b; there are a$"):
        find_models(tmp_path, ["b"])


def test_a_folder_without_models_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ModelsError, match=r"no \*\.onnx"):
        find_models(tmp_path)


def test_shapes_json_beside_the_models_gives_shapes_and_ranges(tmp_path: Path) -> None:
    save(tmp_path / "a.onnx", "n", 3)
    table = {"a": {"shapes": {"x": [4, 3]}, "range": [-5, 5]}}
    (tmp_path / "shapes.json").write_text(json.dumps(table), encoding="utf-8")
    (found,) = find_models(tmp_path)
    inputs = make_inputs(found, onnx.load(found.file))
    assert inputs["x"].shape == (4, 3)
    assert inputs["x"].dtype == np.float32
    assert -5 <= inputs["x"].min() < 0 < inputs["x"].max() <= 5


def test_inputs_are_the_same_every_time(tmp_path: Path) -> None:
    found = model(save(tmp_path / "a.onnx", 5))
    proto = onnx.load(found.file)
    assert np.array_equal(make_inputs(found, proto)["x"], make_inputs(found, proto)["x"])


def test_an_open_axis_without_a_shape_is_an_error_that_names_the_input(tmp_path: Path) -> None:
    found = model(save(tmp_path / "a.onnx", "batch", 3))
    with pytest.raises(ModelsError, match="'x' of a is batchx3"):
        make_inputs(found, onnx.load(found.file))


def test_a_model_as_it_should_be_is_used_as_it_is(tmp_path: Path) -> None:
    found = model(save(tmp_path / "a.onnx", "n", 3), shapes={"x": (4, 3)})
    assert prepare(found, tmp_path / "cache") == found.file


def test_a_model_that_fixes_another_shape_is_rewritten_for_all_systems(tmp_path: Path) -> None:
    found = model(save(tmp_path / "a.onnx", 8, 3), shapes={"x": (4, 3)})
    proto = onnx.load(prepare(found, tmp_path / "cache"))
    assert make_inputs(found, proto)["x"].shape == (4, 3)
    assert [d.dim_value for d in proto.graph.input[0].type.tensor_type.shape.dim] == [4, 3]


def test_an_architecture_is_filled_by_the_folder_s_program(tmp_path: Path) -> None:
    path = save(tmp_path / "a.arch.onnx", 3)
    (found,) = find_models(tmp_path)
    with pytest.raises(ModelsError, match=r"fill\.py"):
        prepare(found, tmp_path / "cache")
    path.with_name("fill.py").write_text(FILL, encoding="utf-8")
    weight = onnx.load(prepare(found, tmp_path / "cache")).graph.initializer[0]
    assert onnx.numpy_helper.to_array(weight) == [7]
