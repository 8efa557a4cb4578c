"""The Wasmtime adapter: graphs run in this process, under Cranelift, in the sandbox of `sandbox`.

Nothing that the guest says is believed: every pointer, length and text is checked against its
memory before it is touched. The ABI is that of the design, version 1, with static shapes.
"""

from __future__ import annotations

import functools
import hashlib
import math
import platform
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any, NoReturn

import numpy as np
import wasmtime

from wasmgraph.errors import (
    InferenceError,
    LoadError,
    MemoryLimitExceeded,
    RunTimeout,
    WasmgraphError,
)
from wasmgraph.metadata import ABI_VERSION
from wasmgraph.runtime import cache as native_cache
from wasmgraph.runtime.base import Array, Capabilities, GraphFile, Limits, TensorSpec, printable
from wasmgraph.runtime.limits import format_size
from wasmgraph.runtime.sandbox import Console, define_wasi
from wasmgraph.runtime.watchdog import Watchdog

STATIC_SHAPE = -1
"""As the rank in `wg_input`: the shape is the one compiled in."""

WASM_PAGE = 65536
TICK_SECONDS = 0.01
"""How exactly a time limit is kept, at most; a short limit gets finer ticks."""

MAX_ERROR_BYTES = 65536
"""Of the guest's error text; more is cut off."""

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
_OPTIONAL_SIGNATURES = {"_initialize": "", "wg_step": "(param i32 i32) (result i32)"}
_INITIALIZE = "_initialize"


@dataclass(frozen=True)
class Settings:
    """What the native code depends on besides the graph, Wasmtime's version and the CPU.

    Attributes:
        epochs: Whether the code can be interrupted. The checks cost a few percent in tight
            loops, so code for runs without a time limit has none.
    """

    epochs: bool

    def config(self) -> wasmtime.Config:
        """Wasmtime's configuration: only what graphs use, so that little is exposed."""
        config = wasmtime.Config()
        config.epoch_interruption = self.epochs
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
    capabilities = Capabilities(
        simd=True, relaxed_simd=True, threads=False, memory_limit=True, time_limit=True
    )

    def load(self, file: GraphFile, limits: Limits, *, cache: bool) -> WasmtimeProgram:
        """Compile a graph, or take its native code from the cache; see the interface."""
        settings = Settings(epochs=limits.seconds is not None)
        engine = wasmtime.Engine(settings.config())
        store = native_cache.open_cache() if cache else None
        if store is None:
            return WasmtimeProgram(file, engine, _compile(file, engine, file.source.read()), limits)
        entry = _entry_id(store.digest_of(file.source), settings)
        module = store.load(entry, functools.partial(wasmtime.Module.deserialize_file, engine))
        if module is None:
            data = file.source.read()
            module = _compile(file, engine, data)
            # Under the digest of what was compiled: the file may have changed since it was hashed.
            entry = _entry_id(hashlib.sha256(data).hexdigest(), settings)
            store.store(entry, module.serialize())
        return WasmtimeProgram(file, engine, module, limits)


def _compile(file: GraphFile, engine: wasmtime.Engine, data: bytes) -> wasmtime.Module:
    try:
        return wasmtime.Module(engine, data)
    except wasmtime.WasmtimeError as error:
        hint = "the file may be damaged: compile the model again"
        if "support is not enabled" in str(error):
            hint = f"this engine lacks what {file.metadata.simd} needs: compile with another --simd"
        raise LoadError(
            f"{file.path} is not a valid WebAssembly module: {_first_line(error)}", hint=hint
        ) from error


