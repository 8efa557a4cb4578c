"""Small components written by hand: an honest one, and hostile ones that lie to their host.

The core module is written here, the component around it is the real one. Its `run` returns what
lies at address 1024, where an answer is laid out as the canonical ABI has it.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import wasmtime

from tests.runtime.wat_graphs import WatGraph, X, Y
from wasmgraph.component.interface import DESCRIBE, ERRORS, REALLOC, RUN
from wasmgraph.component.wrapping import wrap
from wasmgraph.metadata import DTYPE_NBYTES, KernelInfo, TensorInfo, dump_metadata
from wasmgraph.wasmfile import METADATA_SECTION, custom_section

ANSWER, TENSORS, TEXT, SHAPE, CONTENTS = 1024, 1040, 1200, 1400, 2048
FLOAT32 = list(DTYPE_NBYTES).index("float32")


@dataclass(frozen=True)
class Given:
    """One output as the component gives it: by default the four floats that Y has, all 1."""

    name: bytes = b"y"
    dtype: int = FLOAT32
    shape: tuple[int, ...] = (4,)
    start: int = CONTENTS
    nbytes: int = 16
    rank: int | None = None
    shape_start: int = SHAPE
    name_start: int = TEXT


def answer(
    given: Sequence[Given], count: int | None = None, start: int = TENSORS
) -> dict[int, bytes]:
    """The bytes by address of a result with these outputs; `count` and `start` may lie."""
    number = len(given) if count is None else count
    found = {ANSWER: struct.pack("<IIII", 0, start, number, 0)}
    for i, item in enumerate(given):
        rank = len(item.shape) if item.rank is None else item.rank
        found[TENSORS + 28 * i] = struct.pack(
            "<IIIIIII",
            *(item.name_start, len(item.name), item.dtype),
            *(item.shape_start, rank, item.start, item.nbytes),
        )
        found[item.name_start] = item.name
        found[item.shape_start] = struct.pack(f"<{len(item.shape)}I", *item.shape)
    return {address: data for address, data in found.items() if address + len(data) <= 65536}


def failure(case: str, text: bytes) -> dict[int, bytes]:
    """The bytes by address of an error."""
    head = struct.pack("<IIII", 1, ERRORS.index(case), TEXT, len(text))
    return {ANSWER: head, TEXT: text}


def _escaped(contents: bytes) -> str:
    return "".join(f"\\{byte:02x}" for byte in contents)


@dataclass(frozen=True)
class WatComponent:
    """A component.

    Attributes:
        memory: Its first bytes by address.
        run: The body of `run`, after its parameters and result.
        realloc: The body of `cabi_realloc`.
        rest: More module fields.
        pages: How much memory it has.
        inputs, outputs, kernels: As in the metadata.
        has_metadata: Whether it has the custom section.
    """

    memory: dict[int, bytes] = field(default_factory=lambda: answer([Given()]))
    run: str = f"i32.const {ANSWER}"
    realloc: str = "i32.const 32768"
    rest: str = ""
    pages: int = 1
    inputs: tuple[TensorInfo, ...] = (X,)
    outputs: tuple[TensorInfo, ...] = (Y,)
    kernels: tuple[KernelInfo, ...] = ()
    has_metadata: bool = True

    def module(self) -> bytes:
        """The core module."""
        ones = {CONTENTS: struct.pack("<4f", 1, 1, 1, 1)}
        data = "".join(
            f'(data (i32.const {address}) "{_escaped(contents)}")'
            for address, contents in {**ones, **self.memory}.items()
        )
        text = f"""(module
            (memory (export "memory") {self.pages})
            {data}
            (func (export "{REALLOC}") (param i32 i32 i32 i32) (result i32) {self.realloc})
            (func (export "{DESCRIBE}") (result i32) i32.const 0)
            (func $run (export "{RUN}") (param i32 i32) (result i32) {self.run})
            {self.rest})"""
        return bytes(wasmtime.wat2wasm(text))

    def binary(self) -> bytes:
        """The whole component."""
        return self.with_metadata(wrap(self.module()))

    def with_metadata(self, component: bytes) -> bytes:
        """Any component with this one's metadata."""
        if not self.has_metadata:
            return component
        graph = WatGraph(inputs=self.inputs, outputs=self.outputs, kernels=self.kernels)
        payload = dump_metadata(graph.metadata())
        return component + custom_section(METADATA_SECTION, payload)

    def write(self, folder: Path) -> Path:
        """Write it; its path."""
        path = folder / "component.wasm"
        path.write_bytes(self.binary())
        return path
