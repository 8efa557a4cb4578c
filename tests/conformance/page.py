"""OPERATORS.md: what the record says, by operator and opset version."""

from __future__ import annotations

import re
import textwrap
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path

import onnx

from tests.conformance.cases import Case
from tests.conformance.outcome import generalised
from tests.conformance.record import Record

PAGE = Path(__file__).resolve().parents[2] / "OPERATORS.md"

_REASONS_SHOWN = 2
_REASON_WIDTH = 110


def operators_page(record: Record, cases: Mapping[str, Case]) -> str:
    """The whole page.

    Args:
        record: Of all of `cases`.
        cases: onnx's node tests.
    """
    by_operator: dict[tuple[str, str], list[Case]] = defaultdict(list)
    for case in cases.values():
        by_operator[case.operator.domain, case.operator.name].append(case)
    domains = sorted({domain for domain, _ in by_operator})
    parts = [_introduction(record, cases, by_operator)]
    for domain in domains:
        parts.append(f"## {domain}\n")
        parts.append("| operator | opset versions tested | passed | where not all pass |")
        parts.append("| --- | --- | --- | --- |")
        for key in sorted(key for key in by_operator if key[0] == domain):
            parts.append(_row(key[1], by_operator[key], record))
        parts.append("")
    parts.append("## Without a node test\n")
    parts.append(_untested(set(by_operator)))
    return "\n".join(parts)


def _introduction(
    record: Record, cases: Mapping[str, Case], by_operator: Mapping[tuple[str, str], list[Case]]
) -> str:
    promoted, failing = record.promoted, record.failing
    whole = sum(_passed(tests, record) == len(tests) for tests in by_operator.values())
    none = sum(_passed(tests, record) == 0 for tests in by_operator.values())
    kinds = Counter(text.split(":", maxsplit=1)[0] for text in failing.values())
    said = ", ".join(f"{count} {_KINDS[kind]}" for kind, count in kinds.most_common())
    later = f", brought up to date {record.updated}" if record.updated != record.whole_run else ""
    paragraphs = [
        "Written by `make conformance UPDATE=1`; not to be edited by hand.",
        f"**{len(record.passing)} of the {len(cases)} node tests of onnx {record.onnx} pass**, "
        "each compiled to a `.wasm`, run under Wasmtime and compared as onnx's own runner compares "
        f"(run of {record.whole_run}{later}). Of {len(by_operator)} operators {whole} pass all of "
        f"their tests, {none} none. The other {len(failing)} tests: {said or 'none'}.",
        "The tests give every operand as an input of the model. Where an operator needs one when "
        "compiling, such as the target shape of a Reshape or the axes of a ReduceSum, its value in "
        f"the test is compiled in: **{len(promoted)} of the tests that pass rely on that**, and "
        f"{len(record.constant)} of them have all their inputs compiled in, such as those of Range "
        "and ConstantOfShape, so that nothing is left to compute at run time. "
        "[backend.py](wasmgraph/backend.py) lists these operands. Data are never compiled in.",
        "A test counts for the operator it is about, also where it has the operator's definition "
        "in its place. A version is the opset that defined the operator as it is tested; models of "
        "older opsets are upgraded first. `(3/4)` after a version says how many of its tests pass, "
        "where it is not all.",
    ]
    filled = [textwrap.fill(text, 100, break_on_hyphens=False) for text in paragraphs]
    return "\n\n".join(["# Operators", *filled]) + "\n"


_KINDS = {
    "refused": "refused with the reason, before anything runs",
    "wrong": "with other results",
    "error": "end in another error",
    "crash": "crash the compiler",
    "timeout": "take too long",
}


def _passed(tests: Sequence[Case], record: Record) -> int:
    return sum(case.name in record.passing for case in tests)


def _row(name: str, tests: list[Case], record: Record) -> str:
    by_version: dict[int, list[Case]] = defaultdict(list)
    for case in tests:
        by_version[case.operator.version].append(case)
    versions = []
    for version in sorted(by_version):
        passed, total = _passed(by_version[version], record), len(by_version[version])
        versions.append(f"{version}" if passed == total else f"{version} ({passed}/{total})")
    failures = [record.failing[case.name] for case in tests if case.name in record.failing]
    found = Counter(map(generalised, failures))
    reasons = [f"{count}× {_shortened(reason)}" for reason, count in found.most_common()]
    more = len(reasons) - _REASONS_SHOWN
    shown = reasons[:_REASONS_SHOWN] + ([f"{more} other reasons"] if more > 0 else [])
    cell = "; ".join(shown).replace("|", "\\|")
    return f"| {name} | {', '.join(versions)} | {_passed(tests, record)}/{len(tests)} | {cell} |"


def _shortened(reason: str) -> str:
    reason = re.sub(r"^refused: ", "", reason)
    return reason if len(reason) <= _REASON_WIDTH else reason[: _REASON_WIDTH - 1] + "…"


def _untested(tested: set[tuple[str, str]]) -> str:
    untested = sorted(
        {
            schema.name if not schema.domain else f"{schema.domain}.{schema.name}"
            for schema in onnx.defs.get_all_schemas()
            if not schema.deprecated and (schema.domain or "ai.onnx", schema.name) not in tested
        }
    )
    return "onnx has none for " + ", ".join(untested) + ".\n"
