"""One instantiated graph under Wasmtime: tensors in, run, tensors out, and what went wrong.

Nothing that the guest says is believed: every pointer, length and text is checked against its
memory before it is touched.
"""

from __future__ import annotations

import math
import struct
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from functools import partial
from typing import TYPE_CHECKING, Any, NoReturn

import numpy as np
import wasmtime

from wasmgraph.errors import (
    InferenceError,
    LoadError,
    MemoryLimitExceeded,
    RunTimeout,
    WasmgraphError,
)
from wasmgraph.metadata import ABI_VERSION, MAX_TENSOR_NBYTES
from wasmgraph.runtime.base import ANY_SHAPE, Array, TensorSpec, printable
from wasmgraph.runtime.crew import Crew, settle
from wasmgraph.runtime.limits import format_size, speaks_of_memory
from wasmgraph.runtime.wasmtime_call import GuestFunction
from wasmgraph.runtime.wasmtime_memory import GuestMemory, OwnMemory, SharedMemory

if TYPE_CHECKING:
    from wasmgraph.runtime.wasmtime_engine import WasmtimeProgram

STATIC_SHAPE = -1
"""As the rank in `wg_input`: the shape is the one compiled in."""

MAX_ERROR_BYTES = 65536
"""Of the guest's error text; more is cut off."""

MAX_RANK = 32
"""Axes of a tensor whose shape the guest tells."""

PLACE_NBYTES = 8 * MAX_RANK
"""Of the extents of one tensor."""

HELPER_STACK_NBYTES = 256 * 1024
"""A helper runs kernels, which keep next to nothing on the stack."""

INITIALIZE = "_initialize"

_FOREVER = 2**62
"""Ticks."""


class _Port:
    """An input or output, and what about it every run needs.

    Args:
        place: Its number among all.
    """

    def __init__(self, spec: TensorSpec, place: int) -> None:
        self.spec = spec
        self.place = place
        self.dtype = _wire_dtype(spec)
        self.fixed = spec.extents if spec.is_fixed else None


