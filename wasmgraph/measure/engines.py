"""Measure one graph under several engines: latency, load times, and memory where it can be told.

All are loaded before any is timed, and they are timed by turns, so that what else the machine does
meets all of them.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from wasmgraph.errors import WasmgraphError
from wasmgraph.measure.cold import cold_load
from wasmgraph.measure.graph import WARM_UP
from wasmgraph.measure.latency import Latency, time_runs
from wasmgraph.measure.memory import GuestMemory, guest_memory
from wasmgraph.progress import SILENT, Reporter, stage
from wasmgraph.runtime import Graph, load
from wasmgraph.runtime.base import Array, EngineStatus, Limits
from wasmgraph.runtime.graph import read_graph
from wasmgraph.runtime.process_memory import process_memory
from wasmgraph.runtime.registry import DEFAULT, RUNTIMES, examine_engines
from wasmgraph.runtime.request import check_engine
from wasmgraph.runtime.source import Source

TURNS = 3
"""In how many parts each engine's time is cut."""

MakeInputs = Callable[[Graph], Mapping[str, Array]]


@dataclass(frozen=True)
class EngineMeasurement:
    """What was measured of one engine; times in milliseconds, memory in bytes.

    Attributes:
        runtime: Its name.
        version: Its version, or None.
        problem: Why nothing was measured, or None where it was.
        fix: How to get the engine where it is not here, or None.
        failed: Whether the problem is the engine's failure, not its absence or that it lacks what
            the graph takes.
        engine: Runs by the engine's own clock: tensors into the graph's memory, the run, the
            outputs out. Of a command it is the whole process: its start, taking the compiled code,
            and reading and writing files.
        call: Of `Graph.run` in Python, which has the way to the engine and back in it.
        cold_load, warm_load: Compiling the graph with nothing cached, and getting it from the cache
            of an engine that has one; without the start of a process.
        start: Until a graph was ready, its code cached, the start of a process included.
        first_run: The first call.
        memory: What the engine's process had at its peak, or how far this process' memory rose
            until the first run where the engine is in it; None where that cannot be told.
    """

    runtime: str
    version: str | None
    problem: str | None = None
    fix: str | None = None
    failed: bool = False
    engine: Latency | None = None
    call: Latency | None = None
    cold_load: float = 0.0
    warm_load: float = 0.0
    start: float = 0.0
    first_run: float = 0.0
    memory: int | None = None

    def to_json(self) -> dict[str, Any]:
        """For `json.dumps`; the keys say the units. `latency_ms` is of calls, as in
        `Measurement`."""
        about = {"runtime": self.runtime, "version": self.version}
        if self.engine is None or self.call is None:
            return {**about, "problem": self.problem, "fix": self.fix, "failed": self.failed}
        return {
            **about,
            "latency_ms": self.call.to_json(),
            "engine_ms": self.engine.to_json(),
            "load_ms": {"cold": round(self.cold_load, 3), "warm": round(self.warm_load, 3)},
            "start_ms": round(self.start, 3),
            "first_run_ms": round(self.first_run, 3),
            "process_bytes": self.memory,
        }


@dataclass(frozen=True)
class EnginesMeasurement:
    """What was measured of a graph under several engines.

    Attributes:
        graph: The file.
        threads: How many each run used.
        engines: One per runtime asked for.
        guest: The graph's linear memory, which is the same under all of them.
        flops: Floating-point operations of one run, or None where they are not known.
    """

    graph: str
    threads: int
    engines: tuple[EngineMeasurement, ...]
    guest: GuestMemory
    flops: int | None

    def flops_per_second(self, engine: EngineMeasurement) -> float | None:
        """Of an engine's median run, by its own clock."""
        if self.flops is None or engine.engine is None or engine.engine.median == 0:
            return None
        return self.flops / (engine.engine.median / 1e3)

    def to_json(self) -> dict[str, Any]:
        """For `json.dumps`; the keys say the units."""
        return {
            "graph": self.graph,
            "threads": self.threads,
            "memory_bytes": self.guest.to_json(),
            "flops": self.flops,
            "engines": [
                {**engine.to_json(), "flops_per_second": self.flops_per_second(engine)}
                for engine in self.engines
            ],
        }


