"""Write the padding of convolutions in numbers where a node only names it."""

from __future__ import annotations

from onnx import helper

from wasmgraph.importer.network import Network, attributes


def write_out_padding(network: Network) -> None:
    """Replace `auto_pad` SAME_UPPER and SAME_LOWER of Conv by `pads`.

    TVM would pad with a kernel of its own first. Source: the ONNX operator specification of Conv.
    """
    for node in network.nodes:
        given = attributes(node)
        mode = given.get("auto_pad")
        if node.domain or node.op_type != "Conv" or mode not in (b"SAME_UPPER", b"SAME_LOWER"):
            continue
        known = [network.types.get(name) for name in node.input[:2]]
        shapes = [kind.shape for kind in known if kind is not None and kind.shape is not None]
        if len(shapes) < 2:
            continue
        image, kernel = (shape[2:] for shape in shapes)
        strides = given.get("strides") or [1] * len(image)
        dilations = given.get("dilations") or [1] * len(image)
        begin, end = [], []
        for extent, taps, stride, dilation in zip(image, kernel, strides, dilations, strict=True):
            outputs = -(-extent // stride)
            reach = (taps - 1) * dilation + 1
            total = max(0, (outputs - 1) * stride + reach - extent)
            less, more = total // 2, total - total // 2
            begin.append(less if mode == b"SAME_UPPER" else more)
            end.append(more if mode == b"SAME_UPPER" else less)
        kept = [a for a in node.attribute if a.name not in ("auto_pad", "pads")]
        del node.attribute[:]
        node.attribute.extend([*kept, helper.make_attribute("pads", [*begin, *end])])
