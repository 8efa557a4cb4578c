"""Rust's own tools on samples/rust."""

from __future__ import annotations

import shutil

import pytest

from tests.hosts.programs import RUST_SAMPLE, build_rust, run_tool


def test_rustfmt_would_change_nothing() -> None:
    if shutil.which("rustfmt") is None:
        pytest.skip("rustfmt is not installed")
    done = run_tool("cargo", "fmt", "--check", cwd=RUST_SAMPLE)
    assert done.returncode == 0, done.stdout + done.stderr


def test_clippy_finds_nothing() -> None:
    if shutil.which("clippy-driver") is None:
        pytest.skip("clippy is not installed")
    # `cargo clippy` would check all dependencies anew, which takes minutes.
    done = build_rust(RUSTC_WORKSPACE_WRAPPER="clippy-driver")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
