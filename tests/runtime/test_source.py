"""A graph's file in pieces: the same bytes as read whole, or an error."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import numpy as np
import pytest

from wasmgraph.errors import LoadError
from wasmgraph.runtime.source import Source

DATA = np.random.default_rng(0).bytes(3_000_000)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "graph.wasm"
    path.write_bytes(DATA)
    return path


def test_it_slices_like_bytes(path: Path) -> None:
    rng = np.random.default_rng(1)
    with Source(path) as source:
        assert len(source) == len(DATA)
        for _ in range(300):
            start = int(rng.integers(len(DATA)))
            stop = start + int(rng.choice([0, 1, 9, 65536, 70000, 2_500_000]))
            assert source[start:stop] == DATA[start:stop]
            assert source[start] == DATA[start]
        for key in (slice(4), slice(-5, None), slice(10, 3), slice(0, 100, 7), slice(None)):
            assert source[key] == DATA[key]
        with pytest.raises(IndexError):
            source[len(DATA)]


def test_it_reads_and_hashes_all(path: Path) -> None:
    with Source(path) as source:
        assert source.read() == DATA
        assert source.sha256() == hashlib.sha256(DATA).hexdigest()


def test_an_empty_file_is_empty(tmp_path: Path) -> None:
    (tmp_path / "empty").touch()
    with Source(tmp_path / "empty") as source:
        assert (len(source), source.read(), source[:8]) == (0, b"", b"")


def test_a_file_that_is_cut_short_meanwhile_is_a_load_error(path: Path) -> None:
    with Source(path) as source:
        os.truncate(path, 100)
        with pytest.raises(LoadError, match="became shorter"):
            source.read()


def test_a_file_that_is_written_to_meanwhile_is_a_load_error(path: Path) -> None:
    with Source(path) as source:
        with path.open("r+b") as file:
            file.write(b"other")
        os.utime(path, (0, 0))
        for method in (source.read, source.sha256):
            with pytest.raises(LoadError, match="changed while it was read"):
                method()


def test_a_file_that_is_replaced_meanwhile_is_still_the_old_one(path: Path, tmp_path: Path) -> None:
    with Source(path) as source:
        other = tmp_path / "other"
        other.write_bytes(b"new")
        os.replace(other, path)
        assert source.read() == DATA
