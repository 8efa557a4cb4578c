"""Opaque calls: the operator library's functions, which are linked with the graph."""

from __future__ import annotations

import re

import numpy as np

from wasmgraph.importer.opaque import OpaqueCall
from wasmgraph.optimise.opgraph import Op
from wasmgraph.optimise.program import LibraryKernel
from wasmgraph.optimise.select.builder import Builder

_DTYPE_SUFFIX = re.compile(r"(_([fiu]\d+|b\d+|bool))+$")


def select_library(builder: Builder, op: Op) -> None:
    """A call of `wgo_NAME(words, inputs..., outputs...)`, over tensors dense in C order."""
    call = op.attrs
    assert isinstance(call, OpaqueCall), op.kind
    words = builder.weight(np.array(call.parameters["words"], np.dtype("<i4")))
    reads = [builder.dense(builder.view(tensor), op.nodes) for tensor in op.inputs]
    infos = [builder.graph.tensors[tensor] for tensor in op.outputs]
    writes = [builder.allocate(info.shape, info.dtype) for info in infos]
    description = _DTYPE_SUFFIX.sub("", call.name)
    kernel = LibraryKernel(f"wgo_{call.name}")
    builder.emit(kernel, [words, *reads], writes, op.nodes, description)
    for tensor, view in zip(op.outputs, writes, strict=True):
        builder.set(tensor, view)
