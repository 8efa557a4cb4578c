"""LLVM: lowered TIR to a wasm32 object file."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import tvm

from wasmgraph.bundle import SimdLevel
from wasmgraph.lower.target import target_for


def compile_object(functions: Mapping[str, Any], simd: SimdLevel) -> bytes:
    """The object file of C functions, by symbol."""
    module = tvm.IRModule({tvm.ir.GlobalVar(name): f for name, f in functions.items()})
    # Without a system library prefix TVM's runtime functions are called through pointers that
    # nobody fills; with one they are plain symbols, which the executor defines.
    module = module.with_attr("system_lib_prefix", "")
    with tvm.transform.PassContext(opt_level=3):
        built = tvm.get_global_func("target.build.llvm")(module, target_for(simd))
    with tempfile.TemporaryDirectory(prefix="wasmgraph-") as folder:
        path = Path(folder) / "tvm.o"
        built.write_to_file(str(path))
        return path.read_bytes()
