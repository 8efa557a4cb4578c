"""The flat form that the later stages read: kernel calls in order, over storages with sizes.

No Relax and no shapes survive here; a kernel knows its extents and strides itself.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from numpy.typing import NDArray

from wasmgraph.assembler import Function


class AssembledKernel(Protocol):
    """A specification from `wasmgraph.kernels`; equal ones are one kernel."""

    def assemble(self, name: str) -> Function:
        """The kernel's function."""


@dataclass(frozen=True)
class TirKernel:
    """A kernel that TVM generates, for operators without one of our own.

    Attributes:
        key: Equal for equal functions.
        function: A PrimFunc whose parameters are the read buffers, then the written ones.
    """

    key: str
    function: Any

    def __eq__(self, other: object) -> bool:
        return isinstance(other, TirKernel) and other.key == self.key

    def __hash__(self) -> int:
        return hash(self.key)


@dataclass(frozen=True)
class LibraryKernel:
    """An operator of the executor's library, which the linker adds where it is called.

    Attributes:
        symbol: Its C name.
    """

    symbol: str


Kernel = AssembledKernel | TirKernel | LibraryKernel


@dataclass(frozen=True)
class Storage:
    """Bytes that live together.

    Attributes:
        kind: Who fills them: the host, the compiler, or a call.
        nbytes: How many.
    """

    kind: Literal["input", "constant", "computed"]
    nbytes: int


@dataclass(frozen=True)
class Place:
    """A run of bytes within a storage."""

    storage: int
    offset: int
    nbytes: int


@dataclass(frozen=True)
class Call:
    """One kernel call.

    Attributes:
        kernel: What is called.
        reads, writes: Its parameters, in this order.
        nodes: Names of the ONNX nodes it computes.
        description: The operators, e.g. "conv2d + add + relu".
        replaceable: Which reads the first write may lie upon: the kernel reads each of their
            elements before it writes the one in its place, and never again.
    """

    kernel: Kernel
    reads: tuple[Place, ...]
    writes: tuple[Place, ...]
    nodes: tuple[str, ...]
    description: str
    replaceable: tuple[int, ...] = ()


@dataclass(frozen=True)
class Port:
    """A graph input or output and where it lies, dense in C order."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    place: Place


@dataclass(frozen=True)
class Weight:
    """A constant with its bytes.

    Attributes:
        name: The ONNX name where it is still known.
        array: Its elements.
        wide_nbytes: What it would take if every float were a float32.
    """

    name: str
    array: NDArray[Any]
    wide_nbytes: int


@dataclass(frozen=True)
class Program:
    """A whole model as kernel calls.

    Attributes:
        storages: All of them.
        weights: The constants, by storage.
        inputs, outputs: In the model's order.
        stages: In execution order. The calls of one stage may run at the same time, or one after
            the other in any order; each stage waits for the one before it.
        threads: Whether it is meant for several threads.
    """

    storages: tuple[Storage, ...]
    weights: Mapping[int, Weight]
    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]
    stages: tuple[tuple[Call, ...], ...]
    threads: bool = False

    @property
    def calls(self) -> tuple[Call, ...]:
        """Those of all stages."""
        return tuple(call for stage in self.stages for call in stage)
