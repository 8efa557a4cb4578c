"""`wasmgraph bench`: how fast a graph runs here, how fast it loads, and what memory it takes."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from wasmgraph.cli.background import interruptible
from wasmgraph.cli.console import FILE, Terminal, common_options, example
from wasmgraph.cli.inputs import (
    InputOptions,
    input_options,
    runtime_names_or_all,
    runtime_option,
    seed_option,
    threads_option,
)
from wasmgraph.cli.shapes import shapes_option

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from rich.console import Console

    from wasmgraph.measure import EnginesMeasurement, Measurement
    from wasmgraph.metadata import Metadata
    from wasmgraph.runtime import Graph
    from wasmgraph.runtime.base import Array

DEFAULT_SECONDS = 3.0


@click.command(
    epilog=example(
        "wasmgraph bench digits.wasm",
        "wasmgraph bench model.wasm --onnx model.onnx --seconds 10 --json",
        "wasmgraph bench digits.wasm --runtime wasmtime,node,wazero",
    )
)
@click.argument("graph", type=FILE, metavar="GRAPH.wasm")
@input_options
@click.option(
    "--onnx",
    "model",
    type=FILE,
    metavar="MODEL.onnx",
    help="The model it was compiled from: adds GFLOP/s, and the share of what this machine can do.",
)
@click.option("--runs", type=click.IntRange(min=1), metavar="N", help="Time at most N runs.")
@click.option(
    "--seconds",
    type=click.FloatRange(min=0, min_open=True),
    default=DEFAULT_SECONDS,
    show_default="3",
    metavar="S",
    help="For how long to time each engine's runs, after a warm-up.",
)
@threads_option
@runtime_option(runtime_names_or_all, ", several with commas between them, or all")
@seed_option
@shapes_option
@common_options
def command(
    terminal: Terminal,
    /,
    *,
    graph: Path,
    model: Path | None,
    runs: int | None,
    seconds: float,
    threads: int,
    runtime: tuple[str, ...] | None,
    seed: int,
    shapes: dict[str, tuple[int, ...]],
    **inputs: Any,
) -> None:
    """Measure GRAPH.wasm: latency, load times and memory.

    A load is cold where no native code is cached. Both loads, and the first inference, are what
    they are in a process that has wasmgraph imported already.

    With another --runtime, or several, there is one row per engine. min, median and p95 are the
    engine's own: from the tensors' way into the graph's memory to the outputs' out of it. An engine
    that is a command (wasmtime-cli, wasmer, wasmedge) starts a process per run, and all of that is
    in its figures. call is the median of what the caller in Python waits for, the way to the
    engine's process and back included.
    """
    options = InputOptions(**inputs)
    with terminal.stages() as reporter:
        from wasmgraph.measure import measure_engines, measure_graph
        from wasmgraph.runtime.registry import DEFAULT

        description = _description(graph)
        how: dict[str, Any] = {"seconds": seconds, "runs": runs, "threads": threads}
        how["flops"] = None if model is None else _flops(description, model, shapes)
        how["reporter"] = reporter

        def make_inputs(loaded: Graph) -> Mapping[str, Array]:
            return options.complete(loaded.inputs, shapes, seed)

        measured: Measurement | EnginesMeasurement
        if runtime == (DEFAULT,):
            measured = interruptible(lambda: measure_graph(graph, make_inputs, **how))
        else:
            measured = interruptible(lambda: measure_engines(graph, make_inputs, runtime, **how))
    terminal.result(measured.to_json(), lambda console: draw(console, measured))


def _description(path: Path) -> Metadata:
    from wasmgraph.runtime.graph import read_graph
    from wasmgraph.runtime.source import Source

    with Source(path) as source:
        return read_graph(source).metadata


def _flops(description: Metadata, model: Path, given: Mapping[str, Sequence[int]]) -> int | None:
    from wasmgraph.importer import load_model
    from wasmgraph.measure import count_flops
    from wasmgraph.runtime.base import TensorSpec
    from wasmgraph.tensors.extents import with_shapes

    specs = [TensorSpec(t.name, t.dtype, t.shape) for t in description.inputs]
    shapes = {spec.name: spec.extents for spec in with_shapes(specs, given)}
    return count_flops(load_model(model).proto, shapes)


def draw(console: Console, measured: Measurement | EnginesMeasurement) -> None:
    """What was measured, for people."""
    from wasmgraph.measure import Measurement

    if isinstance(measured, Measurement):
        _draw(console, measured)
    else:
        from wasmgraph.cli.engines import draw_measured

        draw_measured(console, measured)


def _draw(console: Console, measured: Measurement) -> None:
    from wasmgraph.cli.tables import facts, guest_memory, plain_table, size

    latency = measured.latency
    figures = ["min", "median", "p95", "mean"]
    table = plain_table("latency", *figures, right=figures)
    values = (latency.minimum, latency.median, latency.p95, latency.mean)
    runs = f"{latency.runs} run{'' if latency.runs == 1 else 's'}"
    table.add_row(runs, *(f"{value:.3f} ms" for value in values))
    console.print(table, "")
    rows = {
        "load": f"{measured.cold_load:.1f} ms cold, {measured.warm_load:.1f} ms warm",
        "first run": f"{measured.first_run:.2f} ms",
        "memory": guest_memory(measured.guest),
    }
    if measured.process_growth is not None:
        rows["process"] = f"{size(max(0, measured.process_growth))} more at its peak"
    rate, share = measured.flops_per_second, measured.share_of_limit
    if rate is not None and share is not None and measured.limit is not None:
        rows["speed"] = (
            f"{rate / 1e9:.1f} GFLOP/s, {share:.0%} of this machine's {measured.limit / 1e9:.1f}"
        )
    console.print(facts(rows))
