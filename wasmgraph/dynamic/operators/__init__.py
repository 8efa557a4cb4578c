"""How each ONNX operator becomes calls of the executor's: one module per family.

A converter takes a `NodeView`, emits calls and returns the node's outputs. Attributes and inputs
are both understood where an operator moved one to the other, as nodes inside of branches and loops
keep the opset that the model was written in.
"""

from __future__ import annotations

from collections.abc import Mapping

import onnx

from wasmgraph.dynamic.operators import (
    control,
    elementwise,
    linear,
    recurrent,
    reduce,
    resize,
    select,
    sequence,
    shape,
    special,
    window,
)
from wasmgraph.dynamic.view import Converter

CONVERTERS: Mapping[tuple[str, str], Converter] = {
    **shape.CONVERTERS,
    **elementwise.CONVERTERS,
    **linear.CONVERTERS,
    **reduce.CONVERTERS,
    **select.CONVERTERS,
    **window.CONVERTERS,
    **special.CONVERTERS,
    **resize.CONVERTERS,
    **recurrent.CONVERTERS,
    **sequence.CONVERTERS,
    **control.CONVERTERS,
}
"""By domain and operator."""


def converter_for(node: onnx.NodeProto) -> Converter | None:
    """The converter of a node's operator, or None."""
    return CONVERTERS.get(("" if node.domain == "ai.onnx" else node.domain, node.op_type))


def has_converter(node: onnx.NodeProto) -> bool:
    """Whether the node's operator is there; its types may still not be."""
    return why_unsupported(node) is None


def why_unsupported(node: onnx.NodeProto) -> str | None:
    """The reason why the node's operator cannot be in a dynamic graph, or None if it can."""
    if node.op_type == "Constant" or converter_for(node) is not None:
        return None
    return "the operator is not supported where shapes are dynamic"
