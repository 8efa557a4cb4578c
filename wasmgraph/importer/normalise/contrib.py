"""Write com.microsoft's operators, which onnxruntime's optimiser puts into a model, as ONNX's.

Where the meaning is exactly that of a few plain operators they are written out, and nothing else
needs to know them; what belongs together is fused again later, for this machine. Source of the
operands' order and the defaults: onnxruntime's ContribOperators.md.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import onnx

from wasmgraph.importer.network import Network
from wasmgraph.importer.normalise.attention import attention, multi_head_attention
from wasmgraph.importer.normalise.rotary import rotary_embedding
from wasmgraph.importer.normalise.weight_only import matmul_nbits
from wasmgraph.importer.normalise.writer import Expansion, NodeWriter, expand_nodes

MICROSOFT = "com.microsoft"


def expand_contrib(network: Network) -> None:
    """Replace every node that `is_contrib`.

    Raises:
        UnsupportedModelError: some are used in a way that has no plain form; lists every one.
    """
    expand_nodes(network, _expansion)


def is_contrib(node: onnx.NodeProto) -> bool:
    """Whether there is a way to write a node out."""
    return _expansion(node) is not None


def _expansion(node: onnx.NodeProto) -> Expansion | None:
    return _EXPANSIONS.get(node.op_type) if node.domain == MICROSOFT else None


def _copied(w: NodeWriter, op: str, inputs: Sequence[str], without: Sequence[str] = ()) -> str:
    """A node with the attributes of the one that it replaces."""
    result = w.add(op, inputs)
    w.nodes[-1].attribute.extend(a for a in w.node.attribute if a.name not in without)
    return result


def _same(op: str) -> Expansion:
    """The operator of that name in ONNX, which means the same."""

    def expand(w: NodeWriter) -> None:
        copy = onnx.NodeProto()
        copy.CopyFrom(w.node)
        copy.op_type, copy.domain = op, ""
        w.nodes.append(copy)

    return expand


# What the parameters of an activation are called where they come as a list.
_ACTIVATION_PARAMETERS = {
    "LeakyRelu": ("alpha",),
    "Clip": ("min", "max"),
    "HardSigmoid": ("alpha", "beta"),
}


def _conv(w: NodeWriter) -> None:
    """FusedConv: Conv, what to add, an activation."""
    own = ("activation", "activation_params")
    y = _copied(w, "Conv", [w.input(i) for i in range(3)], without=own)
    if w.input(3):
        y = w.add("Add", [y, w.input(3)])
    activation = w.attribute("activation", "")
    if activation:
        names = _ACTIVATION_PARAMETERS.get(activation, ())
        values = dict(zip(names, w.attribute("activation_params", ()), strict=False))
        if activation == "Clip":
            bounds = [w.number(values[name], w.input(0)) for name in ("min", "max")]
            y = w.add("Clip", [y, *bounds])
        else:
            y = w.add(activation, [y], **values)
    w.give(0, y)


def _gemm(w: NodeWriter) -> None:
    """FusedGemm: Gemm and an activation, whose parameters are named."""
    own = [f"activation{suffix}" for suffix in ("", "_alpha", "_beta", "_gamma")]
    y = _copied(w, "Gemm", [w.input(i) for i in range(3)], without=own)
    activation = w.attribute("activation", "")
    if activation:
        given = {name: w.attribute(f"activation_{name}") for name in ("alpha", "beta", "gamma")}
        given = {name: value for name, value in given.items() if value is not None}
        y = w.add(activation, [y], **given)
    w.give(0, y)


def _matmul(w: NodeWriter) -> None:
    """FusedMatMul: alpha * A' B', where A and B may be transposed, also with their batch axes."""
    operands = []
    for index, letter in enumerate("AB"):
        operand = w.input(index)
        swap, batch = w.attribute(f"trans{letter}", 0), w.attribute(f"transBatch{letter}", 0)
        rank = len(w.shape(operand)) if swap or batch else 0
        if rank > 1:
            order = list(range(rank))
            if batch:
                order = [*order[1:-1], 0, order[-1]]
            if swap:
                order[-2:] = order[:-3:-1]
            operand = w.add("Transpose", [operand], perm=order)
        operands.append(operand)
    y = w.add("MatMul", operands)
    alpha = w.attribute("alpha", 1.0)
    if alpha != 1.0:
        y = w.add("Mul", [y, w.number(alpha, y)])
    w.give(0, y)


def _gelu(w: NodeWriter) -> None:
    """Gelu and BiasGelu: x / 2 * (1 + erf(x / sqrt 2))"""
    x = _biased(w)
    erf = w.add("Erf", [w.add("Mul", [x, w.number(1 / math.sqrt(2), x)])])
    # In the order in which exporters write it, which is one chain.
    product = w.add("Mul", [x, w.add("Add", [erf, w.number(1.0, x)])])
    w.give(0, w.add("Mul", [product, w.number(0.5, x)]))


def _fast_gelu(w: NodeWriter) -> None:
    """FastGelu: x / 2 * (1 + tanh(sqrt(2 / pi) * (x + 0.044715 x^3)))"""
    x = _biased(w)
    factor = math.sqrt(2 / math.pi)
    square = w.add("Mul", [x, x])
    inner = w.add("Mul", [square, w.number(0.044715 * factor, x)])
    inner = w.add("Mul", [x, w.add("Add", [inner, w.number(factor, x)])])
    product = w.add("Mul", [x, w.add("Add", [w.add("Tanh", [inner]), w.number(1.0, x)])])
    w.give(0, w.add("Mul", [product, w.number(0.5, x)]))


def _biased(w: NodeWriter) -> str:
    return w.add("Add", [w.input(0), w.input(1)]) if w.input(1) else w.input(0)


def _quick_gelu(w: NodeWriter) -> None:
    """x * sigmoid(alpha x)"""
    x = w.input(0)
    alpha = w.attribute("alpha", 1.702)
    inner = x if alpha == 1.0 else w.add("Mul", [x, w.number(alpha, x)])
    w.give(0, w.add("Mul", [x, w.add("Sigmoid", [inner])]))


def _expand_dims(w: NodeWriter) -> None:
    w.give(0, w.add("Unsqueeze", [w.input(0), w.add("Reshape", [w.input(1), w.ints(1)])]))


def _skip_layer_norm(w: NodeWriter) -> None:
    """SkipLayerNormalization: input, what to add, scale, shift, a bias to add as well."""
    total = _sum_of(w, w.input(0), w.input(1), w.input(4))
    inputs = [total, w.input(2), w.input(3)]
    outputs = w.add_many(
        "LayerNormalization",
        inputs,
        max([1, *(index + 1 for index in (1, 2) if w.wants(index))]),
        axis=-1,
        epsilon=w.attribute("epsilon", 1e-12),
    )
    for index, name in enumerate(outputs):
        w.give(index, name)
    w.give(3, total)


def _sum_of(w: NodeWriter, *names: str) -> str:
    given = [name for name in names if name]
    total = given[0]
    for name in given[1:]:
        total = w.add("Add", [total, name])
    return total


def _simplified_layer_norm(w: NodeWriter) -> None:
    x = w.input(0)
    axis = w.attribute("axis", -1)
    axes = [-1] if axis == -1 else list(range(axis % len(w.shape(x)), len(w.shape(x))))
    normal, inverse = _write_rms_norm(w, x, w.input(1), axes, w.attribute("epsilon", 1e-5))
    w.give(0, normal)
    w.give(1, inverse)


def _skip_simplified_layer_norm(w: NodeWriter) -> None:
    """SkipSimplifiedLayerNormalization: input, what to add, scale, a bias to add as well."""
    total = _sum_of(w, w.input(0), w.input(1), w.input(3))
    epsilon = w.attribute("epsilon", 1e-12)
    normal, inverse = _write_rms_norm(w, total, w.input(2), [-1], epsilon)
    w.give(0, normal)
    w.give(2, inverse)
    w.give(3, total)


def _write_rms_norm(
    w: NodeWriter, x: str, scale: str, axes: Sequence[int], epsilon: float
) -> tuple[str, str]:
    """x / sqrt(mean of its squares + epsilon) * scale, and what x is multiplied with."""
    mean = w.add("ReduceMean", [w.add("Mul", [x, x]), w.ints(*axes)], keepdims=1)
    root = w.add("Sqrt", [w.add("Add", [mean, w.number(epsilon, x)])])
    inverse = w.add("Reciprocal", [root])
    return w.add("Mul", [w.add("Mul", [x, inverse]), scale]), inverse


def _embed_layer_norm(w: NodeWriter) -> None:
    """EmbedLayerNormalization: the sum of what words, places and segments look up, normalised."""
    ids, segments, words, places, kinds, scale, shift, mask, at = (w.input(i) for i in range(9))
    batch, length = w.shape(ids)
    at = at or w.constant([range(length)], "int64")
    looked_up = [w.add("Gather", [words, ids], axis=0), w.add("Gather", [places, at], axis=0)]
    if segments:
        looked_up.append(w.add("Gather", [kinds, segments], axis=0))
    total = _sum_of(w, *looked_up)
    epsilon = w.attribute("epsilon", 1e-12)
    w.give(0, w.add("LayerNormalization", [total, scale, shift], axis=-1, epsilon=epsilon))
    if w.wants(1) and mask:
        ones = w.add("Cast", [w.add("Equal", [mask, w.number(1, mask)])], to=onnx.TensorProto.INT32)
        w.give(1, w.add("ReduceSum", [ones, w.ints(1)], keepdims=0))
    elif w.wants(1):
        w.give(1, w.constant([0] * batch, "int32"))
    w.give(2, total)


_EXPANSIONS: dict[str, Expansion] = {
    "Attention": attention,
    "BiasGelu": _gelu,
    "EmbedLayerNormalization": _embed_layer_norm,
    "ExpandDims": _expand_dims,
    "FastGelu": _fast_gelu,
    "FusedConv": _conv,
    "FusedGemm": _gemm,
    "FusedMatMul": _matmul,
    "GatherND": _same("GatherND"),
    "Gelu": _gelu,
    "LayerNormalization": _same("LayerNormalization"),
    "MatMulNBits": matmul_nbits,
    "MultiHeadAttention": multi_head_attention,
    "QuickGelu": _quick_gelu,
    "Range": _same("Range"),
    "RotaryEmbedding": rotary_embedding,
    "SimplifiedLayerNormalization": _simplified_layer_norm,
    "SkipLayerNormalization": _skip_layer_norm,
    "SkipSimplifiedLayerNormalization": _skip_simplified_layer_norm,
    "TransposeMatMul": _matmul,
    "Trilu": _same("Trilu"),
}
