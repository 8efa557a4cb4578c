"""onnx's node tests as wasm: the part of those that pass which is quick enough for every change."""

from __future__ import annotations

from collections.abc import Mapping

import onnx
import pytest

from tests.conformance.cases import Case, collect
from tests.conformance.outcome import run_case
from tests.conformance.page import PAGE, operators_page
from tests.conformance.record import HERE, read_names, read_record

RECORD = read_record(HERE)


@pytest.fixture(scope="session")
def cases() -> Mapping[str, Case]:
    """onnx's node tests, where they are those that the record is about."""
    assert RECORD is not None
    if RECORD.onnx != onnx.__version__:
        pytest.skip(f"the record is of onnx {RECORD.onnx}'s tests, this is {onnx.__version__}")
    return collect()


@pytest.mark.parametrize("name", read_names(HERE / "subset.txt"))
def test_a_node_test_still_passes(name: str, cases: Mapping[str, Case]) -> None:
    # onnx's tolerance, rtol 1e-3 and atol 1e-7, which every test states for itself.
    outcome = run_case(cases[name])
    assert outcome.passed, str(outcome)


def test_every_node_test_is_recorded_once(cases: Mapping[str, Case]) -> None:
    assert RECORD is not None
    assert RECORD.passing.isdisjoint(RECORD.failing)
    assert RECORD.passing | set(RECORD.failing) == set(cases)


def test_the_files_agree_with_each_other() -> None:
    assert RECORD is not None
    assert set(read_names(HERE / "subset.txt")) <= RECORD.passing
    assert RECORD.constant <= set(RECORD.promoted) <= RECORD.passing
    names = read_names(HERE / "passing.txt")
    assert names == sorted(set(names))


def test_the_page_says_what_the_record_says(cases: Mapping[str, Case]) -> None:
    assert RECORD is not None
    assert PAGE.read_text(encoding="utf-8") == operators_page(RECORD, cases)
