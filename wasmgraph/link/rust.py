"""Finds a cargo and a rustc that can build for WASI, and the linker they will use.

Only looks; `toolchain/setup-rust.sh` installs, and looks in the same places in the same order.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from wasmgraph.errors import ToolchainError

WASI_TARGETS = ("wasm32-wasip1", "wasm32-wasi")
"""The names of WASI preview 1: Rust 1.78 brought the first, 1.84 dropped the second."""

DEBIAN_FOLDER = Path("/usr/bin")
"""Where Debian's rustc lives, which a rustup on PATH hides."""

DEBIAN_PACKAGES = "rustc cargo libstd-rust-dev-wasm32 lld"
_MINIMUM = (1, 63)
_ANSWER_SECONDS = 30.0


@dataclass(frozen=True)
class RustToolchain:
    """A Rust that can build a graph.

    Attributes:
        cargo, rustc: The programs.
        version: rustc's version, e.g. "1.95.0".
        target: rustc's name for WASI preview 1.
        linker: The linker's program.
        libc: The archive of WASI's C library.
    """

    cargo: Path
    rustc: Path
    version: str
    target: str
    linker: Path
    libc: Path


@dataclass(frozen=True)
class _Candidate:
    """A pair of programs that may do, and what to tell somebody when they do not."""

    cargo: str
    rustc: str
    given: bool


def find_rust() -> RustToolchain:
    """The first usable of: $WASMGRAPH_RUSTC and $WASMGRAPH_CARGO, those on PATH, Debian's own.

    Raises:
        ToolchainError: none is usable; the message says why each is not, the hint what to install.
    """
    reasons = []
    for candidate in _candidates():
        try:
            return _examine(candidate)
        except ToolchainError as error:
            reasons.append(error.message)
    raise ToolchainError(
        "\n".join(["there is no Rust that can build for WASI:", *(f"  - {r}" for r in reasons)]),
        hint=f"run {install_command()}",
    )


def install_command() -> str:
    """The command that gives this machine a Rust with a WASI target."""
    if shutil.which("rustup"):
        rustc = shutil.which("rustc")
        version = _rustc_version(rustc) if rustc else None
        old = version is not None and _numbers(version) < (1, 78)
        return f"rustup target add {WASI_TARGETS[1] if old else WASI_TARGETS[0]}"
    if shutil.which("apt-get"):
        sudo = "" if os.geteuid() == 0 else "sudo "
        return f"{sudo}apt-get install -y {DEBIAN_PACKAGES}"
    return "rustup target add wasm32-wasip1 (after installing rustup from https://rustup.rs)"


def _candidates() -> Iterator[_Candidate]:
    rustc, cargo = os.environ.get("WASMGRAPH_RUSTC"), os.environ.get("WASMGRAPH_CARGO")
    if rustc or cargo:
        yield _Candidate(cargo or "cargo", rustc or "rustc", given=True)
        return
    yield _Candidate("cargo", "rustc", given=False)
    debian = _Candidate(str(DEBIAN_FOLDER / "cargo"), str(DEBIAN_FOLDER / "rustc"), given=False)
    if shutil.which(debian.rustc) and shutil.which("rustc") != debian.rustc:
        yield debian


def _examine(candidate: _Candidate) -> RustToolchain:
    rustc, cargo = _program(candidate.rustc), _program(candidate.cargo)
    version = _rustc_version(str(rustc))
    if version is None:
        raise ToolchainError(f"{rustc} does not answer --version")
    if _numbers(version) < _MINIMUM:
        raise ToolchainError(f"{rustc} is Rust {version}; 1.63 or later is needed")
    sysroot = Path(_ask(str(rustc), "--print", "sysroot") or "")
    libraries = sysroot / "lib" / "rustlib"
    target = next((name for name in WASI_TARGETS if (libraries / name / "lib").is_dir()), None)
    if target is None:
        raise ToolchainError(f"{rustc} (Rust {version}) lacks the target {WASI_TARGETS[0]}")
    linker = _linker(libraries)
    if linker is None:
        raise ToolchainError(f"{rustc} (Rust {version}) has neither rust-lld nor wasm-ld to link")
    libc = libraries / target / "lib" / "self-contained" / "libc.a"
    if not libc.is_file():
        raise ToolchainError(f"{rustc} (Rust {version}) lacks WASI's C library, {libc}")
    if not candidate.given and (sysroot / "bin" / "cargo").exists():
        # Past rustup's stand-ins, which choose a toolchain anew in each folder.
        rustc, cargo = sysroot / "bin" / "rustc", sysroot / "bin" / "cargo"
    return RustToolchain(cargo, rustc, version, target, linker, libc)


def _program(name: str) -> Path:
    found = shutil.which(name)
    if found is None:
        raise ToolchainError(f"{name} is not there" if "/" in name else f"{name} is not on PATH")
    return Path(found)


def _linker(libraries: Path) -> Path | None:
    own = sorted(libraries.glob("*/bin/rust-lld"))
    if own:
        return own[0]
    found = shutil.which("rust-lld") or shutil.which("wasm-ld")
    return Path(found) if found else None


def _rustc_version(rustc: str) -> str | None:
    """E.g. "1.95.0" or "1.97.0-nightly"; None where it does not answer."""
    answer = re.match(r"rustc (\d+\.\d+\S*)", _ask(rustc, "--version") or "")
    return answer[1] if answer else None


def _numbers(version: str) -> tuple[int, int]:
    major, minor = version.split(".")[:2]
    return int(major), int(re.match(r"\d+", minor)[0])  # type: ignore[index]


def _ask(program: str, *arguments: str) -> str | None:
    """A program's answer on stdout, or None where it cannot be run, fails or takes too long."""
    try:
        answer = subprocess.run(
            [program, *arguments],
            capture_output=True,
            text=True,
            timeout=_ANSWER_SECONDS,
            check=True,
        )
    except (OSError, ValueError, subprocess.SubprocessError):
        return None
    return answer.stdout.strip()
