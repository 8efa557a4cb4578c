"""Run one graph on the same inputs under every engine there is, and compare what comes out.

With onnxruntime it is to agree, and with Wasmtime to be equal bit by bit: WebAssembly leaves no
room for another rounding, relaxed SIMD and the bits of a NaN excepted.
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from wasmgraph.errors import VerificationError, WasmgraphError
from wasmgraph.runtime import Graph, load
from wasmgraph.runtime.base import Array, EngineStatus, Limits
from wasmgraph.runtime.graph import read_graph
from wasmgraph.runtime.limits import parse_duration
from wasmgraph.runtime.registry import DEFAULT, RUNTIMES, examine_engines
from wasmgraph.runtime.request import check_engine
from wasmgraph.runtime.source import Source
from wasmgraph.tensors.random import UNIT_RANGE
from wasmgraph.verification import (
    ATOL,
    RTOL,
    Operands,
    OutputAgreement,
    make_operands,
    ulp_distance,
)

if TYPE_CHECKING:
    from onnx import ModelProto

RUN_SECONDS = 3.0
"""For how long each engine repeats runs; V8 needs some before its code is the best it makes."""

LEAST_RUNS = 3
MOST_RUNS = 100


@dataclass(frozen=True)
class EngineRun:
    """What one engine made of the graph.

    Attributes:
        runtime: Its name.
        version: Its version, or None.
        problem: Why there are no outputs, or None where there are.
        fix: How to get the engine where it is not here, or None.
        failed: Whether the problem is the engine's failure, not its absence or that it lacks what
            the graph takes.
        outputs: How each compares with onnxruntime's.
        differing: Names of the outputs that are not equal bit by bit to Wasmtime's.
        max_ulp: Largest distance between an element and Wasmtime's, in representable values.
        load_ms: Milliseconds the engine took to compile the graph, or to get it from its cache.
        start_ms: Milliseconds until the graph was ready, the start of a process included.
        run_ms: Milliseconds of the fastest run, as the engine's host has it.
        runs: How many there were.
    """

    runtime: str
    version: str | None
    problem: str | None = None
    fix: str | None = None
    failed: bool = False
    outputs: tuple[OutputAgreement, ...] = ()
    differing: tuple[str, ...] = ()
    max_ulp: int = 0
    load_ms: float = 0.0
    start_ms: float = 0.0
    run_ms: float = 0.0
    runs: int = 0

    @property
    def ran(self) -> bool:
        """Whether there are outputs."""
        return self.problem is None

    @property
    def agrees(self) -> bool:
        """Whether every output agrees with onnxruntime's."""
        return self.ran and all(output.agrees for output in self.outputs)

    def to_json(self) -> dict[str, Any]:
        """For `json.dumps`."""
        return {
            **asdict(self),
            "ran": self.ran,
            "agrees": self.agrees,
            "identical": self.ran and not self.differing,
            "outputs": [output.to_json() for output in self.outputs],
        }


@dataclass(frozen=True)
class EnginesReport:
    """How a graph does under several engines.

    Attributes:
        graph, model: Which were compared.
        exact: Whether all engines must give the same bits: the graph has no relaxed SIMD.
        rtol, atol, seed: As in `VerifyReport`.
        engines: One per runtime asked for, Wasmtime first.
    """

    graph: str
    model: str
    exact: bool
    rtol: float
    atol: float
    seed: int | None
    engines: tuple[EngineRun, ...]

    @property
    def agrees(self) -> bool:
        """Whether every engine that can run the graph did, agrees with onnxruntime and, where
        results must be exact, with Wasmtime."""
        return not self._problems()

    def to_json(self) -> dict[str, Any]:
        """For `json.dumps`."""
        return {
            "agrees": self.agrees,
            "graph": self.graph,
            "model": self.model,
            "exact": self.exact,
            "rtol": self.rtol,
            "atol": self.atol,
            "seed": self.seed,
            "engines": [engine.to_json() for engine in self.engines],
        }

    def raise_if_disagree(self) -> None:
        """Raise VerificationError naming every engine that failed or disagrees, and how."""
        problems = self._problems()
        if problems:
            raise VerificationError(
                f"{self.graph} does not do the same everywhere as {self.model}\n"
                + "\n".join(problems)
            )

    def _problems(self) -> list[str]:
        problems = []
        for engine in self.engines:
            if engine.failed:
                problems.append(f"{engine.runtime} failed: {engine.problem}")
            problems += [
                f"{engine.runtime}: {output}" for output in engine.outputs if not output.agrees
            ]
            if self.exact and engine.differing:
                names = ", ".join(map(repr, engine.differing))
                problems.append(
                    f"{engine.runtime} differs from {DEFAULT} in {names} by up to "
                    f"{engine.max_ulp} ULP, where no bit may differ"
                )
        return problems


