"""What Python and a host in another process say to each other: frames, the greeting, failures.

A frame is the length of a JSON header (u32, little-endian), the header, and as many bytes as the
header's `payload` says. Python asks and the host answers, one answer per request, in order. Hosts
run foreign code, so nothing that comes from one is believed: a `HostFailure` is raised instead.

How frames travel (pipes, HTTP) is for the channels, what the requests mean for `hosted`.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, Protocol

from wasmgraph.errors import (
    InferenceError,
    InputError,
    LoadError,
    MemoryLimitExceeded,
    RunTimeout,
    WasmgraphError,
)
from wasmgraph.runtime.base import Capabilities, printable

PROTOCOL = 1
LENGTH_NBYTES = 4
MAX_HEADER_NBYTES = 1 << 24
"""Far more than the shapes of any graph's outputs take."""

MAX_TEXT = 65536
"""Characters of a message; more is cut off."""

GREETING_SECONDS = 120.0
"""Time for a host to start, on the slowest machine."""

KINDS: Mapping[str, type[WasmgraphError]] = {
    kind.__name__: kind
    for kind in (LoadError, InputError, InferenceError, MemoryLimitExceeded, RunTimeout)
}
"""The errors that a host may report."""

Header = Mapping[str, Any]
Payload = Sequence[memoryview]


class HostFailure(Exception):  # noqa: N818 - becomes an error of `errors` in `hosted`
    """The host is gone, or does not keep to the protocol; it is of no further use."""


class HostOverdue(HostFailure):
    """The host did not answer in time and was ended."""


@dataclass(frozen=True)
class Hello:
    """A host's greeting: what it is, its engine's version, and what it can do."""

    host: str
    version: str
    capabilities: Capabilities


class Channel(Protocol):
    """A line to one host. Used by one thread at a time; any failure ends the host."""

    @property
    def hello(self) -> Hello:
        """What it said at first."""

    @property
    def process_peak(self) -> int | None:
        """Bytes that the host has had in memory at most, or None where that cannot be told."""

    def ask(
        self,
        header: Header,
        payload: Payload = (),
        *,
        seconds: float | None = None,
        most: int = 0,
    ) -> tuple[Header, memoryview]:
        """Send a request and wait for its answer.

        Args:
            header: Of the request, without "payload".
            payload: Bytes to send after it.
            seconds: How long it all may take, or None.
            most: Bytes of payload that the answer may have.

        Raises:
            WasmgraphError: the host reports one.
            HostFailure: it ended, or it is ended because it does not keep to the protocol.
            HostOverdue: it took longer than `seconds` and is ended.
        """

    def close(self) -> None:
        """End the host; calling it again does nothing."""


def encode(header: Header, payload: Payload) -> list[memoryview]:
    """A frame in pieces; the payload's are not copied."""
    nbytes = sum(piece.nbytes for piece in payload)
    text = json.dumps({**header, "payload": nbytes}).encode()
    return [memoryview(struct.pack("<I", len(text)) + text), *payload]


def header_nbytes(head: bytes) -> int:
    """The length of the header that begins with these four bytes.

    Raises:
        HostFailure: it is longer than any header is.
    """
    nbytes: int = struct.unpack("<I", head)[0]
    if nbytes > MAX_HEADER_NBYTES:
        raise HostFailure(f"it sent {head!r} where a message begins")
    return nbytes


def decode_header(data: bytes, most: int) -> tuple[Header, int]:
    """A frame's header, and how many bytes of payload follow.

    Args:
        most: How many may.

    Raises:
        HostFailure: not a JSON object, or its "payload" is no count of bytes up to `most`.
    """
    try:
        header = json.loads(data.decode())
    except (ValueError, RecursionError) as error:
        raise HostFailure(f"it sent a message that is not JSON: {error}") from error
    if not isinstance(header, dict):
        raise HostFailure("it sent a message that is no JSON object")
    nbytes = header.get("payload", 0)
    if type(nbytes) is not int or not 0 <= nbytes <= most:
        raise HostFailure(f"it announced {_shown(nbytes)} bytes, expected are at most {most}")
    return header, nbytes


def read_hello(header: Header) -> Hello:
    """The greeting.

    Raises:
        HostFailure: it is none, or that of another version of the protocol.
    """
    if header.get("protocol") != PROTOCOL:
        raise HostFailure(f"it speaks protocol {_shown(header.get('protocol'))}, not {PROTOCOL}")
    host, version, can = (header.get(key) for key in ("host", "version", "capabilities"))
    if not (isinstance(host, str) and isinstance(version, str) and isinstance(can, dict)):
        raise HostFailure(f"its greeting is {_shown(header)}")
    # A host that does not mention a capability lacks it.
    named = {field.name: bool(can.get(field.name, False)) for field in fields(Capabilities)}
    return Hello(_text(host), _text(version), Capabilities(**named))


def read_answer(header: Header) -> Header:
    """What is in an answer's "ok".

    Raises:
        WasmgraphError: the answer is an error.
        HostFailure: it is neither.
    """
    done, error = header.get("ok"), header.get("error")
    if isinstance(done, dict) and error is None:
        return done
    if not isinstance(error, dict) or done is not None:
        raise HostFailure(f"it answered {_shown(header)}")
    kind, message, hint = (error.get(key) for key in ("kind", "message", "hint"))
    known = KINDS.get(kind) if isinstance(kind, str) else None
    if known is None or not isinstance(message, str) or not isinstance(hint, str | None):
        raise HostFailure(f"it reported {_shown(error)}")
    raise known(_text(message), None if hint is None else _text(hint))


def milliseconds(done: Header, key: str) -> float:
    """A time in an answer.

    Raises:
        HostFailure: it is not there, or no time.
    """
    value = done.get(key)
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < 1e12:
        raise HostFailure(f"it said that {key} is {_shown(value)}")
    return float(value)


def _text(text: str) -> str:
    return printable(text[:MAX_TEXT])


def _shown(value: object) -> str:
    text = printable(repr(value))
    return text if len(text) <= 200 else text[:197] + "..."
