"""Turns wall time into an engine's epochs, so that a run beyond its time limit is interrupted.

The engine's code compares a counter with a deadline at every loop and call; this thread advances
the counter by the clock while somebody runs. It holds no limits and stops nothing by itself.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager


class Watchdog:
    """Calls `tick` once per `interval` seconds of wall time while a run is under way.

    The thread is a daemon, starts with the first run and sleeps between runs. Its calls follow the
    clock, not the sleeps: after a late wake-up it catches up, so that a delay does not add up. What
    it is late with when another run begins is made up for first, and does not count for that run.
    """

    def __init__(self, tick: Callable[[], None], interval: float) -> None:
        self.interval = interval
        self._tick = tick
        self._changed = threading.Condition()
        self._running = 0
        self._began = 0.0
        self._ticks = 0  # since then
        self._closed = False
        self._thread: threading.Thread | None = None

    @contextmanager
    def running(self) -> Iterator[None]:
        """Tick while the block runs; a deadline is to be set inside."""
        with self._changed:
            if self._running == 0:
                self._began, self._ticks = time.monotonic(), 0
            self._catch_up()
            self._running += 1
            # A forked child inherits the object but not the thread.
            if self._thread is None or not self._thread.is_alive():
                self._thread = threading.Thread(
                    target=self._watch, name="wasmgraph-watchdog", daemon=True
                )
                self._thread.start()
            self._changed.notify()
        try:
            yield
        finally:
            with self._changed:
                self._running -= 1

    def close(self) -> None:
        """End the thread once no run is under way; idempotent, and does not wait for it."""
        with self._changed:
            self._closed = True
            self._changed.notify()

    def _watch(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._closed or self._running > 0)
                if self._running == 0:
                    return
            while self._running > 0:
                time.sleep(self.interval)
                with self._changed:
                    self._catch_up()

    def _catch_up(self) -> None:
        """Call `tick` as often as is due by now; the lock is held."""
        due = int((time.monotonic() - self._began) / self.interval)
        for _ in range(due - self._ticks):
            self._tick()
        self._ticks = due
