"""Measure one graph under Wasmtime: load times, the first inference, latency and memory."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from wasmgraph.measure.cold import cold_load
from wasmgraph.measure.latency import Latency, time_runs
from wasmgraph.measure.limit import measure_limit
from wasmgraph.measure.memory import GuestMemory, guest_memory
from wasmgraph.progress import SILENT, Reporter, stage
from wasmgraph.runtime import Graph, load
from wasmgraph.runtime.base import Array
from wasmgraph.runtime.process_memory import process_memory

WARM_UP = 0.3
"""Seconds. The native code is final from the start; caches and the CPU's clock are not."""

LIMIT_SECONDS = 0.4


@dataclass(frozen=True)
class Measurement:
    """What was measured of a graph; times in milliseconds, memory in bytes.

    Attributes:
        graph: The file.
        threads: How many each run used.
        latency: Of `Graph.run`, which includes checking and copying the tensors.
        cold_load: Loading with nothing cached, native code generation included.
        warm_load: Loading with the native code in the cache.
        first_run: The first inference of the graph just loaded.
        guest: Its linear memory.
        process_growth: How far this process' resident memory rose over where it was before
            loading, at its peak; None where the system does not tell.
        flops: Floating-point operations of one run, or None where they are not known.
        limit: FLOP/s of one thread under this engine, or None where `flops` is.
    """

    graph: str
    threads: int
    latency: Latency
    cold_load: float
    warm_load: float
    first_run: float
    guest: GuestMemory
    process_growth: int | None
    flops: int | None
    limit: float | None

    @property
    def flops_per_second(self) -> float | None:
        """Of the median run."""
        return None if self.flops is None else self.flops / (self.latency.median / 1e3)

    @property
    def share_of_limit(self) -> float | None:
        """Of the median run, 1 being the limit."""
        rate = self.flops_per_second
        return None if rate is None or self.limit is None else rate / self.limit

    def to_json(self) -> dict[str, Any]:
        """For `json.dumps`; the keys say the units."""
        return {
            "graph": self.graph,
            "threads": self.threads,
            "latency_ms": self.latency.to_json(),
            "load_ms": {"cold": round(self.cold_load, 3), "warm": round(self.warm_load, 3)},
            "first_run_ms": round(self.first_run, 3),
            "memory_bytes": {**self.guest.to_json(), "process_growth": self.process_growth},
            "flops": self.flops,
            "flops_per_second": self.flops_per_second,
            "limit_flops_per_second": self.limit,
            "share_of_limit": self.share_of_limit,
        }


def measure_graph(
    path: Path,
    make_inputs: Callable[[Graph], Mapping[str, Array]],
    *,
    seconds: float,
    runs: int | None = None,
    threads: int = 1,
    flops: int | None = None,
    reporter: Reporter = SILENT,
) -> Measurement:
    """Measure a graph in this process.

    Args:
        path: The `.wasm`.
        make_inputs: Gives the inputs for the loaded graph.
        seconds: How long to time runs, after a warm-up.
        runs: How many to time at most.
        threads: How many each run uses.
        flops: Of one run, where that is known; then the engine's limit is measured too.
        reporter: Told about stages.

    Raises:
        LoadError, InputError, InferenceError, MemoryLimitExceeded: loading or running failed.
    """
    took: dict[str, float] = {}
    with stage(reporter, "load", took):
        cold = cold_load(path)
        load(path, threads=threads).close()  # the first one imports the engine
        before = process_memory()
        began = time.perf_counter()
        graph = load(path, threads=threads)
        warm = 1e3 * (time.perf_counter() - began)
    with graph:
        inputs = make_inputs(graph)
        began = time.perf_counter()
        graph.run(inputs)
        first = 1e3 * (time.perf_counter() - began)
        with stage(reporter, "measure", took):
            times = time_runs(
                lambda: graph.run(inputs), seconds=seconds, runs=runs, warm_up=min(WARM_UP, seconds)
            )
        after = process_memory()
    return Measurement(
        graph=str(path),
        threads=threads,
        latency=Latency.of(times),
        cold_load=cold,
        warm_load=warm,
        first_run=first,
        guest=guest_memory(path, inputs),
        process_growth=after.peak - before.resident if before and after else None,
        flops=flops,
        limit=None if flops is None else measure_limit(LIMIT_SECONDS),
    )
