"""Fixtures for the JavaScript package: Node, Chromium, and how graphs are run in them."""

from __future__ import annotations

import base64
import json
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from tests.browser import chromium
from tests.javascript.site import Site

if TYPE_CHECKING:
    from playwright.sync_api import Browser

HERE = Path(__file__).resolve().parent
SECONDS = 300

Tensors = Mapping[str, np.ndarray]
RunGraph = Callable[..., list[Any]]


@pytest.fixture(scope="session")
def node() -> str:
    """Node's path."""
    found = shutil.which("node")
    if found is None:
        pytest.skip("Node is not installed (apt-get install nodejs)")
    version = subprocess.run([found, "--version"], capture_output=True, text=True, check=True)
    if int(version.stdout.strip("v\n").split(".")[0]) < 20:
        pytest.skip(f"the JavaScript package needs Node 20, this is {version.stdout.strip()}")
    return found


@pytest.fixture(scope="session")
def node_test(node: str) -> Callable[..., None]:
    """Runs one of this folder's *.test.mjs; keyword arguments become environment variables."""

    def run(name: str, **env: object) -> None:
        done = subprocess.run(
            [node, "--test", "--test-reporter=spec", HERE / name],
            env={**os.environ, **{key: str(value) for key, value in env.items()}},
            capture_output=True,
            text=True,
            timeout=SECONDS,
            check=False,
        )
        assert done.returncode == 0, done.stdout[-20_000:] + done.stderr

    return run


@pytest.fixture(scope="session")
def run_graph(node: str) -> RunGraph:
    """Runs a graph in Node: run_graph(path, [inputs...], threads=2).

    A list with what each run gave: outputs, or an error as a dict of "kind", "message" and "hint".
    Where the graph does not load, that is the only one.
    """

    def run(file: Path, runs: Sequence[Tensors], **options: Any) -> list[Any]:
        request = {"file": str(file), "options": options, "runs": [_encode(run) for run in runs]}
        done = subprocess.run(
            [node, HERE / "run.mjs"],
            input=json.dumps(request),
            capture_output=True,
            text=True,
            timeout=SECONDS,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return [x if isinstance(x, dict) else _decode(x) for x in json.loads(done.stdout)]

    return run


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """A Chromium; only one may be open at a time, so it ends with the module."""
    with chromium() as found:
        yield found


@pytest.fixture
def serve() -> Iterator[Callable[..., Site]]:
    """Starts servers: serve(files, headers), as `Site`. They end with the test."""
    with ExitStack() as stack:

        def start(files: Mapping[str, Path | bytes], headers: Mapping[str, str]) -> Site:
            site = Site(files, headers)
            stack.callback(site.stop)
            return site

        yield start


def _encode(tensors: Tensors) -> list[dict[str, Any]]:
    return [
        {
            "name": name,
            "dtype": array.dtype.name,
            "shape": list(array.shape),
            "data": base64.b64encode(array.tobytes()).decode(),
        }
        for name, array in tensors.items()
    ]


def _decode(tensors: Sequence[Mapping[str, Any]]) -> dict[str, np.ndarray]:
    return {
        tensor["name"]: np.frombuffer(
            base64.b64decode(tensor["data"]), np.dtype(tensor["dtype"])
        ).reshape(tensor["shape"])
        for tensor in tensors
    }
