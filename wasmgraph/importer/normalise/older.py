"""Bring models of opsets 1 to 6 to opset 7, as ONNX's version converter does only in part.

Of what changed in those opsets it refuses some (Pad, Split, Tile, Greater) and gets some wrong: a
PRelu keeps slopes that then belong to another axis. From opset 7 on it does what is needed, but for
Hardmax and for BatchNormalization of every pixel, which are here, too.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx

from wasmgraph.importer.network import Network, attributes, subgraphs
from wasmgraph.importer.normalise.writer import Expansion, NodeWriter, expand_nodes

BROADCAST_OPSET = 7
"""From here on element-wise operators broadcast as numpy does, without being told."""

PIXEL_NORM_OPSET = 9
"""From here on BatchNormalization has one mean and variance per channel."""

SOFTMAX_OPSET = 13
"""From here on the softmax operators work along one axis; before, on all axes from it on."""

_DROPPED = frozenset(["consumed_inputs", "is_test", "output_sequence"])
"""Attributes that say how to compute, not what; a graph trains nothing."""

_BROADCASTING = frozenset(
    ["Add", "And", "Div", "Equal", "Gemm", "Greater", "Less", "Mul", "Or", "Pow", "Sub", "Xor"]
)


def write_opset_7(network: Network) -> None:
    """Rewrite the nodes in opset 7 where the model's is older.

    A network with branches or bodies is left to the version converter: those keep their opset.

    Raises:
        UnsupportedModelError: a shape or a constant that is needed for it is not known.
    """
    if network.opset >= BROADCAST_OPSET or any(any(subgraphs(node)) for node in network.nodes):
        return
    since, network.opset, network.opsets[""] = network.opset, BROADCAST_OPSET, BROADCAST_OPSET
    expand_nodes(network, lambda node: _expansion(node, since))


def separate_axes(network: Network) -> None:
    """Write Hardmax along one axis, and BatchNormalization of every pixel with arithmetic.

    Raises:
        UnsupportedModelError: a dtype that is needed for it is not known.
    """

    def choose(node: onnx.NodeProto) -> Expansion | None:
        if node.domain:
            return None
        if node.op_type == "Hardmax" and network.opset < SOFTMAX_OPSET:
            return _hardmax
        is_early = node.op_type == "BatchNormalization" and network.opset < PIXEL_NORM_OPSET
        return _pixel_norm if is_early and attributes(node).get("spatial") == 0 else None

    expand_nodes(network, choose)


def _expansion(node: onnx.NodeProto, since: int) -> Expansion | None:
    if node.domain:
        return None
    if node.op_type in _BROADCASTING:
        return _broadcasting
    before, expand = _EXPANSIONS.get(node.op_type, (0, None))
    if since < before:
        return expand
    return _same if _DROPPED & attributes(node).keys() else None


def _again(w: NodeWriter, inputs: Sequence[str], **changes: Any) -> None:
    """The node with other inputs and attributes; those that are None are dropped."""
    kept = {name: value for name, value in attributes(w.node).items() if name not in _DROPPED}
    told = {name: value for name, value in {**kept, **changes}.items() if value is not None}
    outputs = w.add_many(w.node.op_type, inputs, len(w.node.output), **told)
    for index, name in enumerate(outputs):
        w.give(index, name)


def _same(w: NodeWriter) -> None:
    _again(w, w.node.input)


def _broadcasting(w: NodeWriter) -> None:
    """The second operand's axes stand at `axis` of the first one's, which counts from 0."""
    first, second, *others = w.node.input
    if w.attribute("broadcast", 0) and "axis" in attributes(w.node):
        axis, rank, own = int(w.attribute("axis")), len(w.shape(first)), len(w.shape(second))
        second = _with_axes_behind(w, second, rank - axis % max(1, rank) - own)
    _again(w, [first, second, *others], broadcast=None, axis=None)


def _with_axes_behind(w: NodeWriter, name: str, count: int) -> str:
    """A tensor with `count` more axes of extent 1."""
    if count <= 0:
        return name
    rank = len(w.shape(name))
    return w.add("Unsqueeze", [name], axes=list(range(rank, rank + count)))


def _prelu(w: NodeWriter) -> None:
    """One slope for every channel, where there are more than one; channels are axis 1."""
    x, slope = w.node.input
    if w.shape(slope) != (1,):
        slope = _with_axes_behind(w, slope, len(w.shape(x)) - 1 - len(w.shape(slope)))
    _again(w, [x, slope])


def _cast(w: NodeWriter) -> None:
    name = str(w.attribute("to")).upper()
    _again(w, w.node.input, to=onnx.TensorProto.DataType.Value(name))


def _concat(w: NodeWriter) -> None:
    _again(w, w.node.input, axis=w.attribute("axis", 1))


def _whole_norm(w: NodeWriter) -> None:
    """GlobalLpPool and LpPool: the norm was a float."""
    norm = float(w.attribute("p", 2.0))
    if not norm.is_integer():
        raise NotImplementedError(f"its norm {norm:g} is no whole number")
    _again(w, w.node.input, p=int(norm))


def _pad(w: NodeWriter) -> None:
    _again(w, w.node.input, pads=w.attribute("paddings"), paddings=None)


def _reshape(w: NodeWriter) -> None:
    shape = [int(extent) for extent in w.attribute("shape", [])]
    _again(w, [w.input(0), w.ints(*shape)], shape=None)


def _split(w: NodeWriter) -> None:
    sizes = w.attribute("split") or (w.value(w.input(1)).tolist() if w.input(1) else None)
    _again(w, [w.input(0)], axis=w.attribute("axis", 0), split=sizes)


def _tile(w: NodeWriter) -> None:
    """`tiles` times along one axis; both are inputs."""
    x, tiles, axis = w.node.input
    repeats = np.ones(len(w.shape(x)), np.int64)
    repeats[int(w.value(axis).item())] = int(w.value(tiles).item())
    _again(w, [x, w.ints(*repeats.tolist())])


def _upsample(w: NodeWriter) -> None:
    height, width = (float(w.attribute(f"{name}_scale")) for name in ("height", "width"))
    _again(w, w.node.input, scales=[1.0, 1.0, height, width], height_scale=None, width_scale=None)


_EXPANSIONS: dict[str, tuple[int, Expansion]] = {
    "Cast": (6, _cast),
    "Concat": (4, _concat),
    "GlobalLpPool": (2, _whole_norm),
    "LpPool": (2, _whole_norm),
    "PRelu": (7, _prelu),
    "Pad": (2, _pad),
    "Reshape": (5, _reshape),
    "Split": (2, _split),
    "Tile": (6, _tile),
    "Upsample": (7, _upsample),
}
"""By operator: the opset from which on it is as in opset 7, and what writes it."""


def _hardmax(w: NodeWriter) -> None:
    x = w.input(0)
    flat = w.add("Flatten", [x], axis=int(w.attribute("axis", 1)))
    largest = w.add("Hardmax", [flat], axis=1)
    w.give(0, w.add("Reshape", [largest, w.add("Shape", [x])]))


def _pixel_norm(w: NodeWriter) -> None:
    """scale * (x - mean) / sqrt(variance + epsilon) + bias, each of the shape of one sample"""
    x, scale, bias, mean, variance = w.node.input
    epsilon = w.number(float(w.attribute("epsilon", 1e-5)), variance)
    deviation = w.add("Sqrt", [w.add("Add", [variance, epsilon])])
    normal = w.add("Div", [w.add("Sub", [x, mean]), deviation])
    w.give(0, w.add("Add", [w.add("Mul", [normal, scale]), bias]))
