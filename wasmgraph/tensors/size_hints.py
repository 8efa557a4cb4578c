"""Extents that a model itself mentions: a guess at the sizes that its open axes can have."""

from __future__ import annotations

import math
import os
from collections import Counter
from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from onnx import AttributeProto, GraphProto, ModelProto, NodeProto, TensorProto

MOST = 16
"""How many are told."""

SMALLEST, LARGEST = 3, 4096

_SIZED_ATTRIBUTES = frozenset(
    ["kernel_shape", "shape", "split", "starts", "ends", "output_shape", "hidden_size", "scale"]
)

# Their constant operands of whole numbers are extents and places.
_SHAPED = frozenset(
    ["Expand", "Gather", "Pad", "Range", "Reshape", "Resize", "Slice", "Split", "Tile", "Where"]
)

_PRODUCTS = frozenset(["Gemm", "MatMul"])

_FEW = 16
"""Elements of a constant that may be a shape."""


def hinted_sizes(model: ModelProto | str | os.PathLike[str]) -> tuple[int, ...]:
    """The numbers that stand where extents stand, the most frequent first.

    They are those of reshapes (and their products), slices, splits and windows, the extents of
    weights in products and the fixed ones of inputs.

    Args:
        model: Or its file.
    """
    import onnx

    if isinstance(model, (str, os.PathLike)):
        model = onnx.load(model, load_external_data=False)
    counts = Counter(n for n in _numbers(model.graph) if SMALLEST <= abs(n) <= LARGEST)
    merged: Counter[int] = Counter()
    for number, count in counts.items():
        merged[abs(number)] += count
    ranked = sorted(merged, key=lambda number: (-merged[number], number))
    return tuple(ranked[:MOST])


def _numbers(graph: GraphProto) -> Iterator[int]:
    for value in graph.input:
        yield from (dim.dim_value for dim in value.type.tensor_type.shape.dim)
    constants = {tensor.name: tensor for tensor in graph.initializer}
    for node in graph.node:
        if node.op_type == "Constant":
            constants.update((node.output[0], a.t) for a in node.attribute if a.name == "value")
    for node in graph.node:
        yield from _operands(node, constants)
        for attribute in node.attribute:
            yield from _attribute(attribute)


def _operands(node: NodeProto, constants: dict[str, TensorProto]) -> Iterator[int]:
    from onnx import TensorProto, numpy_helper

    for name in node.input[1:]:
        tensor = constants.get(name)
        if tensor is None:
            continue
        if node.op_type in _PRODUCTS and len(tensor.dims) == 2:
            yield from tensor.dims
        is_whole = tensor.data_type in (TensorProto.INT64, TensorProto.INT32)
        is_few = all(0 <= d <= _FEW for d in tensor.dims) and len(tensor.dims) <= 1
        if node.op_type in _SHAPED and is_whole and is_few:
            numbers = [int(n) for n in numpy_helper.to_array(tensor).reshape(-1)]
            yield from numbers
            if node.op_type == "Reshape":
                # What an axis has that is split into these.
                yield math.prod(n for n in numbers if n > 0)


def _attribute(attribute: AttributeProto) -> Iterator[int]:
    if attribute.name in _SIZED_ATTRIBUTES:
        yield from attribute.ints
        if attribute.i:
            yield attribute.i
    for inner in (attribute.g, *attribute.graphs):
        yield from _numbers(inner)
