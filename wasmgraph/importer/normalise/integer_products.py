"""Products of dequantised tensors as products of their integers.

(a - za) sa * (b - zb) sb is sa sb times a product of integers. The zero point of the weights is
taken off when compiling, that of the activations goes into the bias: the sum of (a - za) b is the
sum of a b, less za times the sum of b. What follows (the bias of floats, activations, quantising)
is fused by the optimiser like after any other product.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper

from wasmgraph.importer.network import Network, TensorType, all_inputs, attributes
from wasmgraph.importer.normalise.fold import fold_once
from wasmgraph.importer.normalise.quantised_values import block_scaled, quantised_value
from wasmgraph.importer.normalise.simplify import remove_dead_nodes
from wasmgraph.importer.quantisation import (
    DOMAIN,
    Quantised,
    producers,
    read_quantised,
    same_pads,
)

_WORTH_KEEPING = 4096
"""Bytes from which on weights stay integers where they can."""

_ELEMENTWISE = frozenset(["Add", "Sub", "Mul", "Div", "QuantizeLinear"])
"""Operators whose kernels dequantise what they read."""


def multiply_integers(network: Network) -> None:
    """Rewrite products whose operands are dequantised, then make floats of what weights are left.

    The types of all tensors are known.
    """
    rewriting = _Rewriting(network, producers(network))
    nodes: list[onnx.NodeProto] = []
    for node in network.nodes:
        rewrite = _PRODUCTS.get(node.op_type) if not node.domain else None
        nodes += (rewrite(rewriting, node) if rewrite else None) or [node]
    network.nodes = nodes
    remove_dead_nodes(network)
    _dequantise_weights(network)
    while fold_once(network):
        pass


def _dequantise_weights(network: Network) -> None:
    """Make floats of quantised weights, except where kernels read bytes just as well."""
    readers: dict[str, list[onnx.NodeProto]] = {}
    for node in network.nodes:
        for name in all_inputs(node):
            readers.setdefault(name, []).append(node)
    kept = []
    for node in network.nodes:
        is_weight = node.op_type == "DequantizeLinear" and not node.domain
        is_weight = is_weight and all(name in network.weights for name in node.input if name)
        if is_weight and (
            network.weights[node.input[0]].nbytes < _WORTH_KEEPING
            or any(_needs_floats(reader) for reader in readers.get(node.output[0], []))
        ):
            network.weights.update(quantised_value(node, network.weights) or {})
            network.block_scaled[node.output[0]] = block_scaled(node, network.weights)
        else:
            kept.append(node)
    network.nodes = kept


def _needs_floats(node: onnx.NodeProto) -> bool:
    return bool(node.domain) or node.op_type not in _ELEMENTWISE


@dataclass
class _Rewriting:
    network: Network
    made: dict[str, onnx.NodeProto]

    def quantised(self, name: str) -> Quantised | None:
        return read_quantised(self.made.get(name), self.network)

    def weights(self, name: str, axis: int) -> tuple[NDArray[Any], NDArray[Any]] | None:
        """Integers less their zero point, and the scale of each index of `axis` (or the one)."""
        network = self.network
        dtypes = ("int8", "uint8", "int4", "uint4")
        found = read_quantised(self.made.get(name), network, dtypes)
        if found is None or found.name not in network.weights:
            return None
        values = network.weights[found.name].astype(np.int16)
        axis %= values.ndim
        zero = found.zero
        if found.axis is not None:
            if found.axis != axis:
                return None
            zero = zero.reshape([-1 if a == axis else 1 for a in range(values.ndim)])
        values = (values - zero).astype(np.int16)
        narrow = values.astype(np.int8)
        return (narrow if np.array_equal(narrow, values) else values), found.scale

    def store(self, name: str, array: NDArray[Any]) -> str:
        """A new weight."""
        network = self.network
        while name in network.weights or name in network.types:
            name += "'"
        network.weights[name] = array
        network.types[name] = TensorType(array.dtype, array.shape)
        return name

    def integer_bias(self, name: str, scale: NDArray[Any], columns: int) -> NDArray[Any] | None:
        """int32 [columns], if a bias is quantised with the scale of the product."""
        found = read_quantised(self.made.get(name), self.network, ("int32",))
        if found is None or found.name not in self.network.weights or found.zero.any():
            return None
        values = self.network.weights[found.name]
        expected = np.broadcast_to(scale, columns)
        if values.size != columns or not np.allclose(found.scale, expected, rtol=1e-5, atol=0):
            return None
        return np.asarray(values.reshape(-1), np.int64)

    def product(
        self,
        node: onnx.NodeProto,
        op: str,
        a: Quantised,
        b: tuple[NDArray[Any], NDArray[Any]],
        columns: int,
        column_axis: int,
        bias: str,
        **attrs: object,
    ) -> list[onnx.NodeProto]:
        """The product of integers, and a sum with a bias of floats."""
        weights, b_scale = b
        scale = np.asarray(a.scale * b_scale, np.float32)
        integers = self.integer_bias(bias, scale, columns) if bias else np.zeros(columns, np.int64)
        others = tuple(i for i in range(weights.ndim) if i != column_axis % weights.ndim)
        sums = weights.sum(axis=others, dtype=np.int64)
        start = (0 if integers is None else integers) - int(a.zero) * sums
        name = node.input[1]
        inputs = [
            a.name,
            self.store(f"{name}/integers", weights),
            self.store(f"{name}/multipliers", np.array(np.broadcast_to(scale, columns))),
            self.store(f"{name}/bias", start.astype(np.int32)),
        ]
        target = node.output[0]
        result = target if integers is not None else f"{target}/product"
        made = helper.make_node(
            op, inputs, [result], name=node.name, domain=DOMAIN, zero=int(a.zero), **attrs
        )
        self.network.types[result] = self.network.types[target]
        if integers is not None:
            return [made]
        rank = len(self.network.types[target].shape or ())
        if op == "IntegerConv":
            shape = [1, columns, *[1] * (rank - 2)]
            bias = self._reshaped(node, bias, shape)
        add = helper.make_node("Add", [result, bias], [target], name=f"{node.name}/bias")
        return [made, add]

    def _reshaped(self, node: onnx.NodeProto, bias: str, shape: Sequence[int]) -> str:
        """The bias of a convolution with an axis per axis of its result."""
        value = self.network.weights[bias]
        return self.store(f"{node.name}/bias", value.reshape(shape))


def _conv(rewriting: _Rewriting, node: onnx.NodeProto) -> list[onnx.NodeProto] | None:
    x = rewriting.quantised(node.input[0])
    weights = rewriting.weights(node.input[1], 0)
    bias = node.input[2] if len(node.input) > 2 else ""
    if x is None or x.axis is not None or weights is None:
        return None
    columns = weights[0].shape[0]
    scale = x.scale * weights[1]
    is_float = bias in rewriting.network.weights
    if bias and not is_float and rewriting.integer_bias(bias, scale, columns) is None:
        return None
    attrs = attributes(node)
    rank = weights[0].ndim - 2
    strides = list(attrs.get("strides", [1] * rank))
    dilations = list(attrs.get("dilations", [1] * rank))
    pads = _pads(rewriting.network, node, x.name, weights[0].shape[2:], strides, dilations)
    return rewriting.product(
        node,
        "IntegerConv",
        x,
        weights,
        columns,
        0,
        bias,
        strides=strides,
        dilations=dilations,
        pads=pads,
        group=int(attrs.get("group", 1)),
    )


def _pads(
    network: Network,
    node: onnx.NodeProto,
    x: str,
    kernel: Sequence[int],
    strides: Sequence[int],
    dilations: Sequence[int],
) -> list[int]:
    """All begins, then all ends; "SAME" written out."""
    attrs = attributes(node)
    mode = attrs.get("auto_pad", b"NOTSET").decode()
    if mode in ("NOTSET", "VALID"):
        return list(attrs.get("pads", [0] * 2 * len(kernel)))
    known = network.types[x].shape
    assert known is not None
    return same_pads(mode, known[2:], kernel, strides, dilations)


def _matmul(rewriting: _Rewriting, node: onnx.NodeProto) -> list[onnx.NodeProto] | None:
    a = rewriting.quantised(node.input[0])
    known = rewriting.network.types.get(node.input[0])
    if a is None or a.axis is not None or known is None or len(known.shape or ()) < 2:
        return None
    weights = rewriting.weights(node.input[1], -1)
    if weights is not None and weights[0].ndim == 2:
        columns = weights[0].shape[1]
        return rewriting.product(node, "IntegerMatMul", a, weights, columns, 1, "")
    b = rewriting.quantised(node.input[1])
    if b is None or b.axis is not None or len(rewriting.network.types[b.name].shape or ()) < 2:
        return None
    scale = rewriting.store(f"{node.name}/multiplier", np.array(a.scale * b.scale, np.float32))
    return [
        helper.make_node(
            "IntegerMatMulOfTwo",
            [a.name, b.name, scale],
            [node.output[0]],
            name=node.name,
            domain=DOMAIN,
            zero_a=int(a.zero),
            zero_b=int(b.zero),
        )
    ]


def _gemm(rewriting: _Rewriting, node: onnx.NodeProto) -> list[onnx.NodeProto] | None:
    a = rewriting.quantised(node.input[0])
    attrs = attributes(node)
    by_rows = bool(attrs.get("transB", 0))
    weights = rewriting.weights(node.input[1], 0 if by_rows else 1)
    if a is None or a.axis is not None or weights is None or attrs.get("transA", 0):
        return None
    values, scale = weights
    if by_rows:
        values = np.ascontiguousarray(values.T)
    alpha, beta = (float(attrs.get(name, 1.0)) for name in ("alpha", "beta"))
    bias = node.input[2] if len(node.input) > 2 else ""
    if bias and beta != 1.0:
        return None
    scale = np.asarray(scale * np.float32(alpha), np.float32)
    return rewriting.product(node, "IntegerMatMul", a, (values, scale), values.shape[1], 1, bias)


_PRODUCTS: dict[str, Callable[[_Rewriting, onnx.NodeProto], list[onnx.NodeProto] | None]] = {
    "Conv": _conv,
    "MatMul": _matmul,
    "Gemm": _gemm,
}
