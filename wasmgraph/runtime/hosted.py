"""Graphs that run in another process: the interface of `base` over a channel to a host.

Every instance has a host of its own. So instances run at the same time, and when one is ended
because its run takes too long, the others do not notice.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

from wasmgraph.errors import InferenceError, LoadError, RunTimeout
from wasmgraph.metadata import MAX_TENSOR_NBYTES
from wasmgraph.runtime.base import Array, GraphFile, Limits, TensorSpec
from wasmgraph.runtime.protocol import Channel, HostFailure, HostOverdue, milliseconds

GRACE_SECONDS = 2.0
"""How long after its time limit a host may still say that it has stopped the run by itself."""

LOAD_SECONDS = 1800.0
"""More than compiling the largest graph takes on the slowest machine."""

_BYTES_PER_SECOND = 50e6
"""What a pipe carries at least; a limit is for the run, not for the way to it."""


class HostedProgram:
    """A graph that hosts have compiled; see `wasmgraph.runtime.base.Program`.

    Args:
        engine: Its name, for messages.
        path: The graph's file, or its address, as the host is to find it.
        open_channel: Starts a host.

    Raises:
        LoadError, MemoryLimitExceeded: the host refuses the graph.
    """

    def __init__(
        self,
        engine: str,
        file: GraphFile,
        path: str,
        open_channel: Callable[[], Channel],
        limits: Limits,
        *,
        cache: bool,
        threads: int,
    ) -> None:
        self.engine = engine
        self.file = file
        self.limits = limits
        self._open_channel = open_channel
        self._request = {
            "do": "load",
            "path": path,
            "threads": threads,
            "memory": limits.memory,
            "seconds": limits.seconds,
            "cache": cache,
        }
        self.load_ms = 0.0
        # What is wrong with the graph shows while it is loaded; the first instance takes it over.
        self._ready = [self._load()]

    def instantiate(self) -> HostedInstance:
        """A new instance; see the interface."""
        try:
            channel = self._ready.pop()
        except IndexError:
            channel = self._load()
        return HostedInstance(self, channel)

    def close(self) -> None:
        """End the host that no instance has taken."""
        while self._ready:
            self._ready.pop().close()

    @contextmanager
    def explained(self, kind: type[InferenceError] | type[LoadError]) -> Iterator[None]:
        """A failure of the host inside becomes `kind`, or RunTimeout."""
        try:
            yield
        except HostOverdue as failure:
            if self.limits.seconds is None:
                raise kind(f"{self.engine}'s host was ended: {failure}") from failure
            raise self.timeout() from failure
        except HostFailure as failure:
            raise kind(f"{self.engine}'s host failed on {self.file.path}: {failure}") from failure

    def timeout(self) -> RunTimeout:
        """What a run beyond its time limit ends with."""
        return RunTimeout(
            f"{self.file.path} was stopped after its time limit of {self.limits.seconds:g} s"
        )

    def _load(self) -> Channel:
        channel = self._open_channel()
        try:
            with self.explained(LoadError):
                done, _ = channel.ask(self._request, seconds=LOAD_SECONDS)
                self.load_ms = milliseconds(done, "load_ms")
        except BaseException:
            channel.close()
            raise
        return channel


class HostedInstance:
    """An instance in a host of its own; see `wasmgraph.runtime.base.Instance`."""

    def __init__(self, program: HostedProgram, channel: Channel) -> None:
        self._program = program
        self._channel = channel
        self.run_ms = 0.0
        try:
            with program.explained(LoadError):
                done, _ = channel.ask({"do": "instantiate"}, seconds=self._time(0))
                milliseconds(done, "ms")
                number = done.get("instance")
                if type(number) is not int or not 0 <= number < 2**31:
                    raise HostFailure(f"it named the instance {str(number)[:60]!r}")
        except BaseException:
            channel.close()
            raise
        self._number = number

    @property
    def process_peak(self) -> int | None:
        """The host's; see the interface."""
        return self._channel.process_peak

    def run(self, inputs: Sequence[Array]) -> list[Array]:
        """Run once; see the interface."""
        program = self._program
        specs, outputs = program.file.inputs, program.file.outputs
        header = {
            "do": "run",
            "instance": self._number,
            "inputs": [
                {"dtype": spec.dtype, "shape": list(array.shape)}
                for spec, array in zip(specs, inputs, strict=True)
            ],
        }
        payload = [_bytes(array, spec) for array, spec in zip(inputs, specs, strict=True)]
        seconds = self._time(sum(piece.nbytes for piece in payload))
        most = MAX_TENSOR_NBYTES * len(outputs)
        with program.explained(InferenceError):
            done, data = self._channel.ask(header, payload, seconds=seconds, most=most)
            self.run_ms = milliseconds(done, "ms")
            limit = program.limits.seconds
            if limit is not None and self.run_ms > 1000 * limit:
                # The host has no limit of its own, and was ready before it was to be ended.
                raise program.timeout()
            return _tensors(outputs, done.get("outputs"), data)

    def run_step(self, index: int, times: int) -> None:
        """Run one step alone; see the interface."""
        request = {"do": "step", "instance": self._number, "index": index, "times": times}
        with self._program.explained(InferenceError):
            self._channel.ask(request, seconds=self._time(0))

    def close(self) -> None:
        """End the host."""
        self._channel.close()

    def _time(self, nbytes: int) -> float | None:
        """How long to wait for an answer to a request of so many bytes."""
        seconds = self._program.limits.seconds
        return None if seconds is None else seconds + GRACE_SECONDS + nbytes / _BYTES_PER_SECOND


