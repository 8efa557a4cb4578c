"""Write operators on quantised tensors out: dequantise, the operator on floats, quantise.

They and the models that already come so (onnx's and onnxruntime's QDQ form) are one dialect then,
of which `integer_products` makes integer arithmetic again, and what is not a product is fused with
its conversions. Source of the operands' order: onnx's schemas of QLinearConv and QLinearMatMul,
onnxruntime's ContribOperators.md for the others.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import onnx
from onnx import helper

from wasmgraph.importer.network import Network, attributes

MICROSOFT = "com.microsoft"


def expand_quantised(network: Network) -> None:
    """Replace every node that `is_expanded`."""
    found: list[onnx.NodeProto] = []
    for node in network.nodes:
        expand = EXPANDED.get((node.domain, node.op_type))
        if expand is None or not is_expanded(node):
            found.append(node)
        else:
            writer = _Writer(network, node)
            expand(writer)
            found += writer.nodes
    network.nodes = found


def is_expanded(node: onnx.NodeProto) -> bool:
    """Whether there is a way to write a node out; for channel-last images there is none."""
    known = (node.domain, node.op_type) in EXPANDED
    return known and not attributes(node).get("channels_last", 0)


class _Writer:
    """The nodes that one node becomes; the last of them has its name."""

    def __init__(self, network: Network, node: onnx.NodeProto) -> None:
        self.network = network
        self.node = node
        self.nodes: list[onnx.NodeProto] = []

    def input(self, index: int) -> str:
        """An input's name, "" where it is left out."""
        return self.node.input[index] if index < len(self.node.input) else ""

    def attribute(self, name: str, default: object) -> object:
        return attributes(self.node).get(name, default)

    def add(self, op: str, inputs: Sequence[str], **attrs: object) -> str:
        """A node; the name of its output."""
        place = f"{self.node.name or self.node.output[0]}/{len(self.nodes)}/{op}"
        names = list(inputs)
        while names and not names[-1]:
            names.pop()
        self.nodes.append(helper.make_node(op, names, [place], name=place, **attrs))
        return place

    def dequantised(self, x: str, scale: str, zero: str, axis: int = 0) -> str:
        return self.add("DequantizeLinear", [x, scale, zero], axis=axis)

    def constant(self, values: object, dtype: str) -> str:
        name = f"{self.node.name or self.node.output[0]}/constant{len(self.network.weights)}"
        self.network.weights[name] = np.array(values, dtype)
        return name

    def end(self) -> None:
        """What was added last computes the node's output."""
        self.nodes[-1].output[0] = self.node.output[0]
        self.nodes[-1].name = self.node.name

    def quantise(self, value: str, scale: str, zero: str) -> None:
        """The node's output is this value, quantised."""
        self.add("QuantizeLinear", [value, scale, zero])
        self.end()


def _conv(w: _Writer) -> None:
    """QLinearConv: x, its scale and zero point, weights, theirs, those of y, bias."""
    x = w.dequantised(w.input(0), w.input(1), w.input(2))
    weights = w.dequantised(w.input(3), w.input(4), w.input(5), axis=0)
    inputs = [x, weights]
    if w.input(8):
        scale = w.add("Mul", [w.input(1), w.input(4)])
        inputs.append(w.dequantised(w.input(8), scale, "", axis=0))
    conv = w.add("Conv", inputs)
    w.nodes[-1].attribute.extend(a for a in w.node.attribute if a.name != "channels_last")
    w.quantise(conv, w.input(6), w.input(7))


def _matmul(w: _Writer) -> None:
    """QLinearMatMul: a, its scale and zero point, b, its, those of y."""
    a = w.dequantised(w.input(0), w.input(1), w.input(2), axis=-2)
    b = w.dequantised(w.input(3), w.input(4), w.input(5), axis=-1)
    w.quantise(w.add("MatMul", [a, b]), w.input(6), w.input(7))


