"""A guest's linear memory as bytes: its own, or one that several instances share."""

from __future__ import annotations

import ctypes
from typing import Any, Protocol

import wasmtime

from wasmgraph.errors import LoadError
from wasmgraph.runtime.base import GraphFile, Limits
from wasmgraph.wasmfile import PAGE_NBYTES


class GuestMemory(Protocol):
    """Bytes that the guest sees at addresses from 0 on."""

    def nbytes(self) -> int:
        """How many there are now; a guest can make it more."""

    def view(self, address: int, nbytes: int) -> Any:
        """A buffer on bytes within the memory, valid until the guest runs again."""


class OwnMemory:
    """The memory that an instance exports."""

    def __init__(self, store: wasmtime.Store, memory: wasmtime.Memory) -> None:
        self._store = store
        self._memory = memory

    def nbytes(self) -> int:
        """See the interface."""
        return self._memory.data_len(self._store)

    def view(self, address: int, nbytes: int) -> Any:
        """See the interface."""
        return self._memory.get_buffer_ptr(self._store, nbytes, address)


class SharedMemory(wasmtime.SharedMemory):
    """A memory that instances in several threads import."""

    def nbytes(self) -> int:
        """See the interface."""
        return self.data_len()

    def view(self, address: int, nbytes: int) -> Any:
        """See the interface."""
        start = ctypes.addressof(self.data_ptr().contents)
        return (ctypes.c_ubyte * nbytes).from_address(start + address)

    def _as_extern(self) -> Any:
        """Wasmtime-py 48 and 50 pass the address of the pointer where the pointer is meant."""
        from wasmtime import _ffi as ffi

        union = ffi.wasmtime_extern_union(sharedmemory=self.ptr())
        return ffi.wasmtime_extern_t(ffi.WASMTIME_EXTERN_SHAREDMEMORY, union)


def make_shared(
    engine: wasmtime.Engine, file: GraphFile, wanted: wasmtime.MemoryType, limits: Limits
) -> SharedMemory:
    """A shared memory as a graph wants it, which cannot grow beyond the limit.

    Raises:
        LoadError: the engine cannot make it.
    """
    least, most = wanted.limits.min, wanted.limits.max
    assert most is not None  # a shared memory has one
    if limits.memory is not None:
        most = min(most, limits.memory // PAGE_NBYTES)
    kind = wasmtime.MemoryType(wasmtime.Limits(least, most), shared=True)
    try:
        return SharedMemory(engine, kind)
    except wasmtime.WasmtimeError as error:
        raise LoadError(f"{file.path}: its shared memory cannot be made: {error}") from error
