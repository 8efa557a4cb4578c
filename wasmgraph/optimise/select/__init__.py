"""Choose layouts and kernels: from operators over tensors to kernel calls over strided storage.

One module per family of operators; `ORDER` in `table.py` says which one handles an operator.
"""

from wasmgraph.optimise.select.table import select_kernels

__all__ = ["select_kernels"]
