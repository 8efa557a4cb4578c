"""Products of rows and columns as kernels: what matrix products and convolutions have in common."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wasmgraph.kernels.block_stored import BlockFormat, pack_blocks
from wasmgraph.kernels.chain import IDENTITY
from wasmgraph.kernels.contraction import BatchAxis, Contraction
from wasmgraph.kernels.exact_storage import MIN_ELEMENTS, StoredWeights, store_exactly
from wasmgraph.kernels.operands import RowOperand
from wasmgraph.kernels.packing import pack_columns, packed_columns
from wasmgraph.kernels.stored import Stored
from wasmgraph.kernels.thin import MAX_COLUMNS, MIN_ADJACENT, ThinContraction
from wasmgraph.kernels.tiles import Tiles, column_blocks
from wasmgraph.optimise.fuse import Group
from wasmgraph.optimise.select.bias import peel_bias
from wasmgraph.optimise.select.builder import Builder
from wasmgraph.optimise.select.elementwise import describe, emit_chain
from wasmgraph.optimise.view import View, dense_strides, merged_axes


@dataclass(frozen=True)
class Product:
    """A contraction before it is known where its result lies.

    Attributes:
        batch: Groups of a convolution, whose channel axis is 1; or the first axes of a matrix
            product, whose strides in the result are filled in later.
        rows, reduce, columns, b_row: As in `Contraction`.
        channel_axis: The result's axis of columns.
    """

    batch: tuple[BatchAxis, ...]
    rows: tuple[tuple[int, int], ...]
    reduce: tuple[tuple[int, int], ...]
    columns: int
    b_row: int
    channel_axis: int

    @property
    def leading(self) -> int:
        """How many axes of the result count batches."""
        return len(self.batch) if self.channel_axis != 1 else 0

    def into(self, out: View) -> Product:
        """With the batches' strides in the result."""
        batch = tuple(
            replace(axis, out=out.strides[index]) if index < self.leading else axis
            for index, axis in enumerate(self.batch)
        )
        return replace(self, batch=batch)


@dataclass(frozen=True)
class Weights:
    """b as a constant: float32 [batch..., k, column], and its name."""

    array: NDArray[Any]
    name: str


def packed_factor(
    builder: Builder, weights: Weights, tiles: Tiles
) -> tuple[Stored | BlockFormat, list[View]]:
    """Weights packed for a matrix product, as `packed_weights` does or as the model has them."""
    array = weights.array
    blocks = None
    if builder.options.small_weights and array.ndim == 2 and array.size >= MIN_ELEMENTS:
        blocks = builder.graph.known_blocks.find(array)
    if blocks is None:
        return packed_weights(builder, weights, tiles)
    form, packed = pack_blocks(blocks, column_blocks(array.shape[1], tiles))
    padded = array.shape[0] * packed_columns(array.shape[1], tiles)
    if packed.size >= padded:
        # Bytes with scales alone, one per column, take less.
        stored, views = packed_weights(builder, weights, tiles)
        if stored != "float32" or packed.size >= 4 * padded:
            return stored, views
    return form, [builder.weight(packed, weights.name, 4 * padded)]


def packed_weights(builder: Builder, weights: Weights, tiles: Tiles) -> tuple[Stored, list[View]]:
    """Weights packed for a product, in the smallest form that is exact.

    Returns:
        As what they are stored, and the product's operands: b, and its scales if it has any.
    """
    array = weights.array
    found = store_exactly(array) if builder.options.small_weights else StoredWeights(array)
    packed = pack_columns(found.array, tiles)
    views = [builder.weight(packed, weights.name, 4 * packed.size)]
    if found.scales is not None:
        scales = np.zeros(packed_columns(array.shape[-1], tiles), np.float32)
        scales[: array.shape[-1]] = found.scales
        views.append(builder.weight(scales, f"{weights.name}/scales", 0))
    return found.stored, views


