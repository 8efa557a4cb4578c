"""The package under Deno and Bun, where they are: what it does under Node, in short."""

from __future__ import annotations

import base64
import json
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import wasmgraph
from tests.runtime.test_threads import X, Y, bundle
from wasmgraph.link import link

RUN = Path(__file__).resolve().parent / "run.mjs"
IMAGE = np.random.default_rng(7).random((1, 1, 8, 8), dtype=np.float32)

Run = Callable[..., Any]


@pytest.fixture(params=[("deno", "run", "--allow-all"), ("bun", "run")], ids=lambda x: x[0])
def run(request: pytest.FixtureRequest) -> Run:
    """Runs a graph once: its first output, or an error as a dict."""
    name, *arguments = request.param
    program = shutil.which(name)
    if program is None:
        pytest.skip(f"{name} is not installed (npm install {name})")

    def run_once(file: Path, name: str, array: np.ndarray, **options: Any) -> Any:
        data = base64.b64encode(array.tobytes()).decode()
        given = {"name": name, "dtype": array.dtype.name, "shape": array.shape, "data": data}
        done = subprocess.run(
            [program, *arguments, RUN],
            input=json.dumps({"file": str(file), "options": options, "runs": [[given]]}),
            capture_output=True,
            text=True,
            timeout=120,  # a process that does not end is a failure
            check=False,
        )
        assert done.returncode == 0, done.stderr
        (result,) = json.loads(done.stdout)
        if isinstance(result, dict):
            return result
        return np.frombuffer(base64.b64decode(result[0]["data"]), result[0]["dtype"])

    return run_once


@pytest.mark.parametrize("options", [{}, {"worker": True}, {"maxMemory": 1 << 26}], ids=str)
def test_it_gives_wasmtimes_bits(run: Run, digits_wasm: Path, options: dict[str, Any]) -> None:
    with wasmgraph.load(digits_wasm) as graph:
        expected = graph.run({"image": IMAGE})["probabilities"]
    np.testing.assert_array_equal(run(digits_wasm, "image", IMAGE, **options), expected.ravel())


@pytest.mark.parametrize("worker", [False, True])
def test_threads_run_at_the_same_time(run: Run, tmp_path: Path, worker: bool) -> None:
    file = link(bundle("meet"), tmp_path / "graph.wasm").path
    np.testing.assert_array_equal(run(file, "x", X, threads=2, worker=worker), Y)


def test_errors_have_kinds(run: Run, digits_wasm: Path, tmp_path: Path) -> None:
    assert run(digits_wasm, "imago", IMAGE)["kind"] == "InputError"
    assert run(tmp_path / "none.wasm", "image", IMAGE)["kind"] == "LoadError"
    assert run(digits_wasm, "image", IMAGE, maxMemory=65536)["kind"] == "MemoryLimitExceeded"
