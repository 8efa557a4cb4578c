"""A guest's linear memory as bytes: its own, or one that several instances share."""

from __future__ import annotations

import ctypes
from typing import Any, Protocol

import numpy as np
import wasmtime

from wasmgraph.errors import LoadError
from wasmgraph.runtime.base import Array, GraphFile, Limits
from wasmgraph.wasmfile import PAGE_NBYTES


class GuestMemory(Protocol):
    """Bytes that the guest sees at addresses from 0 on."""

    def nbytes(self) -> int:
        """How many there are now; a guest can make it more."""

    def whole(self) -> Array:
        """All of them, uint8: the array is valid until the guest runs again."""


class OwnMemory:
    """The memory that an instance exports."""

    def __init__(self, store: wasmtime.Store, memory: wasmtime.Memory) -> None:
        self._store = store
        self._memory = memory
        self._known: Array = np.empty(0, np.uint8)

    def nbytes(self) -> int:
        """See the interface."""
        return self._memory.data_len(self._store)

    def whole(self) -> Array:
        """See the interface."""
        size = self.nbytes()
        if size != self._known.size:  # it moves only where it grows
            self._known = np.ctypeslib.as_array(self._memory.get_buffer_ptr(self._store))
        return self._known


class SharedMemory(wasmtime.SharedMemory):
    """A memory that instances in several threads import."""

    def nbytes(self) -> int:
        """See the interface."""
        return self.data_len()

    def whole(self) -> Array:
        """See the interface."""
        start = ctypes.addressof(self.data_ptr().contents)
        return np.ctypeslib.as_array((ctypes.c_ubyte * self.nbytes()).from_address(start))

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
