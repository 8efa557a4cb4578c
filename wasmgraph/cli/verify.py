"""`wasmgraph verify`: whether a graph still computes what its model does."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from wasmgraph.cli.background import interruptible
from wasmgraph.cli.console import FILE, Terminal, common_options, example
from wasmgraph.cli.inputs import (
    InputOptions,
    input_options,
    input_range_option,
    parsed_by,
    runtime_name_or_all,
    runtime_option,
    seed_option,
    threads_option,
    time_limit,
    tolerance_options,
)
from wasmgraph.cli.shapes import shapes_option
from wasmgraph.errors import VerificationError

if TYPE_CHECKING:
    from rich.console import Console

    from wasmgraph.engine_verification import EnginesReport
    from wasmgraph.verification import OutputAgreement, VerifyReport


@click.command(
    epilog=example(
        "wasmgraph verify digits.wasm --onnx samples/digits/digits.onnx",
        "wasmgraph verify digits.wasm --onnx digits.onnx -i image=random:1 --json",
        "wasmgraph verify digits.wasm --onnx digits.onnx --runtime all",
    )
)
@click.argument("graph", type=FILE, metavar="GRAPH.wasm")
@click.option(
    "--onnx",
    "model",
    type=FILE,
    required=True,
    metavar="MODEL.onnx",
    help="The model it was compiled from.",
)
@input_options
@tolerance_options
@seed_option
@click.option(
    "--timeout",
    callback=parsed_by(time_limit),
    metavar="10s",
    help="Wall time the graph may take.",
)
@threads_option
@runtime_option(runtime_name_or_all, ", or all")
@shapes_option
@input_range_option
@common_options
def command(
    terminal: Terminal,
    /,
    *,
    graph: Path,
    model: Path,
    rtol: float,
    atol: float,
    seed: int,
    input_range: tuple[float, float],
    timeout: float | None,
    threads: int,
    runtime: str,
    shapes: dict[str, tuple[int, ...]],
    **inputs: Any,
) -> None:
    """Compare GRAPH.wasm with onnxruntime running the model, on the same inputs.

    An output agrees where |a - b| <= atol + rtol * |b| everywhere (integers: where a = b). If one
    does not, the exit code is 11.

    With --runtime the graph runs under another engine too, or under every one that is here, whose
    outputs must equal Wasmtime's bit by bit unless the graph has relaxed SIMD.
    """
    options = InputOptions(**inputs)
    with terminal.stages():
        report = interruptible(
            lambda: _verify(
                graph,
                model,
                options,
                runtime,
                rtol=rtol,
                atol=atol,
                seed=seed,
                input_range=input_range,
                timeout=timeout,
                threads=threads,
                shapes=shapes,
            )
        )
    try:
        report.raise_if_disagree()
    except VerificationError as error:
        if not terminal.json:
            terminal.result({}, lambda console: draw(console, report))
            raise
        # One object, with the figures and with the error as every command has it.
        failure = {
            "kind": error.kind,
            "message": error.message,
            "hint": error.hint,
            "exit_code": error.exit_code,
        }
        click.echo(json.dumps({**report.to_json(), "error": failure}, indent=2, ensure_ascii=False))
        sys.exit(error.exit_code)
    terminal.result(report.to_json(), lambda console: draw(console, report))


def _verify(
    graph: Path,
    model: Path,
    options: InputOptions,
    runtime: str,
    *,
    rtol: float,
    atol: float,
    seed: int,
    input_range: tuple[float, float],
    timeout: float | None,
    threads: int,
    shapes: dict[str, tuple[int, ...]],
) -> VerifyReport | EnginesReport:
    from wasmgraph.engine_verification import verify_engines
    from wasmgraph.reference import find_onnxruntime
    from wasmgraph.runtime import load
    from wasmgraph.runtime.registry import DEFAULT
    from wasmgraph.verification import verify

    find_onnxruntime()
    how: dict[str, Any] = {"rtol": rtol, "atol": atol, "seed": seed}
    how |= {"input_range": input_range, "shapes": shapes}
    limits: dict[str, Any] = {"timeout": timeout, "threads": threads}
    with load(graph, **limits) as loaded:
        inputs = None
        if options.inputs:
            inputs = options.complete(loaded.inputs, shapes, seed, input_range)
        if runtime == DEFAULT:
            return verify(loaded, model, inputs, **how)
    runtimes = None if runtime == "all" else (runtime,)
    return verify_engines(graph, model, inputs, runtimes=runtimes, **how, **limits)


def draw(console: Console, report: VerifyReport | EnginesReport) -> None:
    """The report for people."""
    from wasmgraph.engine_verification import EnginesReport

    if isinstance(report, EnginesReport):
        from wasmgraph.cli.engines import draw_engines

        draw_engines(console, report)
    else:
        _draw(console, report)


def _draw(console: Console, report: VerifyReport) -> None:
    from rich.text import Text

    from wasmgraph.cli.tables import dims, plain_table, rounding_cost, rounding_notes
    from wasmgraph.runtime.base import printable

    figures = ["absolute", "relative", "ULP"]
    table = plain_table("output", "dtype", "shape", *figures, "worst at", "", right=figures)
    for output in report.outputs:
        verdict = Text("agrees", "green") if output.agrees else Text("disagrees", "bold red")
        table.add_row(
            printable(output.name),
            output.dtype,
            dims(output.shape),
            f"{output.max_abs:.3g}",
            f"{output.max_rel:.3g}",
            str(output.max_ulp),
            _where(output),
            verdict,
        )
    console.print(table)
    inputs = "the inputs given" if report.seed is None else f"random inputs (seed {report.seed})"
    model = "" if report.rounded is None else f", the model's weights rounded to {report.rounded}"
    console.print(
        f"\nAgainst onnxruntime on {inputs}{model}; agreement is |a - b| <= "
        f"{report.atol:g} + {report.rtol:g} * |b|."
    )
    for what, told in (rounding_cost(report) | rounding_notes(report.outputs)).items():
        console.print(f"{what.capitalize()}: {told}.")
    for output in report.outputs:
        if output.non_finite:
            console.print(
                f"Output {output.name!r} has {output.non_finite} elements that are not finite in "
                "onnxruntime too: these inputs prove little there."
            )


def _where(output: OutputAgreement) -> str:
    if output.problem:
        return output.problem
    if output.index is None:
        return "no elements"
    index = f"[{', '.join(map(str, output.index))}] " if output.index else ""
    return f"{index}{output.value:.6g}, expected {output.expected:.6g}"
