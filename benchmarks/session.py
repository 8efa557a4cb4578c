"""Measure one model with every system: in one go, taking turns, after checking that they agree."""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path

import onnx

from benchmarks.compiling import CHECKOUT, Compiled, CompileError, compile_model
from benchmarks.models import Model, ModelsError, make_inputs, prepare
from benchmarks.node import Node
from benchmarks.results import ModelResult, Shipped, SystemResult, ratio
from benchmarks.shipping import HOST_FILES, ORT_WEB_FILES, shipped
from benchmarks.systems import THREADS, System, python_worker
from benchmarks.tensorfiles import Array, read_tensors, write_tensors
from benchmarks.worker import Worker, WorkerError
from wasmgraph.errors import WasmgraphError
from wasmgraph.measure.flops import count_flops
from wasmgraph.measure.latency import Latency
from wasmgraph.progress import SILENT, Reporter
from wasmgraph.verification import ATOL, RTOL, compare

REFERENCE = "native-1"
SETTLE = 0.1
"""Of a slice: untimed runs at its start, which bring caches and branch predictors back."""

LIMIT_SECONDS = 0.15
"""Of each slice, for the multiply-add loop."""

GAIN_SECONDS = 0.3
"""Of each slice, for the same loop on two threads and on one."""

SEVERAL = max(THREADS)

LOAD_TIMEOUT = 300.0
RUN_TIMEOUT = 120.0
SEALED_AFTER = 2.2
"""Seconds. A younger file's digest is not kept by the cache, and a load would hash it again."""


@dataclass(frozen=True)
class Options:
    """How to measure.

    Attributes:
        cache: The folder for compiled graphs and whatever else is kept.
        seconds: Of timed runs, per model and system.
        warm_up: Seconds of runs before the first slice.
        slices: Into how many turns the seconds are divided.
    """

    cache: Path
    seconds: float = 3.0
    warm_up: float = 1.5
    slices: int = 6


@dataclass
class _Seat:
    """A system that takes part, and what is known of it so far."""

    system: System
    file: Path
    result: SystemResult = field(default_factory=SystemResult)
    worker: Worker | None = None
    outputs: dict[str, Array] = field(default_factory=dict)
    times: list[float] = field(default_factory=list)
    cpu_seconds: float = 0.0
    wall_seconds: float = 0.0


def measure_model(
    model: Model,
    systems: Sequence[System],
    node: Node,
    options: Options,
    reporter: Reporter = SILENT,
) -> ModelResult:
    """Everything about one model. What goes wrong with a system is its result, not an error."""
    began = ModelResult(model.name, load_average=os.getloadavg()[0])
    try:
        reporter.advance("prepare")
        onnx_file = prepare(model, options.cache / "models")
        proto = onnx.load(onnx_file)
        inputs = make_inputs(model, proto)
        shapes = {name: array.shape for name, array in inputs.items()}
        flops = count_flops(proto, shapes)
    except (ModelsError, WasmgraphError) as error:
        return replace(began, problem=str(error))
    began = replace(began, inputs=shapes, flops=flops)
    folder = options.cache / "tensors" / model.name
    write_tensors(folder / "inputs", inputs)

    reporter.advance("compile")
    compiled, problems = _compile(model, onnx_file, systems, options)
    seats = []
    for system in systems:
        graph = compiled.get(system.threads)
        problem = system.missing
        if system.runs_wasm and problem is None:
            problem = problems.get(system.threads)
        file = graph.file if system.runs_wasm and graph is not None else onnx_file
        seats.append(_Seat(system, file, SystemResult(problem)))
    limits, gains = _measure(seats, folder, options, reporter)
    result = replace(
        began,
        limit=statistics.median(limits) if limits else None,
        thread_gain=statistics.median(gains) if gains else None,
        systems={seat.system.key: seat.result for seat in seats},
    )
    reporter.advance("sizes")
    return _with_sizes(result, compiled.get(1), onnx_file, node, options)


def _compile(
    model: Model, onnx_file: Path, systems: Sequence[System], options: Options
) -> tuple[dict[int, Compiled], dict[int, str]]:
    """Graphs and problems by number of threads: the plain one, and what the systems run besides."""
    compiled, problems = {}, {}
    wanted = {system.threads for system in systems if system.runs_wasm and not system.missing}
    for threads in sorted({1} | wanted):
        try:
            compiled[threads] = compile_model(
                onnx_file,
                model.shapes,
                options.cache / f"graphs-{threads}",
                threads=threads > 1,
            )
        except CompileError as error:
            problems[threads] = f"does not compile: {error}"
    return compiled, problems


def _measure(
    seats: Sequence[_Seat], folder: Path, options: Options, reporter: Reporter
) -> tuple[list[float], list[float]]:
    """Fill every seat's result; the limits' FLOP/s and gains of two threads, slice by slice."""
    with ExitStack() as stack:
        for seat in seats:
            if seat.result.problem is None:
                reporter.advance(f"load {seat.system.key}")
                _start(seat, folder, options, stack)
        _check_agreement(seats)
        taking_part = [seat for seat in seats if seat.result.problem is None]
        for seat in taking_part:
            reporter.advance(f"warm up {seat.system.key}")
            _turn(seat, options.warm_up, options.warm_up, timed=False)
        limits, gains = _take_turns(taking_part, options, reporter, stack)
        for seat in taking_part:
            _finish(seat)
    return limits, gains


