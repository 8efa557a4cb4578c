"""Element-wise groups that read or write other types than float32."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wasmgraph.kernels.chain import Chain, Step
from wasmgraph.kernels.chain_values import chain_values
from wasmgraph.kernels.lookup import Lookup
from wasmgraph.kernels.typed import numbers_apart
from wasmgraph.kernels.typed_elementwise import TypedElementwise
from wasmgraph.optimise.fuse import Group
from wasmgraph.optimise.select.builder import Builder
from wasmgraph.optimise.select.elementwise import _weight_of, describe, readable
from wasmgraph.optimise.view import View, merged_axes

MIN_STEPS = 8
"""From so many steps on a function of one byte is a table; shorter ones take less time than its
loads."""


def is_typed(builder: Builder, group: Group) -> bool:
    """Whether a group without an anchor has anything but float32 at its edges."""
    tensors = builder.graph.tensors
    return any(tensors[t].dtype != "float32" for t in (*group.operands, group.output))


def select_typed(builder: Builder, group: Group) -> None:
    """A kernel for a group without an anchor."""
    views = [builder.view(tensor) for tensor in group.operands]
    emit_typed(builder, group.chain, views, group.output, group.nodes)


def emit_typed(
    builder: Builder,
    chain: Chain,
    views: Sequence[View],
    output: int,
    nodes: frozenset[int],
) -> None:
    """Compute a tensor by a chain; it lies in the order of the largest operand."""
    info = builder.graph.tensors[output]
    full = [view for view in views if view.shape == info.shape]
    order = max(full, key=_weight_of).order() if full else None
    out = builder.place(output, order)
    wide = [readable(builder, view, info.shape, out, nodes) for view in views]
    axes = out.order()

    def arranged(values: Sequence[int]) -> tuple[int, ...]:
        return tuple(values[axis] for axis in axes)

    merged, strides = merged_axes(
        arranged(info.shape), arranged(out.strides), *(arranged(view.strides) for view in wide)
    )
    dtypes = tuple(view.dtype for view in (*wide, out))
    table = _table(chain, wide, out.dtype)
    if table is not None:
        lookup = Lookup(merged, strides[1], strides[0], out.itemsize)
        reads = [builder.weight(table, "table"), *wide]
        builder.emit(lookup, reads, [out], nodes, describe(chain))
        builder.set(output, out)
        return
    split, numbers = numbers_apart(with_bounds_joined(chain), out.dtype)
    kernel = TypedElementwise(merged, strides[0], strides[1:], split, dtypes)
    reads = [*number_operand(builder, numbers), *wide]
    builder.emit(kernel, reads, [out], nodes, describe(chain))
    builder.set(output, out)


def _table(chain: Chain, views: Sequence[View], dtype: str) -> NDArray[Any] | None:
    """The 256 results of a long function of one byte."""
    if len(views) != 1 or views[0].dtype not in ("int8", "uint8"):
        return None
    if len(chain.steps) < MIN_STEPS and not chain.is_costly:
        return None
    values = chain_values(chain, [np.arange(256).astype(np.uint8).view(views[0].dtype)])
    return None if values is None else values.astype(dtype)


def number_operand(builder: Builder, numbers: NDArray[Any]) -> list[View]:
    """The numbers of a chain as a kernel's operand, if there are any."""
    return [builder.weight(numbers, "numbers")] if numbers.size else []


def with_bounds_joined(chain: Chain) -> Chain:
    """The chain without a clip or a ReLU right before it is quantised: both only bound.

    Rounding keeps order, so it does not matter which comes first.
    """
    while len(chain.steps) > 1 and chain.steps[-1].op == "quantise":
        *before, bound, last = chain.steps
        scale, zero, low, high = last.numbers
        if bound.op == "relu":
            limits = (0.0, np.inf)
        elif bound.op == "clip":
            limits = (bound.numbers[0], bound.numbers[1])
        else:
            break
        least, most = (float(np.rint(np.float32(x) / np.float32(scale))) for x in limits)
        bounds = (min(max(low, least), high), max(min(high, most), low))
        joined = Step("quantise", bound.args, (scale, zero, *bounds))
        chain = replace(chain, steps=(*before, joined))
    return chain
