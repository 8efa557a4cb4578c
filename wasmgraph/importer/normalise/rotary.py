"""Write com.microsoft's rotary embedding out."""

from __future__ import annotations

from wasmgraph.importer.normalise.writer import NodeWriter


def rotary_embedding(w: NodeWriter) -> None:
    """RotaryEmbedding: input, places, cosines and sines by place.

    Raises:
        NotImplementedError: a batch is packed, or the heads are not told.
    """
    if w.attribute("is_packed_batching", 0):
        raise NotImplementedError("RotaryEmbedding of a packed batch is not supported")
    x, at, cos, sin = (w.input(i) for i in range(4))
    shape = w.shape(x)
    turned = int(w.attribute("rotary_embedding_dim", 0)) or 2 * w.shape(cos)[1]
    if len(shape) == 3:
        heads = int(w.attribute("num_heads", 0)) or shape[2] // turned
        split = w.add("Reshape", [x, w.ints(0, 0, heads, -1)])
        turned_rows = _turn(w, split, turned, _angles(w, at, cos, sin, shape[1], 2))
        w.give(0, w.add("Reshape", [turned_rows, w.ints(*shape)]))
    else:
        w.give(0, _turn(w, x, turned, _angles(w, at, cos, sin, shape[2], 1)))


def _angles(w: NodeWriter, at: str, cos: str, sin: str, length: int, axis: int) -> list[str]:
    """Cosines and sines per element, with an axis of 1 for the heads."""
    if w.shape(at) == (1,) and len(w.shape(at)) == 1:  # the place of the first element
        at = w.add("Add", [at, w.constant([range(length)], w.dtype(at))])
    found = [w.add("Gather", [table, at], axis=0) for table in (cos, sin)]
    return [w.add("Unsqueeze", [angle, w.ints(axis)]) for angle in found]


def _turn(w: NodeWriter, x: str, turned: int, angles: list[str]) -> str:
    """Turn the first elements of every head: pairs of neighbours, or of the two halves."""
    rest = w.shape(x)[-1] - turned
    kept = []
    if rest:
        x, tail = w.add_many("Split", [x, w.ints(turned, rest)], 2, axis=-1)
        kept.append(tail)
    interleaved = bool(w.attribute("interleaved", 0))
    if interleaved:
        pairs = w.add("Reshape", [x, w.ints(0, 0, 0, turned // 2, 2)])
        halves = w.add_many("Split", [pairs, w.ints(1, 1)], 2, axis=-1)
        halves = [w.add("Squeeze", [half, w.ints(-1)]) for half in halves]
    else:
        halves = w.add_many("Split", [x, w.ints(turned // 2, turned // 2)], 2, axis=-1)
    (a, b), (cos, sin) = halves, angles
    first = w.add("Sub", [w.add("Mul", [a, cos]), w.add("Mul", [b, sin])])
    second = w.add("Add", [w.add("Mul", [b, cos]), w.add("Mul", [a, sin])])
    if interleaved:
        both = [w.add("Unsqueeze", [half, w.ints(-1)]) for half in (first, second)]
        kept.insert(0, w.add("Reshape", [w.add("Concat", both, axis=-1), w.ints(0, 0, 0, turned)]))
    else:
        kept[:0] = [first, second]
    return w.add("Concat", kept, axis=-1)
