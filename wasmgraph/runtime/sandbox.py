"""The system interface a graph gets: every WASI function it may import, and nothing behind them.

A graph computes; it needs no files, clock, network, environment or randomness. So none of
Wasmtime's WASI is linked in at all: no call can block (which no time limit could interrupt) and no
capability exists that might be reached. Functions are answered as on a machine without anything:

* `fd_write` to stdout or stderr succeeds; the end of what went to stderr is kept for errors;
* there are no arguments, no environment, no preopened folders (a C library asks for them at start);
* `proc_exit` notes the code and returns: a C library traps right behind it;
* everything else fails with ENOTCAPABLE.

The functions run inside a guest's call, so they never raise: wasmtime-py would keep the exception
in a global that another thread may pick up.
"""

from __future__ import annotations

import struct
import threading
from collections.abc import Callable, Sequence

import wasmtime

from wasmgraph.errors import LoadError

WASI = "wasi_snapshot_preview1"

ERRNO_SUCCESS = 0
ERRNO_BADF = 8
ERRNO_FAULT = 21
ERRNO_INVAL = 28
ERRNO_NOTCAPABLE = 76

IOV_MAX = 1024
KEPT_BYTES = 4096
"""How much of stderr is kept: the end, where a panic's message is."""


class Console(threading.local):
    """What the guest that this thread runs has said."""

    def __init__(self) -> None:
        self.stderr = b""
        self.exit_code: int | None = None

    def clear(self) -> None:
        """Forget it, before a run."""
        self.stderr = b""
        self.exit_code = None


def define_wasi(
    linker: wasmtime.Linker, imports: Sequence[wasmtime.ImportType], console: Console
) -> None:
    """Define the WASI functions among `imports` in `linker`, as the module docstring says.

    They are defined with WASI's types, and it is for the linker to find that an import has another:
    asking wasmtime-py for the types of a foreign module's functions aborts the process where one
    is a vector.

    Raises:
        LoadError: an import is no function of WASI preview 1.
    """
    for name in {item.name for item in imports if item.module == WASI}:
        parameters = _PARAMETERS.get(name or "")
        if parameters is None:
            raise LoadError(f"the graph imports {name!r}, which {WASI} does not have")
        results = [] if name in _WITHOUT_RESULT else [wasmtime.ValType.i32()]
        kinds = [_VALUE_TYPES[letter]() for letter in parameters]
        linker.define_func(
            WASI,
            str(name),
            wasmtime.FuncType(kinds, results),
            _bind(_ANSWERS.get(str(name), _refuse), console),
            access_caller=True,
        )


Answer = Callable[[Console, wasmtime.Caller, Sequence[int]], int | None]


def _bind(answer: Answer, console: Console) -> Callable[..., int | None]:
    def call(caller: wasmtime.Caller, *arguments: int) -> int | None:
        return answer(console, caller, arguments)

    return call


def _refuse(_console: Console, _caller: wasmtime.Caller, _arguments: Sequence[int]) -> int:
    return ERRNO_NOTCAPABLE


def _fd_write(console: Console, caller: wasmtime.Caller, arguments: Sequence[int]) -> int:
    descriptor, vectors, count, written = (value & 0xFFFF_FFFF for value in arguments)
    if descriptor not in (1, 2):
        return ERRNO_BADF
    if count > IOV_MAX:
        return ERRNO_INVAL
    table = _read(caller, vectors, 8 * count)
    if table is None:
        return ERRNO_FAULT
    total = 0
    for pointer, length in struct.iter_unpack("<II", table):
        # Only the end can be of interest, and a guest may name the same gigabyte many times.
        start = pointer + max(0, length - KEPT_BYTES)
        text = _read(caller, start, pointer + length - start)
        if text is None:
            return ERRNO_FAULT
        if descriptor == 2:
            console.stderr = (console.stderr + text)[-KEPT_BYTES:]
        total += length
    return _write(caller, written, struct.pack("<I", total & 0xFFFF_FFFF))


