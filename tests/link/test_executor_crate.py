"""The Rust crate's own tests and linters, where this machine's Rust has what they need."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import pytest

from wasmgraph.link import crate_folder, find_rust
from wasmgraph.metadata import DTYPE_NBYTES


def cargo(target: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    rust = find_rust()
    environment = {
        **os.environ,
        "RUSTC": str(rust.rustc),
        "CARGO_TARGET_DIR": str(target),
        # cargo looks for rustfmt and clippy beside itself only by way of PATH.
        "PATH": f"{rust.cargo.parent}{os.pathsep}{os.environ['PATH']}",
    }
    return subprocess.run(
        [str(rust.cargo), *arguments],
        cwd=crate_folder(),
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )


def test_the_crates_unit_tests_pass(tmp_path: Path) -> None:
    built = cargo(tmp_path, "test", "--offline", "--locked", "--no-run")
    if built.returncode != 0 and "linker" in built.stderr:
        pytest.skip("no C linker, which programs for this machine itself need")
    assert built.returncode == 0, built.stderr
    ran = cargo(tmp_path, "test", "--offline", "--locked")
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert "0 failed" in ran.stdout
    assert "a_file_cut_anywhere_is_an_error ... ok" in ran.stdout


@pytest.mark.parametrize(
    "arguments",
    [
        ("fmt", "--check"),
        ("clippy", "--offline", "--locked", "--all-targets", "--", "-D", "warnings"),
    ],
)
def test_the_crate_is_clean(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    if cargo(tmp_path, arguments[0], "--version").returncode != 0:
        pytest.skip(f"this Rust has no cargo {arguments[0]}")
    checked = cargo(tmp_path, *arguments)
    assert checked.returncode == 0, checked.stdout + checked.stderr


def test_the_crate_numbers_dtypes_as_the_compiler_does() -> None:
    source = (crate_folder() / "src" / "graph.rs").read_text()
    rows = re.findall(r'^    dtype\("(\w+)", "\w+", (\d)\),$', source, re.MULTILINE)
    assert [(name, int(nbytes)) for name, nbytes in rows] == list(DTYPE_NBYTES.items())


def test_the_crate_has_no_dependencies() -> None:
    manifest = (crate_folder() / "Cargo.toml").read_text()
    assert "dependencies" not in manifest
    assert (crate_folder() / "Cargo.lock").read_text().count("[[package]]") == 1
