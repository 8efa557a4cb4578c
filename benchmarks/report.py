"""The tables that a benchmark prints."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text

from benchmarks.results import ModelResult, Shipped, SystemResult, geometric_mean, known
from benchmarks.systems import LABELS, THREADS, System, SystemName
from benchmarks.targets import LONG_MS, Judged, Verdict, judge, long_models
from wasmgraph.cli.tables import plain_table, size
from wasmgraph.runtime.base import printable

VERDICT_STYLES: Mapping[Verdict, str] = {
    "aim reached": "bold green",
    "must reached": "green",
    "not reached": "bold red",
    "not measured": "yellow",
}

UNDISTURBED = 0.95
"""Of its core, for a thread that has it to itself."""


def draw(console: Console, results: Sequence[ModelResult], systems: Sequence[System]) -> None:
    """Every table, and what could not be measured."""
    for threads in THREADS:
        console.print(Text(f"\n{threads} thread{'s' if threads > 1 else ''}, ms (median)", "bold"))
        console.print(speed_table(results, threads))
        for line in summary_lines(results, threads):
            console.print(line)
    for line in disturbance_lines(results):
        console.print(Text(line, "yellow"))
    console.print(Text("\nLoad + first run, ms (1 thread; cold: no native code cached)", "bold"))
    console.print(start_table(results))
    console.print(Text("\nMemory: the graph's, then each process' peak (1 thread)", "bold"))
    console.print(memory_table(results))
    console.print(Text("\nBytes to ship: program and model", "bold"))
    console.print(shipping_table(results))
    console.print(Text("\nGoals", "bold"))
    console.print(target_table(judge(results)))
    problems = list(problem_lines(results, systems))
    if problems:
        console.print(Text("\nNot measured", "bold"))
        for line in problems:
            console.print(printable(line), soft_wrap=True)


def speed_table(results: Sequence[ModelResult], threads: int) -> Table:
    """Medians per system, the ratio to onnxruntime-web; besides, for one thread the share of the
    limit, for several the ratio to one, and that of a loop that needs registers only.
    """
    columns = [*LABELS.values(), "web / ours"]
    columns += ["GFLOP/s", "of limit"] if threads == 1 else [f"our 1 / {threads}", "loop's"]
    table = plain_table("model", *columns, right=columns)
    for result in results:
        ours, web = f"wasmgraph-{threads}", f"ort-web-{threads}"
        cells = [_time(result.median(f"{name}-{threads}")) for name in LABELS]
        cells.append(_shown(result.speedup(web, ours), "{:.2f}x"))
        if threads == 1:
            median, flops = result.median(ours), result.flops
            rate = flops / median / 1e6 if flops is not None and median else None
            cells += [_shown(rate, "{:.1f}"), _shown(result.share_of_limit(), "{:.0%}")]
        else:
            cells.append(_shown(result.speedup("wasmgraph-1", ours), "{:.2f}x"))
            cells.append(_shown(result.thread_gain, "{:.2f}x"))
        table.add_row(result.name, *cells)
    return table


def summary_lines(results: Sequence[ModelResult], threads: int) -> Iterator[str]:
    """Geometric means and the worst model."""
    others: tuple[SystemName, ...] = ("ort-web", "native", "wasmgraph-node")
    for other in others:

        def speedup(result: ModelResult, key: str = f"{other}-{threads}") -> float | None:
            return result.speedup(key, f"wasmgraph-{threads}")

        ratios = known(results, speedup)
        if ratios:
            yield f"{LABELS[other]} over {LABELS['wasmgraph']}: {_mean_and_worst(ratios)}"
    if threads > 1:
        long = long_models(results)
        for name, label in LABELS.items():
            one, several = f"{name}-1", f"{name}-{threads}"

            def gain(result: ModelResult, one: str = one, several: str = several) -> float | None:
                return result.speedup(one, several)

            ratios = known(long, gain)
            if ratios:
                yield (
                    f"{label}, 1 thread over {threads}: {_mean_and_worst(ratios)} "
                    f"above {LONG_MS:g} ms"
                )
        gains = known(long, lambda result: result.thread_gain)
        if gains:
            yield f"the same of a loop in registers: {_mean_and_worst(gains)}"


def disturbance_lines(results: Sequence[ModelResult]) -> Iterator[str]:
    """Where other work took the cores away: how much, and what the fastest runs say instead."""
    singles = [f"{name}-1" for name in LABELS]
    shares = [
        share
        for result in results
        for share in (result.system(key).cpu_share for key in singles)
        if share is not None
    ]
    if not shares or statistics.mean(shares) >= UNDISTURBED:
        return
    yield (
        f"\nThe machine was busy with other work: single threads had {statistics.mean(shares):.0%} "
        "of their core. The fastest runs instead of the medians:"
    )

    def fastest(slower: str, faster: str, of: Iterable[ModelResult] = results) -> dict[str, float]:
        return known(of, lambda result: result.fastest_speedup(slower, faster))

    compared = {
        "web / ours": fastest("ort-web-1", "wasmgraph-1"),
        "web / ours, 2 threads": fastest("ort-web-2", "wasmgraph-2"),
        f"our 1 thread / 2, above {LONG_MS:g} ms": fastest(
            "wasmgraph-1", "wasmgraph-2", long_models(results)
        ),
    }
    for what, ratios in compared.items():
        if ratios:
            yield f"  {what}: {_mean_and_worst(ratios)}"
    limits = known(results, ModelResult.fastest_share_of_limit)
    if limits:
        yield "  of limit: " + ", ".join(f"{name} {share:.0%}" for name, share in limits.items())


def _mean_and_worst(ratios: Mapping[str, float]) -> str:
    """Of at least one model."""
    least, worst = min((value, name) for name, value in ratios.items())
    return (
        f"geometric mean {geometric_mean(ratios.values()):.2f}x, worst {worst} {least:.2f}x, "
        f"{len(ratios)} model{'s' if len(ratios) > 1 else ''}"
    )


def start_table(results: Sequence[ModelResult]) -> Table:
    """From the file on disk to the first output, without importing the runtime."""
    columns = ["cold load", *LABELS.values(), "web / ours"]
    table = plain_table("model", *columns, right=columns)
    for result in results:
        rows = [result.system(f"{name}-1") for name in LABELS]
        ours, web = rows[0].load_and_first, result.system("ort-web-1").load_and_first
        gain = web / ours if ours and web else None
        cells = [_time(rows[0].cold_loaded), *map(_start, rows), _shown(gain, "{:.1f}x")]
        table.add_row(result.name, *cells)
    return table


def memory_table(results: Sequence[ModelResult]) -> Table:
    """Peak resident memory of each process, and the graph's own memory."""
    columns = ["guest", "beyond weights, io", *LABELS.values()]
    table = plain_table("model", *columns, right=columns)
    for result in results:
        peaks = [_bytes(result.system(f"{name}-1").peak) for name in LABELS]
        guest = _bytes(result.guest_total), _bytes(result.guest_beyond)
        table.add_row(result.name, *guest, *peaks)
    return table


