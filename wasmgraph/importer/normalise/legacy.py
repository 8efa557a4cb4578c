"""Replace operators of ONNX's own domain that ONNX does not have, before the opset is upgraded.

Some are experimental ones that were removed and that old files still have; others onnxruntime's
optimiser puts there. What is written here is valid in the model's own opset, which the upgrade
starts from.
"""

from __future__ import annotations

import onnx

from wasmgraph.importer.network import Network
from wasmgraph.importer.normalise.contrib import MICROSOFT
from wasmgraph.importer.normalise.older import BROADCAST_OPSET
from wasmgraph.importer.normalise.writer import Expansion, NodeWriter, expand_nodes

REMOVED_OPSET = 10
"""From here on the experimental operators mean nothing; onnxruntime does not know them either."""

LAYER_NORMALIZATION_OPSET = 17
"""From here on LayerNormalization is ONNX's; onnxruntime writes it into older models, too."""

_END = 2**31 - 1


def replace_legacy(network: Network) -> None:
    """Write out every node that `is_legacy`, or call it by the domain where it belongs."""
    for node in network.nodes:
        if _belongs_to_microsoft(node, network):
            node.domain = MICROSOFT
            network.opsets.setdefault(MICROSOFT, 1)
    expand_nodes(network, lambda node: _expansion(node, network))


def is_legacy(node: onnx.NodeProto, network: Network) -> bool:
    """Whether `replace_legacy` replaces the node."""
    return _belongs_to_microsoft(node, network) or _expansion(node, network) is not None


def _belongs_to_microsoft(node: onnx.NodeProto, network: Network) -> bool:
    if node.domain:
        return False
    return node.op_type == "SimplifiedLayerNormalization" or (
        node.op_type == "LayerNormalization" and network.opset < LAYER_NORMALIZATION_OPSET
    )


def _expansion(node: onnx.NodeProto, network: Network) -> Expansion | None:
    if node.domain or network.opset >= REMOVED_OPSET:
        return None
    return _EXPANSIONS.get(node.op_type)


def _with_number(w: NodeWriter, op: str, x: str, number: float) -> str:
    """An operator on a tensor and one number."""
    told = {} if w.network.opset >= BROADCAST_OPSET else {"broadcast": 1}
    return w.add(op, [x, w.number(number, x)], **told)


def _with_channels(w: NodeWriter, op: str, x: str, values: list[float]) -> str:
    """An operator on images and one number per channel."""
    told = {} if w.network.opset >= BROADCAST_OPSET else {"broadcast": 1}
    return w.add(op, [x, w.constant([[[value]] for value in values], w.dtype(x))], **told)


def _affine(w: NodeWriter) -> None:
    """alpha * x + beta"""
    scaled = _with_number(w, "Mul", w.input(0), w.attribute("alpha", 1.0))
    w.give(0, _with_number(w, "Add", scaled, w.attribute("beta", 0.0)))


def _scale(w: NodeWriter) -> None:
    w.give(0, _with_number(w, "Mul", w.input(0), w.attribute("scale", 1.0)))


def _image_scaler(w: NodeWriter) -> None:
    """scale * x + the channel's bias"""
    scaled = _with_number(w, "Mul", w.input(0), w.attribute("scale", 1.0))
    bias = [float(number) for number in w.attribute("bias", [])]
    w.give(0, _with_channels(w, "Add", scaled, bias) if bias else scaled)


def _scaled_tanh(w: NodeWriter) -> None:
    """alpha * tanh(beta * x)"""
    inner = _with_number(w, "Mul", w.input(0), w.attribute("beta", 1.0))
    w.give(0, _with_number(w, "Mul", w.add("Tanh", [inner]), w.attribute("alpha", 1.0)))


def _parametric_softplus(w: NodeWriter) -> None:
    """alpha * log(1 + e^(beta x))"""
    inner = _with_number(w, "Mul", w.input(0), w.attribute("beta", 1.0))
    w.give(0, _with_number(w, "Mul", w.add("Softplus", [inner]), w.attribute("alpha", 1.0)))


def _crop(w: NodeWriter) -> None:
    """Crop: what is left of images without a border (left, top, right, bottom)."""
    left, top, right, bottom = (int(n) for n in w.attribute("border", [0, 0, 0, 0]))
    size = w.attribute("scale", None)
    if size is None:
        ends = [-bottom or _END, -right or _END]
    else:
        ends = [top + int(size[0]), left + int(size[1])]
    w.give(0, w.add("Slice", [w.input(0)], starts=[top, left], ends=ends, axes=[2, 3]))


_EXPANSIONS: dict[str, Expansion] = {
    "Affine": _affine,
    "Crop": _crop,
    "ImageScaler": _image_scaler,
    "ParametricSoftplus": _parametric_softplus,
    "Scale": _scale,
    "ScaledTanh": _scaled_tanh,
}
