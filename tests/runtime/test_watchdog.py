"""The watchdog ticks by the clock, and is never ahead of it for anybody."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import dataclass, field

import pytest

from wasmgraph.runtime import watchdog as module_under_test
from wasmgraph.runtime.watchdog import Watchdog


@dataclass
class Clock:
    """Stands in for `time`: the test says what time it is and when sleepers wake up."""

    now: float = 0.0
    awake: threading.Event = field(default_factory=threading.Event)

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.awake.wait()


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Iterator[Clock]:
    clock = Clock()
    monkeypatch.setattr(module_under_test, "time", clock)
    yield clock
    clock.awake.set()


def test_ticks_that_are_late_come_before_the_next_run_begins(clock: Clock) -> None:
    ticks: list[float] = []
    watchdog = Watchdog(lambda: ticks.append(clock.now), interval=1.0)
    with watchdog.running():
        clock.now = 3.5  # and the thread still sleeps
        assert ticks == []
        with watchdog.running():
            assert ticks == [3.5, 3.5, 3.5]
    watchdog.close()


def test_time_without_a_run_does_not_count(clock: Clock) -> None:
    ticks: list[float] = []
    watchdog = Watchdog(lambda: ticks.append(clock.now), interval=1.0)
    with watchdog.running():
        pass
    clock.now = 100.0
    with watchdog.running():
        assert ticks == []
    watchdog.close()
