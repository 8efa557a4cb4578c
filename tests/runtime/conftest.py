"""Fixtures for running graphs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

import wasmgraph
from tests.runtime.wat_graphs import WatGraph


@pytest.fixture
def load_wat(tmp_path: Path) -> Iterator[Callable[..., wasmgraph.Graph]]:
    """Writes and loads a hand-written graph, and closes it after the test."""
    with ExitStack() as stack:

        def load(graph: WatGraph | None = None, **options: Any) -> wasmgraph.Graph:
            path = (graph or WatGraph()).write(tmp_path)
            return stack.enter_context(wasmgraph.load(path, **options))

        yield load
