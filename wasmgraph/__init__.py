"""wasmgraph compiles an ONNX model into one self-contained WebAssembly file.

The names below are the public Python API. They are resolved on first use, so that importing the
package (and asking the command line for help) costs neither TVM nor Wasmtime.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

__version__ = "0.1.0"

if TYPE_CHECKING:
    from wasmgraph import errors
    from wasmgraph.checking import CheckReport, check
    from wasmgraph.compiler import CompileReport, compile  # noqa: A004
    from wasmgraph.engine_verification import verify_engines
    from wasmgraph.runtime import Graph, load
    from wasmgraph.verification import verify

_HOMES = {
    "CheckReport": "wasmgraph.checking",
    "check": "wasmgraph.checking",
    "CompileReport": "wasmgraph.compiler",
    "compile": "wasmgraph.compiler",
    "Graph": "wasmgraph.runtime",
    "load": "wasmgraph.runtime",
    "verify": "wasmgraph.verification",
    "verify_engines": "wasmgraph.engine_verification",
    "errors": "wasmgraph",
}

__all__ = [
    "CheckReport",
    "CompileReport",
    "Graph",
    "__version__",
    "check",
    "compile",
    "errors",
    "load",
    "verify",
    "verify_engines",
]


def __getattr__(name: str) -> object:
    if name == "errors":
        return import_module("wasmgraph.errors")
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module 'wasmgraph' has no attribute {name!r}")
    return getattr(import_module(home), name)
