"""Load a graph and run it: the public Python API, over whichever engine.

`load` reads and checks the file; `Graph` checks tensors, gives every thread an instance of its own
and throws an instance away after an error. How a graph is executed is the engine's business.
"""

from __future__ import annotations

import os
import threading
import time
import weakref
from collections.abc import Mapping, Sequence
from itertools import islice
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

from wasmgraph.component.file import check_component, is_component
from wasmgraph.errors import LoadError
from wasmgraph.runtime.base import Array, GraphFile, Instance, Limits, Program, TensorSpec
from wasmgraph.runtime.dtypes import add_to_numpy
from wasmgraph.runtime.inputs import check_inputs
from wasmgraph.runtime.limits import parse_duration, parse_size
from wasmgraph.runtime.registry import DEFAULT, find_component_engine, find_engine
from wasmgraph.runtime.request import check_request
from wasmgraph.runtime.source import Source
from wasmgraph.wasmfile import check_graph

if TYPE_CHECKING:
    from wasmgraph.metadata import Metadata, TensorInfo


def _time_step(instance: Instance, step: int, share: float) -> float:
    """Seconds of one execution: the slope between few and many."""

    def duration(times: int) -> float:
        began = time.perf_counter()
        instance.run_step(step, times)
        return time.perf_counter() - began

    instance.run_step(step, 1)
    estimate = max(duration(1), 1e-7)
    times = max(1, int(share / 4 / estimate))
    idle = min(duration(0) for _ in range(3))
    best = min(duration(times) for _ in range(3))
    return max(best - idle, 0.0) / times


class Graph:
    """A loaded graph. Made by `load`.

    Several threads may call `run` at once: each has an instance of its own, made at its first run.
    Use it as a context manager, or call `close`, to give the memory back.
    """

    def __init__(self, file: GraphFile, program: Program) -> None:
        self._file = file
        self._program = program
        self._own = threading.local()
        self._lock = threading.Lock()
        self._idle: weakref.WeakSet[Instance] = weakref.WeakSet()
        self._closed = False
        self._finalizer = weakref.finalize(self, program.close)
        self._release(self._take())  # what is wrong with the graph shows while it is loaded

    @property
    def inputs(self) -> tuple[TensorSpec, ...]:
        """Name, dtype and shape of every input, in the model's order."""
        return self._file.inputs

    @property
    def outputs(self) -> tuple[TensorSpec, ...]:
        """Name, dtype and shape of every output, in the model's order."""
        return self._file.outputs

    @property
    def metadata(self) -> Metadata:
        """What the graph says of itself."""
        return self._file.metadata

    @property
    def path(self) -> Path:
        """The file it was loaded from."""
        return self._file.path

    @property
    def load_ms(self) -> float:
        """Milliseconds that its engine took to compile it, or to take its code from a cache."""
        return self._program.load_ms

    @property
    def run_ms(self) -> float:
        """Milliseconds of this thread's last run as its engine measured them; 0 before the first.

        Moving tensors to another process and back is not in it.
        """
        instance: Instance | None = getattr(self._own, "instance", None)
        return 0.0 if instance is None else instance.run_ms

    @property
    def process_peak(self) -> int | None:
        """Bytes that this thread's engine has had in memory at most, where it is one process of
        its own that the system tells of; else None."""
        instance: Instance | None = getattr(self._own, "instance", None)
        return None if instance is None else instance.process_peak

    def run(self, inputs: Mapping[str, object]) -> dict[str, Array]:
        """Run the graph once.

        Args:
            inputs: An array per input name, of exactly the input's dtype and shape (any strides
                and byte order). Python numbers and nested lists are converted where that keeps
                their value.

        Returns:
            An array per output name. The arrays are the caller's.

        Raises:
            InputError: inputs are missing, extra, misnamed or of the wrong dtype or shape.
            InferenceError: the graph trapped or reported an error.
            MemoryLimitExceeded, RunTimeout: a limit given to `load` was reached.
            ValueError: the graph is closed.
        """
        self._check_open()
        arrays = check_inputs(self.inputs, inputs, self.metadata.bounds)
        instance = self._take()
        try:
            results = instance.run(arrays)
        except BaseException:
            # The guest stopped anywhere: nothing can be said of the state of its memory.
            self._own.instance = None
            instance.close()
            raise
        self._release(instance)
        return {spec.name: array for spec, array in zip(self.outputs, results, strict=True)}

    def time_steps(self, seconds: float = 1.0) -> list[float]:
        """How long each step takes, in seconds, on the values that the last run left behind.

        Every step is repeated until its part of `seconds` is used up, and the best of three
        rounds counts; the cost of the call from outside is taken off. The shares of a step that
        was cut for several threads are timed one after the other.

        Raises:
            InferenceError: the graph cannot run its steps one by one.
            ValueError: the graph is closed.
        """
        self._check_open()
        instance = self._take()
        try:
            steps = self.metadata.steps
            count = sum(step.shares for step in steps)
            calls, share = iter(range(count)), seconds / max(1, count)
            return [
                sum(_time_step(instance, call, share) for call in islice(calls, step.shares))
                for step in steps
            ]
        finally:
            self._release(instance)

    def close(self) -> None:
        """Give back memory and code. A run under way in another thread ends first; then its
        instance goes too. Calling it again does nothing."""
        with self._lock:
            self._closed = True
            idle = list(self._idle)
            self._idle.clear()
        for instance in idle:
            instance.close()
        self._finalizer()

    def __enter__(self) -> Graph:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _check_open(self) -> None:
        if self._closed:
            raise ValueError(f"{self.path} is closed")

    def _take(self) -> Instance:
        """This thread's instance, made if need be; nobody closes it until `_release`."""
        with self._lock:
            self._check_open()
            instance: Instance | None = getattr(self._own, "instance", None)
            if instance is not None:
                self._idle.discard(instance)
        if instance is None:
            # Only the thread holds it, so that it goes when the thread ends.
            self._own.instance = instance = self._program.instantiate()
        return instance

    def _release(self, instance: Instance) -> None:
        with self._lock:
            if not self._closed:
                self._idle.add(instance)
                return
        instance.close()

    def __repr__(self) -> str:
        inputs, outputs = (", ".join(map(str, specs)) for specs in (self.inputs, self.outputs))
        return f"<Graph {self.path.name}: {inputs} -> {outputs}>"


