"""`wasmgraph run`: one run of a graph, tensors in from files and out again."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from wasmgraph.cli.background import interruptible
from wasmgraph.cli.console import FILE, Terminal, common_options, example
from wasmgraph.cli.inputs import (
    InputOptions,
    input_options,
    memory_limit,
    parsed_by,
    runtime_name,
    runtime_option,
    threads_option,
    time_limit,
)

if TYPE_CHECKING:
    from rich.console import Console

    from wasmgraph.runtime.base import Array
    from wasmgraph.tensors.summary import Classes, TensorSummary

DEFAULT_TOP = 5


@dataclass(frozen=True)
class Finished:
    """A run that ended well: outputs by name, and seconds by what took them."""

    outputs: dict[str, Array]
    seconds: dict[str, float]


@click.command(
    epilog=example(
        "wasmgraph run digits.wasm -i samples/digits/images/seven-148.png --top 3",
        "wasmgraph run model.wasm -i input_ids=ids.npy -i mask=random:0 -o out.npz",
    )
)
@click.argument("graph", type=FILE, metavar="GRAPH.wasm")
@input_options
@click.option(
    "-o",
    "--output",
    type=FILE,
    metavar="FILE.npz|DIR",
    help="Write every output under its ONNX name (.npy or .json for a single one).",
)
@click.option(
    "--max-memory",
    callback=parsed_by(memory_limit),
    metavar="512MiB",
    help="Memory the graph may have.",
)
@click.option(
    "--timeout",
    callback=parsed_by(time_limit),
    metavar="10s",
    help="Wall time the run may take.",
)
@threads_option
@runtime_option(runtime_name)
@click.option("--labels", type=FILE, help="Class names, one per line: print the most probable.")
@click.option("--top", type=click.IntRange(min=1), metavar="K", help="How many (default 5).")
@common_options
def command(
    terminal: Terminal,
    /,
    *,
    graph: Path,
    output: Path | None,
    max_memory: int | None,
    timeout: float | None,
    threads: int,
    runtime: str,
    labels: Path | None,
    top: int | None,
    **inputs: Any,
) -> None:
    """Run GRAPH.wasm once, sandboxed, and summarise its outputs."""
    from wasmgraph.tensors.summary import read_labels, summarise
    from wasmgraph.tensors.writing import write_outputs

    names = read_labels(labels) if labels is not None else None
    options = InputOptions(**inputs)
    finished = interruptible(lambda: _run(graph, options, max_memory, timeout, threads, runtime))
    summaries = [summarise(name, array) for name, array in finished.outputs.items()]
    classes = None
    if names is not None or top is not None:
        classes = _classify(finished.outputs, names, top or DEFAULT_TOP)
    written = write_outputs(finished.outputs, output) if output is not None else ()
    result = {
        "graph": str(graph),
        "runtime": runtime,
        "seconds": finished.seconds,
        "outputs": [summary.to_json() for summary in summaries],
        "classes": None if classes is None else classes.to_json(),
        "written": [str(path) for path in written],
    }
    terminal.result(
        result, lambda console: _draw(console, summaries, classes, written, finished.seconds)
    )


def _run(
    path: Path,
    options: InputOptions,
    max_memory: int | None,
    timeout: float | None,
    threads: int,
    runtime: str,
) -> Finished:
    from wasmgraph.runtime import load

    with load(path, max_memory, timeout, threads=threads, runtime=runtime) as graph:
        arrays = options.read(graph.inputs)
        started = time.perf_counter()
        outputs = graph.run(arrays)
        ended = time.perf_counter()
        # Not what it takes to import an engine.
        took = {"load": graph.load_ms / 1e3, "run": ended - started}
    return Finished(outputs, took)


def _classify(outputs: dict[str, Array], labels: Sequence[str] | None, top: int) -> Classes:
    """The classes of the first output that holds one score per class (and per label)."""
    from wasmgraph.errors import InputError
    from wasmgraph.tensors.summary import top_classes

    first: InputError | None = None
    for name, array in outputs.items():
        try:
            return top_classes(name, array, labels, top)
        except InputError as error:
            first = first or error
    raise first or InputError("the graph has no outputs to take classes from")


def _draw(
    console: Console,
    summaries: Sequence[TensorSummary],
    classes: Classes | None,
    written: Sequence[Path],
    seconds: dict[str, float],
) -> None:
    from wasmgraph.cli.tables import dims, facts, plain_table
    from wasmgraph.runtime.base import printable

    figures = ["min", "max", "mean", "not finite"]
    if not any(summary.non_finite for summary in summaries):
        figures.remove("not finite")
    table = plain_table("output", "dtype", "shape", *figures, "first values", right=figures)
    for summary in summaries:
        cells = [summary.minimum, summary.maximum, summary.mean, summary.non_finite]
        first = ", ".join(map(_number, summary.first))
        table.add_row(
            printable(summary.name),
            summary.dtype,
            dims(summary.shape),
            *map(_number, cells[: len(figures)]),
            first + (", ..." if summary.size > len(summary.first) else ""),
        )
    console.print(table)
    if classes is not None:
        how = "softmax of " if classes.softmax_applied else ""
        ranking = plain_table("class", f"probability ({how}{printable(classes.output)})")
        for score in classes.top:
            bar = "█" * round(20 * score.probability)
            ranking.add_row(printable(score.label), f"{score.probability:7.2%} {bar}")
        console.print("", ranking)
    rows = {"load": f"{1e3 * seconds['load']:.1f} ms", "run": f"{1e3 * seconds['run']:.2f} ms"}
    if written:
        rows["written"] = ", ".join(map(str, written))
    console.print("", facts(rows))


def _number(value: float | int | bool | None) -> str:
    return "-" if value is None else f"{value:.5g}" if isinstance(value, float) else str(value)
