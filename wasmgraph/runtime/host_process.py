"""A host as a child process: requests on its stdin, answers on its stdout.

No host outlives its use: it is ended when it fails, when an answer takes too long, when Python is
interrupted, when its `HostProcess` is dropped and when Python exits. A host ends by itself when its
stdin does, which is what remains where Python is killed.
"""

from __future__ import annotations

import os
import select
import signal
import subprocess
import time
import weakref
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from wasmgraph.errors import ToolchainError
from wasmgraph.interrupts import interrupts_held
from wasmgraph.runtime.base import printable
from wasmgraph.runtime.host_channel import HostChannel
from wasmgraph.runtime.process_memory import process_memory
from wasmgraph.runtime.protocol import (
    LENGTH_NBYTES,
    Header,
    HostFailure,
    HostOverdue,
    decode_header,
    header_nbytes,
)

KEPT_STDERR = 4096
"""Bytes: the end, where the reason is."""

_PIECE = 1 << 20
_LONGEST_POLL = 1e6  # milliseconds; more does not fit into its C integer
_POLITE_SECONDS = 0.2


class HostProcess(HostChannel):
    """See `wasmgraph.runtime.protocol.Channel`.

    Args:
        name: The engine's, for messages.
        command: The program and its arguments.
        environment: Variables besides those of this process.

    Raises:
        ToolchainError: it does not start, or does not greet as a host does.
    """

    def __init__(
        self,
        name: str,
        command: Sequence[str | Path],
        environment: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__()
        self._stderr = b""
        with interrupts_held():  # until its end is arranged for
            try:
                # Unbuffered; in a session of its own, so that Ctrl-C reaches this process alone.
                self._process = subprocess.Popen(
                    command,
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.PIPE,
                    bufsize=0,
                    start_new_session=True,
                    env={**os.environ, **(environment or {})},
                )
            except OSError as error:
                raise ToolchainError(
                    f"{name}: {command[0]} does not run: {error.strerror or error}"
                ) from error
            self._finalizer = weakref.finalize(self, _end, self._process, self._owner)
        pipes = (self._process.stdin, self._process.stdout, self._process.stderr)
        self._in, self._out, self._err = (pipe.fileno() for pipe in pipes if pipe is not None)
        for descriptor in (self._in, self._out, self._err):
            os.set_blocking(descriptor, False)
        self.greet(name)

    @property
    def has_ended(self) -> bool:
        """Whether there is nobody to ask."""
        return not self._finalizer.alive or self._process.returncode is not None

    @property
    def process_peak(self) -> int | None:
        """Bytes that it has had in memory at most; see the interface."""
        memory = process_memory(self.pid)
        return None if memory is None else memory.peak

    @property
    def pid(self) -> int:
        """Of the process."""
        return self._process.pid

    def _send(self, frame: list[memoryview], deadline: float | None, most: int) -> None:  # noqa: ARG002 - only the answer is bounded
        for piece in frame:
            sent = 0
            while sent < piece.nbytes:
                readable = self._wait(deadline, writing=True)
                if readable:
                    # Its last words are of more use than that it cannot be written to.
                    self._raise_if_ended()
                    raise HostFailure("it answered before it was asked")
                try:
                    sent += os.write(self._in, piece[sent : sent + _PIECE])
                except BlockingIOError:
                    continue
                except BrokenPipeError:
                    self._raise_if_ended()
                    raise HostFailure("it closed its stdin") from None

    def _receive(self, deadline: float | None, most: int) -> tuple[Header, memoryview]:
        head = self._read(LENGTH_NBYTES, deadline)
        data = self._read(header_nbytes(bytes(head)), deadline)
        header, nbytes = decode_header(bytes(data), most)
        return header, self._read(nbytes, deadline)

    def _read(self, nbytes: int, deadline: float | None) -> memoryview:
        buffer = memoryview(bytearray(nbytes))
        got = 0
        while got < nbytes:
            self._wait(deadline, writing=False)
            try:
                read = os.readv(self._out, [buffer[got:]])
            except BlockingIOError:
                continue
            if read == 0:
                self._raise_if_ended()
                raise HostFailure("it closed its stdout")
            got += read
        return buffer

    def _wait(self, deadline: float | None, *, writing: bool) -> bool:
        """Wait until there is something to read, or room to write; whether there is to read."""
        poll = select.poll()
        poll.register(self._out, select.POLLIN)
        poll.register(self._err, select.POLLIN)
        if writing:
            poll.register(self._in, select.POLLOUT)
        while True:
            rest = None if deadline is None else deadline - time.monotonic()
            if rest is not None and rest <= 0:
                raise HostOverdue("it does not answer" + self._said())
            ready = dict(poll.poll(None if rest is None else min(1000 * rest + 1, _LONGEST_POLL)))
            if self._err in ready and not self._drain_stderr():
                poll.unregister(self._err)
            if self._out in ready or self._in in ready:
                return self._out in ready

    def _drain_stderr(self) -> bool:
        """Keep what was written there; whether there may be more some time."""
        with suppress(BlockingIOError):
            text = os.read(self._err, 65536)
            self._stderr = (self._stderr + text)[-KEPT_STDERR:]
            return bool(text)
        return True

    def _raise_if_ended(self) -> None:
        """Raise HostFailure with the reason if the process is ending."""
        try:
            code = self._process.wait(1)
        except subprocess.TimeoutExpired:
            return
        while self._drain_stderr() and self._stderr_is_ready():
            pass
        how = f"exit code {code}" if code >= 0 else f"signal {_signal_name(-code)}"
        raise HostFailure(f"it ended with {how}{self._said()}")

    def _stderr_is_ready(self) -> bool:
        return bool(select.select([self._err], [], [], 0)[0])

    def _said(self) -> str:
        text = printable(self._stderr.decode("utf-8", errors="replace").strip())
        return f"\n{text}" if text else ""


def _signal_name(number: int) -> str:
    with suppress(ValueError):
        return signal.Signals(number).name
    return str(number)


def _end(process: subprocess.Popen[bytes], owner: int) -> None:
    """End a host: by closing its stdin, and if that is not enough, by force."""
    if os.getpid() != owner:
        return  # a forked child has a copy of the object, not the process
    if process.stdin is not None:
        with suppress(OSError):
            process.stdin.close()
    try:
        process.wait(_POLITE_SECONDS)
    except BaseException as error:
        # Whatever it has started belongs to its session.
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        if not isinstance(error, subprocess.TimeoutExpired):
            raise
    for pipe in (process.stdout, process.stderr):
        if pipe is not None:
            pipe.close()
