"""`wasmgraph doctor`: looks at the real machine, and at one whose tools are hidden."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cli.conftest import Command
from wasmgraph.runtime.registry import RUNTIMES


def test_finds_what_this_machine_needs_to_run_these_tests(wasmgraph: Command) -> None:
    outcome = wasmgraph("doctor", "--json")
    assert outcome.code == 0, outcome.stdout
    assert outcome.json["ok"] is True
    found = {finding["name"]: finding for finding in outcome.json["findings"]}
    for name in ("Rust with a WASI target", "linker", "TVM", "Wasmtime"):
        assert found[name]["status"] == "ok", name
        assert found[name]["required"] is True
        assert found[name]["fix"] is None


def test_shows_one_row_each(wasmgraph: Command) -> None:
    outcome = wasmgraph("doctor")
    assert outcome.code == 0
    for name in ("Rust with a WASI target", "linker", "TVM", "Wasmtime", "Pillow"):
        assert name in outcome.stdout
    assert "to mend" not in outcome.stdout


def test_a_missing_rust_exits_with_5_and_says_the_command_that_installs_it(
    process: Command, tmp_path: Path
) -> None:
    absent = str(tmp_path / "absent")
    outcome = process("doctor", WASMGRAPH_RUSTC=absent, WASMGRAPH_CARGO=absent)
    assert outcome.code == 5
    assert "to mend Rust with a WASI target" in outcome.stdout
    assert "rust" in outcome.stdout.partition("to mend")[2]
    assert outcome.stderr.startswith("error: required but missing: Rust with a WASI target")


def test_a_missing_rust_is_in_the_one_json_object(process: Command, tmp_path: Path) -> None:
    absent = str(tmp_path / "absent")
    outcome = process("doctor", "--json", WASMGRAPH_RUSTC=absent, WASMGRAPH_CARGO=absent)
    assert outcome.code == 5
    assert outcome.json["ok"] is False
    rust = outcome.json["findings"][0]
    assert rust["status"] == "missing"
    assert rust["fix"]
    assert outcome.stderr == ""


def test_lists_every_engine_with_what_it_can_do_or_how_to_get_it(
    wasmgraph: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WASMGRAPH_WASMER", "/absent")
    engines = {engine["name"]: engine for engine in wasmgraph("doctor", "--json").json["engines"]}
    assert list(engines) == list(RUNTIMES)
    assert engines["wasmtime"]["available"] is True
    assert engines["wasmtime"]["capabilities"]["relaxed_simd"] is True
    assert engines["wasmer"]["available"] is False
    assert engines["wasmer"]["fix"]
    shown = wasmgraph("doctor").stdout
    assert all(name in shown for name in RUNTIMES)
    assert "wasmer.io" in shown