def _gemm(w: _Writer) -> None:
    """QGemm: a, its scale and zero point, b, its, c, those of y, which is float without."""
    a = w.dequantised(w.input(0), w.input(1), w.input(2))
    by_rows = bool(w.attribute("transB", 0))
    b = w.dequantised(w.input(3), w.input(4), w.input(5), axis=0 if by_rows else 1)
    inputs = [a, b]
    if w.input(6):
        alpha = w.constant(w.attribute("alpha", 1.0), "float32")
        scale = w.add("Mul", [w.add("Mul", [w.input(1), w.input(4)]), alpha])
        inputs.append(w.dequantised(w.input(6), scale, "", axis=-1))
    product = w.add("Gemm", inputs)
    w.nodes[-1].attribute.extend(w.node.attribute)
    if w.input(7):
        w.quantise(product, w.input(7), w.input(8))
    else:
        w.end()


def _binary(op: str) -> Callable[[_Writer], None]:
    """a, its scale and zero point, b, its, those of the result."""

    def expand(w: _Writer) -> None:
        a = w.dequantised(w.input(0), w.input(1), w.input(2))
        b = w.dequantised(w.input(3), w.input(4), w.input(5))
        w.quantise(w.add(op, [a, b]), w.input(6), w.input(7))

    return expand


def _unary(op: str) -> Callable[[_Writer], None]:
    """x, its scale and zero point, those of the result."""

    def expand(w: _Writer) -> None:
        x = w.dequantised(w.input(0), w.input(1), w.input(2))
        result = w.add(op, [x])
        own = ("channels_last", "opset")
        w.nodes[-1].attribute.extend(a for a in w.node.attribute if a.name not in own)
        w.quantise(result, w.input(3), w.input(4))

    return expand


def _concat(w: _Writer) -> None:
    """The result's scale and zero point, then every part with its own."""
    parts = [
        w.dequantised(*w.node.input[first : first + 3]) for first in range(2, len(w.node.input), 3)
    ]
    axis = w.attribute("axis", 0)
    w.quantise(w.add("Concat", parts, axis=axis), w.input(0), w.input(1))


def _matmul_to_float(w: _Writer) -> None:
    """MatMulIntegerToFloat: a, b, their scales, their zero points, bias."""
    a = w.dequantised(w.input(0), w.input(2), w.input(4))
    b = w.dequantised(w.input(1), w.input(3), w.input(5), axis=-1)
    result = w.add("MatMul", [a, b])
    if w.input(6):
        w.add("Add", [result, w.input(6)])
    w.end()


def _same(op: str) -> Callable[[_Writer], None]:
    """com.microsoft's operator of the same name and meaning."""

    def expand(w: _Writer) -> None:
        w.add(op, list(w.node.input))
        w.nodes[-1].attribute.extend(w.node.attribute)
        w.end()

    return expand


EXPANDED: dict[tuple[str, str], Callable[[_Writer], None]] = {
    ("", "QLinearConv"): _conv,
    ("", "QLinearMatMul"): _matmul,
    (MICROSOFT, "QLinearConv"): _conv,
    (MICROSOFT, "QGemm"): _gemm,
    (MICROSOFT, "QLinearAdd"): _binary("Add"),
    (MICROSOFT, "QLinearMul"): _binary("Mul"),
    (MICROSOFT, "QLinearSigmoid"): _unary("Sigmoid"),
    (MICROSOFT, "QLinearLeakyRelu"): _unary("LeakyRelu"),
    (MICROSOFT, "QLinearSoftmax"): _unary("Softmax"),
    (MICROSOFT, "QLinearAveragePool"): _unary("AveragePool"),
    (MICROSOFT, "QLinearGlobalAveragePool"): _unary("GlobalAveragePool"),
    (MICROSOFT, "QLinearConcat"): _concat,
    (MICROSOFT, "MatMulIntegerToFloat"): _matmul_to_float,
    (MICROSOFT, "QuantizeLinear"): _same("QuantizeLinear"),
    (MICROSOFT, "DequantizeLinear"): _same("DequantizeLinear"),
}
