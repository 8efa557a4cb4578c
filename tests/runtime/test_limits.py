"""Sizes and durations in words."""

from __future__ import annotations

import pytest

from wasmgraph.runtime.limits import format_size, parse_duration, parse_size


@pytest.mark.parametrize(
    ("text", "nbytes"),
    [("512MiB", 512 * 2**20), ("1.5 GiB", 3 * 2**29), ("64kB", 64000), ("65536", 65536), (7, 7)],
)
def test_a_size_is_read(text: int | str, nbytes: int) -> None:
    assert parse_size(text) == nbytes


@pytest.mark.parametrize(
    ("text", "seconds"), [("10s", 10), ("250ms", 0.25), ("2min", 120), (".5", 0.5), (3, 3)]
)
def test_a_duration_is_read(text: float | str, seconds: float) -> None:
    assert parse_duration(text) == pytest.approx(seconds)


@pytest.mark.parametrize("text", ["", "MiB", "5 parsecs", "-5MiB", "1e3", "0", "5MiBs", 0, -1])
def test_what_is_no_size_is_a_value_error(text: int | str) -> None:
    with pytest.raises(ValueError, match=r"size|limit"):
        parse_size(text)


@pytest.mark.parametrize("text", ["", "s", "-1s", "inf", "0s", float("nan"), float("inf"), 0])
def test_what_is_no_duration_is_a_value_error(text: float | str) -> None:
    with pytest.raises(ValueError, match=r"duration|limit"):
        parse_duration(text)


def test_a_size_for_people() -> None:
    assert [format_size(n) for n in (12, 2048, 19_713_229, 5 * 2**40)] == [
        "12 B",
        "2.0 KiB",
        "18.8 MiB",
        "5120.0 GiB",
    ]
