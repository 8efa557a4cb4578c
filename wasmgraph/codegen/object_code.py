"""LLVM: lowered TIR to a wasm32 object file."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import tvm

from wasmgraph.bundle import SimdLevel
from wasmgraph.errors import Obstacle, UnsupportedModelError
from wasmgraph.lower.target import target_for


def compile_object(
    functions: Mapping[str, Any], nodes: Mapping[str, str], simd: SimdLevel
) -> bytes:
    """The object file of C functions.

    Args:
        functions: By symbol.
        nodes: The ONNX nodes behind each, for messages.
        simd: What the code may use.

    Raises:
        UnsupportedModelError: TVM cannot generate code for a function; every one is listed.
    """
    try:
        return _compile(functions, simd)
    except Exception as error:
        obstacles = []
        for symbol, function in functions.items():
            try:
                _compile({symbol: function}, simd)
            except Exception as reason:
                what = symbol.removeprefix("wgk_").partition("_")[2]
                obstacles.append(Obstacle(nodes[symbol], what, last_line(reason)))
        raise UnsupportedModelError(
            "TVM cannot generate code for these operators:", obstacles=obstacles
        ) from error


def last_line(error: Exception) -> str:
    """The line of TVM's message that says what is wrong; the traceback comes before it."""
    lines = [line for line in str(error).strip().splitlines() if line.strip()]
    return lines[-1].strip() if lines else repr(error)


def _compile(functions: Mapping[str, Any], simd: SimdLevel) -> bytes:
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
