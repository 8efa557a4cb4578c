"""Memory of graphs and of processes."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np

from tests.bundles import hungry_bundle
from tests.runtime.wat_graphs import WatGraph
from wasmgraph.link import link
from wasmgraph.measure.memory import WASM_PAGE, guest_memory
from wasmgraph.runtime.process_memory import process_memory

INPUTS = {"x": np.ones(4, np.float32)}


def test_the_parts_of_a_graph_add_up_to_its_pages(digits_wasm: Path) -> None:
    inputs = {"image": np.zeros((1, 1, 8, 8), np.float32)}
    guest = guest_memory(digits_wasm, inputs)
    assert guest.total % WASM_PAGE == 0
    assert guest.total == guest.weights + guest.io + guest.arena + guest.rest
    assert guest.weights > 100_000
    assert guest.io >= (64 + 10) * 4
    assert guest.rest > 0


def test_a_graph_that_allocates_nothing_does_not_grow(tmp_path: Path) -> None:
    path = WatGraph().write(tmp_path)
    assert not guest_memory(path, {"x": np.ones(4, np.float32)}).grows


def test_a_graph_that_allocates_grows(tmp_path: Path) -> None:
    link(hungry_bundle(), tmp_path / "hungry.wasm")
    mebibytes = np.float32([100, 0, 0, 0])
    assert guest_memory(tmp_path / "hungry.wasm", {"x": mebibytes}).grows


def test_this_process_has_had_at_least_what_it_has() -> None:
    memory = process_memory()
    assert memory is not None
    assert 0 < memory.resident <= memory.peak


def test_another_process_is_told_from_this_one_and_a_gone_one_from_both() -> None:
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    try:
        assert process_memory(process.pid) is not None
    finally:
        assert process.stdin is not None
        process.stdin.close()
        process.wait()
    assert process_memory(process.pid) is None