def _no_list(_console: Console, caller: wasmtime.Caller, arguments: Sequence[int]) -> int:
    """`args_sizes_get` and `environ_sizes_get`: none, of zero bytes."""
    count, nbytes = (value & 0xFFFF_FFFF for value in arguments)
    return _write(caller, count, b"\0\0\0\0") or _write(caller, nbytes, b"\0\0\0\0")


def _nothing(_console: Console, _caller: wasmtime.Caller, _arguments: Sequence[int]) -> int:
    """`args_get` and `environ_get`: nothing to fill in."""
    return ERRNO_SUCCESS


def _not_open(_console: Console, _caller: wasmtime.Caller, _arguments: Sequence[int]) -> int:
    """`fd_prestat_get`: how a C library learns that there are no preopened folders."""
    return ERRNO_BADF


def _exit(console: Console, _caller: wasmtime.Caller, arguments: Sequence[int]) -> None:
    console.exit_code = arguments[0]


_ANSWERS: dict[str, Answer] = {
    "fd_write": _fd_write,
    "args_sizes_get": _no_list,
    "environ_sizes_get": _no_list,
    "args_get": _nothing,
    "environ_get": _nothing,
    "fd_prestat_get": _not_open,
    "proc_exit": _exit,
}

_VALUE_TYPES = {"i": wasmtime.ValType.i32, "I": wasmtime.ValType.i64}
_WITHOUT_RESULT = ("proc_exit",)
# Parameters of every function of WASI preview 1 (github.com/WebAssembly/WASI, wasi-0.1 branch,
# typenames.witx as lowered to wasm): i is i32, I is i64. All but proc_exit return an i32.
_PARAMETERS = {
    "args_get": "ii",
    "args_sizes_get": "ii",
    "clock_res_get": "ii",
    "clock_time_get": "iIi",
    "environ_get": "ii",
    "environ_sizes_get": "ii",
    "fd_advise": "iIIi",
    "fd_allocate": "iII",
    "fd_close": "i",
    "fd_datasync": "i",
    "fd_fdstat_get": "ii",
    "fd_fdstat_set_flags": "ii",
    "fd_fdstat_set_rights": "iII",
    "fd_filestat_get": "ii",
    "fd_filestat_set_size": "iI",
    "fd_filestat_set_times": "iIIi",
    "fd_pread": "iiiIi",
    "fd_prestat_dir_name": "iii",
    "fd_prestat_get": "ii",
    "fd_pwrite": "iiiIi",
    "fd_read": "iiii",
    "fd_readdir": "iiiIi",
    "fd_renumber": "ii",
    "fd_seek": "iIii",
    "fd_sync": "i",
    "fd_tell": "ii",
    "fd_write": "iiii",
    "path_create_directory": "iii",
    "path_filestat_get": "iiiii",
    "path_filestat_set_times": "iiiiIIi",
    "path_link": "iiiiiii",
    "path_open": "iiiiiIIii",
    "path_readlink": "iiiiii",
    "path_remove_directory": "iii",
    "path_rename": "iiiiii",
    "path_symlink": "iiiii",
    "path_unlink_file": "iii",
    "poll_oneoff": "iiii",
    "proc_exit": "i",
    "proc_raise": "i",
    "random_get": "ii",
    "sched_yield": "",
    "sock_accept": "iii",
    "sock_recv": "iiiiii",
    "sock_send": "iiiii",
    "sock_shutdown": "ii",
}


def _memory(caller: wasmtime.Caller) -> wasmtime.Memory | None:
    memory = caller.get("memory")
    return memory if isinstance(memory, wasmtime.Memory) else None


def _read(caller: wasmtime.Caller, start: int, length: int) -> bytes | None:
    """Bytes of the guest's memory, or None where that is not within it."""
    memory = _memory(caller)
    if memory is None or start + length > memory.data_len(caller):
        return None
    return bytes(memory.read(caller, start, start + length))


def _write(caller: wasmtime.Caller, start: int, data: bytes) -> int:
    memory = _memory(caller)
    if memory is None or start + len(data) > memory.data_len(caller):
        return ERRNO_FAULT
    memory.write(caller, data, start)
    return ERRNO_SUCCESS