class WasmtimeProgram:
    """A compiled graph; see `wasmgraph.runtime.base.Program`."""

    def __init__(
        self, file: GraphFile, engine: wasmtime.Engine, module: wasmtime.Module, limits: Limits
    ) -> None:
        self.file = file
        self.limits = limits
        self.engine = engine
        self.console = Console()
        self.watchdog: Watchdog | None = None
        if limits.seconds is not None:
            interval = max(0.001, min(TICK_SECONDS, limits.seconds / 20))
            self.watchdog = Watchdog(engine.increment_epoch, interval)
        self._check_memory(module)
        self.functions = tuple(_SIGNATURES)
        exported = {item.name for item in module.exports}
        self.functions += tuple(name for name in _OPTIONAL_SIGNATURES if name in exported)
        linker = wasmtime.Linker(engine)
        try:
            define_wasi(linker, module.imports, self.console)
            self.prepared = linker.instantiate_pre(module)
            self.probe = wasmtime.Module(engine, _probe(self.functions))
        except wasmtime.WasmtimeError as error:
            raise LoadError(f"{file.path} cannot be linked: {_first_line(error)}") from error

    def instantiate(self) -> WasmtimeInstance:
        """A new instance; see the interface."""
        return WasmtimeInstance(self)

    def close(self) -> None:
        """End the watchdog; the code goes with the last reference to it."""
        if self.watchdog is not None:
            self.watchdog.close()

    def _check_memory(self, module: wasmtime.Module) -> None:
        exports = {item.name: item.type for item in module.exports}
        memory = exports.get("memory")
        if not isinstance(memory, wasmtime.MemoryType):
            raise LoadError(f"{self.file.path} is not a graph: it exports no memory")
        needed = memory.limits.min * WASM_PAGE
        if self.limits.memory is not None and needed > self.limits.memory:
            raise MemoryLimitExceeded(
                f"{self.file.path} needs {format_size(needed)} of memory to start with, "
                f"the limit is {format_size(self.limits.memory)}",
                hint=f"allow at least {needed} bytes",
            )


