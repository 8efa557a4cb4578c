"""Imports TVM without its crash handler, so that a graph's bad access stays a trap.

tvm_ffi sets a handler of its own for SIGSEGV when it is loaded, without a look at what was there.
Wasmtime needs that signal: its guard pages turn an access beyond the memory into one. If TVM came
second, such an access would end the whole process instead of the run.
"""

from __future__ import annotations

import ctypes
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager

_SIGACTION_NBYTES = 512  # struct sigaction takes 152 on Linux, 16 on macOS


def import_tvm() -> None:
    """Import TVM where nobody did yet; the handler of SIGSEGV stays what it was."""
    if "tvm_ffi" not in sys.modules:
        with segfault_handler_kept():
            import tvm  # noqa: F401


@contextmanager
def segfault_handler_kept() -> Iterator[None]:
    """The process' handler of SIGSEGV is the same after the block as before.

    Python's `signal` knows handlers written in Python only, hence the C library's own function.
    """
    before = ctypes.create_string_buffer(_SIGACTION_NBYTES)
    _sigaction(None, before)
    try:
        yield
    finally:
        _sigaction(before, None)


def _sigaction(new: ctypes.Array[ctypes.c_char] | None, old: object) -> None:
    library = ctypes.CDLL(None, use_errno=True)
    if library.sigaction(signal.SIGSEGV, new, old) != 0:
        raise OSError(ctypes.get_errno(), "sigaction")
