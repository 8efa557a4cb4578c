"""Calls of a graph's functions under Wasmtime, which cost two microseconds.

wasmtime-py's own calls ask for the function's type and convert by it each time, which takes ten: as
long as a small graph's run. The functions of the ABI have numbers of 32 bits only, and what a call
needs is made once.
"""

from __future__ import annotations

from ctypes import POINTER, byref

import wasmtime
from wasmtime import _ffi as ffi
from wasmtime._func import maybe_raise_last_exn


class GuestFunction:
    """An export whose parameters and at most one result are i32, in the store it belongs to.

    One thread calls it at a time.

    Args:
        function: Of such a type, which `WasmtimeProgram.probe` has checked: here nobody does.
    """

    def __init__(self, store: wasmtime.Store, function: wasmtime.Func) -> None:
        kind = function.type(store)
        self._store = store
        self._function = byref(function._func)
        self._arity = len(kind.params)
        self._gives = len(kind.results) > 0
        self._size = max(self._arity, len(kind.results))
        # Arguments, and then in their place the result.
        self._numbers = (ffi.wasmtime_val_raw_t * max(1, self._size))()
        self._no_trap()

    def _no_trap(self) -> None:
        self._trap = POINTER(ffi.wasm_trap_t)()
        self._told_trap = byref(self._trap)

    def __call__(self, *arguments: int) -> int:
        """The result as an unsigned number, 0 where there is none.

        Args:
            arguments: Their lowest 32 bits are passed.

        Raises:
            wasmtime.Trap, wasmtime.WasmtimeError: the guest trapped, was interrupted, or left.
            TypeError: there are too many or too few arguments.
            ValueError: the store is closed.
        """
        if len(arguments) != self._arity:
            raise TypeError(f"{len(arguments)} arguments for a function of {self._arity}")
        numbers = self._numbers
        for place, argument in enumerate(arguments):
            numbers[place].i32 = argument
        error = ffi.wasmtime_func_call_unchecked(
            self._store._context(), self._function, numbers, self._size, self._told_trap
        )
        if error or self._trap:
            # Taken over first, so that they are freed whatever is raised.
            failure = wasmtime.WasmtimeError._from_ptr(error) if error else None
            trap = wasmtime.Trap._from_ptr(self._trap) if self._trap else None
            self._no_trap()
            maybe_raise_last_exn()  # of a host function in Python
            raise failure or trap  # type: ignore[misc]
        return numbers[0].i32 & 0xFFFF_FFFF if self._gives else 0
