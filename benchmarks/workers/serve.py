"""A Python worker's side of the protocol that `benchmarks.worker` speaks.

One JSON object per line: requests on stdin, replies on the file descriptor that the first argument
names, since libraries print to stdout. benchmarks/node/serve.mjs is the same in JavaScript.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

from benchmarks.tensorfiles import Array, read_tensors, write_tensors


class System(Protocol):
    """A loaded model."""

    def run(self, inputs: Mapping[str, Array]) -> Mapping[str, Array]:
        """One inference, from arrays of the caller's to arrays of the caller's."""

    def details(self, inputs: Mapping[str, Array]) -> dict[str, Any]:
        """Whatever else there is to tell, in JSON's types."""


Create = Callable[[str, int], System]
"""Loads a model to run on so many threads."""


class Worker:
    """Answers requests; `imports` imports the runtime and returns how to load a model."""

    def __init__(self, imports: Callable[[], Create]) -> None:
        self._imports = imports
        self._system: System | None = None
        self._inputs: dict[str, Array] = {}
        self._last_ms = float("inf")

    def load(self, model: str, threads: int) -> dict[str, Any]:
        """Import the runtime and load the model."""
        began = time.perf_counter()
        create = self._imports()
        imported = time.perf_counter()
        self._system = create(model, threads)
        loaded = time.perf_counter()
        return {"import_ms": 1e3 * (imported - began), "load_ms": 1e3 * (loaded - imported)}

    def first(self, inputs: str, outputs: str) -> dict[str, Any]:
        """The first inference; its outputs are written for the comparison."""
        self._inputs = read_tensors(Path(inputs))
        results = self._timed()
        write_tensors(Path(outputs), results)
        return {"first_ms": self._last_ms}

    def measure(self, seconds: float, settle: float) -> dict[str, Any]:
        """Time runs for `seconds`, at least one; those that fit into `settle` are not timed.

        The CPU time beside the wall time shows whether other work took the core away.
        """
        ready = time.perf_counter() + settle
        while self._last_ms < 1e3 * settle and time.perf_counter() < ready:
            self._timed()
        times: list[float] = []
        began, cpu = time.perf_counter(), time.process_time()
        while not times or time.perf_counter() < began + seconds:
            self._timed()
            times.append(self._last_ms)
        spent = {"cpu": time.process_time() - cpu, "wall": time.perf_counter() - began}
        return {"times_ms": times, "seconds": spent}

    def details(self) -> dict[str, Any]:
        """What the system tells of itself."""
        assert self._system is not None
        return self._system.details(self._inputs)

    def _timed(self) -> Mapping[str, Array]:
        assert self._system is not None
        began = time.perf_counter()
        results = self._system.run(self._inputs)
        self._last_ms = 1e3 * (time.perf_counter() - began)
        return results


def serve(worker: object) -> None:
    """Answer requests until stdin ends: each names a method of `worker`, and its arguments."""
    replies = int(sys.argv[1])

    def reply(value: dict[str, Any]) -> None:
        os.write(replies, json.dumps(value).encode() + b"\n")

    reply({"ready": True})
    for line in sys.stdin:
        arguments = json.loads(line)
        try:
            reply(getattr(worker, arguments.pop("request"))(**arguments))
        except Exception as error:  # whatever a library raises is this system's result
            reply({"error": f"{type(error).__name__}: {error}"})
