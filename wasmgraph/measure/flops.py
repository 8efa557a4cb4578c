"""How many floating-point operations a model takes: what a time is turned into GFLOP/s with.

Counted are convolutions and matrix products as they are defined, a multiplication and an addition
each (so a Winograd convolution may exceed the machine's limit). Everything element-wise is left
out, as is usual; it is little of the work in nearly every network. A model with operators whose
work would be missing from the count (an FFT, say) has no count at all rather than a wrong one.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from math import prod
from typing import Any

import onnx

from wasmgraph.errors import ModelError

UNCOUNTED = frozenset(
    {"Attention", "ConvInteger", "DFT", "DeformConv", "Det", "Einsum", "If", "Loop"}
    | {"MatMulInteger", "QLinearConv", "QLinearMatMul", "STFT", "Scan"}
)
"""Operators that do work of this kind and are not counted."""

Shape = tuple[int, ...]


def count_flops(
    model: onnx.ModelProto, shapes: Mapping[str, Sequence[int]] | None = None
) -> int | None:
    """Floating-point operations of one run.

    Args:
        model: The model; it is not changed.
        shapes: The shapes of inputs with open axes, by name.

    Returns:
        The count, or None where an operator's work is not counted or a shape is not to be told
        without running the model.

    Raises:
        ModelError: the model is invalid, or a shape does not fit it.
    """
    nodes = list(model.graph.node)
    if any(node.op_type in UNCOUNTED for node in nodes):
        return None
    known = _infer_shapes(model, shapes or {})
    total = 0
    for node in nodes:
        if node.op_type in _COUNTERS and node.domain in ("", "ai.onnx"):
            third = node.input[2] if node.op_type in _RECURRENT else node.output[0]
            operands = [known.get(name) for name in (*node.input[:2], third)]
            if any(shape is None for shape in operands):
                return None
            total += _COUNTERS[node.op_type](node, *operands)
    return total


def _attribute(node: onnx.NodeProto, name: str, default: int) -> int:
    return next((int(item.i) for item in node.attribute if item.name == name), default)


def _conv(_node: onnx.NodeProto, _data: Shape, weight: Shape, out: Shape) -> int:
    # weight: (out channels, in channels per group, kernel...)
    return 2 * prod(out) * prod(weight[1:])


def _conv_transpose(_node: onnx.NodeProto, data: Shape, weight: Shape, _out: Shape) -> int:
    # weight: (in channels, out channels per group, kernel...): every input element meets that many.
    return 2 * prod(data) * prod(weight[1:])


def _matmul(_node: onnx.NodeProto, a: Shape, _b: Shape, out: Shape) -> int:
    return 2 * prod(out) * a[-1]


def _gemm(node: onnx.NodeProto, a: Shape, _b: Shape, out: Shape) -> int:
    return 2 * prod(out) * a[0 if _attribute(node, "transA", 0) else 1]


def _recurrent(_node: onnx.NodeProto, data: Shape, weight: Shape, recurrent: Shape) -> int:
    # data: (steps, batch, size) in either order; the weights have an axis of directions, and every
    # step and row meets all of them.
    return 2 * prod(data[:2]) * (prod(weight) + prod(recurrent))


_RECURRENT = frozenset(["GRU", "LSTM", "RNN"])

_COUNTERS: Mapping[str, Any] = {
    **dict.fromkeys(_RECURRENT, _recurrent),
    "Conv": _conv,
    "ConvTranspose": _conv_transpose,
    "Gemm": _gemm,
    "MatMul": _matmul,
}


def _infer_shapes(model: onnx.ModelProto, shapes: Mapping[str, Sequence[int]]) -> dict[str, Shape]:
    """Every shape that is known, by tensor name."""
    weights = {tensor.name: tuple(tensor.dims) for tensor in model.graph.initializer}
    fixed = onnx.ModelProto()
    fixed.CopyFrom(model)
    del fixed.graph.value_info[:]  # with the open axes of an export
    for value in fixed.graph.input:
        if value.name in shapes:
            _fix(value, shapes[value.name])
    for value in fixed.graph.output:
        value.type.tensor_type.ClearField("shape")
    try:
        inferred = onnx.shape_inference.infer_shapes(fixed, data_prop=True)
    except (onnx.shape_inference.InferenceError, ValueError) as error:
        raise ModelError(f"the model's shapes cannot be inferred: {error}") from error
    graph = inferred.graph
    return {**dict(_static(*graph.input, *graph.value_info, *graph.output)), **weights}


def _fix(value: onnx.ValueInfoProto, shape: Sequence[int]) -> None:
    dims = value.type.tensor_type.shape.dim
    if len(dims) != len(shape):
        raise ModelError(
            f"input {value.name!r} has {len(dims)} axes, the shape {list(shape)} has {len(shape)}"
        )
    for dim, extent in zip(dims, shape, strict=True):
        dim.Clear()
        dim.dim_value = extent


def _static(*values: onnx.ValueInfoProto) -> Iterator[tuple[str, Shape]]:
    for value in values:
        tensor = value.type.tensor_type
        if tensor.HasField("shape") and all(d.HasField("dim_value") for d in tensor.shape.dim):
            yield value.name, tuple(d.dim_value for d in tensor.shape.dim)
