"""Operators that move or rename elements. Most become views; the others one strided copy."""

from __future__ import annotations

from dataclasses import replace

from wasmgraph.kernels.padding import PadConstant
from wasmgraph.optimise.opgraph import Op
from wasmgraph.optimise.select.builder import Builder
from wasmgraph.optimise.select.destinations import permutation
from wasmgraph.optimise.view import order_for_reshape


def reshape(builder: Builder, op: Op) -> bool:
    """reshape, squeeze, expand_dims, flatten."""
    shape = builder.graph.tensors[op.outputs[0]].shape
    view = builder.view(op.inputs[0])
    result = view.reshaped(shape)
    if result is None:
        order = None if op.outputs[0] in builder.graph.outputs else order_for_reshape(view, shape)
        result = builder.dense(view, op.nodes, order).reshaped(shape)
    assert result is not None
    builder.set(op.outputs[0], result)
    return True


def permute(builder: Builder, op: Op) -> bool:
    """permute_dims."""
    view = builder.view(op.inputs[0])
    builder.set(op.outputs[0], view.permuted(permutation(op, len(view.shape))))
    return True


def broadcast(builder: Builder, op: Op) -> bool:
    """broadcast_to."""
    shape = builder.graph.tensors[op.outputs[0]].shape
    builder.set(op.outputs[0], builder.view(op.inputs[0]).broadcast(shape))
    return True


def slice_(builder: Builder, op: Op) -> bool:
    """strided_slice; its bounds were clamped by the importer and its steps are positive."""
    view = builder.view(op.inputs[0])
    shape = builder.graph.tensors[op.outputs[0]].shape
    axes, begins = (_numbers(argument) for argument in op.call.args[1:3])
    steps = _numbers(op.call.args[4]) if len(op.call.args) > 4 else [1] * len(axes)
    for axis, begin, step in zip(axes, begins, steps, strict=True):
        if step < 1:
            return False
        extent = view.shape[axis]
        start = min(max(begin + extent if begin < 0 else begin, 0), extent)
        view = view.sliced(axis, start, shape[axis], step)
    builder.set(op.outputs[0], view)
    return True


def _numbers(argument: object) -> list[int]:
    return [int(getattr(item, "value", item)) for item in argument]  # type: ignore[attr-defined]


def split(builder: Builder, op: Op) -> bool:
    """split: a view per part."""
    view = builder.view(op.inputs[0])
    axis = int(op.attrs.axis) % len(view.shape)
    begin = 0
    for output in op.outputs:
        count = builder.graph.tensors[output].shape[axis]
        builder.set(output, view.sliced(axis, begin, count))
        begin += count
    return True


def take(builder: Builder, op: Op) -> bool:
    """take of one constant index: a slice."""
    index = builder.value(op.inputs[1])
    if index is None or index.size != 1 or op.attrs.axis is None:
        return False
    view = builder.view(op.inputs[0])
    axis = int(op.attrs.axis) % len(view.shape)
    sliced = view.sliced(axis, int(index.reshape(())), 1)
    result = sliced.reshaped(builder.graph.tensors[op.outputs[0]].shape)
    if result is None:
        return False
    builder.set(op.outputs[0], result)
    return True


def concat(builder: Builder, op: Op) -> bool:
    """concat: each part that was not written to its place is copied there.

    Where none was, the result has the order of axes of the largest part.
    """
    result = op.outputs[0]
    axis = int(op.attrs.axis) % len(builder.graph.tensors[result].shape)
    parts = [builder.view(tensor) for tensor in op.inputs]
    if not builder.is_placed(result):
        largest = max(parts, key=lambda view: (view.size, not view.is_dense()))
        builder.set(result, builder.place(result, largest.order()))
    out = builder.view(result)
    begin = 0
    for part in parts:
        target = out.sliced(axis, begin, part.shape[axis])
        if part.size and not (
            (part.storage, part.offset) == (target.storage, target.offset)
            and part.lies_like(target)
        ):
            builder.copy(part, target, op.nodes)
        begin += part.shape[axis]
    return True


def pad(builder: Builder, op: Op) -> bool:
    """nn.pad with a constant, of float32."""
    info = builder.graph.tensors[op.outputs[0]]
    if op.attrs.pad_mode != "constant" or info.dtype != "float32":
        return False
    widths = [int(width) for width in op.attrs.pad_width]
    if min(widths) < 0:
        return False
    view = builder.view(op.inputs[0])
    order = view.order()
    if view.shape[order[-1]] > 1 and view.strides[order[-1]] != 1:
        view = builder.dense(view, op.nodes)
        order = view.order()
    out = builder.allocate(info.shape, order=order)
    kernel = PadConstant(
        tuple(view.shape[a] for a in order),
        tuple(view.strides[a] for a in order),
        tuple(widths[2 * a] for a in order),
        tuple(widths[2 * a + 1] for a in order),
        float(op.attrs.pad_value),
    )
    builder.emit(kernel, [view], [out], op.nodes, "pad")
    builder.set(op.outputs[0], out)
    return True


def bit_cast(builder: Builder, op: Op) -> None:
    """The opaque call of this name: a view with another dtype of the same size."""
    view = builder.view(op.inputs[0])
    builder.set(op.outputs[0], replace(view, dtype=builder.graph.tensors[op.outputs[0]].dtype))