def _bytes(array: Array, spec: TensorSpec) -> memoryview:
    """A tensor's elements in C order, little-endian."""
    dtype: np.dtype[Any] = np.dtype(spec.dtype).newbyteorder("<")
    flat = np.ascontiguousarray(array, dtype=dtype).reshape(-1)
    return flat.view(np.uint8).data


def _tensors(specs: Sequence[TensorSpec], said: object, data: memoryview) -> list[Array]:
    """The outputs that came back.

    Args:
        said: The host's words on their dtypes and shapes.

    Raises:
        HostFailure: they are not what the graph gives, or not as many bytes as came.
    """
    if not isinstance(said, list) or len(said) != len(specs):
        raise HostFailure(f"it did not send {len(specs)} outputs")
    results, start = [], 0
    for spec, entry in zip(specs, said, strict=True):
        shape = _shape(spec, entry)
        dtype: np.dtype[Any] = np.dtype(spec.dtype).newbyteorder("<")
        nbytes = math.prod(shape) * dtype.itemsize
        if nbytes > len(data) - start:
            raise HostFailure(f"it sent too few bytes for output {spec.name!r}")
        wire: Array = np.frombuffer(data[start : start + nbytes], np.uint8)
        results.append(wire.view(dtype).reshape(shape).astype(spec.dtype, order="C"))
        start += nbytes
    if start != len(data):
        raise HostFailure(f"it sent {len(data) - start} bytes too many")
    return results


def _shape(spec: TensorSpec, entry: object) -> tuple[int, ...]:
    if not isinstance(entry, Mapping) or entry.get("dtype") != spec.dtype:
        raise HostFailure(f"it did not send output {spec.name!r} as {spec.dtype}")
    shape = entry.get("shape")
    if not isinstance(shape, list) or not all(type(n) is int and n >= 0 for n in shape):
        raise HostFailure(f"it did not say which shape output {spec.name!r} has")
    # Extents without the zeros too, or numpy refuses the shape.
    if not spec.fits(shape) or math.prod(filter(None, shape)) > MAX_TENSOR_NBYTES:
        raise HostFailure(f"it sent output {spec} with the shape {str(shape)[:60]}")
    return tuple(shape)
