"""The Wasmtime adapter: graphs run in this process, under Cranelift, in the sandbox of `sandbox`.

Nothing that the guest says is believed: every pointer, length and text is checked against its
memory before it is touched. The ABI is that of the README, version 1.
"""

from __future__ import annotations

import functools
import threading
import time

import wasmtime

from wasmgraph.errors import LoadError
from wasmgraph.runtime.base import GraphFile, Limits
from wasmgraph.runtime.crew import wait_for
from wasmgraph.runtime.native_code import Settings, native_code, set_deadline, watchdog_for
from wasmgraph.runtime.sandbox import Console, define_wasi
from wasmgraph.runtime.wasmtime_instance import INITIALIZE, WasmtimeInstance, first_line
from wasmgraph.runtime.wasmtime_memory import SharedMemory, make_shared
from wasmgraph.runtime.wasmtime_status import CAPABILITIES
from wasmgraph.wasmfile import SHARED_MEMORY

_SIGNATURES = {
    "wg_abi": "(result i32)",
    "wg_input": "(param i32 i32 i32) (result i32)",
    "wg_run": "(result i32)",
    "wg_output": "(param i32) (result i32)",
    "wg_output_shape": "(param i32 i32) (result i32)",
    "wg_alloc": "(param i32) (result i32)",
    "wg_free": "(param i32 i32)",
    "wg_error": "(result i32)",
    "wg_error_len": "(result i32)",
}
_OPTIONAL_SIGNATURES = {INITIALIZE: "", "wg_step": "(param i32 i32) (result i32)"}
_THREAD_SIGNATURES = {"wg_work": "(param i32 i32 i32) (result i32)", "wg_stop": ""}


class WasmtimeEngine:
    """Wasmtime in this process; see `wasmgraph.runtime.base.Engine`."""

    name = "wasmtime"
    capabilities = CAPABILITIES

    def load(
        self, file: GraphFile, limits: Limits, *, cache: bool, threads: int = 1
    ) -> WasmtimeProgram:
        """Compile a graph, or take its native code from the cache; see the interface."""
        began = time.perf_counter()
        settings = Settings(epochs=limits.seconds is not None, threads=file.metadata.threads)
        engine = wasmtime.Engine(settings.config())
        module = native_code(wasmtime.Module, file, engine, settings, cache=cache)
        return WasmtimeProgram(file, engine, module, limits, threads, began)

    def close(self) -> None:
        """Nothing is kept ready."""


class WasmtimeProgram:
    """A compiled graph; see `wasmgraph.runtime.base.Program`.

    Args:
        began: When loading it did, as `time.perf_counter` has it.
    """

    def __init__(
        self,
        file: GraphFile,
        engine: wasmtime.Engine,
        module: wasmtime.Module,
        limits: Limits,
        threads: int,
        began: float,
    ) -> None:
        self.file = file
        self.threads = threads
        self.console = Console()
        self.leaving: list[threading.Thread] = []
        self.watchdog = watchdog_for(engine, limits)
        self.limits = limits
        self._engine = engine
        self._module = module
        self._shared_type = self._check_memory()
        exported = {item.name for item in module.exports}
        optional = {**_OPTIONAL_SIGNATURES, **_THREAD_SIGNATURES}
        self.functions = (*_SIGNATURES, *(name for name in optional if name in exported))
        self._linker = wasmtime.Linker(engine)
        self._linker.allow_shadowing = True  # every instance brings a memory of its own
        self._linking = threading.Lock()
        self._prepared: wasmtime.InstancePre | None = None
        try:
            define_wasi(self._linker, module.imports, self.console)
            if self._shared_type is None:
                self._prepared = self._linker.instantiate_pre(module)
            self.probe = wasmtime.Module(engine, _probe(self.functions))
        except wasmtime.WasmtimeError as error:
            raise LoadError(f"{file.path} cannot be linked: {first_line(error)}") from error
        self.load_ms = 1e3 * (time.perf_counter() - began)

    def instantiate(self) -> WasmtimeInstance:
        """A new instance; see the interface."""
        return WasmtimeInstance(self)

    def close(self) -> None:
        """End the watchdog and the helpers of instances that are gone; the code goes with the last
        reference to it."""
        wait_for(self.leaving)
        if self.watchdog is not None:
            self.watchdog.close()

    def new_store(self) -> wasmtime.Store:
        """A store for one instance, within the memory limit."""
        limit = self.limits.memory
        store = wasmtime.Store(self._engine)
        store.set_limits(
            memory_size=-1 if limit is None else limit,
            table_elements=1_000_000,
            instances=2,  # the graph and the probe
            memories=1,
        )
        return store

    def new_memory(self) -> SharedMemory | None:
        """The memory of one instance and its helpers, where the graph imports it."""
        if self._shared_type is None:
            return None
        return make_shared(self._engine, self.file, self._shared_type, self.limits)

    def instantiate_in(
        self, store: wasmtime.Store, memory: SharedMemory | None
    ) -> wasmtime._instance.InstanceExports:
        """The exports of a new instance.

        Raises:
            wasmtime.WasmtimeError, wasmtime.Trap: the engine refuses it, or its start fails.
        """
        if memory is None:
            assert self._prepared is not None
            return self._prepared.instantiate(store).exports(store)
        with self._linking:
            self._linker.define(store, *SHARED_MEMORY, memory)
            return self._linker.instantiate(store, self._module).exports(store)

    def begin_time_limit(self, store: wasmtime.Store) -> None:
        """From now on what runs in the store has as long as a run may take; within `watchdog`."""
        set_deadline(store, self.watchdog, self.limits)

    def _check_memory(self) -> wasmtime.MemoryType | None:
        """The type of the memory to import, where the graph has none of its own."""
        if self.file.metadata.threads:
            found = {(item.module, item.name): item.type for item in self._module.imports}
            memory = found.get(SHARED_MEMORY)
        else:
            memory = {item.name: item.type for item in self._module.exports}.get("memory")
        if not isinstance(memory, wasmtime.MemoryType):
            raise LoadError(f"{self.file.path} is not a graph: it has no memory")
        return memory if self.file.metadata.threads else None


@functools.cache
def _probe(names: tuple[str, ...]) -> bytes:
    """A module that only imports the ABI's functions, so that Wasmtime checks their types.

    Asking for the types through wasmtime-py aborts the process where a graph uses one that its C
    interface lacks (a vector as a parameter, say).
    """
    signatures = {**_SIGNATURES, **_OPTIONAL_SIGNATURES, **_THREAD_SIGNATURES}
    fields = (f'(import "graph" "{name}" (func {signatures[name]}))' for name in names)
    return bytes(wasmtime.wat2wasm(f"(module {' '.join(fields)})"))
