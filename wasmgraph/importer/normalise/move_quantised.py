"""Let operators that only move elements, or take maxima, work on the integers.

move(dequantise(x)) is dequantise(move(x)). Afterwards dequantising meets quantising again, and
where both have the same parameters neither is left: activations stay bytes from product to product.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import onnx
from onnx import helper

from wasmgraph.importer.network import Network, TensorType, all_inputs, attributes
from wasmgraph.importer.normalise.fold import fold_once
from wasmgraph.importer.quantisation import Quantised, parameter, read_quantised

_MOVERS = frozenset(
    [
        *("Reshape", "Flatten", "Squeeze", "Unsqueeze", "Transpose", "Expand", "Tile", "Identity"),
        *("Slice", "Split", "Gather", "GatherElements", "GatherND", "DepthToSpace"),
        *("SpaceToDepth", "MaxPool", "Concat"),
    ]
)
"""Concat where all parts are quantised alike; all others move their first input."""


def move_quantised(network: Network) -> None:
    """Move every DequantizeLinear of one scale down, and drop pairs that do nothing."""
    readers = Counter(name for node in network.nodes for name in all_inputs(node))
    readers.update(network.output_names)
    moving = _Moving(network, readers, {}, {}, [])
    for node in network.nodes:
        moving.visit(node)
    network.nodes = moving.kept
    fold_once(network)


@dataclass
class _Moving:
    """One walk through the network.

    Attributes:
        readers: How many there are of each tensor.
        made: The node that computes each tensor, as it is now.
        alias: Tensors that turned out to be another one.
        kept: The nodes so far.
    """

    network: Network
    readers: Mapping[str, int]
    made: dict[str, onnx.NodeProto]
    alias: dict[str, str]
    kept: list[onnx.NodeProto]

    def visit(self, node: onnx.NodeProto) -> None:
        for index, name in enumerate(node.input):
            node.input[index] = self.alias.get(name, name)
        if node.domain:
            self.keep(node)
        elif node.op_type == "QuantizeLinear" and (self.undoes(node) or self.joins(node)):
            return
        elif node.op_type in _MOVERS and not any(node.output[1:] if _has_one(node) else ()):
            source = self.sources(node)
            if source is None:
                self.keep(node)
            else:
                self.move(node, source)
        else:
            self.keep(node)

    def keep(self, node: onnx.NodeProto) -> None:
        self.kept.append(node)
        for name in node.output:
            self.made[name] = node

    def undoes(self, node: onnx.NodeProto) -> bool:
        """Whether a QuantizeLinear gives what was dequantised before; then it is that tensor."""
        network = self.network
        source = read_quantised(self.made.get(node.input[0]), network)
        known = network.types.get(node.output[0])
        scale = network.weights.get(node.input[1])
        zero = parameter(node, 2, network)
        if source is None or known is None or scale is None or zero is None:
            return False
        same = source.is_like(scale, zero, known.dtype)
        if same and node.output[0] not in network.output_names:
            self.alias[node.output[0]] = source.name
            return True
        return False

    def joins(self, node: onnx.NodeProto) -> bool:
        """Quantise the parts of a concatenation that nobody else reads, instead of the whole."""
        whole = self.made.get(node.input[0])
        if whole is None or whole.op_type != "Concat" or self.readers[node.input[0]] > 1:
            return False
        scale = self.network.weights.get(node.input[1])
        known = self.network.types.get(node.output[0])
        if scale is None or scale.size != 1 or known is None:
            return False
        if any(name not in self.network.types for name in whole.input):
            return False
        self.kept.remove(whole)
        parts = []
        for index, name in enumerate(whole.input):
            part = onnx.NodeProto()
            part.CopyFrom(node)
            part.input[0] = name
            part.output[0] = f"{node.output[0]}/{index}"
            part.name = f"{node.name}/{index}"
            shape = self.network.types[name].shape
            self.network.types[part.output[0]] = TensorType(known.dtype, shape)
            self.visit(part)
            parts.append(self.alias.get(part.output[0], part.output[0]))
        joined = onnx.NodeProto()
        joined.CopyFrom(whole)
        del joined.input[:]
        joined.input.extend(parts)
        joined.output[0] = node.output[0]
        self.keep(joined)
        return True

    def sources(self, node: onnx.NodeProto) -> list[Quantised] | None:
        """How what a node moves is quantised, if the integers can be moved in its stead."""
        names: Sequence[str] = node.input if node.op_type == "Concat" else node.input[:1]
        found = []
        for name in names:
            source = read_quantised(self.made.get(name), self.network)
            if source is None or (source.axis is not None and not _keeps_axis(node)):
                return None
            found.append(source)
        first = found[0]
        if any(not first.is_like(s.scale, s.zero, s.dtype) for s in found[1:]):
            return None
        return found

    def move(self, node: onnx.NodeProto, sources: list[Quantised]) -> None:
        network, first = self.network, sources[0]
        moved = onnx.NodeProto()
        moved.CopyFrom(node)
        for index, source in enumerate(sources):
            moved.input[index] = source.name
        attrs = dict(attributes(first.node))
        if first.axis is not None:
            attrs["axis"] = list(attributes(node)["perm"]).index(first.axis)
        after = []
        for index, name in enumerate(node.output):
            inner = f"{name}/quantised"
            moved.output[index] = inner
            known = network.types.get(name)
            if known is not None:
                network.types[inner] = TensorType(first.dtype, known.shape)
            names = [inner, *first.node.input[1:]]
            place = f"{name}/DequantizeLinear"
            after.append(helper.make_node("DequantizeLinear", names, [name], name=place, **attrs))
        for item in (moved, *after):
            self.keep(item)


def _has_one(node: onnx.NodeProto) -> bool:
    """Whether only the first output of a node is moved elements."""
    return str(node.op_type) != "Split"


def _keeps_axis(node: onnx.NodeProto) -> bool:
    """Whether scales along an axis stay scales along an axis."""
    return str(node.op_type) == "Transpose" and "perm" in [a.name for a in node.attribute]