class WasmtimeInstance:
    """A graph in a store of its own; see `wasmgraph.runtime.base.Instance`."""

    def __init__(self, program: WasmtimeProgram) -> None:
        self._program = program
        self._inputs = tuple((spec, _wire_dtype(spec)) for spec in program.file.inputs)
        self._outputs = tuple((spec, _wire_dtype(spec)) for spec in program.file.outputs)
        limit = program.limits.memory
        self._store = wasmtime.Store(program.engine)
        self._store.set_limits(
            memory_size=-1 if limit is None else limit,
            table_elements=1_000_000,
            instances=2,  # the graph and the probe
            memories=1,
        )
        with self._guest(LoadError):
            exports = program.prepared.instantiate(self._store).exports(self._store)
            self._memory: wasmtime.Memory = exports["memory"]  # type: ignore[assignment]
            self._functions: dict[str, Any] = {name: exports[name] for name in program.functions}
            # Fails where a function has another type than the ABI's, before any is called.
            wasmtime.Instance(self._store, program.probe, list(self._functions.values()))
            if _INITIALIZE in self._functions:
                self._functions[_INITIALIZE](self._store)
            abi = self._call("wg_abi")
        if abi != ABI_VERSION:
            raise LoadError(
                f"{program.file.path} has ABI {abi}, this wasmgraph runs ABI {ABI_VERSION}",
                hint="compile the model again with this version",
            )

    def run(self, inputs: Sequence[Array]) -> list[Array]:
        """Run once; see the interface."""
        with self._guest(InferenceError):
            for index, (array, (spec, dtype)) in enumerate(zip(inputs, self._inputs, strict=True)):
                pointer = self._call("wg_input", index, 0, STATIC_SHAPE)
                if pointer == 0:
                    self._report(f"the graph rejects input {spec.name!r}")
                self._view(pointer, spec, dtype)[...] = array
            code = self._call("wg_run")
            if code != 0:
                self._report(f"the graph failed with code {code}")
            results = []
            for index, (spec, dtype) in enumerate(self._outputs):
                pointer = self._call("wg_output", index)
                if pointer == 0:
                    self._report(f"the graph has no output {spec.name!r}")
                results.append(self._view(pointer, spec, dtype).astype(spec.dtype, order="C"))
            return results

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
        """Free the store and its memory."""
        self._store.close()

    def _call(self, name: str, *arguments: int) -> int:
        """Call an export whose result is an address, a size or a code: as an unsigned number."""
        result: int = self._functions[name](self._store, *arguments)
        return result & 0xFFFF_FFFF

    def _view(self, pointer: int, spec: TensorSpec, dtype: np.dtype[Any]) -> Array:
        """A tensor in the guest's memory, valid until the guest runs again."""
        size = self._memory.data_len(self._store)
        if pointer + spec.nbytes > size:
            raise InferenceError(
                f"the graph says that tensor {spec.name!r} ({spec.nbytes} bytes) lies at "
                f"{pointer:#x}, which is outside its memory of {size} bytes"
            )
        if spec.nbytes == 0:
            return np.empty(spec.shape, dtype)
        memory: Any = self._memory.get_buffer_ptr(self._store, spec.nbytes, pointer)
        view: Array = np.ndarray(spec.shape, dtype, buffer=memory)
        return view

    def _report(self, what: str) -> NoReturn:
        """Raise what the guest says of its own failure."""
        text = self._error_text()
        limit = self._program.limits.memory
        if limit is not None and _speaks_of_memory(text):
            raise MemoryLimitExceeded(
                f"{what}: {text}; the limit is {format_size(limit)}",
                hint="allow more memory, or none at all to use what the engine has (4 GiB)",
            )
        raise InferenceError(f"{what}: {text}" if text else what)

    def _error_text(self) -> str:
        pointer, length = self._call("wg_error"), self._call("wg_error_len")
        size = self._memory.data_len(self._store)
        if pointer + length > size:
            raise InferenceError(
                f"the graph says that its error text of {length} bytes lies at {pointer:#x}, "
                f"which is outside its memory of {size} bytes"
            )
        kept = min(length, MAX_ERROR_BYTES)
        return _decode(bytes(self._memory.read(self._store, pointer, pointer + kept)))

    @contextmanager
    def _guest(self, kind: type[InferenceError] | type[LoadError]) -> Iterator[None]:
        """Let the guest run inside, within the time limit; what goes wrong there becomes `kind`."""
        program = self._program
        watchdog = program.watchdog
        program.console.clear()
        try:
            with watchdog.running() if watchdog is not None else nullcontext():
                if watchdog is not None and program.limits.seconds is not None:
                    ticks = math.ceil(program.limits.seconds / watchdog.interval)
                    # One more, since the current tick is partly over.
                    self._store.set_epoch_deadline(ticks + 1)
                yield
        except wasmtime.Trap as trap:
            raise self._explain(trap, kind) from trap
        except wasmtime.WasmtimeError as error:
            raise kind(f"{program.file.path}: {_first_line(error)}") from error

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
        reason = code.name.lower().replace("_", " ") if code else _first_line(trap)
        if program.console.exit_code is not None:
            reason = f"it left with exit code {program.console.exit_code}"
        said = _decode(program.console.stderr)
        message = f"the graph trapped{where}: {reason}" + (f"\n{said}" if said else "")
        if program.limits.memory is not None and _speaks_of_memory(said):
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


def _speaks_of_memory(text: str) -> bool:
    """Whether an error is a failed allocation: the executor's text, or that of Rust's allocator."""
    return "out of memory" in text or "memory allocation of" in text


def _decode(text: bytes) -> str:
    return printable(text.decode("utf-8", errors="replace").strip())


def _first_line(error: Exception) -> str:
    """Wasmtime's message without its chain of causes, but with the innermost one."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    if len(lines) < 2:
        return lines[0] if lines else type(error).__name__
    return f"{lines[0]}: {lines[-1].removeprefix('0: ').removeprefix('1: ')}"


@functools.cache
def _probe(names: tuple[str, ...]) -> bytes:
    """A module that only imports the ABI's functions, so that Wasmtime checks their types.

    Asking for the types through wasmtime-py aborts the process where a graph uses one that its C
    interface lacks (a vector as a parameter, say).
    """
    signatures = {**_SIGNATURES, **_OPTIONAL_SIGNATURES}
    fields = (f'(import "graph" "{name}" (func {signatures[name]}))' for name in names)
    return bytes(wasmtime.wat2wasm(f"(module {' '.join(fields)})"))


def _wire_dtype(spec: TensorSpec) -> np.dtype[Any]:
    """As it lies in the guest's memory: WebAssembly is little-endian on every host."""
    dtype: np.dtype[Any] = np.dtype(spec.dtype).newbyteorder("<")
    return dtype


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
