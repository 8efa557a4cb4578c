"""`wasmgraph check`: whether a model compiles, and all that stands in the way."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from wasmgraph.cli.console import FILE, Terminal, common_options, example
from wasmgraph.cli.shapes import shapes_option
from wasmgraph.errors import UnsupportedModelError

if TYPE_CHECKING:
    from rich.console import Console

    from wasmgraph.checking import CheckReport


@click.command(
    epilog=example(
        "wasmgraph check model.onnx",
        "wasmgraph check detector.onnx --shape input=1,3,320,320 --json",
    )
)
@click.argument("model", type=FILE, metavar="MODEL.onnx")
@shapes_option
@common_options
def command(terminal: Terminal, model: Path, shapes: dict[str, tuple[int, ...]]) -> None:
    """Say whether MODEL.onnx would compile, and list everything that stands in the way.

    No file is written. The exit code is 4 where it would not compile.
    """
    with terminal.stages() as reporter:
        import wasmgraph

        report = wasmgraph.check(model, shapes, reporter)
    terminal.result(report.to_json(), lambda console: _draw(console, report))
    if not report.compiles:
        sys.exit(UnsupportedModelError.exit_code)


def _draw(console: Console, report: CheckReport) -> None:
    from wasmgraph.cli.tables import plain_table, size
    from wasmgraph.runtime.base import printable

    name = printable(report.source.name)
    if report.compiles:
        graph = f"{report.kernels} kernels in {report.steps} steps"
        if report.dynamic:
            graph = f"with dynamic shapes, {report.kernels} operators in {report.steps} nodes"
        console.print(
            f"{name} compiles: {graph}, {size(report.weights_nbytes)} of weights "
            f"({report.seconds:.1f} s)"
        )
        if report.openness:
            console.print(f"shapes: {printable(report.openness)}")
        return
    table = plain_table("node", "operator", "opset", "what stands in the way", "what to do")
    for finding in report.findings:
        table.add_row(
            printable(finding.node),
            printable(finding.op or "-"),
            str(finding.opset or "-"),
            printable(finding.reason),
            printable(finding.advice),
        )
    console.print(table)
    console.print(f"\n{name} does not compile, obstacles: {len(report.findings)}")
    if report.hint:
        console.print(f"hint: {printable(report.hint)}")
