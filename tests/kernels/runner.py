"""Runs one assembled kernel under Wasmtime, with guards around every buffer.

The function is wrapped into a module of its own (a memory and an export), so no linker is needed.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
import wasmtime
from numpy.typing import DTypeLike, NDArray

from wasmgraph.assembler import Function
from wasmgraph.assembler.function import I32, unsigned
from wasmgraph.wasmfile import MAGIC

PAGE = 65536
GUARD = 64
"""Bytes between buffers; they and the output's bytes are filled before the run."""

FILL = 0xA5
UNTOUCHED = np.frombuffer(bytes([FILL] * 4), np.float32)[0]
"""What a float32 of the output holds that the kernel did not write."""

_ENGINE = wasmtime.Engine()


class Spec(Protocol):
    """A kernel's specification."""

    def assemble(self, name: str) -> Function: ...


def module_of(functions: Sequence[Function], pages: int) -> bytes:
    """A module that exports the functions under their names, and "memory"."""
    types = [
        b"\x60" + unsigned(len(f.params)) + bytes([I32] * len(f.params)) + b"\x01\x7f"
        for f in functions
    ]
    exports = [_text(f.name) + b"\0" + unsigned(i) for i, f in enumerate(functions)]
    exports.append(_text("memory") + b"\2\0")
    bodies = [f.body() for f in functions]
    return b"".join(
        [
            MAGIC,
            _section(1, types),
            _section(3, [unsigned(i) for i in range(len(functions))]),
            _section(5, [b"\0" + unsigned(pages)]),
            _section(7, exports),
            _section(10, [unsigned(len(body)) + body for body in bodies]),
        ]
    )


class Instance:
    """An instance of such a module.

    Attributes:
        memory: Its linear memory, as bytes.
    """

    def __init__(self, functions: Sequence[Function], pages: int) -> None:
        module = wasmtime.Module(_ENGINE, module_of(functions, pages))
        self._store = wasmtime.Store(_ENGINE)
        self._exports = wasmtime.Instance(self._store, module, []).exports(self._store)
        self.memory = np.ctypeslib.as_array(self._exports["memory"].get_buffer_ptr(self._store))

    def call(self, name: str, *pointers: int) -> None:
        """Call a kernel; it must return 0."""
        assert self._exports[name](self._store, *pointers) == 0


def run_kernel(
    kernel: Spec | Function,
    inputs: Sequence[NDArray[Any]],
    out_nbytes: int,
    dtype: DTypeLike = np.float32,
    out_before: NDArray[Any] | None = None,
    scratch_nbytes: int = 0,
) -> NDArray[Any]:
    """Run a kernel whose parameters are the inputs' addresses, then the output's (and scratch).

    Runs once per buffer with that buffer at the very end of the memory, so that reading past it
    traps. Asserts that nothing but the output was written and that all runs agree bit by bit.

    Args:
        inputs: Copied to memory as they are (C order, their own dtype).
        out_nbytes: The size of the output's buffer; it is filled with `FILL` first.
        dtype: What the output is read as.
        out_before: What the output's buffer holds before the run, instead of `FILL`.
        scratch_nbytes: Size of the scratch buffer that the kernel takes last, if it takes one.

    Returns:
        The output's buffer, one axis.
    """
    before = np.full(out_nbytes, FILL, np.uint8)
    if out_before is not None:
        before[:] = np.ascontiguousarray(out_before).view(np.uint8).reshape(-1)
    outputs = [before]
    if scratch_nbytes:
        outputs.append(np.full(scratch_nbytes, FILL, np.uint8))
    return _run_everywhere(kernel, inputs, outputs)[0].view(dtype)


def run_kernel_with_outputs(
    kernel: Spec | Function, inputs: Sequence[NDArray[Any]], out_nbytes: Sequence[int]
) -> list[NDArray[np.float32]]:
    """The same of a kernel that takes several buffers to write to, scratch memory among them.

    Whatever it leaves in scratch memory must be the same wherever the buffers are, too.
    """
    outputs = [np.full(nbytes, FILL, np.uint8) for nbytes in out_nbytes]
    return [array.view(np.float32) for array in _run_everywhere(kernel, inputs, outputs)]


def _run_everywhere(
    kernel: Spec | Function, inputs: Sequence[NDArray[Any]], outputs: Sequence[NDArray[np.uint8]]
) -> list[NDArray[np.uint8]]:
    function = kernel if isinstance(kernel, Function) else kernel.assemble("kernel")
    buffers = [
        np.ascontiguousarray(a).view(np.uint8).reshape(-1) for a in map(np.atleast_1d, inputs)
    ]
    out = len(buffers)
    buffers += outputs
    assert len(buffers) == len(function.params), (len(buffers), len(function.params))
    pages = -(-sum(b.size + 2 * GUARD for b in buffers) // PAGE)
    instance = Instance([function], pages)
    results = [_run(instance, function.name, buffers, last, out) for last in range(len(buffers))]
    for other in results[1:]:
        assert all(
            first.tobytes() == again.tobytes()
            for first, again in zip(results[0], other, strict=True)
        ), "the result depends on where buffers are"
    return results[0]


def _run(
    instance: Instance, name: str, buffers: Sequence[NDArray[np.uint8]], last: int, out: int
) -> list[NDArray[np.uint8]]:
    memory = instance.memory
    memory[:] = FILL
    pointers, end = [0] * len(buffers), GUARD
    for index, buffer in enumerate(buffers):
        if index == last:
            pointers[index] = memory.size - buffer.size
        else:
            pointers[index] = end
            end += -(-buffer.size // 4) * 4 + GUARD
        memory[pointers[index] : pointers[index] + buffer.size] = buffer
    before = memory.copy()
    instance.call(name, *pointers)
    results = []
    for index in range(out, len(buffers)):
        written = slice(pointers[index], pointers[index] + buffers[index].size)
        before[written] = memory[written]
        results.append(memory[written].copy())
    changed = np.flatnonzero(before != memory)
    assert not changed.size, f"{changed.size} bytes outside the output changed, first {changed[0]}"
    return results


def _section(number: int, entries: Sequence[bytes]) -> bytes:
    contents = unsigned(len(entries)) + b"".join(entries)
    return bytes([number]) + unsigned(len(contents)) + contents


def _text(text: str) -> bytes:
    return unsigned(len(text)) + text.encode()