def emit_product(
    builder: Builder,
    group: Group,
    product: Product,
    a: View,
    b: View | Weights,
    order: Sequence[int] | None,
    name: str,
) -> None:
    """The contraction with as much of the chain as its operands allow, then the rest.

    Args:
        order: Of the result's axes in memory, in which its rows are evenly spaced; C by default.
    """
    if isinstance(b, Weights) and _is_thin(product):
        _emit_thin(builder, group, product, a, b, order, name)
        return
    stored: Stored | BlockFormat = "float32"
    columns = [b] if isinstance(b, View) else []
    if isinstance(b, Weights) and len(product.reduce) == 1:
        stored, columns = packed_factor(builder, b, builder.tiles)
    elif isinstance(b, Weights):
        stored, columns = packed_weights(builder, b, builder.tiles)
    bias, chain, tensors = peel_bias(builder, group, product.channel_axis)
    shape = builder.graph.tensors[group.output].shape
    dense = View(-1, 0, shape, dense_strides(shape, order), "float32")
    views = [_readable(builder, builder.view(t), dense, product, group.nodes) for t in tensors]
    fits = all(_row_operand(view, dense, product) is not None for view in views)
    out = _room(builder, group, product, order, last=fits)
    product = product.into(out)
    operands = [_row_operand(view, out, product) for view in views]
    reads = [a, *columns]
    if bias is not None:
        reads.append(builder.weight(bias))
        name += " + bias"
    kernel = Contraction(
        batch=product.batch,
        rows=product.rows,
        out_row=_row_stride(out, product),
        reduce=product.reduce,
        columns=product.columns,
        b_row=product.b_row,
        has_bias=bias is not None,
        chain=chain if fits else IDENTITY,
        operands=tuple(o for o in operands if o is not None) if fits else (),
        tiles=builder.tiles,
        stored=stored,
    )
    writes = [out]
    if kernel.scratch_nbytes:
        writes.append(builder.allocate((kernel.scratch_nbytes // 4,)))
    if fits:
        # A weight must be adjacent along the columns, which its C order need not be.
        builder.emit(kernel, [*reads, *views], writes, group.nodes, describe(chain, name))
        builder.set(group.output, out)
    else:
        builder.emit(kernel, reads, writes, group.nodes, name)
        emit_chain(builder, chain, [out, *views], group.output, group.nodes)


def _room(
    builder: Builder, group: Group, product: Product, order: Sequence[int] | None, last: bool
) -> View:
    """Where a product is written: its place, unless more of the group has to be done to it."""
    if not last:
        return builder.allocate(builder.graph.tensors[group.output].shape, order=order)
    return builder.place(group.output, order, lambda view: rows_are_even(view, product))


def _is_thin(product: Product) -> bool:
    adjacent, stride = product.reduce[-1]
    return (
        product.columns <= MAX_COLUMNS
        and not product.batch
        and stride == 1
        and adjacent >= MIN_ADJACENT
    )


def _emit_thin(
    builder: Builder,
    group: Group,
    product: Product,
    a: View,
    b: Weights,
    order: Sequence[int] | None,
    name: str,
) -> None:
    """Few columns: dot products, with the chain if it reads nothing else."""
    bias, chain, tensors = peel_bias(builder, group, product.channel_axis)
    out = _room(builder, group, product, order, last=not tensors)
    fused = chain if not tensors else IDENTITY
    kernel = ThinContraction(
        product.rows,
        _row_stride(out, product),
        product.reduce,
        product.columns,
        bias is not None,
        fused,
    )
    columns = np.moveaxis(b.array.reshape(-1, product.columns), 0, 1)
    reads = [a, builder.weight(np.ascontiguousarray(columns, np.float32), b.name)]
    if bias is not None:
        reads.append(builder.weight(bias))
        name += " + bias"
    builder.emit(kernel, reads, [out], group.nodes, describe(fused, name))
    if tensors:
        views = [out, *(builder.view(tensor) for tensor in tensors)]
        emit_chain(builder, chain, views, group.output, group.nodes)
    else:
        builder.set(group.output, out)


def rows_are_even(view: View, product: Product) -> bool:
    """Whether all rows of a batch are one stride apart."""
    return len(_row_axes(view, product)[0]) == 1


def _row_stride(out: View, product: Product) -> int:
    """Elements from one output row to the next."""
    (_,), ((stride,),) = _row_axes(out, product)
    return stride


def _row_axes(view: View, product: Product) -> tuple[tuple[int, ...], tuple[tuple[int, ...], ...]]:
    """The axes of a view (broadcast to the output) that count rows, merged."""
    axes = [a for a in range(product.leading, len(view.shape)) if a != product.channel_axis]
    return merged_axes([view.shape[a] for a in axes], [view.strides[a] for a in axes])


def _readable(
    builder: Builder, view: View, out: View, product: Product, nodes: frozenset[int]
) -> View:
    """An operand with its columns adjacent or all the same."""
    column = view.broadcast(out.shape).strides[product.channel_axis]
    if column in (0, 1) or out.shape[product.channel_axis] == 1:
        return view
    missing = len(out.shape) - len(view.shape)
    order = [axis - missing for axis in out.order() if axis >= missing]
    return builder.dense(view, nodes, order)


def _row_operand(view: View, out: View, product: Product) -> RowOperand | None:
    """How the contraction reads an operand, or None if its rows are not evenly spaced."""
    wide = view.broadcast(out.shape)
    column = wide.strides[product.channel_axis]
    if out.shape[product.channel_axis] == 1:
        column = 0
    shape, (strides,) = _row_axes(wide, product)
    if len(shape) != 1 or column not in (0, 1):
        return None
    if product.channel_axis == 1:
        batch = tuple(axis.out * column for axis in product.batch)
    else:
        batch = tuple(wide.strides[: len(product.batch)])
    return RowOperand(batch, strides[0], column)
