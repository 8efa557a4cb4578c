"""Where and with what a benchmark ran."""

from __future__ import annotations

import os
import platform
import subprocess
from datetime import datetime, timezone
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from benchmarks.compiling import CHECKOUT
from benchmarks.node import Node
from wasmgraph import __version__

PACKAGES = ("wasmtime", "onnxruntime", "onnx", "apache-tvm", "numpy")


def describe(node: Node) -> dict[str, Any]:
    """Date, machine and versions, for the JSON and the first lines of the report."""
    return {
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "cpu": cpu_model(),
        "cores": len(os.sched_getaffinity(0)),
        "system": platform.platform(),
        "load_average": os.getloadavg(),
        "versions": {
            "wasmgraph": __version__,
            "commit": _commit(),
            "python": platform.python_version(),
            "node": node.version,
            "onnxruntime-web": node.ort_web,
            **{name: _version(name) for name in PACKAGES},
        },
    }


def cpu_model() -> str:
    """The CPU as the system names it: what it says, family, model, clock."""
    names = ("model name", "cpu family", "model", "cpu MHz")
    found: dict[str, str] = {}
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            name, _, value = line.partition(":")
            if name.strip() in names:
                found.setdefault(name.strip(), value.strip())
    except OSError:
        return platform.processor() or platform.machine()
    if "model name" not in found:
        return platform.machine()
    details = ", ".join(f"{name} {found[name]}" for name in names[1:] if name in found)
    return f"{found['model name']} ({details})" if details else found["model name"]


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _commit() -> str | None:
    """The checkout's commit, with a + where files differ from it."""
    try:
        done = subprocess.run(
            ["git", "describe", "--always", "--dirty=+", "--exclude=*"],
            cwd=CHECKOUT,
            capture_output=True,
            text=True,
            check=False,
        )
    except OSError:
        return None
    return done.stdout.strip() or None
