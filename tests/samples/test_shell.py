"""A graph as a command of the shell, under every engine's own command that can be had."""

from __future__ import annotations

import functools
import io
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest

import wasmgraph
from tests.hosts.programs import GO_MODULE, need_go, run_tool

IMAGE = np.random.default_rng(0).random((1, 1, 8, 8), dtype=np.float32)

OPTIONS: dict[str, tuple[Sequence[str], Sequence[str]]] = {
    "wasmtime": (["run"], ["--dir=."]),
    "wazero": (["run"], ["-mount=.:/"]),
    "wasmer": (["run"], ["--dir=."]),
    "wasmedge": ([], ["--dir", ".:."]),
}
"""What comes before a graph, and what opens the current folder to it besides."""

Shell = Callable[..., "subprocess.CompletedProcess[bytes]"]


@functools.cache
def wazero_command() -> Path:
    """wazero's own command, of the version that toolchain/go uses."""
    need_go()
    folder = Path(tempfile.mkdtemp(prefix="wasmgraph-gobin-"))
    package = "github.com/tetratelabs/wazero/cmd/wazero"
    done = run_tool("go", "install", package, cwd=GO_MODULE, GOBIN=str(folder))
    assert done.returncode == 0, done.stderr
    return folder / "wazero"


def command(engine: str) -> Path:
    """The engine's program, or the test is skipped."""
    found = shutil.which(engine)
    if found is not None:
        return Path(found)
    if engine == "wazero":
        return wazero_command()
    pytest.skip(f"{engine} is not on PATH")


@pytest.fixture(params=list(OPTIONS))
def shell(request: pytest.FixtureRequest, tmp_path: Path) -> Shell:
    """Runs a graph under an engine in a folder of its own."""
    program = command(request.param)
    start, opened = OPTIONS[request.param]

    def run(
        graph: Path, *args: str, stdin: bytes = b"", files: bool = False
    ) -> subprocess.CompletedProcess[bytes]:
        shutil.copy(graph, tmp_path / "graph.wasm")
        return subprocess.run(
            [program, *start, *(opened if files else ()), "graph.wasm", *args],
            cwd=tmp_path,
            input=stdin,
            capture_output=True,
            timeout=300,
            check=False,
        )

    return run


def expected(digits_wasm: Path) -> np.ndarray:
    """What the same file gives in Python."""
    with wasmgraph.load(digits_wasm) as graph:
        return graph.run({"image": IMAGE})["probabilities"]


def test_a_graph_is_a_command_on_stdin_and_stdout(shell: Shell, digits_wasm: Path) -> None:
    file = io.BytesIO()
    np.save(file, IMAGE)
    done = shell(digits_wasm, stdin=file.getvalue())
    assert done.returncode == 0, done.stderr
    found = np.load(io.BytesIO(done.stdout))
    # simd128 leaves an engine no choice: the same bits.
    assert found.tobytes() == expected(digits_wasm).tobytes()
    assert found.shape == (1, 10)


def test_a_graph_is_a_command_on_files(shell: Shell, digits_wasm: Path, tmp_path: Path) -> None:
    np.save(tmp_path / "in.npy", IMAGE)
    files = ("-i", "image=in.npy", "-o", "probabilities=out.npy")
    done = shell(digits_wasm, *files, files=True)
    assert (done.returncode, done.stdout) == (0, b""), done.stderr
    assert np.load(tmp_path / "out.npy").tobytes() == expected(digits_wasm).tobytes()


def test_files_of_a_folder_that_is_not_opened_are_out_of_reach(
    shell: Shell, digits_wasm: Path, tmp_path: Path
) -> None:
    np.save(tmp_path / "in.npy", IMAGE)
    done = shell(digits_wasm, "-i", "in.npy")
    assert done.returncode == 1
    assert b"error: in.npy: " in done.stderr


def test_a_command_that_fails_leaves_with_1(shell: Shell, digits_wasm: Path) -> None:
    done = shell(digits_wasm, stdin=b"no array")
    assert (done.returncode, done.stdout) == (1, b"")
    assert b"error: stdin: " in done.stderr
