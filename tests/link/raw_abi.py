"""A host for the raw ABI: wasmtime-py and nothing of wasmgraph's own runtime."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

import numpy as np
import wasmtime


@lru_cache
def engine() -> wasmtime.Engine:
    """Made at the first use: pytest's fault handler, enabled after the conftests are imported,
    would take away the signals by which Wasmtime notices traps.
    """
    return wasmtime.Engine()


@lru_cache
def compiled(data: bytes) -> wasmtime.Module:
    return wasmtime.Module(engine(), data)


def instantiate(
    data: bytes, wasi: wasmtime.WasiConfig, max_memory: int = -1
) -> tuple[wasmtime.Store, wasmtime.InstanceExports]:
    store = wasmtime.Store(engine())
    store.set_wasi(wasi)
    store.set_limits(memory_size=max_memory)
    linker = wasmtime.Linker(engine())
    linker.define_wasi()
    return store, linker.instantiate(store, compiled(data)).exports(store)


class Host:
    """An instance of a graph, used as a library."""

    def __init__(self, data: bytes, max_memory: int = -1) -> None:
        self.store, self.exports = instantiate(data, wasmtime.WasiConfig(), max_memory)
        self.call("_initialize")

    def call(self, name: str, *arguments: int) -> int:
        return self.exports[name](self.store, *arguments)

    def read(self, address: int, nbytes: int) -> bytes:
        return bytes(self.exports["memory"].read(self.store, address, address + nbytes))

    def write(self, address: int, data: bytes) -> None:
        self.exports["memory"].write(self.store, data, address)

    def error(self) -> str:
        return self.read(self.call("wg_error"), self.call("wg_error_len")).decode()

    def declare(self, i: int, shape: tuple[int, ...]) -> int:
        """wg_input with an explicit shape."""
        dims = np.array(shape, dtype=np.int64).tobytes()
        place = self.call("wg_alloc", len(dims))
        self.write(place, dims)
        address = self.call("wg_input", i, place, len(shape))
        self.call("wg_free", place, len(dims))
        return address

    def give(self, i: int, array: np.ndarray) -> None:
        address = self.call("wg_input", i, 0, -1)
        assert address, self.error()
        self.write(address, array.tobytes())

    def floats(self, i: int, count: int) -> list[float]:
        data = self.read(self.call("wg_output", i), 4 * count)
        return np.frombuffer(data, np.float32).tolist()


def run_command(
    graph: Path, arguments: list[str], folder: Path, stdin: bytes = b""
) -> tuple[int, bytes, str]:
    """Run `_start` with `folder` opened as "."; returns exit code, stdout and stderr."""
    files = {name: folder / f"{name}.stream" for name in ("stdin", "stdout", "stderr")}
    files["stdin"].write_bytes(stdin)
    wasi = wasmtime.WasiConfig()
    wasi.argv = ["model.wasm", *arguments]
    wasi.stdin_file = str(files["stdin"])
    wasi.stdout_file = str(files["stdout"])
    wasi.stderr_file = str(files["stderr"])
    wasi.preopen_dir(str(folder), ".")
    store, exports = instantiate(graph.read_bytes(), wasi)
    code = 0
    try:
        exports["_start"](store)
    except wasmtime.ExitTrap as trap:
        code = trap.code
    store.close()
    return code, files["stdout"].read_bytes(), files["stderr"].read_text()
