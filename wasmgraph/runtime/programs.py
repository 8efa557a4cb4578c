"""Finding the programs and sources that engines outside this process are made of."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

from wasmgraph.errors import ToolchainError

_SECONDS = 20
"""For a program to say its version; Chromium takes a while when nothing of it is in memory."""


def find_program(engine: str, variable: str, names: Sequence[str], fix: str) -> Path:
    """The program of an engine: what the environment variable names, else the first on PATH.

    Args:
        engine: For messages.
        variable: The environment variable's name.
        names: The program's usual names.
        fix: How to get it.

    Raises:
        ToolchainError: there is none.
    """
    configured = os.environ.get(variable, "")
    for name in (configured,) if configured else names:
        found = shutil.which(name)
        if found is not None:
            return Path(found).absolute()
    if configured:
        raise ToolchainError(f"{variable} names {configured!r}, which is no program", hint=fix)
    raise ToolchainError(
        f"the runtime {engine!r} needs {' or '.join(names)}, which is not on PATH",
        hint=f"{fix}; {variable} may name it",
    )


def program_version(program: Path, argument: str = "--version") -> str:
    """The version in what a program prints, e.g. "36.0.2".

    Raises:
        ToolchainError: it does not run or says none.
    """
    try:
        done = subprocess.run(
            [program, argument],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=_SECONDS,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise ToolchainError(f"{program} does not run: {error}") from error
    match = re.search(r"\d+(\.\d+)+\S*", done.stdout or done.stderr)
    if done.returncode or match is None:
        raise ToolchainError(f"{program} {argument} says no version")
    return match[0].rstrip(",;")


def host_sources(folder: str, proof: str) -> Path:
    """A folder of hosts' sources: in the installed package, or in the checkout.

    Args:
        folder: Its name in `toolchain`.
        proof: A file that it must have.

    Raises:
        ToolchainError: neither is there, so the installation is damaged.
    """
    package = Path(__file__).resolve().parent.parent
    for candidate in (package / "_toolchain" / folder, package.parent / "toolchain" / folder):
        if (candidate / proof).is_file():
            return candidate
    raise ToolchainError(
        f"this installation of wasmgraph lacks its {folder} host",
        hint="install wasmgraph again",
    )
