"""Which converter turns an ONNX node into Relax: ours where there is one, else TVM's.

TVM ignores a node's domain and has some operators wrong; `REJECTED` says which and why, so that a
wrong converter is never reached.
"""

from __future__ import annotations

from collections.abc import Container
from functools import lru_cache
from typing import TYPE_CHECKING

from wasmgraph.importer.converters.foreign import why_foreign
from wasmgraph.importer.converters.table import CONVERTERS, FOR_MORE_OUTPUTS, Converter

if TYPE_CHECKING:
    import onnx

__all__ = ["CONVERTERS", "Converter", "find_converter", "is_supported", "why_unsupported"]

_RANDOM = "what it gives is random: no two runs would agree"

# They are in dynamic graphs only.
_OF_DYNAMIC_GRAPHS = {
    "If": "control flow needs a dynamic graph",
    "Loop": "control flow needs a dynamic graph",
    "Scan": "control flow needs a dynamic graph",
    "NonMaxSuppression": "the size of its output depends on data",
    "NonZero": "the size of its output depends on data",
    "Unique": "the size of its output depends on data",
    "Compress": "the size of its output depends on data",
    "Multinomial": _RANDOM,
    "RandomNormal": _RANDOM,
    "RandomNormalLike": _RANDOM,
    "RandomUniform": _RANDOM,
    "RandomUniformLike": _RANDOM,
    "Optional": "optional values need a dynamic graph",
    "OptionalHasElement": "optional values need a dynamic graph",
    "OptionalGetElement": "optional values need a dynamic graph",
    "SequenceAt": "sequences need a dynamic graph",
    "SequenceConstruct": "sequences need a dynamic graph",
    "SequenceEmpty": "sequences need a dynamic graph",
    "SequenceErase": "sequences need a dynamic graph",
    "SequenceInsert": "sequences need a dynamic graph",
    "SequenceLength": "sequences need a dynamic graph",
    "ConcatFromSequence": "sequences need a dynamic graph",
    "SplitToSequence": "sequences need a dynamic graph",
}

DYNAMIC_OPERATORS = frozenset(_OF_DYNAMIC_GRAPHS)
"""Operators of ONNX's own that no graph of static shapes has."""

# TVM's importer has a converter of this name which is wrong or means something else; or it has
# none, and there is more to say than that.
REJECTED = {
    "Attention": "TVM reads it as com.microsoft's operator of that name",
    # Its definition is expanded instead.
    "RMSNormalization": "TVM has it wrong where all axes are normalised",
    **_OF_DYNAMIC_GRAPHS,
}


def find_converter(node: onnx.NodeProto, read: Container[str] | None = None) -> Converter | None:
    """Our own converter for the node, or None where TVM's is to be used.

    Args:
        node: The node.
        read: The tensors that somebody reads; left out, every output that has a name.
    """
    operator = (node.domain, node.op_type)
    more = [name for name in node.output[1:] if name and (read is None or name in read)]
    if more and operator in FOR_MORE_OUTPUTS:
        return FOR_MORE_OUTPUTS[operator]
    return CONVERTERS.get(operator)


# TVM reads these attributes, if at all, as if they had another value.
_WRONG_MODES = {
    "SpaceToDepth": ("mode", b"DCR"),
}


def _wrong_mode(node: onnx.NodeProto) -> str | None:
    name, understood = _WRONG_MODES.get(node.op_type, ("", b""))
    for attribute in node.attribute:
        if attribute.name == name and attribute.s != understood:
            return f"{name} {attribute.s.decode(errors='replace')!r} is not supported"
    return None


def is_supported(node: onnx.NodeProto) -> bool:
    """Whether some converter takes the node's operator."""
    return why_unsupported(node) is None


def why_unsupported(node: onnx.NodeProto) -> str | None:
    """The reason why the node's operator cannot be compiled, or None if it can."""
    if find_converter(node) is not None:
        return None
    if node.domain:
        return why_foreign(node)
    if node.op_type in REJECTED:
        return REJECTED[node.op_type]
    if node.op_type not in _tvm_operators():
        return "the operator is not supported"
    return _wrong_mode(node)


@lru_cache(maxsize=1)
def _tvm_operators() -> frozenset[str]:
    from tvm.relax.frontend.onnx import onnx_frontend

    table = onnx_frontend._get_convert_map()
    return frozenset(name for name, converter in table.items() if converter is not None)
