"""Compile models with the command line, as a user does, and keep the results between runs.

A kept graph is used again only while the model, its shapes and every source file of the compiler
are the same.
"""

from __future__ import annotations

import functools
import hashlib
import json
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

CHECKOUT = Path(__file__).resolve().parents[1]


class CompileError(Exception):
    """wasmgraph cannot compile the model; the message is its own."""


@dataclass(frozen=True)
class Compiled:
    """A graph and how it came about.

    Attributes:
        file: The `.wasm`.
        seconds: Wall time of the whole command, on all cores, without verification.
        stages: Wall time by stage in seconds.
        sizes: Bytes of "file", "code", "weights", "arena" and "io".
        kept: Whether it was compiled by an earlier run of the benchmark.
    """

    file: Path
    seconds: float
    stages: Mapping[str, float]
    sizes: Mapping[str, int]
    kept: bool


def compile_model(
    onnx_file: Path, shapes: Mapping[str, tuple[int, ...]], cache: Path, *, threads: bool
) -> Compiled:
    """Compile a model, or take the graph of an earlier run.

    Raises:
        CompileError: it cannot be compiled.
    """
    key = _key(onnx_file, shapes, threads)
    file = cache / f"{onnx_file.stem}-{key[:16]}.wasm"
    record = file.with_suffix(".json")
    if file.is_file() and record.is_file():
        return Compiled(file, **json.loads(record.read_text(encoding="utf-8")), kept=True)
    cache.mkdir(parents=True, exist_ok=True)
    for old in cache.glob(f"{onnx_file.stem}-{'[0-9a-f]' * 16}.*"):
        old.unlink()
    seconds, report = _run(onnx_file, shapes, file, threads)
    fields = {"seconds": seconds, "stages": report["seconds"], "sizes": report["sizes"]}
    record.write_text(json.dumps(fields), encoding="utf-8")
    return Compiled(file, **fields, kept=False)


def _run(
    onnx_file: Path, shapes: Mapping[str, tuple[int, ...]], target: Path, threads: bool
) -> tuple[float, dict[str, Any]]:
    command = [sys.executable, "-m", "wasmgraph", "compile", str(onnx_file), "-o", str(target)]
    command += ["--no-verify", "--json"]
    for name, shape in shapes.items():
        command += ["--shape", f"{name}={','.join(map(str, shape))}"]
    if threads:
        command.append("--threads")
    began = time.perf_counter()
    done = subprocess.run(command, cwd=CHECKOUT, capture_output=True, text=True, check=False)
    seconds = time.perf_counter() - began
    try:
        report: dict[str, Any] = json.loads(done.stdout)
    except ValueError:
        lines = done.stderr.strip().splitlines() or [f"exit code {done.returncode}"]
        raise CompileError(lines[-1]) from None
    if "error" in report:
        raise CompileError(report["error"]["message"])
    return seconds, report


def _key(onnx_file: Path, shapes: Mapping[str, tuple[int, ...]], threads: bool) -> str:
    digest = hashlib.sha256(onnx_file.read_bytes())
    digest.update(json.dumps([sorted(shapes.items()), threads, _compiler()]).encode())
    return digest.hexdigest()


@functools.cache
def _compiler() -> str:
    """A digest of the compiler's sources."""
    digest = hashlib.sha256()
    sources = [*CHECKOUT.glob("wasmgraph/**/*.py"), *CHECKOUT.glob("toolchain/**/src/**/*")]
    for source in sorted(path for path in sources if path.is_file()):
        digest.update(str(source.relative_to(CHECKOUT)).encode() + b"\0")
        digest.update(source.read_bytes())
    return digest.hexdigest()
