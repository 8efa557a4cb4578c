"""The Makefile's promises, tried on a copy: this checkout's environment stays as it is."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).resolve().parents[1]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with nothing but the Makefile and what its stamps depend on."""
    for name in ("Makefile", "pyproject.toml"):
        shutil.copy(CHECKOUT / name, tmp_path / name)
    return tmp_path


def make(folder: Path, *args: str) -> subprocess.CompletedProcess[str]:
    """Run make there."""
    return subprocess.run(
        ["make", "--no-print-directory", *args],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_make_alone_lists_what_can_be_made(folder: Path) -> None:
    done = make(folder)
    assert done.returncode == 0
    for target in ("demo", "test", "test-models", "lint", "clean"):
        assert f"make {target} " in done.stdout


def test_a_python_that_is_not_there_says_the_command_that_installs_one(folder: Path) -> None:
    done = make(folder, "demo", "PYTHON=no-such-python")
    assert done.returncode != 0
    assert "error: no-such-python is not installed" in done.stderr
    assert "hint: apt-get install python3 python3-venv" in done.stderr
    assert not (folder / ".venv").exists()


def test_ci_runs_the_linters_and_every_test() -> None:
    script = (CHECKOUT / ".ci" / "run").read_text(encoding="utf-8")
    assert script.startswith("#!/usr/bin/env bash\n")
    commands = [line for line in script.splitlines() if line.startswith("make ")]
    assert commands == ["make lint", "make test", "make test-models"]
