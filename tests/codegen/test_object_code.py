"""What LLVM cannot be given is refused by the nodes' names."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import wasmgraph
from tests.onnx_models import make_model, node
from wasmgraph.errors import UnsupportedModelError


def test_every_operator_that_tvm_fails_on_is_named(tmp_path: Path) -> None:
    """TVM 0.27 leaves a variable undefined in its scatter kernels."""
    nodes = [
        node("ScatterElements", "x i u", "s", name="first", axis=1),
        node("ScatterElements", "s i u", "t", name="second", axis=0),
        node("Relu", "t", "y", name="fine"),
    ]
    model = make_model(
        nodes, {"x": (3, 3), "u": (2, 1)}, "y", {"i": np.array([[1], [2]], np.int64)}
    )
    with pytest.raises(UnsupportedModelError) as raised:
        wasmgraph.compile(model, tmp_path / "y.wasm", verify=False)
    assert {obstacle.node for obstacle in raised.value.obstacles} == {"first", "second"}
    assert list(tmp_path.iterdir()) == []