class WasmtimeInstance:
    """A graph in a store of its own; see `wasmgraph.runtime.base.Instance`."""

    def __init__(self, program: WasmtimeProgram) -> None:
        self._program = program
        inputs, outputs = program.file.inputs, program.file.outputs
        self._inputs = tuple(_Port(spec, i) for i, spec in enumerate(inputs))
        self._outputs = tuple(
            _Port(spec, len(inputs) + place) for place, spec in enumerate(outputs)
        )
        self._store = program.new_store()
        self._memory: GuestMemory
        self._helpers: list[_Helper] = []
        # A graph without shares has nothing to give to a helper.
        is_shared = any(step.shares > 1 for step in program.file.metadata.steps)
        helpers = program.threads - 1 if is_shared else 0
        self._crew = Crew(helpers, program.leaving)
        self._runs = 0
        self.run_ms = 0.0
        self._dims = 0
        # The last shape of each port that is not fixed: an input's is in its place.
        self._shapes: dict[int, tuple[int, ...]] = {}
        shared = program.new_memory()
        with self._guest(LoadError):
            exports = program.instantiate_in(self._store, shared)
            if shared is None:
                memory = exports["memory"]
                assert isinstance(memory, wasmtime.Memory)  # `check_graph` has seen to it
                self._memory = OwnMemory(self._store, memory)
            else:
                self._memory = shared
            found: dict[str, Any] = {name: exports[name] for name in program.functions}
            # Fails where a function has another type than the ABI's, before any is called.
            wasmtime.Instance(self._store, program.probe, list(found.values()))
            self._functions = _callable(self._store, found)
            if INITIALIZE in self._functions:
                self._functions[INITIALIZE]()
            abi = self._call("wg_abi")
            if shared is not None:
                self._helpers = [self._new_helper(shared, i + 1) for i in range(helpers)]
        if abi != ABI_VERSION:
            raise LoadError(
                f"{program.file.path} has ABI {abi}, this wasmgraph runs ABI {ABI_VERSION}",
                hint="compile the model again with this version",
            )

    def _new_helper(self, shared: SharedMemory, thread: int) -> _Helper:
        stack = self._call("wg_alloc", HELPER_STACK_NBYTES)
        if stack == 0:
            self._report("the graph has no memory left for a thread's stack")
        return _Helper(self._program, shared, stack + HELPER_STACK_NBYTES, thread)

    @property
    def memory_nbytes(self) -> int:
        """The size of its linear memory, which never shrinks."""
        return self._memory.nbytes()

    @property
    def process_peak(self) -> None:
        """It runs in this process; see the interface."""

    def run(self, inputs: Sequence[Array]) -> list[Array]:
        """Run once; see the interface."""
        began = time.perf_counter()
        with self._guest(InferenceError):
            for index, (array, port) in enumerate(zip(inputs, self._inputs, strict=True)):
                pointer = self._declare(index, port, array.shape)
                if pointer == 0:
                    self._report(f"the graph rejects input {port.spec.name!r}")
                self._view(self._memory.whole(), pointer, port, array.shape)[...] = array
            code = self._run_together() if self._helpers else self._call("wg_run")
            if code != 0:
                self._report(f"the graph failed with code {code}")
            given = [self._given(index, port) for index, port in enumerate(self._outputs)]
            memory = self._memory.whole()
            results = []
            for port, (pointer, rank) in zip(self._outputs, given, strict=True):
                shape = self._shape(memory, port, rank) if port.fixed is None else port.fixed
                view = self._view(memory, pointer, port, shape)
                results.append(view.astype(port.spec.dtype, order="C"))
            self.run_ms = 1e3 * (time.perf_counter() - began)
            return results

    def _declare(self, index: int, port: _Port, shape: tuple[int, ...]) -> int:
        """The address for an input's bytes, 0 where the graph refuses the shape."""
        if port.fixed is not None:
            return self._call("wg_input", index, 0, STATIC_SHAPE)
        place = self._place(port)
        if self._shapes.get(port.place) != shape:
            struct.pack_into(f"<{len(shape)}q", self._memory.whole().data, place, *shape)
            self._shapes[port.place] = shape
        return self._call("wg_input", index, place, len(shape))

    def _given(self, index: int, port: _Port) -> tuple[int, int]:
        """The address of an output after a run and, where its shape is not fixed, its rank; then
        its extents are in their place."""
        pointer = self._call("wg_output", index)
        if pointer == 0:
            self._report(f"the graph has no output {port.spec.name!r}")
        if port.fixed is not None:
            return pointer, len(port.fixed)
        # Of a rank that is known there is room for it, and a call takes two microseconds.
        is_known = port.spec.shape != ANY_SHAPE
        if not is_known and self._call("wg_output_shape", index, 0) > MAX_RANK:
            self._report(f"the graph gives output {port.spec.name!r} no shape")
        rank = self._call("wg_output_shape", index, self._place(port))
        if rank > MAX_RANK:
            self._report(f"the graph gives output {port.spec.name!r} no shape")
        return pointer, rank

    def _shape(self, memory: Array, port: _Port, rank: int) -> tuple[int, ...]:
        """The shape of an output, as the guest has told it, which fits what it says of itself."""
        shape: tuple[int, ...] = struct.unpack_from(f"<{rank}q", memory.data, self._place(port))
        if shape != self._shapes.get(port.place):
            if not port.spec.fits(shape) or min(shape, default=0) < 0:
                raise InferenceError(
                    f"the graph says that output {port.spec} has the shape {list(shape)}"
                )
            self._shapes[port.place] = shape
        return shape

    def _place(self, port: _Port) -> int:
        """The address of guest memory for the extents of one tensor."""
        if self._dims == 0:
            nbytes = PLACE_NBYTES * (len(self._inputs) + len(self._outputs))
            self._dims = self._call("wg_alloc", nbytes)
            if self._dims == 0 or self._dims + nbytes > self._memory.nbytes():
                self._report("the graph has no memory left for shapes")
        return self._dims + PLACE_NBYTES * port.place

    def run_step(self, index: int, times: int) -> None:
        """Run one step alone; see the interface."""
        with self._guest(InferenceError):
            if "wg_step" not in self._functions:
                raise InferenceError(
                    "the graph cannot run its steps one by one",
                    hint="compile the model again with this version",
                )
            code = self._call("wg_step", index, times)
            if code != 0:
                raise InferenceError(f"step {index} failed with code {code}")

    def close(self) -> None:
        """End the threads, free the stores and their memory."""
        self._crew.close()
        for helper in self._helpers:
            helper.close()
        self._store.close()

    def _run_together(self) -> int:
        """The result of `wg_run`, while the helpers do their part."""
        self._runs += 1
        futures = self._crew.start([partial(h.work, self._runs) for h in self._helpers])
        try:
            code = self._call("wg_run")
        except BaseException:
            # Helpers may wait for what this thread has left undone.
            _stop(self._store, self._functions)
            settle(futures)
            raise
        error = settle(futures)
        if error is not None:
            raise error
        return code

    def _call(self, name: str, *arguments: int) -> int:
        """Call an export whose result is an address, a size or a code: as an unsigned number."""
        return self._functions[name](*arguments)

    def _view(self, memory: Array, pointer: int, port: _Port, shape: tuple[int, ...]) -> Array:
        """A tensor in the guest's memory, valid until the guest runs again.

        Args:
            memory: All of it, as it is now.
        """
        nbytes = math.prod(shape) * port.dtype.itemsize
        # Extents without the zeros too, or numpy refuses the shape.
        if pointer + nbytes > memory.size or math.prod(filter(None, shape)) > MAX_TENSOR_NBYTES:
            raise InferenceError(
                f"the graph says that tensor {port.spec.name!r} ({nbytes} bytes) lies at "
                f"{pointer:#x}, which is outside its memory of {memory.size} bytes"
            )
        if nbytes == 0:
            return np.empty(shape, port.dtype)
        view: Array = np.ndarray(shape, port.dtype, memory, pointer)
        return view

    def _report(self, what: str) -> NoReturn:
        """Raise what the guest says of its own failure."""
        text = self._error_text()
        limit = self._program.limits.memory
        if limit is not None and speaks_of_memory(text):
            raise MemoryLimitExceeded(
                f"{what}: {text}; the limit is {format_size(limit)}",
                hint="allow more memory, or none at all to use what the engine has (4 GiB)",
            )
        raise InferenceError(f"{what}: {text}" if text else what)

    def _error_text(self) -> str:
        pointer, length = self._call("wg_error"), self._call("wg_error_len")
        memory = self._memory.whole()
        if pointer + length > memory.size:
            raise InferenceError(
                f"the graph says that its error text of {length} bytes lies at {pointer:#x}, "
                f"which is outside its memory of {memory.size} bytes"
            )
        return _decode(memory[pointer : pointer + min(length, MAX_ERROR_BYTES)].tobytes())

    @contextmanager
    def _guest(self, kind: type[InferenceError] | type[LoadError]) -> Iterator[None]:
        """Let the guest run inside, within the time limit; what goes wrong there becomes `kind`."""
        program = self._program
        watchdog = program.watchdog
        program.console.clear()
        try:
            with watchdog.running() if watchdog is not None else nullcontext():
                program.begin_time_limit(self._store)
                yield
        except wasmtime.Trap as trap:
            raise self._explain(trap, kind) from trap
        except wasmtime.WasmtimeError as error:
            raise kind(f"{program.file.path}: {first_line(error)}") from error

    def _explain(
        self, trap: wasmtime.Trap, kind: type[InferenceError] | type[LoadError]
    ) -> WasmgraphError:
        program = self._program
        code = trap.trap_code
        if code is wasmtime.TrapCode.INTERRUPT:
            return RunTimeout(
                f"{program.file.path} was stopped after its time limit of "
                f"{program.limits.seconds:g} s"
            )
        where = self._kernel(trap)
        reason = code.name.lower().replace("_", " ") if code else first_line(trap)
        if program.console.exit_code is not None:
            reason = f"it left with exit code {program.console.exit_code}"
        said = _decode(program.console.stderr)
        message = f"the graph trapped{where}: {reason}" + (f"\n{said}" if said else "")
        if program.limits.memory is not None and speaks_of_memory(said):
            return MemoryLimitExceeded(
                f"{message}\nthe limit is {format_size(program.limits.memory)}",
                hint="allow more memory",
            )
        return kind(message)

    def _kernel(self, trap: wasmtime.Trap) -> str:
        """ " in kernel NAME (OPERATORS)" of the innermost kernel under way, or ""."""
        kernels = {kernel.symbol: kernel for kernel in self._program.file.metadata.kernels}
        for frame in trap.frames:
            kernel = kernels.get(frame.func_name or "")
            if kernel is not None:
                return printable(f" in kernel {kernel.symbol} ({kernel.description})")
        return ""


