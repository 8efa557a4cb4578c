"""Graphs that are components, under Wasmtime in this process, through its component interface.

A component imports nothing, so that there is nothing to answer and no capability to give. Its
memory cannot be reached: all that passes the boundary are values, whose types and bounds Wasmtime
checks; that they are what the metadata promise is checked here.
"""

from __future__ import annotations

import ctypes
import math
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any

import numpy as np
import wasmtime
from wasmtime import _ffi as ffi
from wasmtime import component
from wasmtime._trap import FrameList

from wasmgraph.component.interface import MODEL, OUT_OF_MEMORY
from wasmgraph.errors import (
    InferenceError,
    LoadError,
    MemoryLimitExceeded,
    RunTimeout,
    WasmgraphError,
)
from wasmgraph.runtime.base import (
    Array,
    Capabilities,
    GraphFile,
    Limits,
    TensorSpec,
    printable,
)
from wasmgraph.runtime.component_types import RUN_TYPE, spell_function
from wasmgraph.runtime.component_values import (
    Arguments,
    GivenError,
    GivenTensor,
    read_answer,
)
from wasmgraph.runtime.limits import format_size
from wasmgraph.runtime.native_code import Settings, native_code, set_deadline, watchdog_for
from wasmgraph.runtime.wasmtime_instance import MAX_ERROR_BYTES, first_line

_TOO_MUCH = "fuel allocated for hostcalls"
"""Of Wasmtime's message where a run returns more than it lets through; Python cannot change it."""

_MEMORY_CASE = "memory-limit-exceeded"
_HINT = "allow more memory, or none at all to use what the engine has (4 GiB)"


class ComponentEngine:
    """Components under Wasmtime; see `wasmgraph.runtime.base.Engine`."""

    name = "wasmtime"
    capabilities = Capabilities(
        simd=True, relaxed_simd=True, threads=False, memory_limit=True, time_limit=True
    )

    def load(
        self,
        file: GraphFile,
        limits: Limits,
        *,
        cache: bool,
        threads: int = 1,  # noqa: ARG002 - `check_request` has seen to it
    ) -> ComponentProgram:
        """Compile a component, or take its native code from the cache; see the interface."""
        began = time.perf_counter()
        settings = Settings(epochs=limits.seconds is not None, threads=False, component=True)
        engine = wasmtime.Engine(settings.config())
        compiled = native_code(component.Component, file, engine, settings, cache=cache)
        return ComponentProgram(file, engine, compiled, limits, began)

    def close(self) -> None:
        """Nothing is kept ready."""


class ComponentProgram:
    """A compiled component; see `wasmgraph.runtime.base.Program`.

    Args:
        began: When loading it did, as `time.perf_counter` has it.
    """

    def __init__(
        self,
        file: GraphFile,
        engine: wasmtime.Engine,
        compiled: component.Component,
        limits: Limits,
        began: float,
    ) -> None:
        self.file = file
        self.limits = limits
        self.watchdog = watchdog_for(engine, limits)
        self._engine = engine
        self._component = compiled
        self._linker = component.Linker(engine)
        self.load_ms = 1e3 * (time.perf_counter() - began)

    def instantiate(self) -> ComponentInstance:
        """A new instance; see the interface."""
        return ComponentInstance(self)

    def close(self) -> None:
        """End the watchdog; the code goes with the last reference to it."""
        if self.watchdog is not None:
            self.watchdog.close()

    def new_store(self) -> wasmtime.Store:
        """A store for one instance, within the memory limit."""
        limit = self.limits.memory
        store = wasmtime.Store(self._engine)
        store.set_limits(
            memory_size=-1 if limit is None else limit,
            table_elements=1_000_000,
            instances=1,
            memories=1,
        )
        return store

    def instantiate_in(self, store: wasmtime.Store) -> component.Func:
        """The function `run` of a new instance.

        Raises:
            LoadError: it has no such function, or one of another type.
            wasmtime.WasmtimeError: the engine refuses it, or its start fails.
        """
        instance = self._linker.instantiate(store, self._component)
        model = instance.get_export_index(store, MODEL)
        place = instance.get_export_index(store, "run", model) if model else None
        run = instance.get_func(store, place) if place else None
        if run is None:
            raise LoadError(f"{self.file.path} exports no function 'run' in {MODEL!r}")
        found = spell_function(run.type(store))
        if found != RUN_TYPE:
            raise LoadError(
                f"{self.file.path} has another type of 'run' in {MODEL!r}: {printable(found)}"
            )
        return run

    def begin_time_limit(self, store: wasmtime.Store) -> None:
        """From now on what runs in the store has as long as a run may take; within `watchdog`."""
        set_deadline(store, self.watchdog, self.limits)


