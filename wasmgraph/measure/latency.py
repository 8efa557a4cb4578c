"""Repeat something, time every repetition, and say what came out. What it is, is the caller's."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Latency:
    """What many repetitions took, in milliseconds.

    Attributes:
        runs: How many were timed.
        minimum, median, p95, mean: The 95th percentile is interpolated between neighbours.
    """

    runs: int
    minimum: float
    median: float
    p95: float
    mean: float

    @classmethod
    def of(cls, milliseconds: Sequence[float]) -> Latency:
        """From single times in milliseconds.

        Raises:
            ValueError: there are none.
        """
        if not milliseconds:
            raise ValueError("no run was timed")
        times = np.asarray(milliseconds, dtype=np.float64)
        return cls(
            len(milliseconds),
            float(times.min()),
            float(np.median(times)),
            float(np.percentile(times, 95)),
            float(times.mean()),
        )

    def to_json(self) -> dict[str, Any]:
        """For `json.dumps`, in milliseconds."""
        return {
            key: value if key == "runs" else round(value, 6) for key, value in asdict(self).items()
        }


def time_runs(
    run: Callable[[], object],
    *,
    seconds: float,
    runs: int | None = None,
    warm_up: float = 0.0,
) -> list[float]:
    """Time `run` again and again.

    Args:
        run: Is called without arguments.
        seconds: For how long; a run that has begun ends. At least one is timed.
        runs: How many at most, or None for as many as fit.
        warm_up: Seconds of runs beforehand that are not timed.

    Returns:
        Milliseconds of every timed run, in order.
    """
    clock = time.perf_counter_ns
    warm = clock() + int(warm_up * 1e9)
    while clock() < warm:
        run()
    times: list[float] = []
    end = clock() + int(seconds * 1e9)
    while not times or (clock() < end and (runs is None or len(times) < runs)):
        began = clock()
        run()
        times.append((clock() - began) / 1e6)
    return times
