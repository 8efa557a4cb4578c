"""Two ways to call the command line: in this process, which is quick, and as a real one."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from wasmgraph.cli import main


@dataclass(frozen=True)
class Outcome:
    """What a command left behind."""

    code: int
    stdout: str
    stderr: str

    @property
    def json(self) -> Any:
        """Stdout, which must be one JSON document and nothing else."""
        return json.loads(self.stdout)


Command = Callable[..., Outcome]


@pytest.fixture
def wasmgraph(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Command:
    """Runs `wasmgraph ARGS...` in this process, in an empty folder."""
    monkeypatch.chdir(tmp_path)

    def run(*args: object) -> Outcome:
        result = CliRunner().invoke(main, [str(arg) for arg in args])
        return Outcome(result.exit_code, result.stdout, result.stderr)

    return run


@pytest.fixture
def process(tmp_path: Path) -> Command:
    """Runs `wasmgraph ARGS...` as a process of its own, in an empty folder, on pipes."""

    def run(*args: object, **env: str) -> Outcome:
        done = subprocess.run(
            [sys.executable, "-m", "wasmgraph", *map(str, args)],
            cwd=tmp_path,
            env={**os.environ, **env},
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
        return Outcome(done.returncode, done.stdout, done.stderr)

    return run
