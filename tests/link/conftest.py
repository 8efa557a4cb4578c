"""Graphs linked once per session, and a host that speaks the raw ABI."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests import bundles
from tests.link.raw_abi import Host
from wasmgraph.link import link


@pytest.fixture(scope="session")
def linked(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The graph of a bundle of `tests.bundles`, e.g. linked("add")."""
    folder = tmp_path_factory.mktemp("linked")

    def get(name: str) -> Path:
        path = folder / f"{name}.wasm"
        if not path.exists():
            link(getattr(bundles, f"{name}_bundle")(), path)
        return path

    return get


@pytest.fixture
def host(linked: Callable[[str], Path]) -> Callable[..., Host]:
    """A fresh instance of a linked graph, e.g. host("add")."""

    def start(name: str, max_memory: int = -1) -> Host:
        return Host(linked(name).read_bytes(), max_memory)

    return start
