"""Threads that help with one piece of work at a time, and that hold nobody up.

They are daemons and wait on queues of their own, so that a process can end whatever they do.
Nothing here knows of an engine.
"""

from __future__ import annotations

import queue
import threading
import weakref
from collections.abc import Callable, Sequence
from concurrent.futures import Future

Job = Callable[[], None]


class Crew:
    """A few threads, each of which does one job at a time. They end when it is closed or dropped.

    Args:
        size: How many.
        leaving: Gets the threads that were told to end; see `wait_for`.
    """

    def __init__(self, size: int, leaving: list[threading.Thread]) -> None:
        self._members = [_Member() for _ in range(size)]
        self._leaving = leaving
        self._finalizer = weakref.finalize(self, _dismiss, self._members, leaving)

    def start(self, jobs: Sequence[Job]) -> list[Future[None]]:
        """Give every thread its job; the futures tell how they end."""
        return [member.start(job) for member, job in zip(self._members, jobs, strict=True)]

    def close(self) -> None:
        """End the threads and wait for them; calling it again does nothing."""
        self._finalizer()
        wait_for(self._leaving)


def wait_for(leaving: list[threading.Thread]) -> None:
    """Wait until threads that were told to end have done so."""
    for thread in list(leaving):
        if thread is not threading.current_thread():
            thread.join()
            if thread in leaving:
                leaving.remove(thread)


def settle(futures: Sequence[Future[None]]) -> BaseException | None:
    """Take back the jobs that have not begun and wait for the others; the first error, if any."""
    begun = [future for future in futures if not future.cancel()]
    errors = [future.exception() for future in begun]
    return next((error for error in errors if error is not None), None)


class _Member:
    def __init__(self) -> None:
        self._queue: queue.SimpleQueue[tuple[Job, Future[None]] | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None

    def start(self, job: Job) -> Future[None]:
        # A forked child inherits the object but not the thread.
        if self._thread is None or not self._thread.is_alive():
            self._thread = threading.Thread(
                target=_work, args=(self._queue,), name="wasmgraph-helper", daemon=True
            )
            self._thread.start()
        future: Future[None] = Future()
        self._queue.put((job, future))
        return future

    def dismiss(self, leaving: list[threading.Thread]) -> None:
        if self._thread is not None and self._thread.is_alive():
            leaving.append(self._thread)
            self._queue.put(None)


def _dismiss(members: Sequence[_Member], leaving: list[threading.Thread]) -> None:
    for member in members:
        member.dismiss(leaving)


def _work(jobs: queue.SimpleQueue[tuple[Job, Future[None]] | None]) -> None:
    while (item := jobs.get()) is not None:
        job, future = item
        if future.set_running_or_notify_cancel():
            try:
                job()
            except BaseException as error:
                future.set_exception(error)
            else:
                future.set_result(None)
        # What a job refers to must be able to go while the thread waits for the next.
        del item, job, future
