"""Stage 3: give every fused function a schedule and lower it to flat loops with a C signature."""

from __future__ import annotations

from typing import TYPE_CHECKING

from wasmgraph.bundle import SimdLevel
from wasmgraph.progress import SILENT, Reporter

if TYPE_CHECKING:
    from wasmgraph.lower.kernels import LoweredKernels
    from wasmgraph.optimise.program import Program

__all__ = ["lower"]


def lower(program: Program, simd: SimdLevel, reporter: Reporter = SILENT) -> LoweredKernels:
    """Lower every function of a program that is called.

    Raises:
        UnsupportedModelError: TVM cannot lower a function.
    """
    from wasmgraph.lower.kernels import lower_kernels

    return lower_kernels(program, simd, reporter)
