"""samples/node, run under Node: a graph as a command and as a library, outside Python."""

from __future__ import annotations

import io
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

import wasmgraph

NODE = Path(__file__).resolve().parents[2] / "samples" / "node"
IMAGE = np.random.default_rng(0).random((1, 1, 8, 8), dtype=np.float32)

pytestmark = pytest.mark.skipif(shutil.which("node") is None, reason="node is not installed")


def node(
    script: str, *args: object, cwd: Path, stdin: bytes = b""
) -> subprocess.CompletedProcess[bytes]:
    """Run one of the samples."""
    return subprocess.run(
        ["node", "--no-warnings", NODE / script, *map(str, args)],
        cwd=cwd,
        input=stdin,
        capture_output=True,
        timeout=60,
        check=False,
    )


def expected(digits_wasm: Path, image: np.ndarray) -> np.ndarray:
    """What the same file gives under Wasmtime."""
    with wasmgraph.load(digits_wasm) as graph:
        return graph.run({"image": image})["probabilities"]


def test_a_graph_is_a_command_on_stdin_and_stdout(digits_wasm: Path, tmp_path: Path) -> None:
    file = io.BytesIO()
    np.save(file, IMAGE)
    done = node("command.mjs", digits_wasm, cwd=tmp_path, stdin=file.getvalue())
    assert (done.returncode, done.stderr) == (0, b"")
    np.testing.assert_array_equal(np.load(io.BytesIO(done.stdout)), expected(digits_wasm, IMAGE))


def test_a_graph_is_a_command_on_files(digits_wasm: Path, tmp_path: Path) -> None:
    np.save(tmp_path / "in.npy", IMAGE)
    files = ("-i", "image=in.npy", "-o", "probabilities=out.npy")
    done = node("command.mjs", digits_wasm, *files, cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, b"")
    np.testing.assert_array_equal(np.load(tmp_path / "out.npy"), expected(digits_wasm, IMAGE))


def test_a_command_that_fails_leaves_with_1(digits_wasm: Path, tmp_path: Path) -> None:
    done = node("command.mjs", digits_wasm, "-i", "none.npy", cwd=tmp_path)
    assert done.returncode == 1
    assert done.stderr.startswith(b"error: none.npy: ")


def test_a_graph_is_a_library(digits_wasm: Path, tmp_path: Path) -> None:
    done = node("library.mjs", digits_wasm, cwd=tmp_path)
    values = expected(digits_wasm, np.zeros_like(IMAGE)).ravel()
    line = f"probabilities: {' '.join(f'{value:.4f}' for value in values)}\n"
    assert (done.stdout.decode(), done.stderr) == (line, b"")
