"""What is known of every test: the files in this folder, compared with a run and written by one."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import date
from pathlib import Path

from tests.conformance.cases import Case
from tests.conformance.outcome import Outcome
from wasmgraph.atomic import replaced_when_done

HERE = Path(__file__).resolve().parent
SUBSET_SIZE = 250
"""Tests in `make test`: 66 s of computing on one core of a Zen 4, 100 s beside other work."""


@dataclass(frozen=True)
class Record:
    """The state of conformance.

    Attributes:
        onnx: Whose version's tests these are.
        whole_run: The day of the last run of all tests, as YYYY-MM-DD, or "" before the first.
        updated: The day of the last update; later than `whole_run` where some were run again.
        passing: Names of the tests that pass.
        failing: How each of the others ends: its kind and reason.
        promoted: By passing test, the inputs that had to be compiled in, where there are any.
        constant: Those of `promoted` that had every input compiled in.
    """

    onnx: str
    whole_run: str = ""
    updated: str = ""
    passing: frozenset[str] = frozenset()
    failing: Mapping[str, str] = field(default_factory=dict)
    promoted: Mapping[str, str] = field(default_factory=dict)
    constant: frozenset[str] = frozenset()

    def with_run(self, outcomes: Iterable[Outcome], *, whole: bool, today: date) -> Record:
        """The record after a run of all tests, or of some."""
        day = today.isoformat()
        blank = Record(self.onnx, day) if whole else self
        failing, promoted = dict(blank.failing), dict(blank.promoted)
        passing, constant = set(blank.passing), set(blank.constant)
        for outcome in outcomes:
            name = outcome.name
            for known in (failing, promoted):
                known.pop(name, None)
            passing.discard(name)
            constant.discard(name)
            if not outcome.passed:
                failing[name] = str(outcome)
                continue
            passing.add(name)
            if outcome.promoted:
                promoted[name] = ", ".join(outcome.promoted)
            if outcome.constant:
                constant.add(name)
        return replace(
            blank,
            updated=day,
            passing=frozenset(passing),
            failing=failing,
            promoted=promoted,
            constant=frozenset(constant),
        )


@dataclass(frozen=True)
class Comparison:
    """A run against the record; names are sorted.

    Attributes:
        regressions: Recorded as passing and failing now.
        gained: Passing now and not recorded so.
    """

    regressions: tuple[str, ...]
    gained: tuple[str, ...]


def compare(record: Record, outcomes: Sequence[Outcome]) -> Comparison:
    """What a run changed for the worse and for the better."""
    passed = {outcome.name for outcome in outcomes if outcome.passed}
    failed = {outcome.name for outcome in outcomes if not outcome.passed}
    return Comparison(
        tuple(sorted(failed & record.passing)), tuple(sorted(passed - record.passing))
    )


def read_record(folder: Path) -> Record | None:
    """The record in a folder, or None if there is none yet."""
    if not (folder / "outcomes.json").is_file():
        return None
    data = json.loads((folder / "outcomes.json").read_text(encoding="utf-8"))
    return Record(
        data["onnx"],
        data["whole_run"],
        data["updated"],
        frozenset(read_names(folder / "passing.txt")),
        data["failing"],
        data["promoted"],
        frozenset(data["constant"]),
    )


def write_record(record: Record, cases: Mapping[str, Case], folder: Path) -> None:
    """Write passing.txt, outcomes.json and subset.txt."""
    data = {
        "onnx": record.onnx,
        "whole_run": record.whole_run,
        "updated": record.updated,
        "failing": dict(sorted(record.failing.items())),
        "promoted": dict(sorted(record.promoted.items())),
        "constant": sorted(record.constant),
    }
    passing = sorted(record.passing)
    operators = {name: str(cases[name].operator) for name in passing}
    write_text(folder / "passing.txt", _lines(passing))
    write_text(folder / "subset.txt", _lines(choose_subset(operators, SUBSET_SIZE)))
    write_text(folder / "outcomes.json", json.dumps(data, indent=1, ensure_ascii=False) + "\n")


def choose_subset(operators: Mapping[str, str], size: int) -> list[str]:
    """About `size` tests: the first by name of every operator, then every so-manieth of the rest.

    Args:
        operators: What each test is about, by its name.
        size: How many to choose; more if there are more operators.

    Returns:
        Their names, sorted.
    """
    firsts = {operators[name]: name for name in sorted(operators, reverse=True)}
    chosen = set(firsts.values())
    rest = [name for name in sorted(operators) if name not in chosen]
    wanted = min(size - len(chosen), len(rest))
    chosen.update(rest[index * len(rest) // wanted] for index in range(wanted))
    return sorted(chosen)


def read_names(path: Path) -> list[str]:
    """The lines of a list of names."""
    return path.read_text(encoding="utf-8").split()


def _lines(names: Iterable[str]) -> str:
    return "".join(f"{name}\n" for name in names)


def write_text(path: Path, text: str) -> None:
    """Write a file whole or not at all."""
    with replaced_when_done(path) as unfinished:
        unfinished.write_text(text, encoding="utf-8")
