"""Starts the toolchain's programs so that whatever interrupts the wait ends them, too."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Mapping
from contextlib import ExitStack
from functools import partial
from pathlib import Path

from wasmgraph.errors import ToolchainError
from wasmgraph.interrupts import interrupts_held

_SHOWN_LINES = 12


def run_in_group(
    command: list[str], folder: Path, environment: Mapping[str, str] | None
) -> tuple[int, str]:
    """Exit status and stderr of a program.

    Raises:
        ToolchainError: it cannot be started.
    """
    with ExitStack() as stack:
        # An interrupt after the fork and before the assignment would leave nobody to kill it.
        with interrupts_held():
            process = _start(command, folder, environment)
            stack.enter_context(process)
            stack.push(partial(_kill_on_error, process))
        _, said = process.communicate()
    return process.returncode, said.decode(errors="replace")


def shown(said: str) -> list[str]:
    """The end of what a program said, cut to what a reader takes in."""
    lines = [line for line in said.splitlines() if line.strip()]
    return [line if len(line) <= 300 else line[:297] + "..." for line in lines[-_SHOWN_LINES:]]


def _start(
    command: list[str], folder: Path, environment: Mapping[str, str] | None
) -> subprocess.Popen[bytes]:
    try:
        return subprocess.Popen(
            command,
            cwd=folder,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            # A group of its own, so that what it starts can be killed with it.
            start_new_session=True,
        )
    except OSError as error:
        raise ToolchainError(f"{command[0]} cannot be started: {error.strerror}") from error


def _kill_on_error(
    process: subprocess.Popen[bytes], kind: type[BaseException] | None, *_: object
) -> None:
    if kind is not None:
        os.killpg(process.pid, signal.SIGKILL)
