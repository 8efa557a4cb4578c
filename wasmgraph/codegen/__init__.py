"""Stage 4: kernels to a wasm32 object, and everything together to a graph bundle."""

from __future__ import annotations

from importlib.metadata import version
from typing import TYPE_CHECKING

from wasmgraph.bundle import Bundle, SimdLevel, Source
from wasmgraph.progress import SILENT, Reporter

if TYPE_CHECKING:
    from wasmgraph.lower.kernels import LoweredKernels
    from wasmgraph.optimise.program import Program

__all__ = ["generate"]


def generate(
    program: Program,
    lowered: LoweredKernels,
    source: Source,
    simd: SimdLevel,
    reporter: Reporter = SILENT,
) -> Bundle:
    """Compile the kernels with LLVM and lay out weights and memory.

    Raises:
        UnsupportedModelError: the graph does not fit 32-bit memory.
    """
    from wasmgraph.assembler import write_object
    from wasmgraph.codegen.description import describe
    from wasmgraph.optimise.memory import plan_memory

    plan = plan_memory(program)
    reporter.log(f"arena {plan.arena_nbytes / 2**20:.2f} MiB")
    object_code, tvm_code = write_object(lowered.functions), b""
    if lowered.tir:
        from wasmgraph.codegen.object_code import compile_object

        nodes = {
            lowered.kernels[lowered.index[call.kernel]].symbol: ", ".join(call.nodes)
            for call in reversed(program.calls)
        }
        tvm_code = compile_object(lowered.tir, nodes, simd)
    graph, params = describe(program, lowered, plan, source, producer(), simd)
    return Bundle(graph, object_code, params, tvm_code)


def producer() -> dict[str, str]:
    """The versions of what makes a bundle."""
    from wasmgraph import __version__

    return {
        "wasmgraph": __version__,
        "apache-tvm": version("apache-tvm"),
        "onnx": version("onnx"),
    }