def verify_engines(
    graph: str | os.PathLike[str],
    model: ModelProto | str | os.PathLike[str],
    inputs: Mapping[str, object] | None = None,
    *,
    runtimes: Sequence[str] | None = None,
    seed: int = 0,
    input_range: tuple[float, float] = UNIT_RANGE,
    rtol: float = RTOL,
    atol: float = ATOL,
    timeout: float | str | None = None,
    threads: int = 1,
    shapes: Mapping[str, Sequence[int]] | None = None,
    seconds: float = RUN_SECONDS,
) -> EnginesReport:
    """Run a graph on the same inputs under several engines and compare with onnxruntime, and each
    with Wasmtime.

    Args:
        graph: A `.wasm` file.
        runtimes: Names of engines that must be able to run it; None takes those that are here and
            are, and says of the others why not.
        model, inputs, seed, input_range, rtol, atol, timeout, threads, shapes: As for `verify`.
        seconds: For how long each engine repeats the run.

    Raises:
        ToolchainError: onnxruntime or an engine of `runtimes` is missing.
        ModelError: onnxruntime cannot load or run the model.
        LoadError: the file is no graph, or an engine of `runtimes` lacks what it takes.
        InputError, InferenceError, RunTimeout: from running it under Wasmtime. What goes wrong
            under another engine is in the report.
        ValueError: there is no runtime of a name.
    """
    limits = Limits(None, None if timeout is None else parse_duration(timeout))
    names = RUNTIMES if runtimes is None else tuple(dict.fromkeys((DEFAULT, *runtimes)))
    statuses = {status.name: status for status in examine_engines(names)}
    with load(graph, timeout=limits.seconds, threads=threads) as reference:
        operands = make_operands(
            reference, model, inputs, seed=seed, input_range=input_range, shapes=shapes
        )
        wanted = reference.run(operands.feeds) if operands.found is None else operands.found
        exact = reference.metadata.simd != "relaxed"
    able = [
        _able(status, Path(graph), limits, threads, required=runtimes is not None)
        for status in statuses.values()
    ]
    with ExitStack() as stack:
        contestants = [
            _Contestant(entry, Path(graph), limits, threads, stack) for entry in able if entry.ran
        ]
        for contestant in contestants:
            contestant.compare(operands, wanted, rtol=rtol, atol=atol)
        _time_runs(contestants, operands, seconds)
    done = {contestant.entry.runtime: contestant.timed() for contestant in contestants}
    engines = tuple(done.get(entry.runtime, entry) for entry in able)
    drawn = seed if inputs is None else None
    return EnginesReport(str(graph), operands.model, exact, rtol, atol, drawn, engines)


def _able(
    status: EngineStatus, path: Path, limits: Limits, threads: int, *, required: bool
) -> EngineRun:
    """Whether an engine can run the graph, before any does; its problem is why not.

    Raises:
        ToolchainError, LoadError: it cannot, and is `required`.
    """
    entry = EngineRun(status.name, status.version)
    try:
        with Source(path) as source:
            check_engine(status, read_graph(source), limits, threads)
    except WasmgraphError as error:
        if required:
            raise
        return replace(entry, problem=error.message, fix=status.fix)
    return entry


