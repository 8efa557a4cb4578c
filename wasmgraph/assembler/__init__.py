"""A small WebAssembly assembler for kernels.

Kernels are written as wasm instructions, not as TIR for LLVM, because the engine (Cranelift) keeps
the order and the addressing it is given. LLVM rewrites `v128.load32_splat` into three instructions
and cannot fold constant offsets into an access, for it may not assume that addresses do not wrap:
the same 2x16 GEMM tile reached 16.8 GFLOP/s from LLVM and 23.5 written directly (K = 256,
Wasmtime 50, one busy Zen 4 core, calls included, both in one run, 2026-11-20).

`function` builds one function, `object_file` puts functions into a relocatable object.
"""

from wasmgraph.assembler.function import F32, I32, V128, Expr, Function, Local
from wasmgraph.assembler.object_file import write_object

__all__ = ["F32", "I32", "V128", "Expr", "Function", "Local", "write_object"]
