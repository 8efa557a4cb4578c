"""Native code of graphs under Wasmtime, compiled or from the cache, and its time limit."""

from __future__ import annotations

import functools
import hashlib
import math
import platform
from contextlib import suppress
from dataclasses import dataclass
from importlib.metadata import version
from typing import TYPE_CHECKING, TypeVar

import wasmtime

from wasmgraph.errors import LoadError
from wasmgraph.runtime import cache as native_cache
from wasmgraph.runtime.base import GraphFile, Limits
from wasmgraph.runtime.wasmtime_instance import first_line
from wasmgraph.runtime.watchdog import Watchdog

if TYPE_CHECKING:
    from wasmtime import component

Code = TypeVar("Code", wasmtime.Module, "component.Component")

TICK_SECONDS = 0.01
"""How exactly a time limit is kept, at most; a short limit gets finer ticks."""


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


def native_code(
    kind: type[Code], file: GraphFile, engine: wasmtime.Engine, settings: Settings, *, cache: bool
) -> Code:
    """A graph compiled by the engine, or its native code from the cache where that is allowed.

    Raises:
        LoadError: the engine refuses it.
    """
    store = native_cache.open_cache() if cache else None
    if store is None:
        return _compile(kind, file, engine, file.source.read())
    entry = _entry_id(store.digest_of(file.source), settings)
    code = store.load(entry, functools.partial(kind.deserialize_file, engine))
    if code is None:
        data = file.source.read()
        code = _compile(kind, file, engine, data)
        # Under the digest of what was compiled: the file may have changed since it was hashed.
        entry = _entry_id(hashlib.sha256(data).hexdigest(), settings)
        store.store(entry, code.serialize())
    return code


def _compile(kind: type[Code], file: GraphFile, engine: wasmtime.Engine, data: bytes) -> Code:
    try:
        return kind(engine, data)
    except wasmtime.WasmtimeError as error:
        hint = "the file may be damaged: compile the model again"
        if "support is not enabled" in str(error):
            hint = f"this engine lacks what {file.metadata.simd} needs: compile with another --simd"
        what = f"WebAssembly {kind.__name__.lower()}"
        raise LoadError(f"{file.path} is not a valid {what}: {first_line(error)}", hint) from error


def watchdog_for(engine: wasmtime.Engine, limits: Limits) -> Watchdog | None:
    """What interrupts runs of the engine's code, where there is a time limit."""
    if limits.seconds is None:
        return None
    interval = max(0.001, min(TICK_SECONDS, limits.seconds / 20))
    return Watchdog(engine.increment_epoch, interval)


def set_deadline(store: wasmtime.Store, watchdog: Watchdog | None, limits: Limits) -> None:
    """From now on what runs in the store has as long as a run may take; within `watchdog`."""
    if watchdog is not None and limits.seconds is not None:
        ticks = math.ceil(limits.seconds / watchdog.interval)
        # One more, since the current tick is partly over.
        store.set_epoch_deadline(ticks + 1)


def _entry_id(digest: str, settings: Settings) -> str:
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
