"""`python -m tests.conformance`: run onnx's node tests as wasm, compare with what is recorded."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Mapping
from contextlib import closing
from dataclasses import asdict
from datetime import datetime, timezone
from typing import Any

import click
import onnx

from tests.conformance.cases import Case, collect
from tests.conformance.outcome import Outcome, run_case
from tests.conformance.page import PAGE, operators_page
from tests.conformance.pool import Lost, run_all
from tests.conformance.record import (
    HERE,
    Comparison,
    Record,
    compare,
    read_record,
    write_record,
    write_text,
)
from tests.conformance.summary import draw, group_failures
from wasmgraph.cli.console import Terminal, common_options
from wasmgraph.progress import Reporter, stage

EXIT_REGRESSION = 1


@click.command()
@click.option("--filter", "pattern", metavar="REGEX", help="Only tests whose name it is found in.")
@click.option("--update", is_flag=True, help="Write the record and OPERATORS.md.")
@click.option(
    "--workers",
    type=click.IntRange(min=1),
    default=len(os.sched_getaffinity(0)),
    help="Processes.  [default: one per processor]",
)
@click.option(
    "--timeout",
    type=click.FloatRange(min=0, min_open=True),
    default=60.0,
    show_default=True,
    help="Seconds after which a test is given up.",
)
@common_options
def main(
    terminal: Terminal, pattern: str | None, update: bool, workers: int, timeout: float
) -> None:
    """Compile onnx's node tests to wasm, run them under Wasmtime, compare the outputs.

    Exits with 1 if a test fails that passing.txt lists.
    """
    record = read_record(HERE) or Record(onnx.__version__)
    if update and pattern and record.onnx != onnx.__version__:
        raise click.UsageError(
            f"the record is of onnx {record.onnx}, this is {onnx.__version__}: "
            "--update it without --filter first"
        )
    chosen = _matching(pattern)
    seconds: dict[str, float] = {}
    with terminal.stages() as reporter:
        with stage(reporter, "collect", seconds):
            cases = collect()
        selected = {name: case for name, case in cases.items() if chosen.search(name)}
        if not selected:
            raise click.UsageError(f"no test's name matches {pattern!r}")
        with stage(reporter, "run", seconds, len(selected)):
            outcomes = _run(selected, workers, timeout, reporter)
    comparison = compare(record, outcomes)
    if update:
        today = datetime.now(timezone.utc).date()
        whole = len(selected) == len(cases)
        if whole:
            record = Record(onnx.__version__)
        record = record.with_run(outcomes, whole=whole, today=today)
        write_record(record, cases, HERE)
        write_text(PAGE, operators_page(record, cases))
    terminal.result(
        _as_json(outcomes, cases, comparison, seconds),
        lambda console: draw(console, outcomes, cases, comparison),
    )
    sys.exit(EXIT_REGRESSION if comparison.regressions else 0)


def _matching(pattern: str | None) -> re.Pattern[str]:
    try:
        return re.compile(pattern or "")
    except re.error as error:
        raise click.BadParameter(f"{pattern!r} is no regular expression: {error}") from error


def _run(
    cases: Mapping[str, Case], workers: int, timeout: float, reporter: Reporter
) -> list[Outcome]:
    outcomes = []
    with closing(run_all(run_case, cases.values(), workers=workers, seconds=timeout)) as results:
        for case, result in results:
            if isinstance(result, Lost):
                outcomes.append(Outcome(case.name, result.kind, result.reason))
            else:
                outcomes.append(result)
            reporter.advance(case.name)
    return sorted(outcomes, key=lambda outcome: outcome.name)


def _as_json(
    outcomes: list[Outcome],
    cases: Mapping[str, Case],
    comparison: Comparison,
    seconds: Mapping[str, float],
) -> dict[str, Any]:
    return {
        "onnx": onnx.__version__,
        "passed": sum(outcome.passed for outcome in outcomes),
        "total": len(outcomes),
        "seconds": {name: round(value, 1) for name, value in seconds.items()},
        **asdict(comparison),
        "groups": [asdict(group) for group in group_failures(outcomes, cases)],
        "outcomes": [
            {"operator": str(cases[outcome.name].operator), **asdict(outcome)}
            for outcome in outcomes
        ],
    }


if __name__ == "__main__":
    main()
