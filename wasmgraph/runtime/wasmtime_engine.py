"""The Wasmtime adapter: graphs run in this process, under Cranelift, in the sandbox of `sandbox`.

Nothing that the guest says is believed: every pointer, length and text is checked against its
memory before it is touched. The ABI is that of the README, version 1.
"""

from __future__ import annotations

import functools
import hashlib
import math
import platform
import threading
import time
from contextlib import suppress
from dataclasses import dataclass
from importlib.metadata import version

import wasmtime

from wasmgraph.errors import LoadError
from wasmgraph.runtime import cache as native_cache
from wasmgraph.runtime.base import GraphFile, Limits
from wasmgraph.runtime.crew import wait_for
from wasmgraph.runtime.sandbox import Console, define_wasi
from wasmgraph.runtime.wasmtime_instance import INITIALIZE, WasmtimeInstance, first_line
from wasmgraph.runtime.wasmtime_memory import SharedMemory, make_shared
from wasmgraph.runtime.wasmtime_status import CAPABILITIES
from wasmgraph.runtime.watchdog import Watchdog
from wasmgraph.wasmfile import SHARED_MEMORY

TICK_SECONDS = 0.01
"""How exactly a time limit is kept, at most; a short limit gets finer ticks."""

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


@dataclass(frozen=True)
class Settings:
    """What the native code depends on besides the graph, Wasmtime's version and the CPU.

    Attributes:
        epochs: Whether the code can be interrupted. The checks cost a few percent in tight
            loops, so code for runs without a time limit has none.
        threads: Whether memory may be shared.
        component: Whether it is a component.
    """

    epochs: bool
    threads: bool
    component: bool = False

    def config(self) -> wasmtime.Config:
        """Wasmtime's configuration: only what graphs use, so that little is exposed."""
        config = wasmtime.Config()
        config.epoch_interruption = self.epochs
        config.wasm_threads = self.threads
        config.shared_memory = self.threads
        config.wasm_component_model = self.component
        config.wasm_memory64 = False
        config.wasm_multi_memory = False
        config.wasm_gc = False
        config.wasm_function_references = False
        config.wasm_exceptions = False
        config.wasm_tail_call = False
        return config


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
        store = native_cache.open_cache() if cache else None
        if store is None:
            code = _compile(file, engine, file.source.read())
            return WasmtimeProgram(file, engine, code, limits, threads, began)
        entry = entry_id(store.digest_of(file.source), settings)
        module = store.load(entry, functools.partial(wasmtime.Module.deserialize_file, engine))
        if module is None:
            data = file.source.read()
            module = _compile(file, engine, data)
            # Under the digest of what was compiled: the file may have changed since it was hashed.
            entry = entry_id(hashlib.sha256(data).hexdigest(), settings)
            store.store(entry, module.serialize())
        return WasmtimeProgram(file, engine, module, limits, threads, began)

    def close(self) -> None:
        """Nothing is kept ready."""


def _compile(file: GraphFile, engine: wasmtime.Engine, data: bytes) -> wasmtime.Module:
    try:
        return wasmtime.Module(engine, data)
    except wasmtime.WasmtimeError as error:
        hint = "the file may be damaged: compile the model again"
        if "support is not enabled" in str(error):
            hint = f"this engine lacks what {file.metadata.simd} needs: compile with another --simd"
        raise LoadError(
            f"{file.path} is not a valid WebAssembly module: {first_line(error)}", hint=hint
        ) from error


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
        self.watchdog: Watchdog | None = None
        self.limits = limits
        self._engine = engine
        self._module = module
        if limits.seconds is not None:
            interval = max(0.001, min(TICK_SECONDS, limits.seconds / 20))
            self.watchdog = Watchdog(engine.increment_epoch, interval)
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
        if self.watchdog is not None and self.limits.seconds is not None:
            ticks = math.ceil(self.limits.seconds / self.watchdog.interval)
            # One more, since the current tick is partly over.
            store.set_epoch_deadline(ticks + 1)

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


def entry_id(digest: str, settings: Settings) -> str:
    """The name of a graph's native code in the cache."""
    parts = (digest, f"wasmtime {version('wasmtime')}", repr(settings), host_cpu())
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


@functools.cache
def host_cpu() -> str:
    """The architecture and what this CPU can do, as far as the system tells."""
    system = f"{platform.system()} {platform.machine()}"
    with suppress(OSError), open("/proc/cpuinfo", encoding="utf-8", errors="replace") as file:
        # Every core repeats the lines; the first one's are enough, and reading on is slow.
        for line in file:
            if line.startswith(("flags", "Features")):
                return f"{system} {line.strip()}"
    return f"{system} {platform.processor()}"  # which starts a process
