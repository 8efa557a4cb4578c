"""How `verify --runtime` and `bench --runtime` draw what several engines made of one graph."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.console import Console
    from rich.text import Text

    from wasmgraph.engine_verification import EngineRun, EnginesReport
    from wasmgraph.measure import EngineMeasurement, EnginesMeasurement


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
    _draw_problems(console, report.engines)


def draw_measured(console: Console, measured: EnginesMeasurement) -> None:
    """One row per engine that was measured, then the graph's memory, then the other engines with
    the reason."""
    from wasmgraph.cli.tables import facts, guest_memory, plain_table, size

    speed = ["GFLOP/s"] if measured.flops is not None else []
    figures = ["runs", "min", "median", "p95", "call", *speed, "cold", "warm", "process"]
    table = plain_table("runtime", *figures, right=figures)
    table.columns[0].no_wrap = True
    for entry in measured.engines:
        if entry.engine is None or entry.call is None:
            continue
        rate = measured.flops_per_second(
            entry
        )  # None where a clock is too coarse for so short a run
        table.add_row(
            entry.runtime,
            str(entry.engine.runs),
            *(_ms(ms) for ms in (entry.engine.minimum, entry.engine.median, entry.engine.p95)),
            _ms(entry.call.median),
            *("" if rate is None else f"{rate / 1e9:.1f}" for _ in speed),
            f"{entry.cold_load:.0f} ms",
            f"{entry.warm_load:.0f} ms",
            "" if entry.memory is None else size(entry.memory),
        )
    console.print(table)
    console.print(
        "\nmin, median, p95: by the engine's own clock, a command's with its whole process. call: "
        "the median from Python.\ncold, warm: loading without and with the engine's cache, where "
        "it has one. process: its memory at its peak, of wasmtime how much this one grew.\n"
    )
    console.print(facts({"memory": guest_memory(measured.guest)}))
    _draw_problems(console, measured.engines)


def _ms(milliseconds: float) -> str:
    return f"{milliseconds:.3f} ms" if milliseconds < 1 else f"{milliseconds:.1f} ms"


def _draw_problems(console: Console, engines: Sequence[EngineRun | EngineMeasurement]) -> None:
    """A line for every engine that could not run the graph, with the reason."""
    from wasmgraph.runtime.base import printable

    for engine in engines:
        if engine.problem is not None:
            fix = f" ({engine.fix})" if engine.fix else ""
            console.print(f"{engine.runtime}: {printable(engine.problem)}{fix}", soft_wrap=True)


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