def shipping_table(results: Sequence[ModelResult]) -> Table:
    """What is sent to where the model runs, and what it took to make it."""
    columns = [
        "code",
        "wasmgraph",
        "gzip",
        "brotli",
        "onnxruntime-web",
        "gzip ",
        "brotli ",
        "compile",
    ]
    table = plain_table("model", *columns, right=columns)
    for result in results:
        shipped = [_ship(result.shipped.get(name)) for name in ("wasmgraph", "ort-web")]
        table.add_row(
            result.name,
            _bytes(result.sizes["code"] if result.sizes else None),
            *(cell for cells in shipped for cell in cells),
            _shown(result.compile_seconds, "{:.1f} s"),
        )
    return table


def target_table(judged: Sequence[Judged]) -> Table:
    """The goals, each with its figure and whether it is reached."""
    table = plain_table("figure", "must", "aim", "found", "", right=("must", "aim", "found"))
    for item in judged:
        target, found = item.target, item.found
        sign = "<= " if target.at_most else ">= "
        value = ""
        if found is not None:
            value = _in_unit(found.value, target.unit) + (
                f" ({found.model})" if found.model else ""
            )
        table.add_row(
            target.figure,
            sign + _in_unit(target.must, target.unit),
            sign + _in_unit(target.aim, target.unit),
            value,
            Text(item.verdict, VERDICT_STYLES[item.verdict]),
        )
    return table


def problem_lines(results: Sequence[ModelResult], systems: Sequence[System]) -> Iterator[str]:
    """Each system that is missing once, then what went wrong with single models."""
    missing = {system.key: system for system in systems if system.missing is not None}
    for system in missing.values():
        threads = f"{system.threads} thread{'s' if system.threads > 1 else ''}"
        yield f"{LABELS[system.name]}, {threads}: {system.missing}"
    for result in results:
        if result.problem is not None:
            yield f"{result.name}: {result.problem}"
        for key, measured in result.systems.items():
            if measured.problem is not None and key not in missing:
                yield f"{result.name}, {key}: {measured.problem}"


def _in_unit(value: float, unit: str) -> str:
    formats: dict[str, Callable[[float], str]] = {
        "x": "{:.2f}x".format,
        "%": "{:.1%}".format,
        "s": "{:.1f} s".format,
        "MiB": lambda nbytes: f"{nbytes / 2**20:.1f} MiB",
        "KB": lambda nbytes: f"{nbytes / 1e3:.0f} KB",
    }
    return formats[unit](value)


def _time(milliseconds: float | None) -> str:
    return _shown(milliseconds, "{:.3f}" if (milliseconds or 0) < 10 else "{:.1f}")


def _start(result: SystemResult) -> str:
    if result.loaded is None or result.first is None:
        return "-"
    return f"{_time(result.loaded)} + {_time(result.first)}"


def _bytes(nbytes: int | None) -> str:
    return "-" if nbytes is None else size(nbytes)


def _ship(shipped: Shipped | None) -> tuple[str, str, str]:
    if shipped is None:
        return "-", "-", "-"
    return _bytes(shipped.raw), _bytes(shipped.gzip), _bytes(shipped.brotli)


def _shown(value: float | None, pattern: str) -> str:
    return "-" if value is None else pattern.format(value)
