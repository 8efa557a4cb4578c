"""`wasmgraph doctor`: what this machine has and lacks, and the command that mends it."""

from __future__ import annotations

import sys
from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from wasmgraph.cli.console import Terminal, common_options, example

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.console import Console

    from wasmgraph.doctor import Finding
    from wasmgraph.runtime.base import EngineStatus

CAPABILITIES = {
    "simd": "SIMD",
    "relaxed_simd": "relaxed",
    "threads": "threads",
    "memory_limit": "memory",
    "time_limit": "time",
}
"""Heads of the engines' columns; the last two are limits that are kept."""

MARKS = {"ok": ("ok", "green"), "missing": ("missing", "red"), "optional-missing": ("-", "yellow")}


@click.command(epilog=example("wasmgraph doctor"))
@common_options
def command(terminal: Terminal) -> None:
    """Say what this machine has and lacks for compiling, running and verifying, and which engines
    (--runtime) are here.

    Exits with 5 if something required is missing.
    """
    from wasmgraph.doctor import examine
    from wasmgraph.errors import ToolchainError
    from wasmgraph.runtime.registry import examine_engines

    with terminal.stages():
        findings = examine()
        engines = examine_engines()
    lacking = [f.name for f in findings if f.required and f.status == "missing"]
    data = {
        "ok": not lacking,
        "findings": [asdict(finding) for finding in findings],
        "engines": [asdict(engine) for engine in engines],
    }
    terminal.result(data, lambda console: draw(console, findings, engines))
    if lacking:
        if not terminal.json:
            click.echo(f"error: required but missing: {', '.join(lacking)}", err=True)
        sys.exit(ToolchainError.exit_code)


def draw(console: Console, findings: Sequence[Finding], engines: Sequence[EngineStatus]) -> None:
    """One row per finding, the commands that mend what is missing, each once, and the engines."""
    from rich.text import Text

    from wasmgraph.cli.tables import plain_table

    table = plain_table("", "what", "found")
    for finding in findings:
        table.add_row(Text(*MARKS[finding.status]), finding.name, finding.detail)
    console.print(table)
    fixes = {f.fix: f.name for f in reversed(findings) if f.status != "ok" and f.fix}
    for fix, name in reversed(fixes.items()):
        mend = Text.assemble(("\nto mend ", "bold"), f"{name}:\n  {fix}")
        console.print(mend, soft_wrap=True)
    console.print("")
    _draw_engines(console, engines)


def _draw_engines(console: Console, engines: Sequence[EngineStatus]) -> None:
    """One row per engine: what it can do, or how to get it."""
    from rich.text import Text

    from wasmgraph.cli.tables import plain_table

    table = plain_table("", "runtime", "version", *CAPABILITIES.values(), "found")
    for engine in engines:
        can = asdict(engine.capabilities) if engine.capabilities else {}
        marks = ("yes" if can.get(key) else "" for key in CAPABILITIES)
        mark = Text(*MARKS["ok" if engine.available else "optional-missing"])
        found = engine.detail if engine.fix is None else f"{engine.detail}: {engine.fix}"
        table.add_row(mark, engine.name, engine.version or "", *marks, found)
    console.print(table)
