"""What the lines to all hosts have in common, whatever carries their frames."""

from __future__ import annotations

import os
import time
import weakref
from abc import ABC, abstractmethod

from wasmgraph.errors import ToolchainError
from wasmgraph.runtime.protocol import (
    GREETING_SECONDS,
    Header,
    Hello,
    HostFailure,
    Payload,
    encode,
    read_answer,
    read_hello,
)


class HostChannel(ABC):
    """See `wasmgraph.runtime.protocol.Channel`. A subclass starts the host, then calls `greet`.

    Attributes:
        hello: What the host said at first.
    """

    hello: Hello

    _finalizer: weakref.finalize[..., HostChannel]
    """Ends the host, once; a subclass sets it as soon as there is one."""

    def __init__(self) -> None:
        self._owner = os.getpid()

    @property
    @abstractmethod
    def has_ended(self) -> bool:
        """Whether there is nobody to ask."""

    @property
    @abstractmethod
    def process_peak(self) -> int | None:
        """Bytes that the host has had in memory at most; see the interface."""

    @abstractmethod
    def _send(self, frame: list[memoryview], deadline: float | None, most: int) -> None:
        """Send a request whose answer may have `most` bytes of payload."""

    @abstractmethod
    def _receive(self, deadline: float | None, most: int) -> tuple[Header, memoryview]:
        """Wait for a frame."""

    def greet(self, name: str) -> None:
        """Wait for the host's first words.

        Raises:
            ToolchainError: it does not start, or does not greet as a host does.
        """
        try:
            header, _ = self._receive(time.monotonic() + GREETING_SECONDS, 0)
            self.hello = read_hello(header)
        except HostFailure as failure:
            self.close()
            raise ToolchainError(f"{name}'s host does not start: {failure}") from failure
        except BaseException:
            self.close()
            raise

    def ask(
        self,
        header: Header,
        payload: Payload = (),
        *,
        seconds: float | None = None,
        most: int = 0,
    ) -> tuple[Header, memoryview]:
        """Send a request and wait for its answer; see the interface."""
        if os.getpid() != self._owner:
            raise HostFailure("it is the host of the process that this one was forked from")
        if self.has_ended:
            raise HostFailure("it has ended")
        deadline = None if seconds is None else time.monotonic() + seconds
        try:
            self._send(encode(header, payload), deadline, most)
            answer, data = self._receive(deadline, most)
        except BaseException:
            # Where in a message it stands cannot be told any more, so nor can the next be sent.
            self.close()
            raise
        return read_answer(answer), data

    def close(self) -> None:
        """End the host; see the interface."""
        self._finalizer()
