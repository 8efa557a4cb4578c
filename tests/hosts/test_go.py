"""The Go package over wazero: its own tests on graphs made here, and Go's tools on its sources."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import wasmgraph
from tests.hostile_graphs import write_hostile
from tests.hosts.programs import GO_MODULE, GO_SAMPLE, need_go, run_tool

IMAGE = np.random.default_rng(0).random((1, 1, 8, 8), dtype=np.float32)


@pytest.mark.parametrize("folder", [GO_MODULE, GO_SAMPLE], ids=["toolchain", "samples"])
def test_gofmt_and_vet_find_nothing(folder: Path) -> None:
    need_go(folder)
    done = run_tool("gofmt", "-l", ".", cwd=folder)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    done = run_tool("go", "vet", "./...", cwd=folder)
    assert done.returncode == 0, done.stderr


def test_its_own_tests_pass(digits_wasm: Path, tmp_path: Path) -> None:
    need_go()
    write_hostile(tmp_path)
    with wasmgraph.load(digits_wasm) as graph:
        probabilities = graph.run({"image": IMAGE})["probabilities"]
    np.save(tmp_path / "image.npy", IMAGE)
    np.save(tmp_path / "probabilities.npy", probabilities)
    env = {"WASMGRAPH_DIGITS": str(digits_wasm), "WASMGRAPH_GRAPHS": str(tmp_path)}
    done = run_tool("go", "test", "-count=1", "./...", cwd=GO_MODULE, **env)
    assert done.returncode == 0, done.stdout + done.stderr
