"""Graphs with open axes against those of fixed shapes: what is measured, and what is refused."""

from __future__ import annotations

from pathlib import Path

import onnx

from benchmarks.dynamic import Case, measure
from benchmarks.models import Model
from tests.onnx_models import make_model, node


def test_both_graphs_of_a_model_are_timed(tmp_path: Path) -> None:
    file = tmp_path / "relu.onnx"
    onnx.save(make_model([node("Relu", "x", "y")], {"x": ["N", "M"]}, "y"), file)
    found = measure(Model("relu", file, {}), Case({"x": (3, 5)}), tmp_path, 0.01)
    assert found.problem is None
    assert found.dynamic > 0
    assert found.fixed > 0
    assert found.dynamic_nbytes > found.fixed_nbytes


def test_a_model_without_open_axes_is_a_problem(tmp_path: Path) -> None:
    file = tmp_path / "relu.onnx"
    onnx.save(make_model([node("Relu", "x", "y")], {"x": [3, 5]}, "y"), file)
    found = measure(Model("relu", file, {}), Case({"x": (3, 5)}), tmp_path, 0.01)
    assert found.problem == "its axes are not open"
