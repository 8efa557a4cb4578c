"""The closing table of a run: failing tests by operator and reason."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tests.conformance.cases import Case
from tests.conformance.outcome import Kind, Outcome, generalised
from wasmgraph.cli.tables import plain_table

if TYPE_CHECKING:
    from rich.console import Console

    from tests.conformance.record import Comparison

_ROWS_SHOWN = 60
_NAMES_SHOWN = 40


@dataclass(frozen=True)
class Group:
    """Tests of one operator that fail alike.

    Attributes:
        operator: With its domain where that is not ai.onnx.
        kind, reason: The reason without names, shapes and numbers.
        tests: Their names, sorted.
    """

    operator: str
    kind: Kind
    reason: str
    tests: tuple[str, ...]


def group_failures(outcomes: Sequence[Outcome], cases: Mapping[str, Case]) -> list[Group]:
    """The failing tests by operator, kind and reason; the largest groups first."""
    found: dict[tuple[str, Kind, str], list[str]] = {}
    for outcome in outcomes:
        if not outcome.passed:
            operator = str(cases[outcome.name].operator)
            key = (operator, outcome.kind, generalised(outcome.reason))
            found.setdefault(key, []).append(outcome.name)
    groups = [Group(*key, tuple(sorted(names))) for key, names in found.items()]
    return sorted(groups, key=lambda group: (-len(group.tests), group.operator, group.reason))


def draw(
    console: Console,
    outcomes: Sequence[Outcome],
    cases: Mapping[str, Case],
    comparison: Comparison,
) -> None:
    """Failures by operator and reason, then the counts, then what has changed."""
    groups = group_failures(outcomes, cases)
    if groups:
        table = plain_table("operator", "kind", "tests", "reason", right=["tests"])
        for group in groups[:_ROWS_SHOWN]:
            table.add_row(group.operator, group.kind, str(len(group.tests)), group.reason)
        console.print(table)
        left = groups[_ROWS_SHOWN:]
        if left:
            tests = sum(len(group.tests) for group in left)
            console.print(f"and {tests} tests in {len(left)} smaller groups; --json has all")
        console.print()
    kinds = Counter(outcome.kind for outcome in outcomes)
    parts = [f"{count} {kind}" for kind, count in kinds.most_common() if kind != "pass"]
    promoted = sum(bool(outcome.promoted) for outcome in outcomes if outcome.passed)
    console.print(
        f"{kinds['pass']} of {len(outcomes)} pass ({promoted} with inputs compiled in)"
        + "".join(f", {part}" for part in parts)
    )
    for title, names in (
        ("regressions, listed in passing.txt", comparison.regressions),
        ("pass and are not listed in passing.txt", comparison.gained),
    ):
        if names:
            console.print(f"\n{len(names)} {title}:")
            for name in names[:_NAMES_SHOWN]:
                console.print(f"  {name}", soft_wrap=True)
            if len(names) > _NAMES_SHOWN:
                console.print(f"  and {len(names) - _NAMES_SHOWN} more; --json has all")