def load(
    path: str | os.PathLike[str],
    max_memory: int | str | None = None,
    timeout: float | str | None = None,
    *,
    cache: bool = True,
    threads: int = 1,
    runtime: str = DEFAULT,
) -> Graph:
    """Load a graph to run it, sandboxed, by default under Wasmtime in this process.

    Args:
        path: A `.wasm` that `wasmgraph compile` wrote, a module or a component.
        max_memory: Bytes of memory that each instance may have, or a text such as "512MiB".
        timeout: Wall time that each run may take, in seconds, or a text such as "10s".
        cache: Whether native code is kept for the next time, in the user's cache folder.
        threads: How many work on each run; more than one takes a graph compiled with `threads`.
        runtime: The engine's name, one of `registry.RUNTIMES`.

    Raises:
        LoadError: there is no such file, or it is no graph, or one of another ABI, or one that
            was compiled for one thread, or the engine lacks what it takes.
        MemoryLimitExceeded: it needs more than `max_memory` to start with.
        RunTimeout: its start function takes longer than `timeout`.
        ToolchainError: the engine is not on this machine.
        ValueError: `max_memory`, `timeout`, `threads` or `runtime` cannot be understood.
    """
    limits = Limits(
        None if max_memory is None else parse_size(max_memory),
        None if timeout is None else parse_duration(timeout),
    )
    if threads < 1:
        raise ValueError(f"threads should be 1 or more, not {threads}")
    with Source(Path(path)) as source:
        file = read_graph(source)
        engine = find_engine(runtime) if file.component is None else find_component_engine(runtime)
        try:
            check_request(engine.name, engine.capabilities, file, limits, threads)
            return Graph(file, engine.load(file, limits, cache=cache, threads=threads))
        finally:
            engine.close()


def read_graph(source: Source) -> GraphFile:
    """Check all of a graph's file that can be told without an engine.

    Raises:
        LoadError: it cannot be read, or is no graph.
    """
    try:
        data: bytes = source  # type: ignore[assignment]  # it is only sliced
        metadata, component = (
            check_component(data) if is_component(data) else (check_graph(data), None)
        )
        inputs, outputs = _specs(metadata.inputs), _specs(metadata.outputs)
        return GraphFile(source, metadata, inputs, outputs, component)
    except LoadError as error:
        if str(source.path) in error.message:
            raise
        raise LoadError(f"{source.path}: {error.message}", error.hint) from error


def _specs(tensors: Sequence[TensorInfo]) -> tuple[TensorSpec, ...]:
    for tensor in tensors:
        add_to_numpy(tensor.dtype, tensor.name)
    return tuple(TensorSpec(tensor.name, tensor.dtype, tensor.shape) for tensor in tensors)
