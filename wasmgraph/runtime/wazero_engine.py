"""The wazero adapter: graphs run in Go, in processes of `toolchain/go/cmd/wasmgraph-host`.

The host is built from its sources the first time, into the user's cache: that takes Go and, once,
the module proxy from which it gets wazero.
"""

from __future__ import annotations

import hashlib
import os
import re
import subprocess
import tempfile
from pathlib import Path

from wasmgraph.cache_folder import cache_folder
from wasmgraph.errors import ToolchainError
from wasmgraph.runtime.base import Capabilities, EngineStatus
from wasmgraph.runtime.host_process import HostProcess
from wasmgraph.runtime.hosted_engine import HostedEngine, examine_hosted
from wasmgraph.runtime.programs import find_program, host_sources

COMMAND = "./cmd/wasmgraph-host"
PROGRAM = "wasmgraph-host"
MODULE = "github.com/tetratelabs/wazero"
FIX = "install Go 1.25 or newer: apt-get install golang, or go.dev/dl"
CAPABILITIES = Capabilities(
    simd=True, relaxed_simd=False, threads=False, memory_limit=True, time_limit=True
)
"""What a host that is not built yet will say."""

_BUILD_SECONDS = 1800


def find_engine(name: str) -> HostedEngine:
    """wazero, by its first host, which is built if need be; see `wasmgraph.runtime.registry`.

    Raises:
        ToolchainError: there is no Go, or it cannot build the host.
    """
    go = _go(name)
    sources = host_sources("go", "go.mod")
    built = _place(go, sources)
    if not built.is_file():
        _build(go, sources, built)
    return HostedEngine(name, lambda: HostProcess(name, [built]))


def examine(name: str) -> EngineStatus:
    """What this machine has of it, without building; see `wasmgraph.runtime.registry`."""
    try:
        go = _go(name)
        sources = host_sources("go", "go.mod")
        built = _place(go, sources)
    except ToolchainError as error:
        return EngineStatus(name, False, None, error.message, error.hint or FIX, None)
    if not built.is_file():
        detail = f"built with {go} at its first use"
        return EngineStatus(name, True, _wanted_version(sources), detail, None, CAPABILITIES)
    return examine_hosted(name, lambda: find_engine(name), lambda: str(built), FIX)


def _go(name: str) -> Path:
    return find_program(name, "WASMGRAPH_GO", ("go",), FIX)


def _place(go: Path, sources: Path) -> Path:
    """Where the host is, or will be, that this Go makes of these sources."""
    digest = hashlib.sha256(_go_version(go).encode())
    for path in sorted((*sources.glob("go.*"), *sources.rglob("*.go"))):
        digest.update(f"\n{path.relative_to(sources).as_posix()}\n".encode())
        digest.update(path.read_bytes())
    folder = cache_folder()
    if folder is None:
        raise ToolchainError(
            "there is no home folder in which wazero's host can be built",
            hint="export XDG_CACHE_HOME=/a/folder/you/can/write",
        )
    return folder / "hosts" / f"wazero-{digest.hexdigest()[:16]}" / PROGRAM


def _go_version(go: Path) -> str:
    try:
        done = subprocess.run(
            [go, "version"], capture_output=True, text=True, timeout=60, check=True
        )
    except (OSError, subprocess.SubprocessError) as error:
        raise ToolchainError(f"{go} does not run: {error}", hint=FIX) from error
    return done.stdout


def _wanted_version(sources: Path) -> str | None:
    """wazero's version as the sources ask for it."""
    match = re.search(rf"{re.escape(MODULE)} (v\S+)", (sources / "go.mod").read_text())
    return match[1] if match else None


def _build(go: Path, sources: Path, built: Path) -> None:
    built.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=built.parent) as folder:
        fresh = Path(folder) / PROGRAM
        command = [str(go), "build", "-trimpath", "-buildvcs=false", "-o", str(fresh), COMMAND]
        try:
            done = subprocess.run(
                command,
                cwd=sources,
                env={**os.environ, "GOFLAGS": "-mod=readonly", "CGO_ENABLED": "0"},
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                errors="replace",
                timeout=_BUILD_SECONDS,
                check=False,
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            raise ToolchainError(f"wazero's host cannot be built: {error}") from error
        if done.returncode:
            raise ToolchainError(
                f"wazero's host cannot be built:\n{done.stderr.strip()[-4000:]}",
                hint="building it the first time takes Go 1.25 or newer and its module proxy",
            )
        fresh.replace(built)  # whole or not at all, whoever else builds it now
