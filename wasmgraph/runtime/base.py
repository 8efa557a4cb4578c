"""The one interface behind which every WebAssembly engine lives.

An adapter is an `Engine`: it turns the bytes of a graph into a `Program`, and a program into as
many `Instance`s as there are threads. The interface speaks tensors, not pointers, so that an engine
in this process (Wasmtime) and one in another (Node, a browser) fit behind it alike. Names, dtypes
and shapes of inputs are checked before an instance sees them (`wasmgraph.runtime.inputs`); what
comes back from the guest is checked by the adapter.

This module holds no engine and knows nothing of ONNX or of the command line.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import numpy.typing as npt

from wasmgraph.errors import InputError
from wasmgraph.runtime.source import Source

if TYPE_CHECKING:
    from wasmgraph.component.file import ComponentFile
    from wasmgraph.metadata import Metadata

Array = npt.NDArray[Any]

ANY_SHAPE = ("...",)
"""The shape of a tensor of which not even the rank is known before a run."""


def printable(text: str) -> str:
    """Text from a graph without what a terminal would obey; line ends stay."""
    return "".join(c if c == "\n" or c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text)


@dataclass(frozen=True)
class TensorSpec:
    """What a graph takes or gives.

    Attributes:
        name: The ONNX name, unchanged.
        dtype: A numpy dtype name, e.g. "float32".
        shape: The extent of every axis, or the name of one that a run decides: any extent will do
            that is the same wherever the name stands. An output of any rank has ("...",).
    """

    name: str
    dtype: str
    shape: tuple[int | str, ...]

    @property
    def is_fixed(self) -> bool:
        """Whether every extent is known before a run."""
        return all(isinstance(extent, int) for extent in self.shape)

    @property
    def extents(self) -> tuple[int, ...]:
        """The shape of a tensor whose every extent is known.

        Raises:
            InputError: one is not.
        """
        known = tuple(extent for extent in self.shape if isinstance(extent, int))
        if len(known) < len(self.shape):
            raise InputError(
                f"{self} has open axes: their extents are not known",
                hint=f"give them with --shape {self.name}=...",
            )
        return known

    @property
    def nbytes(self) -> int:
        """Length of its bytes (C order, no padding), where every extent is known."""
        return math.prod(self.extents) * int(np.dtype(self.dtype).itemsize)

    def fits(self, shape: Sequence[int]) -> bool:
        """Whether a tensor of this shape can stand here, as far as this tensor alone tells."""
        if self.shape == ANY_SHAPE:
            return True
        return len(shape) == len(self.shape) and all(
            isinstance(known, str) or known == given
            for known, given in zip(self.shape, shape, strict=True)
        )

    def __str__(self) -> str:
        extents = ", ".join(printable(str(extent)) for extent in self.shape)
        return f"{printable(self.name)}: {self.dtype}[{extents}]"


@dataclass(frozen=True)
class Limits:
    """What a run may use.

    Attributes:
        memory: Bytes of linear memory, or None for the engine's own limit (4 GiB).
        seconds: Wall time of one run, instantiation included, or None for no limit.
    """

    memory: int | None = None
    seconds: float | None = None


@dataclass(frozen=True)
class Capabilities:
    """What an engine can do, so that asking for more is an error before anything runs."""

    simd: bool
    relaxed_simd: bool
    threads: bool
    memory_limit: bool
    time_limit: bool


@dataclass(frozen=True)
class EngineStatus:
    """What is known of an engine on this machine.

    Attributes:
        name: As in `load(..., runtime=NAME)`.
        available: Whether graphs can be run on it.
        version: Its version, or None.
        detail: Where it is, or what is missing.
        fix: The command that brings it, or None where it is there.
        capabilities: What it can do, or None where it cannot be asked.
    """

    name: str
    available: bool
    version: str | None
    detail: str
    fix: str | None
    capabilities: Capabilities | None


@dataclass(frozen=True)
class GraphFile:
    """A graph read from disk and found to be one.

    Attributes:
        source: The file, open as long as an engine loads it.
        metadata: Its custom section `wasmgraph`.
        inputs, outputs: The metadata's tensors.
        component: What the file shows to the outside where it is a component, else None.
    """

    source: Source
    metadata: Metadata
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    component: ComponentFile | None = None

    @property
    def path(self) -> Path:
        """Where it was read from; names it in errors."""
        return self.source.path


class Instance(Protocol):
    """One instantiated graph, used by one thread at a time."""

    @property
    def run_ms(self) -> float:
        """Milliseconds of the last run: tensors into the graph's memory, `wg_run`, and out again.

        What it takes to carry tensors to another process is not in it, where the engine is there.
        """

    @property
    def process_peak(self) -> int | None:
        """Bytes that the engine's process has had in memory at most; None where that is this
        process, several, or one that is gone."""

    def run(self, inputs: Sequence[Array]) -> list[Array]:
        """Run once.

        Args:
            inputs: One array per graph input, in its order, dtype and shape as the graph's (any
                strides, any byte order).

        Returns:
            One array per graph output; each owns its memory.

        Raises:
            InferenceError: the graph trapped, reported an error or returned nonsense.
            RunTimeout, MemoryLimitExceeded: a limit was reached.
                After any error the instance is of no further use.
        """

    def run_step(self, index: int, times: int) -> None:
        """Run one step `times` times on whatever its buffers hold, to see how long it takes.

        Raises:
            InferenceError: there is no such step, it fails, or the graph has no `wg_step`.
        """

    def close(self) -> None:
        """Give back its memory; calling it again does nothing."""


class Program(Protocol):
    """A graph that an engine has compiled."""

    @property
    def load_ms(self) -> float:
        """Milliseconds that compiling it took, or taking its compiled code from a cache."""

    def instantiate(self) -> Instance:
        """A new instance.

        Raises:
            LoadError: the graph does not keep to the ABI.
            MemoryLimitExceeded: it needs more memory than allowed to start with.
            RunTimeout: its start function does not end in time.
        """

    def close(self) -> None:
        """Give back the compiled code; instances must be closed before."""


class Engine(Protocol):
    """An adapter to one WebAssembly engine."""

    @property
    def name(self) -> str:
        """As in `load(..., runtime=NAME)`, e.g. "wasmtime"."""

    @property
    def capabilities(self) -> Capabilities:
        """What it can do."""

    def load(self, file: GraphFile, limits: Limits, *, cache: bool, threads: int = 1) -> Program:
        """Compile `file`, or take the code compiled before where `cache` allows it.

        Args:
            limits, threads: As `capabilities` allow (`check_request`).

        Raises:
            LoadError: the engine refuses the module.
        """

    def close(self) -> None:
        """Give up what it keeps ready for the next graph; loaded graphs stay."""