class _Helper:
    """A second instance over the same memory, for another thread's part in runs.

    Args:
        stack: The end of its own stack in that memory; a stack grows down.
        thread: Its number, from 1 on.
    """

    def __init__(
        self, program: WasmtimeProgram, shared: SharedMemory, stack: int, thread: int
    ) -> None:
        self._program = program
        self._thread = thread
        self._stack = stack
        self._store = program.new_store()
        program.begin_time_limit(self._store)
        exports = program.instantiate_in(self._store, shared)
        found: dict[str, Any] = {name: exports[name] for name in program.functions}
        self._functions = _callable(self._store, found)

    def work(self, run: int) -> None:
        """Take part in a run until it ends.

        Raises:
            wasmtime.Trap: a kernel trapped or the time is over; the run is stopped.
        """
        self._program.begin_time_limit(self._store)
        try:
            self._functions["wg_work"](self._stack, self._thread, run)
        except BaseException:
            _stop(self._store, self._functions)
            raise

    def close(self) -> None:
        """Free the store."""
        self._store.close()


def _callable(
    store: wasmtime.Store, found: Mapping[str, wasmtime.Func]
) -> Mapping[str, GuestFunction]:
    return {name: GuestFunction(store, function) for name, function in found.items()}


def _stop(store: wasmtime.Store, functions: Mapping[str, GuestFunction]) -> None:
    """Make all threads leave the run under way."""
    store.set_epoch_deadline(_FOREVER)  # it may be over
    functions["wg_stop"]()


def _decode(text: bytes) -> str:
    return printable(text.decode("utf-8", errors="replace").strip())


def first_line(error: Exception) -> str:
    """Wasmtime's message without its chain of causes, but with the innermost one."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    if len(lines) < 2:
        return lines[0] if lines else type(error).__name__
    return f"{lines[0]}: {lines[-1].removeprefix('0: ').removeprefix('1: ')}"


def _wire_dtype(spec: TensorSpec) -> np.dtype[Any]:
    """As it lies in the guest's memory: WebAssembly is little-endian on every host."""
    dtype: np.dtype[Any] = np.dtype(spec.dtype).newbyteorder("<")
    return dtype
