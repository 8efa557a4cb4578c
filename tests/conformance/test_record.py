"""The record of conformance: updated by whole and partial runs, compared, written, drawn."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import date
from pathlib import Path

import onnx
import pytest
from click.testing import CliRunner, Result
from hypothesis import given
from hypothesis import strategies as st

from tests.conformance import __main__ as program
from tests.conformance.cases import Case, Operator
from tests.conformance.outcome import Outcome
from tests.conformance.page import operators_page
from tests.conformance.record import (
    Record,
    choose_subset,
    compare,
    read_names,
    read_record,
    write_record,
)
from tests.conformance.summary import Group, group_failures

MONDAY, TUESDAY = date(2026, 11, 16), date(2026, 11, 17)
OUTCOMES = [
    Outcome("test_add", "pass"),
    Outcome("test_conv", "wrong", "output 0 differs: 50% of its elements"),
    Outcome("test_range", "pass", promoted=("start", "limit"), constant=True),
    Outcome("test_reshape", "pass", promoted=("shape",)),
]


def made_case(name: str, operator: str, version: int = 13, domain: str = "ai.onnx") -> Case:
    model = onnx.ModelProto()
    return Case(name, Operator(domain, operator, version), model, (), (), 1e-3, 1e-7)


CASES: Mapping[str, Case] = {
    case.name: case
    for case in (
        made_case("test_add", "Add", 14),
        made_case("test_conv", "Conv", 22),
        made_case("test_range", "Range", 11),
        made_case("test_reshape", "Reshape", 25),
    )
}


@pytest.fixture
def record() -> Record:
    return Record("1.2.3").with_run(OUTCOMES, whole=True, today=MONDAY)


def test_a_whole_run_is_what_is_known(record: Record) -> None:
    assert record.passing == {"test_add", "test_range", "test_reshape"}
    assert record.failing == {"test_conv": "wrong: output 0 differs: 50% of its elements"}
    assert record.promoted == {"test_range": "start, limit", "test_reshape": "shape"}
    assert record.constant == {"test_range"}
    assert (record.whole_run, record.updated) == ("2026-11-16", "2026-11-16")
    again = record.with_run(OUTCOMES[:1], whole=True, today=TUESDAY)
    assert again.passing == {"test_add"}
    assert again.failing == {}


def test_a_partial_run_changes_what_it_ran(record: Record) -> None:
    later = record.with_run(
        [Outcome("test_conv", "pass"), Outcome("test_range", "crash", "exit status 3")],
        whole=False,
        today=TUESDAY,
    )
    assert later.passing == {"test_add", "test_conv", "test_reshape"}
    assert later.failing == {"test_range": "crash: exit status 3"}
    assert later.promoted == {"test_reshape": "shape"}
    assert later.constant == set()
    assert (later.whole_run, later.updated) == ("2026-11-16", "2026-11-17")


def test_a_listed_test_that_fails_is_a_regression_and_an_unlisted_one_that_passes_a_gain(
    record: Record,
) -> None:
    outcomes = [Outcome("test_conv", "pass"), Outcome("test_add", "timeout", "took long")]
    comparison = compare(record, outcomes)
    assert comparison.regressions == ("test_add",)
    assert comparison.gained == ("test_conv",)
    unchanged = compare(record, OUTCOMES)
    assert (unchanged.regressions, unchanged.gained) == ((), ())


def test_what_is_written_is_read_back(record: Record, tmp_path: Path) -> None:
    assert read_record(tmp_path) is None
    write_record(record, CASES, tmp_path)
    assert read_record(tmp_path) == record
    assert read_names(tmp_path / "passing.txt") == ["test_add", "test_range", "test_reshape"]
    assert read_names(tmp_path / "subset.txt") == ["test_add", "test_range", "test_reshape"]


names = st.text("abcde", min_size=1, max_size=4)


@given(st.dictionaries(names, st.sampled_from("PQRS")), st.integers(0, 60))
def test_a_subset_has_every_operator_and_the_size_asked_for(
    operators: dict[str, str], size: int
) -> None:
    chosen = choose_subset(operators, size)
    assert chosen == sorted(set(chosen))
    assert set(chosen) <= set(operators)
    assert {operators[name] for name in chosen} == set(operators.values())
    fewest = len(set(operators.values()))
    assert len(chosen) == min(max(size, fewest), len(operators))


def test_failures_are_grouped_by_operator_and_kind_of_reason() -> None:
    cases = {
        case.name: case
        for case in (
            made_case("test_a", "Add"),
            made_case("test_b", "Add"),
            made_case("test_c", "Add"),
            made_case("test_d", "Tree", domain="ai.onnx.ml"),
        )
    }
    outcomes = [
        Outcome("test_d", "refused", "has the dtype bfloat16"),
        Outcome("test_b", "wrong", "output 1 differs: 9% of its elements, by up to 3e-05"),
        Outcome("test_a", "wrong", "output 0 differs: 50% of its elements, by up to 2"),
        Outcome("test_c", "pass"),
    ]
    assert group_failures(outcomes, cases) == [
        Group(
            "Add",
            "wrong",
            "output N differs: N of its elements, by up to N",
            ("test_a", "test_b"),
        ),
        Group("ai.onnx.ml.Tree", "refused", "has the dtype bfloat16", ("test_d",)),
    ]


def test_the_page_has_the_counts_the_version_the_date_and_the_reasons(record: Record) -> None:
    page = operators_page(record, CASES)
    text = " ".join(page.split())
    assert "**3 of the 4 node tests of onnx 1.2.3 pass**" in text
    assert "2026-11-16)" in text
    assert "**2 of the tests that pass rely on that**, and 1 of them" in text
    assert "| Add | 14 | 1/1 |  |" in page
    assert "| Conv | 22 (0/1) | 0/1 | 1× wrong: output N differs: N of its elements |" in page
    later = record.with_run(OUTCOMES[:1], whole=False, today=TUESDAY)
    text = " ".join(operators_page(later, CASES).split())
    assert "2026-11-16, brought up to date 2026-11-17)" in text


@pytest.fixture
def run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, record: Record
) -> Mapping[str, list[Outcome]]:
    """The program over a folder of its own; what its pool will find is in "outcomes"."""
    write_record(record, CASES, tmp_path)
    found = {"outcomes": list(OUTCOMES)}
    monkeypatch.setattr(program, "HERE", tmp_path)
    monkeypatch.setattr(program, "PAGE", tmp_path / "OPERATORS.md")
    monkeypatch.setattr(program, "collect", lambda: CASES)
    monkeypatch.setattr(program, "_run", lambda *_: found["outcomes"])
    return found


def invoke(*arguments: str) -> Result:
    return CliRunner().invoke(program.main, list(arguments))


def test_a_run_as_recorded_exits_with_0_and_writes_nothing(
    run: Mapping[str, list[Outcome]], tmp_path: Path
) -> None:
    done = invoke()
    assert done.exit_code == 0, done.output
    assert "3 of 4 pass (2 with inputs compiled in), 1 wrong" in done.output
    assert not (tmp_path / "OPERATORS.md").exists()


def test_a_regression_exits_with_1_and_is_named(run: Mapping[str, list[Outcome]]) -> None:
    run["outcomes"][0] = Outcome("test_add", "refused", "no more")
    done = invoke("--json")
    assert done.exit_code == 1
    data = json.loads(done.stdout)
    assert data["regressions"] == ["test_add"]
    assert (data["passed"], data["total"]) == (2, 4)


def test_update_records_what_was_found(
    run: Mapping[str, list[Outcome]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run["outcomes"][1] = Outcome("test_conv", "pass")
    done = invoke("--update")
    assert done.exit_code == 0, done.output
    assert "1 pass and are not listed" in done.output
    assert read_names(tmp_path / "passing.txt") == sorted(CASES)
    assert "4 of the 4" in (tmp_path / "OPERATORS.md").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--filter", "nothing_like_it"], "no test's name matches"),
        (["--filter", "("], "is no regular expression"),
        (["--filter", "add", "--update"], "the record is of onnx 1.2.3"),
    ],
)
def test_flags_that_cannot_be_meant_are_usage_errors(
    run: Mapping[str, list[Outcome]], arguments: list[str], said: str
) -> None:
    done = invoke(*arguments)
    assert done.exit_code == 2
    assert said in done.output
