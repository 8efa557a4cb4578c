"""Runs the linker that came with Rust on the executor and a graph's objects."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from wasmgraph.errors import ToolchainError
from wasmgraph.link.processes import run_in_group, shown
from wasmgraph.link.rust import RustToolchain
from wasmgraph.wasmfile import THREAD_FUNCTIONS

STACK_NBYTES = 2**20
"""What rustc gives a WASI module."""

_OUTPUT = "graph.wasm"


_THREADS = (
    "--shared-memory",
    "--import-memory",
    # As much as 32 bits can address: a host gives less where it limits memory.
    f"--max-memory={2**32}",
    # Rust's standard library was built without atomics, and only one thread uses it.
    "--no-check-features",
    *(f"--export={name}" for name in THREAD_FUNCTIONS),
)


def link_module(
    rust: RustToolchain,
    archive: Path,
    objects: Sequence[str],
    folder: Path,
    exports: Sequence[str],
    *,
    threads: bool,
    fixed_nbytes: int | None = None,
) -> bytes:
    """Link the executor with objects (names in `folder`).

    Args:
        exports: The functions to export.
        threads: Whether the memory is to be shared, and imported from the host.
        fixed_nbytes: How large the memory is from the start, and for ever: whole pages. Without it
            as large as the data, and it grows.

    Raises:
        ToolchainError: the linker cannot be started or fails, or a symbol is not defined.
    """
    flavor = ["-flavor", "wasm"] if "rust-lld" in rust.linker.name else []
    command = [
        str(rust.linker),
        *flavor,
        "--no-entry",
        "--gc-sections",
        "--strip-debug",
        # A kernel that is called with another number of pointers than it takes is only a warning
        # to the linker, which replaces the call by a trap.
        "--fatal-warnings",
        # The stack below the data: an overflow traps instead of spoiling weights.
        "--stack-first",
        *("-z", f"stack-size={STACK_NBYTES}"),
        *(f"--export={name}" for name in exports),
        *(_THREADS if threads else ()),
        *(_fixed(fixed_nbytes) if fixed_nbytes is not None else ()),
        *("-o", _OUTPUT),
        *objects,
        str(archive),
        str(rust.libc),
    ]
    status, said = run_in_group(command, folder, None)
    if status != 0:
        raise _failure(said, status)
    return (folder / _OUTPUT).read_bytes()


def _fixed(nbytes: int) -> tuple[str, str]:
    return f"--initial-memory={nbytes}", f"--max-memory={nbytes}"


def _failure(said: str, status: int) -> ToolchainError:
    missing = sorted(set(re.findall(r"undefined symbol: (\S+)", said)))
    if missing:
        return ToolchainError(
            f"graph.o needs {', '.join(missing)}, which neither it nor the executor defines",
            hint="another wasmgraph made its object code: compile the model again",
        )
    return ToolchainError("\n".join([f"linking failed with exit status {status}:", *shown(said)]))
