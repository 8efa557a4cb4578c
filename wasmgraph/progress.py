"""How stages tell somebody what they are doing. No stage prints; the command line draws this."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager


class Reporter:
    """Receives progress. This base class is silent; subclasses draw or collect.

    One stage is open at a time. `total` is the number of `advance` steps expected, or None where
    it is not known beforehand.
    """

    def start(self, stage: str, total: int | None = None) -> None:
        """A stage begins."""

    def set_total(self, total: int) -> None:
        """The open stage now knows how many steps it has."""

    def advance(self, detail: str = "") -> None:
        """One step of the open stage is done; `detail` names what comes next or was done."""

    def finish(self, stage: str, seconds: float) -> None:
        """The stage ended well after `seconds`."""

    def log(self, message: str) -> None:
        """A detail that only a verbose user wants."""

    def warn(self, message: str) -> None:
        """Something the user should know although work goes on."""


SILENT = Reporter()


@contextmanager
def stage(
    reporter: Reporter, name: str, seconds: dict[str, float], total: int | None = None
) -> Iterator[None]:
    """Run one stage: report its start and end, and record its wall time in `seconds[name]`."""
    reporter.start(name, total)
    began = time.perf_counter()
    yield
    seconds[name] = time.perf_counter() - began
    reporter.finish(name, seconds[name])
