"""How `wasmgraph verify --runtime` draws what several engines made of one graph."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console
    from rich.text import Text

    from wasmgraph.engine_verification import EngineRun, EnginesReport


def draw_engines(console: Console, report: EnginesReport) -> None:
    """One row per engine that ran the graph, then the others with the reason."""
    from wasmgraph.cli.tables import plain_table, rounding_notes
    from wasmgraph.runtime.base import printable

    figures = ["absolute", "ULP", "run", "load"]
    table = plain_table(
        "runtime", "version", "onnxruntime", *figures[:2], "wasmtime", *figures[2:], right=figures
    )
    for engine in report.engines:
        if engine.ran:
            table.add_row(
                engine.runtime,
                printable(engine.version or ""),
                _verdict(engine.agrees, "agrees", "disagrees"),
                f"{max((output.max_abs for output in engine.outputs), default=0.0):.3g}",
                str(max((output.max_ulp for output in engine.outputs), default=0)),
                _bits(engine, exact=report.exact),
                f"{engine.run_ms:.2f} ms",
                f"{engine.load_ms:.1f} ms",
            )
    console.print(table)
    inputs = "the inputs given" if report.seed is None else f"random inputs (seed {report.seed})"
    console.print(
        f"\nOn {inputs}; onnxruntime: |a - b| <= {report.atol:g} + {report.rtol:g} * |b|; "
        "wasmtime: bit by bit. run: the fastest; load: without the start of a process."
    )
    for engine in report.engines:
        for what, told in rounding_notes(engine.outputs).items():
            console.print(f"{engine.runtime}: {what}: {told}.")
        if not engine.ran:
            fix = f" ({engine.fix})" if engine.fix else ""
            console.print(
                f"{engine.runtime}: {printable(engine.problem or '')}{fix}", soft_wrap=True
            )


def _verdict(good: bool, yes: str, no: str) -> Text:
    from rich.text import Text

    return Text(yes, "green") if good else Text(no, "bold red")


def _bits(engine: EngineRun, *, exact: bool) -> Text:
    """Whether the outputs are Wasmtime's, to the bit."""
    from rich.text import Text

    if not engine.differing:
        return Text("identical", "green")
    text = f"{engine.max_ulp} ULP apart"
    return Text(text, "bold red" if exact else "yellow")
