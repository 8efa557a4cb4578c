"""Lays integer weights out in the order in which kernels read them."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from wasmgraph.kernels.rows import Axes
from wasmgraph.kernels.tiles import LANES, column_blocks


def packed_depth(reduce: Axes) -> int:
    """Steps of k as they lie in packed weights: the innermost axis is rounded up to even."""
    outer = 1
    for extent, _ in reduce[:-1]:
        outer *= extent
    return outer * (reduce[-1][0] + reduce[-1][0] % 2)


def pack_integer_columns(weights: NDArray[Any], reduce: Axes) -> NDArray[Any]:
    """Pack b for `IntegerContraction`: block by block of columns, in each all pairs of k.

    Args:
        weights: [batch..., k, column], of any integer dtype.
        reduce: The axes that k goes through; two k of the innermost one are a pair.

    Returns:
        [batch..., packed depth * columns rounded up to whole vectors], of the same dtype; for
        every pair the columns, both k of a column adjacent. What is missing is zero.
    """
    *batch, _, columns = weights.shape
    inner = reduce[-1][0]
    blocks = column_blocks(columns)
    padded = sum(blocks) * LANES
    depth = packed_depth(reduce)
    full = np.zeros(
        (*batch, depth // (inner + inner % 2), inner + inner % 2, padded), weights.dtype
    )
    full[..., :inner, :columns] = weights.reshape(*batch, -1, inner, columns)
    pairs = full.reshape(*batch, depth // 2, 2, padded).swapaxes(-1, -2)
    parts, start = [], 0
    for vectors in blocks:
        part = pairs[..., start : start + vectors * LANES, :]
        parts.append(part.reshape(*batch, depth * vectors * LANES))
        start += vectors * LANES
    return np.ascontiguousarray(np.concatenate(parts, axis=-1))


def per_column(vector: NDArray[Any], columns: int) -> NDArray[Any]:
    """[..., columns] (or one element for all) with zeros up to whole vectors."""
    wide = np.broadcast_to(vector, (*vector.shape[:-1], columns))
    padded = np.zeros((*vector.shape[:-1], sum(column_blocks(columns)) * LANES), vector.dtype)
    padded[..., :columns] = wide
    return padded
