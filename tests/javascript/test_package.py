"""The JavaScript package under Node: what the tests of this folder in JavaScript say."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np

import wasmgraph
from tests.hostile_graphs import write_hostile

IMAGE = np.random.default_rng(0).random((1, 1, 8, 8), dtype=np.float32)


def test_hostile_graphs_end_as_they_must(node_test: Callable[..., None], tmp_path: Path) -> None:
    node_test("hostile.test.mjs", HOSTILE=write_hostile(tmp_path))


def test_the_digits(node_test: Callable[..., None], digits_wasm: Path, tmp_path: Path) -> None:
    with wasmgraph.load(digits_wasm) as graph:
        expected = graph.run({"image": IMAGE})["probabilities"]
    given = {"image": IMAGE.ravel().tolist(), "probabilities": expected.ravel().tolist()}
    (tmp_path / "given.json").write_text(json.dumps(given))
    node_test("digits.test.mjs", DIGITS=digits_wasm, GIVEN=tmp_path / "given.json")
