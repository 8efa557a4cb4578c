"""Matrix products, batched and broadcast, with weights or with both operands computed."""

from __future__ import annotations

from wasmgraph.kernels.contraction import BatchAxis
from wasmgraph.kernels.packing import packed_columns
from wasmgraph.kernels.rows import merge_axes
from wasmgraph.optimise.fuse import Group
from wasmgraph.optimise.select.builder import Builder
from wasmgraph.optimise.select.destinations import permutation
from wasmgraph.optimise.select.products import Product, Weights, emit_product, rows_are_even
from wasmgraph.optimise.view import View, dense_strides, element_count


def select_matmul(builder: Builder, group: Group) -> bool:
    anchor = group.anchor
    assert anchor is not None
    a, b = (builder.view(t) for t in anchor.inputs)
    shape = builder.graph.tensors[anchor.outputs[0]].shape
    if len(a.shape) < 2 or len(b.shape) < 2:
        return False
    constant = builder.value(anchor.inputs[1])
    depth, columns = b.shape[-2:]
    order = _product_order(builder, group, shape)
    lead = shape[:-2]
    wide_a = a.broadcast((*lead, *a.shape[-2:]))
    if constant is not None and element_count(constant.shape[:-2]) == 1:
        name = builder.graph.tensors[anchor.inputs[1]].name
        weight = Weights(constant.reshape(depth, columns), name)
        rows = [*zip(lead, wide_a.strides[:-2], strict=True), (shape[-2], wide_a.strides[-2])]
        product = Product(
            (), merge_axes(rows), ((depth, wide_a.strides[-1]),), columns, 0, len(shape) - 1
        )
        dense = View(-1, 0, shape, dense_strides(shape, order), "float32")
        if not rows_are_even(dense, product):
            order = None
        emit_product(builder, group, product, wide_a, weight, order, "matmul")
        return True
    weights_or_view: View | Weights = b
    if constant is not None:
        weights_or_view = Weights(constant, builder.graph.tensors[anchor.inputs[1]].name)
        size = packed_columns(columns, builder.tiles) * depth
        b_batch, b_row = tuple(size * s for s in dense_strides(constant.shape[:-2])), 0
    else:
        if columns > 1 and b.strides[-1] != 1:
            b = builder.dense(b, group.nodes)
        b_batch, b_row = b.strides[:-2], b.strides[-2]
        if b_row == 0:
            b = builder.dense(b, group.nodes)
            b_batch, b_row = b.strides[:-2], b.strides[-2]
        weights_or_view = b
    missing = len(lead) - len(b_batch)
    old = (1,) * missing + tuple(builder.graph.tensors[anchor.inputs[1]].shape[:-2])
    steps = (0,) * missing + tuple(b_batch)
    steps = tuple(0 if o == 1 else s for o, s in zip(old, steps, strict=True))
    batch = tuple(BatchAxis(n, wide_a.strides[i], steps[i], out=0) for i, n in enumerate(lead))
    product = Product(
        batch,
        ((shape[-2], wide_a.strides[-2]),),
        ((depth, wide_a.strides[-1]),),
        columns,
        b_row,
        len(shape) - 1,
    )
    emit_product(builder, group, product, wide_a, weights_or_view, order, "matmul")
    return True


def _product_order(
    builder: Builder, group: Group, shape: tuple[int, ...]
) -> tuple[int, ...] | None:
    """If all that reads the product is one transpose that keeps columns innermost, its order."""
    readers = [op for op in builder.graph.ops if group.output in op.inputs]
    if group.output in builder.graph.outputs or len(readers) != 1:
        return None
    if readers[0].kind != "permute_dims":
        return None
    axes = permutation(readers[0], len(shape))
    return axes if axes[-1] == len(shape) - 1 else None
