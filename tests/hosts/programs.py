"""Builds the Go and Rust programs that run graphs; skips, with the reason, where that cannot be."""

from __future__ import annotations

import functools
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).resolve().parents[2]
GO_MODULE = CHECKOUT / "toolchain" / "go"
GO_SAMPLE = CHECKOUT / "samples" / "go"
RUST_SAMPLE = CHECKOUT / "samples" / "rust"

BUILD_SECONDS = 1200
"""For compiling an engine on a slow, loaded machine."""


def run_tool(
    *command: object, cwd: Path, timeout: float = BUILD_SECONDS, **env: str
) -> subprocess.CompletedProcess[str]:
    """Run a compiler or the like, without changing what it is told about versions."""
    return subprocess.run(
        [str(word) for word in command],
        cwd=cwd,
        env={**os.environ, **env},
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )


def need_go(module: Path = GO_MODULE) -> None:
    """Skip where there is no Go, or the module's dependencies cannot be had."""
    if shutil.which("go") is None:
        pytest.skip("Go is not installed")
    done = run_tool("go", "mod", "download", cwd=module)
    if done.returncode != 0:
        pytest.skip(f"the Go modules cannot be had: {done.stderr.strip().splitlines()[-1]}")


@functools.cache
def go_program(module: Path, package: str = ".") -> Path:
    """A command of a Go module, built once in this session."""
    need_go(module)
    program = Path(tempfile.mkdtemp(prefix="wasmgraph-go-")) / "program"
    done = run_tool("go", "build", "-buildvcs=false", "-o", program, package, cwd=module)
    assert done.returncode == 0, done.stderr
    return program


def host_process() -> Path:
    """The host process over wazero."""
    return go_program(GO_MODULE, "./cmd/wasmgraph-host")


def go_sample() -> Path:
    """samples/go."""
    return go_program(GO_SAMPLE)


def build_rust(**env: str) -> subprocess.CompletedProcess[str]:
    """Build samples/rust in its own target folder, where its dependencies stay."""
    if shutil.which("cargo") is None:
        pytest.skip("cargo is not installed")
    done = run_tool("cargo", "fetch", "--locked", cwd=RUST_SAMPLE)
    if done.returncode != 0:
        pytest.skip(f"the crates cannot be had: {done.stderr.strip().splitlines()[-1]}")
    done = run_tool("cargo", "build", "--locked", "--offline", "--quiet", cwd=RUST_SAMPLE, **env)
    if "requires rustc" in done.stderr:
        pytest.skip(f"this Rust is too old: {done.stderr.strip().splitlines()[0]}")
    return done


@functools.cache
def rust_sample() -> Path:
    """samples/rust, not optimised: that would take minutes for the engine alone."""
    done = build_rust()
    assert done.returncode == 0, done.stderr
    return RUST_SAMPLE / "target" / "debug" / "classify"