class ComponentInstance:
    """A component in a store of its own; see `wasmgraph.runtime.base.Instance`."""

    def __init__(self, program: ComponentProgram) -> None:
        self.run_ms = 0.0
        self._program = program
        self._arguments = Arguments(program.file.inputs)
        self._store = program.new_store()
        with self._guest(LoadError):
            self._run = program.instantiate_in(self._store)

    @property
    def process_peak(self) -> None:
        """It runs in this process; see the interface."""

    def run(self, inputs: Sequence[Array]) -> list[Array]:
        """Run once; see the interface."""
        began = time.perf_counter()
        self._arguments.fill(inputs)
        with self._guest(InferenceError):
            answer = self._call()
        if isinstance(answer, GivenError):
            raise self._explain_error(answer)
        specs = self._program.file.outputs
        if [tensor.name for tensor in answer] != [spec.name for spec in specs]:
            names = printable(", ".join(repr(tensor.name) for tensor in answer[: len(specs) + 1]))
            raise InferenceError(
                f"the graph gave the outputs {names}; it should give all of its own"
            )
        results = [_checked(tensor, spec) for tensor, spec in zip(answer, specs, strict=True)]
        self.run_ms = 1e3 * (time.perf_counter() - began)
        return results

    def run_step(self, index: int, times: int) -> None:  # noqa: ARG002
        """A component has no steps to the outside; see the interface."""
        raise InferenceError(
            "a component cannot run its steps one by one",
            hint="compile the model without --kind component to profile it",
        )

    def close(self) -> None:
        """Free the store and its memory."""
        self._store.close()

    def _call(self) -> list[GivenTensor] | GivenError:
        """Call `run` with the arguments; raises wasmtime.WasmtimeError where it traps."""
        result = ffi.wasmtime_component_val_t()
        function, context = ctypes.byref(self._run._func), self._store._context()
        arguments = self._arguments.values
        failed = ffi.wasmtime_component_func_call(
            function, context, arguments, len(arguments), ctypes.byref(result), 1
        )
        if failed:
            raise wasmtime.WasmtimeError._from_ptr(failed)
        try:
            return read_answer(result)
        finally:
            ffi.wasmtime_component_val_delete(ctypes.byref(result))

    @contextmanager
    def _guest(self, kind: type[InferenceError] | type[LoadError]) -> Iterator[None]:
        """Let the guest run inside, within the time limit; what goes wrong there becomes `kind`."""
        program = self._program
        watchdog = program.watchdog
        try:
            with watchdog.running() if watchdog is not None else nullcontext():
                program.begin_time_limit(self._store)
                yield
        except wasmtime.WasmtimeError as error:
            raise self._explain(error, kind) from error

    def _explain(
        self, error: wasmtime.WasmtimeError, kind: type[InferenceError] | type[LoadError]
    ) -> WasmgraphError:
        program = self._program
        # The innermost cause; above it are names that the guest has chosen.
        reason = str(error).rstrip().rpartition("\n")[2].strip()
        trap = reason.partition("wasm trap: ")[2]
        if _TOO_MUCH in reason:
            return kind(
                f"{program.file.path} gives more outputs than Wasmtime's component interface "
                "carries in one run: 128 MiB of values of 48 bytes, of which every byte is one",
                hint="run it elsewhere, or compile the model without --kind component",
            )
        if not trap:
            return kind(f"{program.file.path}: {first_line(error)}")
        if trap == "interrupt":
            return RunTimeout(
                f"{program.file.path} was stopped after its time limit of "
                f"{program.limits.seconds:g} s"
            )
        functions = _functions(error)
        if OUT_OF_MEMORY in functions:
            return self._out_of_memory("the graph ran out of memory")
        kernels = {kernel.symbol: kernel for kernel in program.file.metadata.kernels}
        found = next((kernels[name] for name in functions if name in kernels), None)
        where = printable(f" in kernel {found.symbol} ({found.description})") if found else ""
        return kind(f"the graph trapped{where}: {printable(trap)}")

    def _explain_error(self, error: GivenError) -> WasmgraphError:
        """What the graph says of its own failure. Inputs were checked before it saw them."""
        text = printable(error.text[:MAX_ERROR_BYTES].strip())
        said = f"the graph failed: {text}" if text else f"the graph failed ({error.case})"
        return self._out_of_memory(said) if error.case == _MEMORY_CASE else InferenceError(said)

    def _out_of_memory(self, what: str) -> WasmgraphError:
        limit = self._program.limits.memory
        if limit is None:
            return InferenceError(what)
        return MemoryLimitExceeded(f"{what}; the limit is {format_size(limit)}", hint=_HINT)


def _functions(error: wasmtime.WasmtimeError) -> list[str]:
    """The functions under way, the innermost first."""
    frames = FrameList(error)
    ffi.wasmtime_error_wasm_trace(error.ptr(), ctypes.byref(frames.vec))
    found = (wasmtime.Frame._from_ptr(frames.vec.data[i], frames) for i in range(frames.vec.size))
    return [frame.func_name or "" for frame in found]


def _checked(tensor: GivenTensor, spec: TensorSpec) -> Array:
    """An output, which is what the metadata promise."""
    dtype: np.dtype[Any] = np.dtype(spec.dtype)
    nbytes = math.prod(tensor.shape) * dtype.itemsize
    if tensor.dtype != spec.dtype or not spec.fits(tensor.shape):
        raise InferenceError(
            f"the graph says that output {spec} is {tensor.dtype}{list(tensor.shape)}"
        )
    if nbytes != tensor.contents.size:
        raise InferenceError(
            f"the graph gave {tensor.contents.size} bytes for output {spec.name!r}, "
            f"{tensor.dtype}{list(tensor.shape)} has {nbytes}"
        )
    little = tensor.contents.view(dtype.newbyteorder("<")).reshape(tensor.shape)
    array: Array = little.astype(dtype, copy=False)
    return array
