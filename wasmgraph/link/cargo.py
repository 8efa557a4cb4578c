"""Runs cargo on a copy of the executor crate, cut off from the user's own settings."""

from __future__ import annotations

import os
import re
import signal
import subprocess
from collections.abc import Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path

from wasmgraph.errors import ToolchainError
from wasmgraph.interrupts import interrupts_held
from wasmgraph.link.rust import RustToolchain

MODULE_NAME = "wasmgraph_executor.wasm"
_SHOWN_LINES = 12


def build_module(rust: RustToolchain, crate: Path, link_arguments: Sequence[str]) -> Path:
    """Build the crate with extra arguments for the linker, relative to the crate's folder.

    Everything happens inside the crate's folder and all paths given to rustc are relative to it, so
    the same sources give the same bytes wherever the folder is.

    Returns:
        The linked module.

    Raises:
        ToolchainError: cargo cannot be started or fails; the message has the end of what it said.
    """
    command = [
        str(rust.cargo),
        *("build", "--release", "--offline", "--locked", "--quiet", "--color=never"),
        f"--target={rust.target}",
        "--target-dir=target",
    ]
    status, said = _run(command, crate, _environment(rust, crate, link_arguments))
    if status != 0:
        raise _failure(said, status)
    return crate / "target" / rust.target / "release" / MODULE_NAME


def _environment(rust: RustToolchain, crate: Path, link_arguments: Sequence[str]) -> dict[str, str]:
    """The caller's environment without what would change the build, such as RUSTFLAGS."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("CARGO", "RUST")) or name in ("RUSTUP_HOME", "RUSTUP_TOOLCHAIN")
    }
    flags = [f"-Clink-arg={argument}" for argument in link_arguments]
    return {
        **kept,
        "RUSTC": str(rust.rustc),
        # An empty home has no config.toml; without dependencies cargo needs nothing else from it.
        "CARGO_HOME": str(crate / "cargo-home"),
        "CARGO_ENCODED_RUSTFLAGS": "\x1f".join(flags),
    }


def _run(command: list[str], folder: Path, environment: dict[str, str]) -> tuple[int, str]:
    """Exit status and stderr. Whatever interrupts the wait, cargo and its children are killed."""
    with ExitStack() as stack:
        # An interrupt after the fork and before the assignment would leave nobody to kill it.
        with interrupts_held():
            process = _start(command, folder, environment)
            stack.enter_context(process)
            stack.push(partial(_kill_on_error, process))
        _, said = process.communicate()
    return process.returncode, said.decode(errors="replace")


def _start(
    command: list[str], folder: Path, environment: dict[str, str]
) -> subprocess.Popen[bytes]:
    try:
        return subprocess.Popen(
            command,
            cwd=folder,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            # A group of its own, so that rustc and the linker can be killed with it.
            start_new_session=True,
        )
    except OSError as error:
        raise ToolchainError(f"{command[0]} cannot be started: {error.strerror}") from error


def _kill_on_error(
    process: subprocess.Popen[bytes], kind: type[BaseException] | None, *_: object
) -> None:
    if kind is not None:
        os.killpg(process.pid, signal.SIGKILL)


def _failure(said: str, status: int) -> ToolchainError:
    missing = sorted(set(re.findall(r"undefined symbol: (\S+)", said)))
    if missing:
        return missing_symbols(missing)
    lines = [line for line in said.splitlines() if line.strip() and not _is_noise(line)]
    shown = [line if len(line) <= 300 else line[:297] + "..." for line in lines[-_SHOWN_LINES:]]
    return ToolchainError("\n".join([f"cargo failed with exit status {status}:", *shown]))


def _is_noise(line: str) -> bool:
    # rustc repeats the linker's whole command line.
    return "= note:" in line and "rcgu.o" in line


def missing_symbols(names: Sequence[str]) -> ToolchainError:
    """The error for C symbols which the bundle's object code needs and nothing defines."""
    return ToolchainError(
        f"graph.o needs {', '.join(names)}, which neither it nor the executor defines",
        hint="its object code was made by another wasmgraph or by hand: compile the model again",
    )