def measure_engines(
    path: Path,
    make_inputs: MakeInputs,
    runtimes: Sequence[str] | None = None,
    *,
    seconds: float,
    runs: int | None = None,
    threads: int = 1,
    flops: int | None = None,
    reporter: Reporter = SILENT,
) -> EnginesMeasurement:
    """Measure a graph under several engines.

    Args:
        runtimes: Names of engines that must be able to run it; None takes those that are here and
            are, and says of the others why not.
        path, make_inputs, seconds, runs, threads, flops, reporter: As for `measure_graph`, for
            each engine.

    Raises:
        ToolchainError: an engine of `runtimes` is missing.
        LoadError: the file is no graph, or an engine of `runtimes` lacks what it takes.
        InputError, InferenceError, MemoryLimitExceeded: loading or running failed under an engine
            of `runtimes`, or under Wasmtime.
        ValueError: there is no runtime of a name.
    """
    took: dict[str, float] = {}
    names = RUNTIMES if runtimes is None else tuple(dict.fromkeys(runtimes))
    required = {DEFAULT} if runtimes is None else set(names)
    with ExitStack() as stack:
        with stage(reporter, "load", took):
            entries = [
                _Entry(status, path, threads, required=status.name in required)
                for status in examine_engines(names)
            ]
            for entry in entries:
                entry.load(make_inputs, stack)
        with stage(reporter, "measure", took):
            for turn in range(TURNS):
                for entry in entries:
                    entry.take_turn(turn, seconds, runs)
        measured = tuple(entry.result() for entry in entries)
    with load(path) as graph:
        guest = guest_memory(path, make_inputs(graph))
    return EnginesMeasurement(str(path), threads, measured, guest, flops)


class _Entry:
    """An engine that is measured, unless it cannot run the graph or fails, which is then its
    problem, or raised where it is `required`."""

    def __init__(self, status: EngineStatus, path: Path, threads: int, *, required: bool) -> None:
        self._found = EngineMeasurement(status.name, status.version)
        self._path = path
        self._threads = threads
        self._required = required
        self._graph: Graph | None = None
        self._inputs: Mapping[str, Array] = {}
        self._calls: list[float] = []
        self._runs: list[float] = []
        try:
            with Source(path) as source:
                check_engine(status, read_graph(source), Limits(), threads)
        except WasmgraphError as error:
            if required:
                raise
            self._found = replace(self._found, problem=error.message, fix=status.fix)

    def load(self, make_inputs: MakeInputs, stack: ExitStack) -> None:
        """Load the graph cold, then warm, and run it once."""
        if self._found.problem is not None:
            return
        try:
            cold = self._cold_load()
            before = process_memory()
            began = time.perf_counter()
            graph = stack.enter_context(self._load())
            start = 1e3 * (time.perf_counter() - began)
            inputs = make_inputs(graph)
            began = time.perf_counter()
            graph.run(inputs)
            first = 1e3 * (time.perf_counter() - began)
        except WasmgraphError as error:
            self._fail(error)
            return
        memory = None
        if self._found.runtime == DEFAULT and before is not None:
            after = process_memory()
            memory = None if after is None else max(0, after.peak - before.resident)
        self._graph, self._inputs = graph, inputs
        self._found = replace(
            self._found,
            cold_load=cold,
            warm_load=graph.load_ms,
            start=start,
            first_run=first,
            memory=memory,
        )

    def take_turn(self, turn: int, seconds: float, runs: int | None) -> None:
        """Time runs for its part of `seconds`, and of `runs`."""
        graph = self._graph
        if graph is None:
            return
        # The last turns have the runs that do not divide.
        share = None if runs is None else (runs + turn) // TURNS
        if share == 0:
            return
        inputs, clock = self._inputs, list[float]()

        def run() -> None:
            graph.run(inputs)
            clock.append(graph.run_ms)

        part = seconds / TURNS
        try:
            calls = time_runs(run, seconds=part, runs=share, warm_up=min(WARM_UP, part))
        except WasmgraphError as error:
            self._fail(error)
            return
        self._calls += calls
        self._runs += clock[-len(calls) :]

    def result(self) -> EngineMeasurement:
        """What was measured; the engine must still be open."""
        if self._graph is None:
            return self._found
        memory = self._found.memory
        return replace(
            self._found,
            engine=Latency.of(self._runs),
            call=Latency.of(self._calls),
            memory=self._graph.process_peak if memory is None else memory,
        )

    def _cold_load(self) -> float:
        """Milliseconds of compiling; whatever cache the engine has is filled then."""
        if self._found.runtime == DEFAULT:
            return cold_load(self._path)  # in another process: its memory is not the graph's
        with self._load(cache=False) as graph:
            cold = graph.load_ms
        self._load().close()
        return cold

    def _load(self, *, cache: bool = True) -> Graph:
        return load(self._path, cache=cache, threads=self._threads, runtime=self._found.runtime)

    def _fail(self, error: WasmgraphError) -> None:
        if self._required:
            raise error
        self._graph = None
        problem = f"{error.kind}: {error.message}"
        self._found = replace(self._found, problem=problem, failed=True)
