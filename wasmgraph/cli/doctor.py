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

MARKS = {"ok": ("ok", "green"), "missing": ("missing", "red"), "optional-missing": ("-", "yellow")}


@click.command(epilog=example("wasmgraph doctor"))
@common_options
def command(terminal: Terminal) -> None:
    """Say what this machine has and lacks for compiling, running and verifying.

    Exits with 5 if something required is missing.
    """
    from wasmgraph.doctor import examine
    from wasmgraph.errors import ToolchainError

    with terminal.stages():
        findings = examine()
    lacking = [f.name for f in findings if f.required and f.status == "missing"]
    data = {"ok": not lacking, "findings": [asdict(finding) for finding in findings]}
    terminal.result(data, lambda console: draw(console, findings))
    if lacking:
        if not terminal.json:
            click.echo(f"error: required but missing: {', '.join(lacking)}", err=True)
        sys.exit(ToolchainError.exit_code)


def draw(console: Console, findings: Sequence[Finding]) -> None:
    """One row per finding, then the commands that mend what is missing, each once."""
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
