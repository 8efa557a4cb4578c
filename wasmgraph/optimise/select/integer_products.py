"""Products of integers as kernels: what matrix products and convolutions of them have in common."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wasmgraph.kernels.chain import Chain
from wasmgraph.kernels.contraction import BatchAxis
from wasmgraph.kernels.integer_contraction import IntegerContraction, TypedOperand
from wasmgraph.kernels.integer_packing import per_column
from wasmgraph.kernels.operands import RowOperand
from wasmgraph.kernels.rows import Axes
from wasmgraph.kernels.typed import numbers_apart
from wasmgraph.optimise.fuse import Group
from wasmgraph.optimise.select.builder import Builder
from wasmgraph.optimise.select.elementwise import describe
from wasmgraph.optimise.select.typed import number_operand, with_bounds_joined
from wasmgraph.optimise.view import View, merged_axes


@dataclass(frozen=True)
class Product:
    """A product of integers; see `IntegerContraction`.

    Attributes:
        channel_axis: The axis of the output that counts columns (of all batches, where `lead` is
            0).
        lead: How many leading axes of the output are the batch.
    """

    batch: tuple[BatchAxis, ...]
    rows: Axes
    reduce: Axes
    columns: int
    channel_axis: int
    lead: int = 0

    @property
    def groups(self) -> int:
        """How many vectors of columns there are, one after the other."""
        return self.batch[0].extent if self.batch and not self.lead else 1


def emit_integer_product(
    builder: Builder,
    group: Group,
    product: Product,
    a: View,
    b: View,
    bias: View | None,
    multiplier: NDArray[Any] | None,
    out: View,
) -> None:
    """The product, and what follows it.

    Args:
        b: Packed.
        bias: As long as the kernel wants it.
        multiplier: One, or one per column; None where the output is int32.
    """
    anchor = group.anchor
    assert anchor is not None
    chain = with_bounds_joined(group.chain)
    reads = [a, b, *([bias] if bias is not None else [])]
    if multiplier is not None:
        chain, multiplier = rescaled(chain, multiplier)
        reads.append(builder.weight(columns_of_groups(multiplier, product)))
    chain, numbers = numbers_apart(chain, out.dtype)
    reads += number_operand(builder, numbers)
    views = [builder.view(tensor) for tensor in group.operands]
    views = [_readable(builder, view, out, product, group.nodes) for view in views]
    kernel = IntegerContraction(
        batch=product.batch,
        rows=product.rows,
        out_row=_row_stride(out, product),
        reduce=product.reduce,
        columns=product.columns,
        a=a.dtype,
        b=b.dtype,
        out=out.dtype,
        has_bias=bias is not None,
        one_scale=product.lead > 0,
        chain=chain,
        operands=tuple(_operand(view, product) for view in views),
    )
    label = describe(group.chain, anchor.name.replace("integer_", "int8_"))
    writes = [out]
    if kernel.scratch_nbytes:
        writes.append(builder.allocate((kernel.scratch_nbytes,), "uint8"))
    builder.emit(kernel, [*reads, *views], writes, group.nodes, label)
    builder.set(group.output, out)


def columns_of_groups(vector: NDArray[Any], product: Product) -> NDArray[Any]:
    """A vector with an element per column of every group, as long as the kernel wants it."""
    return per_column(vector.reshape(product.groups, -1), product.columns)


def rescaled(chain: Chain, multiplier: NDArray[Any]) -> tuple[Chain, NDArray[Any]]:
    """Where the sum is quantised at once, its multiplier over the scale, like onnxruntime."""
    if [step.op for step in chain.steps] != ["quantise"] or chain.operands != 1:
        return chain, multiplier
    (last,) = chain.steps
    scale = np.float32(last.numbers[0])
    step = replace(last, numbers=(1.0, *last.numbers[1:]))
    return replace(chain, steps=(step,)), np.asarray(multiplier / scale, np.float32)


def _row_axes(view: View, product: Product) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Extents and strides of the axes that count rows, merged."""
    axes = [a for a in range(product.lead, len(view.shape)) if a != product.channel_axis]
    shape, (strides,) = merged_axes([view.shape[a] for a in axes], [view.strides[a] for a in axes])
    return shape, strides


def _row_stride(out: View, product: Product) -> int:
    shape, strides = _row_axes(out, product)
    assert len(shape) == 1, (shape, strides)
    return strides[0]


def _readable(
    builder: Builder, view: View, out: View, product: Product, nodes: frozenset[int]
) -> View:
    """An operand with its columns adjacent or all the same, and its rows evenly spaced."""
    wide = view.broadcast(out.shape)
    column = wide.strides[product.channel_axis]
    if len(_row_axes(wide, product)[0]) == 1 and column in (0, 1):
        return wide
    missing = len(out.shape) - len(view.shape)
    order: Sequence[int] = [axis - missing for axis in out.order() if axis >= missing]
    if view.shape == out.shape:
        return builder.dense(view, nodes, order)
    full = builder.allocate(out.shape, view.dtype, out.order())
    builder.copy(wide, full, nodes)
    return full


def _operand(wide: View, product: Product) -> TypedOperand:
    column = wide.strides[product.channel_axis] if wide.shape[product.channel_axis] > 1 else 0
    strides = _row_axes(wide, product)[1]
    if product.lead:
        batch = wide.strides[: product.lead]
    else:
        batch = tuple(axis.out * column for axis in product.batch)
    return TypedOperand(RowOperand(batch, strides[0], column), wide.dtype)
