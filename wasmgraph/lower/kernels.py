"""Give every distinct kernel of a program its symbol and its code.

Our own kernels assemble themselves; those that TVM generates are lowered to loops over flat memory,
each a C function `int32 k(void*, ...)`. The executor's library has its code and symbols already.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

from wasmgraph.assembler import Function
from wasmgraph.assembler.function import relaxed_simd
from wasmgraph.assembler.scalar import scalarise
from wasmgraph.bundle import SimdLevel
from wasmgraph.errors import Obstacle, UnsupportedModelError
from wasmgraph.optimise.program import AssembledKernel, Kernel, LibraryKernel, Program, TirKernel
from wasmgraph.progress import Reporter


@dataclass(frozen=True)
class LoweredKernel:
    """One kernel.

    Attributes:
        symbol: Its C name.
        buffers: How many pointers it takes.
        description: The fused operators.
    """

    symbol: str
    buffers: int
    description: str


@dataclass(frozen=True)
class LoweredKernels:
    """All kernels of a graph.

    Attributes:
        kernels: In the order of their first call.
        index: Place in `kernels` by kernel.
        functions: The assembled ones.
        tir: Lowered TIR functions by symbol, ready for LLVM.
    """

    kernels: tuple[LoweredKernel, ...]
    index: Mapping[Kernel, int]
    functions: tuple[Function, ...]
    tir: Mapping[str, Any]


def lower_kernels(program: Program, simd: SimdLevel, reporter: Reporter) -> LoweredKernels:
    """Lower the called kernels, equal ones once.

    Raises:
        UnsupportedModelError: TVM cannot lower a function; every such function is listed.
    """
    index: dict[Kernel, int] = {}
    kernels: list[LoweredKernel] = []
    functions: list[Function] = []
    tir: dict[str, Any] = {}
    obstacles: list[Obstacle] = []
    distinct = {call.kernel: call for call in reversed(program.calls)}
    reporter.set_total(len(distinct))
    for call in program.calls:
        kernel = call.kernel
        if kernel in index:
            continue
        symbol = f"wgk_{len(kernels)}_{_identifier(call.description)}"
        if isinstance(kernel, LibraryKernel):
            symbol = kernel.symbol
        elif isinstance(kernel, TirKernel):
            from wasmgraph.lower.tir import lower_tir

            try:
                tir[symbol] = lower_tir(kernel.function, symbol, simd)
            except Exception as error:
                lines = str(error).strip().splitlines()
                node = ", ".join(call.nodes) or call.description
                reason = lines[-1] if lines else repr(error)
                obstacles.append(Obstacle(node, call.description, reason))
        else:
            functions.append(_assemble(kernel, symbol, simd))
        index[kernel] = len(kernels)
        buffers = len(call.reads) + len(call.writes)
        kernels.append(LoweredKernel(symbol, buffers, call.description))
        reporter.advance(call.description)
    if obstacles:
        raise UnsupportedModelError(
            "these fused operators cannot be lowered to WebAssembly:", obstacles=obstacles
        )
    return LoweredKernels(tuple(kernels), index, tuple(functions), tir)


def _assemble(kernel: AssembledKernel, symbol: str, simd: SimdLevel) -> Function:
    with relaxed_simd() if simd == "relaxed" else nullcontext():
        function = kernel.assemble(symbol)
    return scalarise(function) if simd == "none" else function


def _identifier(description: str) -> str:
    return re.sub(r"\W+", "_", description)[:48].strip("_")
