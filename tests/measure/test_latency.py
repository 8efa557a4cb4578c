"""Statistics of known times, and how many runs are made."""

from __future__ import annotations

import time

import pytest

from wasmgraph.measure.latency import Latency, time_runs


def test_statistics_of_known_times() -> None:
    latency = Latency.of([4.0, 1.0, 2.0, 3.0, 10.0])
    assert (latency.runs, latency.minimum, latency.median, latency.mean) == (5, 1.0, 3.0, 4.0)
    assert latency.p95 == pytest.approx(4.0 + 0.8 * 6.0)  # between the 4th and the 5th


def test_statistics_of_nothing_are_an_error() -> None:
    with pytest.raises(ValueError, match="no run"):
        Latency.of([])


def test_a_run_that_takes_longer_than_the_time_is_still_timed() -> None:
    (single,) = time_runs(lambda: time.sleep(0.02), seconds=0.001)
    assert single >= 20


def test_no_more_runs_than_asked_for() -> None:
    calls: list[None] = []
    times = time_runs(lambda: calls.append(None), seconds=10, runs=3)
    assert len(times) == len(calls) == 3


def test_a_warm_up_is_not_timed() -> None:
    calls: list[None] = []
    times = time_runs(lambda: calls.append(None), seconds=10, runs=1, warm_up=0.01)
    assert len(times) == 1
    assert len(calls) > 1
