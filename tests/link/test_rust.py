"""Finding Rust: which is taken, and what is said when none will do. The programs are stand-ins."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

from wasmgraph.errors import ToolchainError
from wasmgraph.link import rust as rust_under_test
from wasmgraph.link.rust import find_rust


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine without any Rust: nothing but /bin/sh's tools of our own making is on PATH."""
    (tmp_path / "path").mkdir()
    monkeypatch.setenv("PATH", str(tmp_path / "path"))
    monkeypatch.delenv("WASMGRAPH_RUSTC", raising=False)
    monkeypatch.delenv("WASMGRAPH_CARGO", raising=False)
    monkeypatch.setattr(rust_under_test, "DEBIAN_FOLDER", tmp_path / "debian" / "bin")
    return tmp_path


def program(path: Path, text: str = "") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return path


def install(
    folder: Path, version: str = "1.95.0", target: str | None = "wasm32-wasip1", lld: bool = True
) -> Path:
    """A toolchain in `folder`, whose programs are in its bin."""
    answers = f'case "$1" in --version) echo "rustc {version} (abc)";; *) echo {folder};; esac'
    program(folder / "bin" / "rustc", answers)
    program(folder / "bin" / "cargo")
    libraries = folder / "lib" / "rustlib"
    if target:
        program(libraries / target / "lib" / "self-contained" / "libc.a")
    if lld:
        program(libraries / "x86_64-unknown-linux-gnu" / "bin" / "rust-lld")
    return folder


def put_on_path(machine: Path, folder: Path) -> None:
    # `machine` restores PATH.
    os.environ["PATH"] = f"{folder / 'bin'}{os.pathsep}{os.environ['PATH']}"


def test_the_one_on_path_is_taken(machine: Path) -> None:
    folder = install(machine / "one")
    put_on_path(machine, folder)
    found = find_rust()
    assert (found.rustc, found.cargo) == (folder / "bin" / "rustc", folder / "bin" / "cargo")
    assert (found.version, found.target) == ("1.95.0", "wasm32-wasip1")
    assert found.linker.name == "rust-lld"


def test_rustups_stand_ins_are_passed_by(machine: Path) -> None:
    folder = install(machine / "toolchain")
    text = f'exec {folder / "bin"}/"${{0##*/}}" "$@"'
    for name in ("rustc", "cargo"):
        program(machine / "path" / name, text)
    assert find_rust().rustc == folder / "bin" / "rustc"


def test_debians_is_taken_where_rustups_lacks_the_target(machine: Path) -> None:
    put_on_path(machine, install(machine / "one", target=None))
    folder = install(machine / "debian", "1.63.0", "wasm32-wasi")
    found = find_rust()
    assert found.rustc == folder / "bin" / "rustc"
    assert (found.version, found.target) == ("1.63.0", "wasm32-wasi")


def test_the_newer_name_of_the_target_is_preferred(machine: Path) -> None:
    folder = install(machine / "one", "1.80.0", "wasm32-wasi")
    program(folder / "lib" / "rustlib" / "wasm32-wasip1" / "lib" / "self-contained" / "libc.a")
    put_on_path(machine, folder)
    assert find_rust().target == "wasm32-wasip1"


def test_a_given_pair_is_taken_as_it_is(machine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put_on_path(machine, install(machine / "one"))
    other = install(machine / "other", "1.90.0-nightly")
    monkeypatch.setenv("WASMGRAPH_RUSTC", str(other / "bin" / "rustc"))
    monkeypatch.setenv("WASMGRAPH_CARGO", str(other / "bin" / "cargo"))
    found = find_rust()
    assert (found.rustc, found.version) == (other / "bin" / "rustc", "1.90.0-nightly")


def test_a_given_rustc_that_is_not_there_is_an_error(
    machine: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put_on_path(machine, install(machine / "one"))
    monkeypatch.setenv("WASMGRAPH_RUSTC", "/no/such/rustc")
    with pytest.raises(ToolchainError, match="/no/such/rustc is not there"):
        find_rust()


def test_a_linker_on_path_will_do(machine: Path) -> None:
    put_on_path(machine, install(machine / "one", lld=False))
    linker = program(machine / "path" / "wasm-ld")
    assert find_rust().linker == linker


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"target": None}, r"\(Rust 1.95.0\) lacks the target wasm32-wasip1"),
        ({"version": "1.62.1"}, "is Rust 1.62.1; 1.63 or later is needed"),
        ({"lld": False}, "has neither rust-lld nor wasm-ld to link"),
        ({"version": ""}, "does not answer --version"),
    ],
)
def test_one_that_will_not_do_is_an_error_that_says_why(
    machine: Path, options: dict[str, object], message: str
) -> None:
    put_on_path(machine, install(machine / "one", **options))
    with pytest.raises(ToolchainError, match=message):
        find_rust()


@pytest.mark.parametrize(
    ("present", "version", "hint"),
    [
        (["rustup", "apt-get"], "1.95.0", "run rustup target add wasm32-wasip1"),
        (["rustup"], "1.70.0", "run rustup target add wasm32-wasi"),
        (["apt-get"], "1.95.0", "apt-get install -y rustc cargo libstd-rust-dev-wasm32 lld"),
        ([], "1.95.0", "https://rustup.rs"),
    ],
)
def test_the_hint_is_the_command_for_this_machine(
    machine: Path, present: list[str], version: str, hint: str
) -> None:
    put_on_path(machine, install(machine / "one", version, target=None))
    for name in present:
        program(machine / "path" / name)
    with pytest.raises(ToolchainError) as caught:
        find_rust()
    assert re.search(rf"{hint}( |\)|$)", caught.value.hint or "")
    assert caught.value.exit_code == 5


def test_a_machine_without_rust_is_told_what_to_install(machine: Path) -> None:
    with pytest.raises(ToolchainError, match="rustc is not on PATH"):
        find_rust()
