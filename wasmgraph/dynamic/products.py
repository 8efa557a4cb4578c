"""Convolutions and matrix products as the executor's `fast` operators, with constants in the order
in which their kernels read them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from wasmgraph.dynamic.chains import words_as_floats
from wasmgraph.dynamic.constants import Constants
from wasmgraph.dynamic.liveness import reads
from wasmgraph.dynamic.packing import pack, panel_widths
from wasmgraph.dynamic.program import Body, Node
from wasmgraph.dynamic.recurrence import recurrent
from wasmgraph.dynamic.view import Array, float_word
from wasmgraph.kernels.block_stored import pack_blocks
from wasmgraph.kernels.tiles import LANES

PRODUCTS = {
    "wgd_fast_conv": 3,
    "wgd_fast_conv_transpose": 3,
    "wgd_fast_packed": 3,
    "wgd_fast_blocks": 3,
    "wgd_fast_matmul": 2,
}
"""Operators that a chain may follow, and how many operands they have of their own. Their first word
is how many axes the result has at least."""


def as_products(body: Body, constants: Constants, *, winograd: bool) -> Iterator[Node]:
    """A body's nodes in order, products among them with the operators of `PRODUCTS`.

    Args:
        winograd: Whether Winograd's algorithm may be used, which rounds more coarsely.
    """
    read = {slot for node in body.nodes for slot in reads(node)} | {*body.outputs}
    for node in _without_batch_norms(body, constants):
        if node.operator in _POOLS and node.words[1] in (1, 2) and not read & {*node.outputs[1:]}:
            operator = _POOLS[node.operator]
            yield replace(node, operator=operator, outputs=node.outputs[:1])
        elif node.operator == "wgd_conv_transpose_f32" and node.words[1] in (1, 2):
            yield _transposed(node, constants)
        elif node.operator == "wgd_conv_f32" and node.words[3] in (1, 2):
            yield replace(node, operator="wgd_fast_conv", words=(int(winograd), *node.words))
        elif node.operator == "wgd_recurrent_f32":
            yield recurrent(node, constants)
        elif node.operator == "wgd_softmax_f32" and node.words[1] == 0:
            yield replace(node, operator="wgd_fast_softmax")
        elif node.operator == "wgd_layer_norm_f32" and not read & {*node.outputs[1:]}:
            yield replace(node, operator="wgd_fast_layer_norm", outputs=node.outputs[:1])
        elif node.operator == "wgd_matmul_f32":
            yield _matmul(node, constants)
        elif node.operator == "wgd_gemm_f32":
            yield from _gemm(node, constants)
        else:
            yield node


_POOLS = {
    "wgd_max_pool_f32": "wgd_fast_max_pool",
    "wgd_average_pool_f32": "wgd_fast_average_pool",
}


def _transposed(node: Node, constants: Constants) -> Node:
    """A transposed convolution, its weights by group; feature and tap; channel."""
    weights = constants.array(node.inputs[1])
    if weights is None:
        return node
    groups = node.words[0]
    channels, features, *kernel = weights.shape
    parts = weights.reshape(groups, channels // groups, features * int(np.prod(kernel)))
    assert node.inputs[1] is not None
    slot = constants.add(parts.transpose(0, 2, 1), constants.name(node.inputs[1]))
    return replace(
        node,
        operator="wgd_fast_conv_transpose",
        words=(*node.words, features, *kernel),
        inputs=(node.inputs[0], slot, *node.inputs[2:]),
    )


def _matmul(node: Node, constants: Constants) -> Node:
    right = constants.array(node.inputs[1])
    if right is None or right.ndim != 2:
        return replace(node, operator="wgd_fast_matmul")
    return _packed(node, right, None, constants)


def _packed(node: Node, right: Array, bias: int | None, constants: Constants) -> Node:
    assert node.inputs[1] is not None
    name, blocks = constants.name(node.inputs[1]), constants.blocks(right)
    if blocks is not None:
        widths = panel_widths(right.shape[1])
        form, records = pack_blocks(blocks, [width // LANES for width in widths])
        wide_nbytes = 4 * right.shape[0] * sum(widths)
        if records.nbytes < wide_nbytes:
            words = (form.bits, form.block, form.zero_nbytes, float_word(form.zero))
            return replace(
                node,
                operator="wgd_fast_blocks",
                words=(*right.shape, *words),
                inputs=(node.inputs[0], constants.add(records, name, wide_nbytes), bias),
            )
    slot = constants.add(pack(right), name)
    return replace(
        node,
        operator="wgd_fast_packed",
        words=right.shape,
        inputs=(node.inputs[0], slot, bias),
    )


def _gemm(node: Node, constants: Constants) -> Iterator[Node]:
    turns_a, turns_b, *_ = node.words
    alpha, beta = words_as_floats(node.words[2:])
    right = constants.array(node.inputs[1])
    added = node.inputs[2] if len(node.inputs) > 2 else None
    bias = constants.array(added)
    fits = added is None or (bias is not None and bias.ndim in (1, 2))
    if right is None or turns_a or not fits:
        yield node
        return
    right = np.float32(alpha) * (right.T if turns_b else right)
    columns = right.shape[1]
    slot = None
    if bias is not None and added is not None:
        if bias.shape[-1] not in (1, columns) or bias.size != bias.shape[-1]:
            yield node
            return
        values = np.broadcast_to(np.float32(beta) * bias.reshape(-1), columns)
        slot = constants.add(values, constants.name(added))
    yield _packed(node, right, slot, constants)


_CONVOLUTIONS = ("wgd_conv_f32", "wgd_conv_transpose_f32")


def _without_batch_norms(body: Body, constants: Constants) -> list[Node]:
    """Normalisations become part of the convolution before them."""
    readers = Counter(slot for node in body.nodes for slot in set(reads(node)))
    readers.update(body.outputs)
    made = {node.outputs[0]: place for place, node in enumerate(body.nodes)}
    nodes: list[Node | None] = list(body.nodes)
    for place, node in enumerate(body.nodes):
        if node.operator != "wgd_batch_norm_f32":
            continue
        data = node.inputs[0]
        before = made.get(data)
        conv = None if before is None else nodes[before]
        if before is None or conv is None or conv.operator not in _CONVOLUTIONS:
            continue
        if data is None or readers[data] > 1:
            continue
        folded = _folded(conv, node, constants)
        if folded is not None:
            nodes[before], nodes[place] = None, folded
    return [node for node in nodes if node is not None]


def _folded(conv: Node, norm: Node, constants: Constants) -> Node | None:
    weights = constants.array(conv.inputs[1])
    given = conv.inputs[2] if len(conv.inputs) > 2 else None
    bias = constants.array(given)
    parts = [constants.array(slot) for slot in norm.inputs[1:]]
    if weights is None or (given is not None and bias is None):
        return None
    transposed = conv.operator == "wgd_conv_transpose_f32"
    groups = conv.words[0]
    features = groups * weights.shape[1] if transposed else weights.shape[0]
    known = [part.astype(np.float64) for part in parts if part is not None]
    if len(known) < len(parts) or any(part.shape != (features,) for part in known):
        return None
    scale, shift, mean, variance = known
    (epsilon,) = words_as_floats(norm.words)
    factor = scale / np.sqrt(variance + epsilon)
    moved = shift + ((0.0 if bias is None else bias) - mean) * factor
    taps = [1] * (weights.ndim - 2)
    if transposed:
        by_group = weights.reshape(groups, -1, *weights.shape[1:])
        scaled = (by_group * factor.reshape(groups, 1, -1, *taps)).reshape(weights.shape)
    else:
        scaled = weights * factor.reshape(-1, 1, *taps)
    assert conv.inputs[1] is not None
    name = constants.name(conv.inputs[1])
    inputs = (
        conv.inputs[0],
        constants.add(scaled.astype(np.float32), name),
        constants.add(moved.astype(np.float32), f"{name} (bias)"),
    )
    return replace(conv, inputs=inputs, outputs=norm.outputs, name=f"{conv.name}+{norm.name}")
