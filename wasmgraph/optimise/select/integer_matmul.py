"""Matrix products of integers, with weights or with both operands computed."""

from __future__ import annotations

from wasmgraph.kernels.contraction import BatchAxis
from wasmgraph.kernels.integer_columns import PackIntegerColumns
from wasmgraph.kernels.integer_packing import pack_integer_columns, packed_depth
from wasmgraph.kernels.rows import merge_axes
from wasmgraph.kernels.tiles import LANES, column_blocks
from wasmgraph.optimise.fuse import Group
from wasmgraph.optimise.select.builder import Builder
from wasmgraph.optimise.select.integer_products import (
    Product,
    columns_of_groups,
    emit_integer_product,
)
from wasmgraph.optimise.view import View


def select_integer_matmul(builder: Builder, group: Group) -> bool:
    """Inputs: rows, weights [k, column], multipliers (if scaled), bias."""
    anchor = group.anchor
    assert anchor is not None
    weights = builder.value(anchor.inputs[1])
    assert weights is not None
    info = builder.graph.tensors[group.output]
    a = _adjacent_depth(builder, builder.view(anchor.inputs[0]), group.nodes)
    depth, columns = weights.shape
    rows = merge_axes([*zip(a.shape[:-1], a.strides[:-1], strict=True)])
    product = Product((), rows, ((depth, 1),), columns, len(info.shape) - 1)
    name = builder.graph.tensors[anchor.inputs[1]].name
    b = builder.weight(pack_integer_columns(weights, product.reduce), name)
    *multipliers, bias = anchor.inputs[2:]
    start = builder.value(bias)
    emit_integer_product(
        builder,
        group,
        product,
        a,
        b,
        # One that is computed has its length already.
        builder.view(bias) if start is None else builder.weight(columns_of_groups(start, product)),
        builder.value(multipliers[0]) if multipliers else None,
        builder.allocate(info.shape, info.dtype),
    )
    return True


def select_integer_matmul_of_two(builder: Builder, group: Group) -> bool:
    """Inputs: rows, columns, and a multiplier if scaled; the columns are packed first."""
    anchor = group.anchor
    assert anchor is not None
    parameters = anchor.attrs.parameters
    info = builder.graph.tensors[group.output]
    a = _adjacent_depth(builder, builder.view(anchor.inputs[0]), group.nodes)
    b = builder.view(anchor.inputs[1])
    lead = info.shape[:-2]
    depth, columns = b.shape[-2:]
    packed, bias = _packed(builder, b, parameters["zero_b"], parameters["zero_a"], group.nodes)
    wide = a.broadcast((*lead, *a.shape[-2:]))
    out = builder.allocate(info.shape, info.dtype)
    b_steps = packed.broadcast((*lead, packed.shape[-1])).strides
    bias_steps = bias.broadcast((*lead, bias.shape[-1])).strides
    batch = tuple(
        BatchAxis(n, wide.strides[i], b_steps[i], out.strides[i], bias_steps[i])
        for i, n in enumerate(lead)
    )
    rows = ((info.shape[-2], wide.strides[-2]),)
    product = Product(batch, rows, ((depth, 1),), columns, len(info.shape) - 1, len(lead))
    multiplier = builder.value(anchor.inputs[2]) if len(anchor.inputs) > 2 else None
    emit_integer_product(builder, group, product, wide, packed, bias, multiplier, out)
    return True


def _adjacent_depth(builder: Builder, a: View, nodes: frozenset[int]) -> View:
    return builder.dense(a, nodes) if a.shape[-1] > 1 and a.strides[-1] != 1 else a


def _packed(
    builder: Builder, b: View, zero: int, a_zero: int, nodes: frozenset[int]
) -> tuple[View, View]:
    """The packed columns of every matrix, and the biases that the rows' zero point makes."""
    if 1 not in b.strides[-2:]:
        b = builder.dense(b, nodes)
    *batch, depth, columns = b.shape
    padded = LANES * sum(column_blocks(columns))
    packed = builder.allocate((*batch, packed_depth(((depth, 1),)) * padded), "int16")
    bias = builder.allocate((*batch, padded), "int32")
    depth_stride, column_stride = b.strides[-2:]
    if column_stride != 1 and columns == 1:
        column_stride = 1
    axes = tuple(zip(batch, b.strides[:-2], strict=True))
    kernel = PackIntegerColumns(
        axes, depth, columns, depth_stride, column_stride, b.dtype, zero, a_zero
    )
    builder.emit(kernel, [b], [packed, bias], nodes, "pack")
    return packed, bias
