"""Writes what Rust has no stable words for: waiting on an address, and a thread's own stack."""

from __future__ import annotations

from wasmgraph.assembler import opcodes as op
from wasmgraph.assembler.function import signed, unsigned
from wasmgraph.assembler.object_file import (
    PLACEHOLDER,
    Code,
    Fill,
    Relocation,
    write_linked_object,
)

WAIT_NANOSECONDS = 10_000_000
"""How long a thread sleeps at most before it looks whether its time limit is over."""

EVERYBODY = -1

_STACK_POINTER = "__stack_pointer"
_FOUR_BYTES = b"\x02\x00"  # alignment as a power of two, offset
_NO_LOCALS = unsigned(0)


def threads_object() -> bytes:
    """The object file with `wg_work`, `wasmgraph_wait` and `wasmgraph_notify`.

    * `wg_work(stack, thread, run)` takes `stack` as the end of the thread's stack and joins a run;
    * `wasmgraph_wait(address, expected)` sleeps while the word at `address` is `expected`;
    * `wasmgraph_notify(address)` wakes whoever sleeps there.
    """
    return write_linked_object(
        [_wait(), _notify(), _work()], called={"wasmgraph_work": 2}, global_name=_STACK_POINTER
    )


def _get(local: int) -> bytes:
    return bytes([op.LOCAL_GET]) + unsigned(local)


def _wait() -> Code:
    body = _NO_LOCALS + _get(0) + _get(1)
    body += bytes([op.I64_CONST]) + signed(WAIT_NANOSECONDS)
    body += bytes([op.ATOMIC, op.MEMORY_ATOMIC_WAIT32]) + _FOUR_BYTES + bytes([op.END])
    return Code("wasmgraph_wait", 2, body)


def _notify() -> Code:
    body = _NO_LOCALS + _get(0) + bytes([op.I32_CONST]) + signed(EVERYBODY)
    body += bytes([op.ATOMIC, op.MEMORY_ATOMIC_NOTIFY]) + _FOUR_BYTES + bytes([op.END])
    return Code("wasmgraph_notify", 1, body)


def _work() -> Code:
    body = _NO_LOCALS + _get(0) + bytes([op.GLOBAL_SET])
    stack = Relocation(Fill.GLOBAL_LEB, len(body), _STACK_POINTER)
    body += PLACEHOLDER + _get(1) + _get(2) + bytes([op.CALL])
    call = Relocation(Fill.CALL, len(body), "wasmgraph_work")
    return Code("wg_work", 3, body + PLACEHOLDER + bytes([op.END]), (stack, call))
