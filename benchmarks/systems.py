"""The systems that are compared, each as a command that starts its worker."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

from benchmarks.node import Node

SystemName = Literal["wasmgraph", "wasmgraph-node", "ort-web", "native"]
LABELS: dict[SystemName, str] = {
    "wasmgraph": "wasmgraph, Wasmtime",
    "wasmgraph-node": "wasmgraph, Node",
    "ort-web": "onnxruntime-web",
    "native": "onnxruntime",
}
THREADS = (1, 2)
_SCRIPTS = Path(__file__).resolve().parent / "node"


@dataclass(frozen=True)
class System:
    """A system with a number of threads.

    Attributes:
        name: Which.
        threads: On how many threads it runs, and on as many cores.
        command: Starts its worker.
        missing: Why it cannot be measured here, or None.
    """

    name: SystemName
    threads: int
    command: tuple[str, ...]
    missing: str | None

    @property
    def key(self) -> str:
        """Its name in results, such as "ort-web-2"."""
        return f"{self.name}-{self.threads}"

    @property
    def runs_wasm(self) -> bool:
        """Whether it reads the graph rather than the ONNX model."""
        return self.name in ("wasmgraph", "wasmgraph-node")


def all_systems(node: Node) -> list[System]:
    """Every system with every number of threads, in the order in which they take turns."""
    cores = len(os.sched_getaffinity(0))
    systems = []
    for threads in THREADS:
        scarce = f"this machine has {cores} core" if cores < threads else None
        onnxruntime = None if find_spec("onnxruntime") else "pip install onnxruntime"
        missing: dict[SystemName, str | None] = {
            "wasmgraph": None,
            "wasmgraph-node": node.missing,
            "ort-web": node.ort_web_missing,
            "native": onnxruntime,
        }
        systems += [
            System(name, threads, _command(name, node), scarce or reason)
            for name, reason in missing.items()
        ]
    return systems


def _command(name: SystemName, node: Node) -> tuple[str, ...]:
    scripts = {"wasmgraph-node": "graph_worker.mjs", "ort-web": "ort_web_worker.mjs"}
    if name in scripts:
        return (node.path or "node", str(_SCRIPTS / scripts[name]))
    modules = {"wasmgraph": "graph", "native": "native"}
    return python_worker(modules[name])


def python_worker(module: str) -> tuple[str, ...]:
    """The command of a worker of `benchmarks.workers`."""
    return (sys.executable, "-m", f"benchmarks.workers.{module}")
