"""Why nodes of other domains than ONNX's own cannot be compiled, where there is more to say."""

from __future__ import annotations

import onnx

_LAYOUT = (
    "it is laid out for one kind of processor; save the model with onnxruntime's level "
    "ORT_ENABLE_EXTENDED instead of ORT_ENABLE_ALL"
)

_STRINGS = "strings are not supported; encode them as numbers before the model"

_REASONS = {
    ("com.microsoft", "ReorderInput"): _LAYOUT,
    ("com.microsoft", "ReorderOutput"): _LAYOUT,
    ("com.microsoft", "NhwcMaxPool"): _LAYOUT,
    ("com.microsoft", "NhwcFusedConv"): _LAYOUT,
    ("ai.onnx.ml", "CategoryMapper"): _STRINGS,
    ("ai.onnx.ml", "CastMap"): "maps are not supported",
    ("ai.onnx.ml", "DictVectorizer"): "maps are not supported",
    ("ai.onnx.ml", "ZipMap"): (
        "maps are not supported; convert with the option zipmap=False, or let it be the last node"
    ),
    ("com.microsoft", "QLinearConv"): "channel-last images in QLinearConv are not supported",
}


def why_foreign(node: onnx.NodeProto) -> str:
    """The reason why a node of another domain cannot be compiled."""
    if node.domain == "com.microsoft.nchwc":
        return _LAYOUT
    general = f"operators of the domain {node.domain!r} are not supported"
    return _REASONS.get((node.domain, node.op_type), general)
