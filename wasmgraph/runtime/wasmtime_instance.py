"""One instantiated graph under Wasmtime: tensors in, run, tensors out, and what went wrong.

Nothing that the guest says is believed: every pointer, length and text is checked against its
memory before it is touched.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence
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
from wasmgraph.runtime.wasmtime_memory import GuestMemory, OwnMemory, SharedMemory

if TYPE_CHECKING:
    from wasmgraph.runtime.wasmtime_engine import WasmtimeProgram

STATIC_SHAPE = -1
"""As the rank in `wg_input`: the shape is the one compiled in."""

MAX_ERROR_BYTES = 65536
"""Of the guest's error text; more is cut off."""

MAX_RANK = 32
"""Axes of a tensor whose shape the guest tells."""

HELPER_STACK_NBYTES = 256 * 1024
"""A helper runs kernels, which keep next to nothing on the stack."""

INITIALIZE = "_initialize"

_FOREVER = 2**62
"""Ticks."""


class WasmtimeInstance:
    """A graph in a store of its own; see `wasmgraph.runtime.base.Instance`."""

    def __init__(self, program: WasmtimeProgram) -> None:
        self._program = program
        self._inputs = tuple((spec, _wire_dtype(spec)) for spec in program.file.inputs)
        self._outputs = tuple((spec, _wire_dtype(spec)) for spec in program.file.outputs)
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
        shared = program.new_memory()
        with self._guest(LoadError):
            exports = program.instantiate_in(self._store, shared)
            if shared is None:
                memory = exports["memory"]
                assert isinstance(memory, wasmtime.Memory)  # `check_graph` has seen to it
                self._memory = OwnMemory(self._store, memory)
            else:
                self._memory = shared
            self._functions: dict[str, Any] = {name: exports[name] for name in program.functions}
            # Fails where a function has another type than the ABI's, before any is called.
            wasmtime.Instance(self._store, program.probe, list(self._functions.values()))
            if INITIALIZE in self._functions:
                self._functions[INITIALIZE](self._store)
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
            for index, (array, (spec, dtype)) in enumerate(zip(inputs, self._inputs, strict=True)):
                pointer = self._declare(index, spec, array.shape)
                if pointer == 0:
                    self._report(f"the graph rejects input {spec.name!r}")
                self._view(pointer, spec, array.shape, dtype)[...] = array
            code = self._run_together() if self._helpers else self._call("wg_run")
            if code != 0:
                self._report(f"the graph failed with code {code}")
            results = []
            for index, (spec, dtype) in enumerate(self._outputs):
                pointer = self._call("wg_output", index)
                if pointer == 0:
                    self._report(f"the graph has no output {spec.name!r}")
                shape = spec.extents if spec.is_fixed else self._output_shape(index, spec)
                view = self._view(pointer, spec, shape, dtype)
                results.append(view.astype(spec.dtype, order="C"))
            self.run_ms = 1e3 * (time.perf_counter() - began)
            return results

    def _declare(self, index: int, spec: TensorSpec, shape: Sequence[int]) -> int:
        """The address for an input's bytes, 0 where the graph refuses the shape."""
        if spec.is_fixed:
            return self._call("wg_input", index, 0, STATIC_SHAPE)
        place, dims = self._scratch()
        dims[: len(shape)] = shape
        return self._call("wg_input", index, place, len(shape))

    def _output_shape(self, index: int, spec: TensorSpec) -> tuple[int, ...]:
        """The shape of an output after a run, which fits what the graph says of it."""
        if spec.shape == ANY_SHAPE or self._dims == 0:
            if self._call("wg_output_shape", index, 0) > MAX_RANK:
                self._report(f"the graph gives output {spec.name!r} no shape")
            self._scratch()
        # Of a rank that is known there is room for it, and a call takes ten microseconds.
        rank = self._call("wg_output_shape", index, self._dims)
        if rank > MAX_RANK:
            self._report(f"the graph gives output {spec.name!r} no shape")
        shape = tuple(self._scratch()[1][:rank].tolist())
        if not spec.fits(shape) or min(shape, default=0) < 0:
            raise InferenceError(f"the graph says that output {spec} has the shape {list(shape)}")
        return shape

    def _scratch(self) -> tuple[int, Array]:
        """Guest memory for the shape of one tensor: its address, and a view that is valid until
        the guest runs again."""
        if self._dims == 0:
            self._dims = self._call("wg_alloc", 8 * MAX_RANK)
        if self._dims == 0 or self._dims + 8 * MAX_RANK > self._memory.nbytes():
            self._report("the graph has no memory left for a shape")
        buffer = self._memory.view(self._dims, 8 * MAX_RANK)
        return self._dims, np.ndarray((MAX_RANK,), "<i8", buffer=buffer)

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
        result: int = self._functions[name](self._store, *arguments)
        return result & 0xFFFF_FFFF

    def _view(
        self, pointer: int, spec: TensorSpec, shape: tuple[int, ...], dtype: np.dtype[Any]
    ) -> Array:
        """A tensor in the guest's memory, valid until the guest runs again."""
        size = self._memory.nbytes()
        nbytes = math.prod(shape) * dtype.itemsize
        # Extents without the zeros too, or numpy refuses the shape.
        if pointer + nbytes > size or math.prod(filter(None, shape)) > MAX_TENSOR_NBYTES:
            raise InferenceError(
                f"the graph says that tensor {spec.name!r} ({nbytes} bytes) lies at "
                f"{pointer:#x}, which is outside its memory of {size} bytes"
            )
        if nbytes == 0:
            return np.empty(shape, dtype)
        buffer = self._memory.view(pointer, nbytes)
        view: Array = np.ndarray(shape, dtype, buffer=buffer)
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
        size = self._memory.nbytes()
        if pointer + length > size:
            raise InferenceError(
                f"the graph says that its error text of {length} bytes lies at {pointer:#x}, "
                f"which is outside its memory of {size} bytes"
            )
        kept = min(length, MAX_ERROR_BYTES)
        return _decode(bytes(self._memory.view(pointer, kept)) if kept else b"")

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
        self._functions: dict[str, Any] = {name: exports[name] for name in program.functions}

    def work(self, run: int) -> None:
        """Take part in a run until it ends.

        Raises:
            wasmtime.Trap: a kernel trapped or the time is over; the run is stopped.
        """
        self._program.begin_time_limit(self._store)
        try:
            self._functions["wg_work"](self._store, self._stack, self._thread, run)
        except BaseException:
            _stop(self._store, self._functions)
            raise

    def close(self) -> None:
        """Free the store."""
        self._store.close()


def _stop(store: wasmtime.Store, functions: dict[str, Any]) -> None:
    """Make all threads leave the run under way."""
    store.set_epoch_deadline(_FOREVER)  # it may be over
    functions["wg_stop"](store)


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
