"""Write com.microsoft's attention as products, a softmax and the masks between them."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from wasmgraph.importer.normalise.writer import NodeWriter


@dataclass(frozen=True)
class _Heads:
    """What attends: tensors of (batch, heads, length, elements of a head)."""

    query: str
    key: str
    value: str


def attention(w: NodeWriter) -> None:
    """Attention: input, weights, bias of query, key and value; mask, past, what to add to scores.

    Raises:
        NotImplementedError: a form that has no plain counterpart here.
    """
    if w.attribute("do_rotary", 0) or w.attribute("past_present_share_buffer", 0):
        raise NotImplementedError("rotation and a shared buffer within Attention are not supported")
    if w.input(6):
        raise NotImplementedError("Attention with a length of its past is not supported")
    x, weights, bias, mask, past, added = (w.input(i) for i in range(6))
    heads = int(w.attribute("num_heads"))
    columns = w.shape(weights)[1]
    sizes = [int(n) for n in w.attribute("qkv_hidden_sizes", [columns // 3] * 3)]
    product = w.add("MatMul", [x, weights])
    if bias:
        product = w.add("Add", [product, bias])
    parts = w.add_many("Split", [product, w.ints(*sizes)], 3, axis=-1)
    found = _Heads(*(_by_heads(w, part, heads) for part in parts))
    if past:
        old = w.add_many("Split", [past, w.ints(1, 1)], 2, axis=0)
        old = [w.add("Squeeze", [part, w.ints(0)]) for part in old]
        found = _after(w, found, old[0], old[1])
    if w.wants(1):
        both = [w.add("Unsqueeze", [part, w.ints(0)]) for part in (found.key, found.value)]
        w.give(1, w.add("Concat", both, axis=0))
    scores = _scores(w, found, sizes[0] // heads)
    w.give(0, _attend(w, scores, found.value, _masks(w, found, mask), added))


def multi_head_attention(w: NodeWriter) -> None:
    """MultiHeadAttention: query, key, value, their bias, mask, what to add to scores, past.

    Raises:
        NotImplementedError: a form that has no plain counterpart here.
    """
    if w.input(8) or w.input(9) or w.wants(3):
        raise NotImplementedError(
            "a shared buffer, beams and scores within MultiHeadAttention are not supported"
        )
    heads = int(w.attribute("num_heads"))
    query, key, value = _query_key_value(w, heads)
    found = _Heads(query, key, value)
    if w.input(6) and w.input(7):
        found = _after(w, found, w.input(6), w.input(7))
    w.give(1, found.key)
    w.give(2, found.value)
    scores = _scores(w, found, w.shape(query)[-1])
    w.give(0, _attend(w, scores, found.value, _masks(w, found, w.input(4)), w.input(5)))


def _query_key_value(w: NodeWriter, heads: int) -> list[str]:
    """The three operands by heads, with their bias."""
    query, key, value, bias = (w.input(i) for i in range(4))
    if not key or not value:
        raise NotImplementedError("packed operands of MultiHeadAttention are not supported")
    parts = [query, key, value]
    if bias:
        total = w.shape(bias)[0]
        width = w.shape(parts[0])[2]
        pieces = w.add_many("Split", [bias, w.ints(width, width, total - 2 * width)], 3, axis=0)
        parts = [
            w.add("Add", [part, piece]) if len(w.shape(part)) == 3 else part
            for part, piece in zip(parts, pieces, strict=True)
        ]
    # Keys and values of four axes are by heads already.
    return [_by_heads(w, part, heads) if len(w.shape(part)) == 3 else part for part in parts]


def _by_heads(w: NodeWriter, x: str, heads: int) -> str:
    """(batch, length, heads times elements) as (batch, heads, length, elements)."""
    split = w.add("Reshape", [x, w.ints(0, 0, heads, -1)])
    return w.add("Transpose", [split], perm=[0, 2, 1, 3])


def _after(w: NodeWriter, found: _Heads, key: str, value: str) -> _Heads:
    """Keys and values of the past come first."""
    return _Heads(
        found.query,
        w.add("Concat", [key, found.key], axis=2),
        w.add("Concat", [value, found.value], axis=2),
    )


def _scores(w: NodeWriter, found: _Heads, elements: int) -> str:
    across = w.add("Transpose", [found.key], perm=[0, 1, 3, 2])
    scale = float(w.attribute("scale", 0.0)) or 1 / math.sqrt(elements)
    scores = w.add("MatMul", [found.query, across])
    return w.add("Mul", [scores, w.number(scale, found.query)])


def _attend(w: NodeWriter, scores: str, value: str, masks: list[str], added: str) -> str:
    for term in [*masks, *([added] if added else [])]:
        scores = w.add("Add", [scores, term])
    mixed = w.add("MatMul", [w.add("Softmax", [scores], axis=-1), value])
    rows = w.add("Transpose", [mixed], perm=[0, 2, 1, 3])
    return w.add("Reshape", [rows, w.ints(0, 0, -1)])


def _masks(w: NodeWriter, found: _Heads, mask: str) -> list[str]:
    """What is added to the scores, which are (batch, heads, length of queries, of keys)."""
    masks = []
    length, total = w.shape(found.query)[2], w.shape(found.key)[2]
    dtype = w.dtype(found.query)
    if mask:
        masks.append(_padding(w, mask, total, dtype))
    if w.attribute("unidirectional", 0):
        later = np.triu(np.ones((length, total), bool), total - length + 1)
        lowest = np.finfo(dtype).min
        masks.append(w.constant(np.where(later, lowest, 0), dtype))
    return masks


def _padding(w: NodeWriter, mask: str, total: int, dtype: np.dtype[np.generic]) -> str:
    """A large negative number where a mask says that there is nothing to attend to."""
    rank = len(w.shape(mask))
    if rank == 1:
        keep = _within(w, mask, total)
    elif rank in (2, 3):
        keep = w.add("Greater", [mask, w.number(0, mask)])
    else:
        raise NotImplementedError(f"attention with a mask of {rank} axes is not supported")
    axes = w.ints(1) if rank == 3 else w.ints(1, 2)
    filtered = w.constant(float(w.attribute("mask_filter_value", -10000.0)), dtype)
    choice = w.add("Where", [keep, w.constant(0, dtype), filtered])
    return w.add("Unsqueeze", [choice, axes])


def _within(w: NodeWriter, ends: str, total: int) -> str:
    """(batch, total): which keys lie before the end of their sequence, and after its start.

    The vector has an end per sequence, and may have as many starts after them.
    """
    (batch, *_), (count,) = w.shape(w.input(0)), w.shape(ends)
    if count not in (batch, 2 * batch):
        raise NotImplementedError(f"attention with a mask of {count} numbers is not supported")
    places = w.constant([range(total)], w.dtype(ends))
    bounds = (
        [ends] if count == batch else w.add_many("Split", [ends, w.ints(batch, batch)], 2, axis=0)
    )
    columns = [w.add("Unsqueeze", [bound, w.ints(1)]) for bound in bounds]
    keep = w.add("Less", [places, columns[0]])
    if len(columns) == 2:
        keep = w.add("And", [keep, w.add("GreaterOrEqual", [places, columns[1]])])
    return keep
