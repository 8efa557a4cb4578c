"""Runs graphs: `load` a `.wasm`, `run` it on tensors, within limits.

Each engine is an adapter behind the interface of `base`, found by name in `registry`: Wasmtime in
this process, others in processes of their own. Compiling models is not done here.
"""

from wasmgraph.runtime.base import TensorSpec
from wasmgraph.runtime.graph import Graph, load

__all__ = ["Graph", "TensorSpec", "load"]
