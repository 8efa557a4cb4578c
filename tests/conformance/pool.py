"""Worker processes of which any may crash or hang without taking the others along."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import tempfile
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable
from contextlib import ExitStack
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any, Generic, Literal, TypeVar

T = TypeVar("T")
R = TypeVar("R")

START_SECONDS = 120.0
"""For a process to start and to import what the function needs."""

_GRACE_SECONDS = 3.0


@dataclass(frozen=True)
class Lost:
    """What there is in place of a result.

    Attributes:
        kind: "crash" if the process died, "timeout" if it was killed.
        reason: How it died and the last it printed, or the limit.
    """

    kind: Literal["crash", "timeout"]
    reason: str


class WorkersDoNotStart(Exception):
    """A worker died before it took any work, so that nothing would ever be done."""


def run_all(
    function: Callable[[T], R], items: Iterable[T], *, workers: int, seconds: float
) -> Generator[tuple[T, R | Lost], None, None]:
    """Apply a function to every item, each in one of `workers` processes.

    Args:
        function: At the top level of a module, as it is imported in every process. An exception
            from it counts as a crash. What it prints is kept only for that case.
        items: What pickle can carry.
        workers: How many processes.
        seconds: After which a process that works on one item is killed. The item is given out once
            more, at the end: it may have been the machine that stood still.

    Yields:
        Item and result, or item and `Lost`, in the order in which they end. When the iterator is
        closed, or on Ctrl-C, every process ends and its temporary files go.

    Raises:
        WorkersDoNotStart: what the first process said when it died.
    """
    todo = deque(items)
    given_again: set[int] = set()
    seats: list[_Seat[T, R]] = []
    with ExitStack() as stack:
        # cargo may outlive a killed process by a moment, and write while its folder goes.
        temporary = tempfile.TemporaryDirectory(prefix="conformance-", ignore_cleanup_errors=True)
        scratch = Path(stack.enter_context(temporary))
        for number in range(min(workers, len(todo))):
            seat: _Seat[T, R] = _Seat(function, scratch / str(number), seconds)
            stack.callback(seat.stop)
            seats.append(seat)
        while any(seat.is_open for seat in seats):
            for seat in _ready(seats):
                for item, result in seat.take_up():
                    late = isinstance(result, Lost) and result.kind == "timeout"
                    if late and id(item) not in given_again:
                        given_again.add(id(item))
                        todo.append(item)
                    else:
                        yield item, result
                if not todo and not seat.is_busy:
                    seat.stop()
                elif not seat.is_open:
                    seat.start()
                elif not seat.is_busy:
                    seat.give(todo.popleft())


def _ready(seats: list[_Seat[T, R]]) -> list[_Seat[T, R]]:
    """The seats that have something to say, or whose time is over."""
    open_seats = [seat for seat in seats if seat.is_open]
    left = max(0.0, min(seat.deadline for seat in open_seats) - time.monotonic())
    said = wait([seat.connection for seat in open_seats], left)
    now = time.monotonic()
    return [seat for seat in open_seats if seat.connection in said or seat.deadline <= now]


class _Seat(Generic[T, R]):
    """A place for one process at a time, and what it works on."""

    def __init__(self, function: Callable[[T], R], folder: Path, seconds: float) -> None:
        self._function = function
        self._folder = folder
        self._seconds = seconds
        folder.mkdir()
        _log(folder).touch()  # it may die before it prints
        self.start()

    def start(self) -> None:
        """A new process, which says so when it can be given an item."""
        context = multiprocessing.get_context("spawn")
        self.connection, theirs = context.Pipe()
        self._process = context.Process(
            target=_serve, args=(self._function, theirs, self._folder), daemon=True
        )
        self._process.start()
        theirs.close()  # so that the process' end shows here
        self._item: tuple[T] | None = None
        self.is_open = True
        self.deadline = time.monotonic() + START_SECONDS

    @property
    def is_busy(self) -> bool:
        """Whether an item is being worked on."""
        return self._item is not None

    def give(self, item: T) -> None:
        """Work on an item."""
        self._item = (item,)
        self.deadline = time.monotonic() + self._seconds
        with contextlib.suppress(BrokenPipeError):  # its end shows when the seat is next looked at
            self.connection.send(item)

    def take_up(self) -> list[tuple[T, R | Lost]]:
        """The result that has come, or what became of the item; empty for a start."""
        try:
            if not self.connection.poll():
                return self._lose(Lost("timeout", f"took more than {self._seconds:g} s"))
            message = self.connection.recv()
        except (EOFError, ConnectionResetError):
            self._process.join()
            return self._lose(Lost("crash", self._how_it_died()))
        if self._item is None:
            return []
        [item], self._item = self._item, None
        return [(item, message)]

    def _lose(self, lost: Lost) -> list[tuple[T, R | Lost]]:
        self.stop()
        if self._item is None:
            raise WorkersDoNotStart(lost.reason)
        [item], self._item = self._item, None
        return [(item, lost)]

    def _how_it_died(self) -> str:
        code = self._process.exitcode or 0
        how = f"killed by {signal.Signals(-code).name}" if code < 0 else f"exit status {code}"
        said = _log(self._folder).read_text(encoding="utf-8", errors="replace").split("\n")
        last = next((line.strip() for line in reversed(said) if line.strip()), "")
        return f"{how}: {last}" if last else how

    def stop(self) -> None:
        """End the process: by itself where it waits for work, else by force."""
        if not self.is_open:
            return
        self.is_open = False
        self.connection.close()
        if self.is_busy and self._process.pid is not None and self._process.is_alive():
            os.kill(self._process.pid, signal.SIGINT)  # so that it ends what it has started
        self._process.join(_GRACE_SECONDS)
        if self._process.is_alive():
            self._process.kill()
            self._process.join()


def _log(folder: Path) -> Path:
    return folder / "said.txt"


def _serve(function: Callable[[Any], Any], connection: Connection, folder: Path) -> None:
    """The process: answer every item with its result until nobody asks any more."""
    os.environ["TMPDIR"] = str(folder)  # what a killed process leaves goes with the folder
    tempfile.tempdir = None
    log = os.open(_log(folder), os.O_CREAT | os.O_WRONLY | os.O_APPEND | os.O_TRUNC)
    for stream in (1, 2):
        os.dup2(log, stream)
    with contextlib.suppress(EOFError, BrokenPipeError, KeyboardInterrupt):
        connection.send(None)
        while True:
            item = connection.recv()
            os.ftruncate(log, 0)
            connection.send(function(item))
