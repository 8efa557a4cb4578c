"""Write ConvTranspose's padding in numbers where a node gives the shape of its output instead."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import onnx
from onnx import helper

from wasmgraph.importer.network import Network, attributes


def pad_transposed_convolutions(network: Network) -> None:
    """Replace `output_shape` by the padding that leads to it; TVM ignores the attribute.

    Source: the ONNX operator specification of ConvTranspose.
    """
    for node in network.nodes:
        if node.domain or node.op_type != "ConvTranspose":
            continue
        wanted = attributes(node).get("output_shape")
        known = [network.types.get(name) for name in node.input[:2]]
        shapes = [kind.shape for kind in known if kind is not None and kind.shape is not None]
        if wanted and len(shapes) == 2:
            image, kernel = shapes[0][2:], shapes[1][2:]
            _write_padding(node, wanted[-len(image) :], image, kernel)


def _write_padding(
    node: onnx.NodeProto, wanted: Sequence[int], image: Sequence[int], kernel: Sequence[int]
) -> None:
    given = dict(attributes(node))
    rank = len(image)
    strides = given.get("strides") or [1] * rank
    dilations = given.get("dilations") or [1] * rank
    extra = list(given.get("output_padding") or [0] * rank)
    begin, end = [], []
    for axis in range(rank):
        reach = (kernel[axis] - 1) * dilations[axis] + 1
        whole = strides[axis] * (image[axis] - 1) + reach + extra[axis]
        total = whole - wanted[axis]
        if total < 0:  # more than there is: zeros at the end
            extra[axis] -= total
            total = 0
        less, more = total // 2, total - total // 2
        is_upper = given.get("auto_pad") == b"SAME_UPPER"
        begin.append(less if is_upper else more)
        end.append(more if is_upper else less)
    _replace(node, {"output_padding": extra, "pads": [*begin, *end]})


def _replace(node: onnx.NodeProto, values: dict[str, Any]) -> None:
    dropped = {"output_shape", "auto_pad", *values}
    kept = [attribute for attribute in node.attribute if attribute.name not in dropped]
    del node.attribute[:]
    node.attribute.extend(kept)
    node.attribute.extend(helper.make_attribute(name, value) for name, value in values.items())