def _start(seat: _Seat, folder: Path, options: Options, stack: ExitStack) -> None:
    """Load the model and run it once, in a process that stays."""
    system = seat.system
    env = _environment(options)
    request = {"model": str(seat.file), "threads": system.threads}
    cold = None
    try:
        if system.name == "wasmgraph":
            cold = _fill_cache(seat, env)
        worker = Worker(system.command, _cores(system.threads), env)
        stack.callback(worker.close)
        loaded = worker.ask("load", LOAD_TIMEOUT, **request)
        target = folder / system.key
        first = worker.ask("first", RUN_TIMEOUT, inputs=str(folder / "inputs"), outputs=str(target))
    except WorkerError as error:
        seat.result = SystemResult(str(error))
        return
    seat.worker = worker
    seat.outputs = read_tensors(target)
    seat.result = SystemResult(
        imported=loaded["import_ms"],
        loaded=loaded["load_ms"],
        first=first["first_ms"],
        cold_loaded=cold,
    )


def _fill_cache(seat: _Seat, env: Mapping[str, str]) -> float:
    """Load in processes that end again, so that native code is cached; the first load's time."""
    time.sleep(max(0.0, SEALED_AFTER - (time.time() - seat.file.stat().st_ctime)))
    times = []
    for _ in range(2):  # the second finds the entry and seals it for good
        with Worker(seat.system.command, _cores(seat.system.threads), env) as worker:
            answer = worker.ask(
                "load", LOAD_TIMEOUT, model=str(seat.file), threads=seat.system.threads
            )
            times.append(float(answer["load_ms"]))
    return times[0]


def _check_agreement(seats: Sequence[_Seat]) -> None:
    """Take out every system whose outputs are not native onnxruntime's, within the tolerance."""
    expected = next((seat.outputs for seat in seats if seat.system.key == REFERENCE), {})
    for seat in seats:
        if seat.result.problem is not None:
            continue
        if not expected:
            problem = "not timed: there is nothing to check it against (onnxruntime failed)"
            seat.result = replace(seat.result, problem=problem)
            continue
        if set(seat.outputs) != set(expected):
            seat.result = replace(seat.result, problem="disagrees: other outputs than onnxruntime")
            continue
        compared = [
            compare(name, seat.outputs[name], array, rtol=RTOL, atol=ATOL)
            for name, array in expected.items()
        ]
        worst = max(compared, key=lambda output: (not output.agrees, output.max_abs))
        verdict = None if worst.agrees else f"disagrees: {worst}"
        seat.result = replace(seat.result, problem=verdict, max_abs=worst.max_abs)


def _take_turns(
    seats: Sequence[_Seat], options: Options, reporter: Reporter, stack: ExitStack
) -> tuple[list[float], list[float]]:
    limit, several = (
        stack.enter_context(Worker(python_worker("limit"), _cores(threads), _environment(options)))
        for threads in (1, SEVERAL)
    )
    limits, gains = [], []
    slice_seconds = options.seconds / options.slices
    for number in range(options.slices):
        reporter.advance(f"slice {number + 1} of {options.slices}")
        answer = limit.ask("measure", RUN_TIMEOUT, seconds=LIMIT_SECONDS)
        limits.append(float(answer["flops_per_second"]))
        if len(_cores(SEVERAL)) == SEVERAL:
            answer = several.ask("measure_gain", RUN_TIMEOUT, seconds=GAIN_SECONDS, threads=SEVERAL)
            gains.append(float(answer["gain"]))
        for seat in seats:
            if seat.result.problem is None:
                _turn(seat, slice_seconds, SETTLE * slice_seconds, timed=True)
    return limits, gains


def _turn(seat: _Seat, seconds: float, settle: float, *, timed: bool) -> None:
    assert seat.worker is not None
    try:
        answer = seat.worker.ask(
            "measure", seconds + RUN_TIMEOUT, seconds=seconds - settle, settle=settle
        )
    except WorkerError as error:
        seat.result = replace(seat.result, problem=str(error))
        return
    if timed:
        seat.times += answer["times_ms"]
        seat.cpu_seconds += answer["seconds"]["cpu"]
        seat.wall_seconds += answer["seconds"]["wall"]


def _finish(seat: _Seat) -> None:
    """Memory and statistics, once all is measured."""
    if seat.result.problem is not None or seat.worker is None:
        return
    before, after = seat.worker.at_start, seat.worker.memory()
    details = seat.worker.ask("details", RUN_TIMEOUT)
    seat.result = replace(
        seat.result,
        latency=Latency.of(seat.times),
        cpu_share=ratio(seat.cpu_seconds, seat.wall_seconds),
        peak=after.peak if after else None,
        growth=after.peak - before.resident if before and after else None,
        guest=details.get("guest"),
    )


def _with_sizes(
    result: ModelResult,
    graph: Compiled | None,
    onnx_file: Path,
    node: Node,
    options: Options,
) -> ModelResult:
    ships: dict[str, Shipped] = {}
    if node.ort_web is not None:
        ships["ort-web"] = shipped((*ORT_WEB_FILES, onnx_file), node, options.cache)
    if graph is None:
        return replace(result, shipped=ships)
    ships["wasmgraph"] = shipped((*HOST_FILES, graph.file), node, options.cache)
    return replace(
        result,
        compile_seconds=graph.seconds,
        compile_stages=graph.stages,
        compile_kept=graph.kept,
        sizes=graph.sizes,
        shipped=ships,
    )


def _cores(threads: int) -> list[int]:
    """The last ones: the first is where a system does its own work."""
    return sorted(os.sched_getaffinity(0))[-threads:]


def _environment(options: Options) -> dict[str, str]:
    cache = options.cache / "xdg-cache"
    path = os.pathsep.join(filter(None, [str(CHECKOUT), os.environ.get("PYTHONPATH")]))
    return {**os.environ, "XDG_CACHE_HOME": str(cache.resolve()), "PYTHONPATH": path}
