"""`wasmgraph link`: from a kept bundle to the same file that `compile` writes."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from tests.cli.conftest import Command


def test_gives_the_bytes_that_compile_gives(
    wasmgraph: Command, tmp_path: Path, digits_bundle: Path
) -> None:
    outcome = wasmgraph("link", digits_bundle, "-o", "linked.wasm", "--json")
    assert outcome.code == 0, outcome.stderr
    linked = (tmp_path / "linked.wasm").read_bytes()
    assert linked == (digits_bundle.parent / "digits.wasm").read_bytes()
    assert outcome.json["path"] == "linked.wasm"
    assert outcome.json["sizes"]["file"] == len(linked)


def test_says_what_it_wrote(wasmgraph: Command, digits_bundle: Path) -> None:
    outcome = wasmgraph("link", digits_bundle, "-o", "linked.wasm")
    assert outcome.stderr.startswith("link")
    assert "linked.wasm" in outcome.stdout


def test_needs_to_know_where_to(wasmgraph: Command, digits_bundle: Path) -> None:
    outcome = wasmgraph("link", digits_bundle)
    assert outcome.code == 2
    assert "-o" in outcome.stderr


def test_refuses_a_folder_that_is_no_bundle(wasmgraph: Command, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    outcome = wasmgraph("link", "empty", "-o", "out.wasm")
    assert outcome.code == 3
    assert "empty is not a graph bundle" in outcome.stderr
    assert not (tmp_path / "out.wasm").exists()


def test_refuses_a_bundle_of_another_version(
    wasmgraph: Command, tmp_path: Path, digits_bundle: Path
) -> None:
    shutil.copytree(digits_bundle, tmp_path / "newer")
    description = tmp_path / "newer" / "graph.json"
    description.write_text(json.dumps({**json.loads(description.read_text()), "version": 99}))
    outcome = wasmgraph("link", "newer", "-o", "out.wasm")
    assert outcome.code == 3
    assert "version 99" in outcome.stderr
    assert not (tmp_path / "out.wasm").exists()


def test_refuses_an_object_that_does_not_link(
    wasmgraph: Command, tmp_path: Path, digits_bundle: Path
) -> None:
    shutil.copytree(digits_bundle, tmp_path / "broken")
    (tmp_path / "broken" / "graph.o").write_bytes(b"no object")
    (tmp_path / "out.wasm").write_bytes(b"the old one")
    outcome = wasmgraph("link", "broken", "-o", "out.wasm")
    assert outcome.code in (3, 5)
    assert "Traceback" not in outcome.stderr
    assert (tmp_path / "out.wasm").read_bytes() == b"the old one"
