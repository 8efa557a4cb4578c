"""Runs cargo on a copy of the executor crate, cut off from the user's own settings."""

from __future__ import annotations

import os
from pathlib import Path

from wasmgraph.errors import ToolchainError
from wasmgraph.link.processes import run_in_group, shown
from wasmgraph.link.rust import RustToolchain

_ARCHIVE = "libwasmgraph_executor.a"


def build_archive(
    rust: RustToolchain,
    crate: Path,
    *,
    threads: bool,
    dynamic: bool,
    simd: bool,
    component: bool,
) -> Path:
    """Build the crate as a static library.

    Args:
        threads: Whether its code is for shared memory and several threads.
        dynamic: Whether it has the operators of dynamic graphs. They compute, so they are optimised
            for speed.
        simd: Whether its code may use 128-bit vectors.
        component: Whether it has the functions of a component.

    Everything happens inside the crate's folder and all paths given to rustc are relative to it, so
    the same sources give the same code wherever the folder is.

    Raises:
        ToolchainError: cargo cannot be started or fails; the message has the end of what it said.
    """
    command = [
        str(rust.cargo),
        *("build", "--release", "--offline", "--locked", "--quiet", "--color=never"),
        f"--target={rust.target}",
        "--target-dir=target",
        *(["--features=threads"] if threads else []),
        *(["--features=dynamic"] if dynamic else []),
        *(["--features=component"] if component else []),
    ]
    environment = _environment(rust, crate)
    if dynamic:
        environment["CARGO_PROFILE_RELEASE_OPT_LEVEL"] = "3"
        # Two thirds of the time, on two cores.
        environment["CARGO_PROFILE_RELEASE_LTO"] = "off"
        environment["CARGO_PROFILE_RELEASE_CODEGEN_UNITS"] = "16"
    if simd:
        environment["RUSTFLAGS"] = "-Ctarget-feature=+simd128"
    if threads:
        environment["RUSTFLAGS"] = "-Ctarget-feature=+atomics,+bulk-memory"
        # The standard library was compiled for one thread. Optimised together with the crate it
        # would get its features, and the linker would look for thread-local storage.
        environment["CARGO_PROFILE_RELEASE_LTO"] = "off"
    status, said = run_in_group(command, crate, environment)
    if status != 0:
        lines = [f"cargo failed with exit status {status}:", *shown(said)]
        raise ToolchainError("\n".join(lines))
    return crate / "target" / rust.target / "release" / _ARCHIVE


def _environment(rust: RustToolchain, crate: Path) -> dict[str, str]:
    """The caller's environment without what would change the build, such as RUSTFLAGS."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("CARGO", "RUST")) or name in ("RUSTUP_HOME", "RUSTUP_TOOLCHAIN")
    }
    return {
        **kept,
        "RUSTC": str(rust.rustc),
        # An empty home has no config.toml; without dependencies cargo needs nothing else from it.
        "CARGO_HOME": str(crate / "cargo-home"),
    }
