"""The systems that are compared, each as a command that starts its worker."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

from benchmarks.node import Node
from wasmgraph.runtime.wasmtime_engine import WasmtimeEngine

SystemName = Literal["wasmgraph", "wasmgraph-node", "ort-web", "native"]
LABELS: dict[SystemName, str] = {
    "wasmgraph": "wasmgraph, Wasmtime",
    "wasmgraph-node": "wasmgraph, Node",
    "ort-web": "onnxruntime-web",
    "native": "onnxruntime",
}
THREADS = (1, 2)
NOT_YET = "not supported yet"
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
        unthreaded = NOT_YET if threads > 1 and not threads_supported() else None
        # The host of benchmarks/node/graph_host.mjs has no shared memory and no workers.
        one_thread_host = NOT_YET if threads > 1 else None
        onnxruntime = None if find_spec("onnxruntime") else "pip install onnxruntime"
        missing: dict[SystemName, str | None] = {
            "wasmgraph": unthreaded,
            "wasmgraph-node": node.missing or one_thread_host,
            "ort-web": node.ort_web_missing,
            "native": onnxruntime,
        }
        systems += [
            System(name, threads, _command(name, node), scarce or reason)
            for name, reason in missing.items()
        ]
    return systems


def threads_supported() -> bool:
    """Whether this wasmgraph compiles and runs graphs with threads."""
    return WasmtimeEngine.capabilities.threads


def _command(name: SystemName, node: Node) -> tuple[str, ...]:
    scripts = {"wasmgraph-node": "graph_worker.mjs", "ort-web": "ort_web_worker.mjs"}
    if name in scripts:
        return (node.path or "node", str(_SCRIPTS / scripts[name]))
    modules = {"wasmgraph": "graph", "native": "native"}
    return python_worker(modules[name])


def python_worker(module: str) -> tuple[str, ...]:
    """The command of a worker of `benchmarks.workers`."""
    return (sys.executable, "-m", f"benchmarks.workers.{module}")
