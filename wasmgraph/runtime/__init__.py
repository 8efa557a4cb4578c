"""Runs graphs: `load` a `.wasm`, `run` it on tensors, within limits.

Each engine is an adapter behind the interface of `base`; Wasmtime, in this process, is the one
there is. Compiling models is not done here.
"""

from wasmgraph.runtime.base import TensorSpec
from wasmgraph.runtime.graph import Graph, load

__all__ = ["Graph", "TensorSpec", "load"]