class _Contestant:
    """An engine with the graph loaded, unless that fails, which its entry then says."""

    def __init__(
        self, entry: EngineRun, path: Path, limits: Limits, threads: int, stack: ExitStack
    ) -> None:
        self.entry = entry
        self.graph: Graph | None = None
        self.times: list[float] = []
        began = time.perf_counter()
        try:
            graph = load(path, timeout=limits.seconds, threads=threads, runtime=entry.runtime)
        except WasmgraphError as error:
            self._fail(error)
            return
        start_ms = 1e3 * (time.perf_counter() - began)
        self.graph = stack.enter_context(graph)
        self.entry = replace(entry, load_ms=graph.load_ms, start_ms=start_ms)

    def run(self, operands: Operands) -> dict[str, Array]:
        """The outputs; {} where the engine fails, now or before."""
        if self.graph is None:
            return {}
        try:
            found = self.graph.run(operands.feeds)
        except WasmgraphError as error:
            self._fail(error)
            return {}
        self.times.append(self.graph.run_ms)
        return found

    def compare(
        self, operands: Operands, wanted: Mapping[str, Array], *, rtol: float, atol: float
    ) -> None:
        """Run once and compare with onnxruntime and Wasmtime."""
        found = self.run(operands)
        if not found:
            return
        distances = {name: bit_distance(found[name], wanted[name]) for name in wanted}
        self.entry = replace(
            self.entry,
            outputs=operands.compare(found, rtol=rtol, atol=atol),
            differing=tuple(name for name, distance in distances.items() if distance is not None),
            max_ulp=max((distance or 0 for distance in distances.values()), default=0),
        )

    def timed(self) -> EngineRun:
        """The entry with what its runs took."""
        return replace(self.entry, run_ms=min(self.times, default=0.0), runs=len(self.times))

    def _fail(self, error: WasmgraphError) -> None:
        self.graph = None
        self.entry = replace(self.entry, problem=f"{error.kind}: {error.message}", failed=True)


def _time_runs(contestants: Sequence[_Contestant], operands: Operands, seconds: float) -> None:
    """Let the engines run by turns, so that what else the machine does meets all of them."""
    ends = time.perf_counter() + seconds * len(contestants)
    rounds = 1  # the run that was compared
    while rounds < LEAST_RUNS or (rounds < MOST_RUNS and time.perf_counter() < ends):
        for contestant in contestants:
            contestant.run(operands)
        rounds += 1


def bit_distance(found: Array, wanted: Array) -> int | None:
    """None where two arrays are equal bit by bit, else how far apart in representable values.

    NaNs count as equal whatever their bits: which of them an operation gives, WebAssembly leaves
    to the engine.
    """
    if (found.dtype, found.shape) != (wanted.dtype, wanted.shape):
        return 2**63 - 1
    bits = [np.ascontiguousarray(array).reshape(-1).view(np.uint8) for array in (found, wanted)]
    if np.array_equal(bits[0], bits[1]):
        return None
    itemsize = found.dtype.itemsize
    rows = [array.reshape(-1, itemsize) for array in bits]
    differs = np.any(rows[0] != rows[1], axis=1)
    a, b = found.reshape(-1)[differs], wanted.reshape(-1)[differs]
    if found.dtype.kind not in "biu":
        numbers = ~(np.isnan(a) & np.isnan(b))
        a, b = a[numbers], b[numbers]
    if a.size == 0:
        return None
    if found.dtype.kind not in "biuf":  # ml_dtypes' have no order of bits that numpy knows
        return 1
    return max(1, int(ulp_distance(a, b).max()))  # zeros of either sign are no ULP apart
