"""A process with one system in it, and the conversation with it.

Every system has a process of its own, pinned to as many cores as it has threads, so that its
memory and its load time are its own. While one works, the others wait for their next request.
"""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import signal
import subprocess
import tempfile
import time
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Any

from wasmgraph.runtime.process_memory import ProcessMemory, process_memory

START_SECONDS = 60.0
_BLOCK = 65536


class WorkerError(Exception):
    """The system failed, or its process ended or did not answer."""


class Worker:
    """Starts the process; use it as a context manager.

    Args:
        command: What to run; the number of the file descriptor for replies is added.
        cores: The CPUs it may use.
        env: Its environment.
    """

    def __init__(
        self, command: Sequence[str], cores: Sequence[int], env: Mapping[str, str]
    ) -> None:
        self._stderr = tempfile.TemporaryFile()  # noqa: SIM115 - closed in close
        self._replies, theirs = os.pipe()
        try:
            self._process = subprocess.Popen(
                ["taskset", "--cpu-list", ",".join(map(str, cores)), *command, str(theirs)],
                stdin=subprocess.PIPE,
                stdout=self._stderr,
                stderr=self._stderr,
                pass_fds=[theirs],
                env=env,
                start_new_session=True,
            )
        except OSError as error:
            raise WorkerError(f"{command[0]} cannot be started: {error.strerror}") from error
        finally:
            os.close(theirs)
        self._pending = b""
        try:
            self._answer(START_SECONDS)
        except WorkerError:
            self.close()
            raise
        self.at_start = self.memory()

    def ask(self, request: str, timeout: float, **arguments: Any) -> dict[str, Any]:
        """Send a request and wait for its answer.

        Raises:
            WorkerError: the system reports an error, ends, or takes longer than `timeout` seconds.
        """
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(
                json.dumps({"request": request, **arguments}).encode() + b"\n"
            )
            self._process.stdin.flush()
        except BrokenPipeError:
            raise WorkerError(self._last_words()) from None
        return self._answer(timeout)

    def memory(self) -> ProcessMemory | None:
        """Its memory now."""
        return process_memory(self._process.pid)

    def close(self) -> None:
        """End the process; a system that does not end by itself is killed."""
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.close()
        try:
            self._process.wait(5)
        except subprocess.TimeoutExpired:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
        os.close(self._replies)
        self._stderr.close()

    def __enter__(self) -> Worker:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _answer(self, timeout: float) -> dict[str, Any]:
        end = time.monotonic() + timeout
        with selectors.DefaultSelector() as selector:
            selector.register(self._replies, selectors.EVENT_READ)
            while b"\n" not in self._pending:
                if not selector.select(max(0.0, end - time.monotonic())):
                    raise WorkerError(f"no answer within {timeout:g} s")
                block = os.read(self._replies, _BLOCK)
                if not block:
                    raise WorkerError(self._last_words())
                self._pending += block
        line, _, self._pending = self._pending.partition(b"\n")
        answer: dict[str, Any] = json.loads(line)
        if "error" in answer:
            raise WorkerError(str(answer["error"]))
        return answer

    def _last_words(self) -> str:
        code = self._process.wait()
        self._stderr.seek(0)
        lines = self._stderr.read().decode(errors="replace").strip().splitlines()
        said = f": {lines[-1]}" if lines else ""
        return f"its process ended with code {code}{said}"
