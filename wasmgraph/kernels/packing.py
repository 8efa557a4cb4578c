"""Lays weights out in the order in which kernels read them."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from wasmgraph.kernels.tiles import LANES, SEPARATE, Tiles, column_blocks


def packed_columns(columns: int, tiles: Tiles = SEPARATE) -> int:
    """Columns rounded up to whole vectors."""
    return sum(column_blocks(columns, tiles)) * LANES


def pack_columns(weights: NDArray[Any], tiles: Tiles = SEPARATE) -> NDArray[Any]:
    """Pack b for `Contraction`: block by block of columns, in each all k, in each the columns.

    Args:
        weights: [batch..., k, column], of a dtype as which weights are stored.
        tiles: Those of the contraction.

    Returns:
        [batch..., k * columns rounded up to whole vectors]; missing columns are zero.
    """
    *batch, depth, columns = weights.shape
    blocks = column_blocks(columns, tiles)
    padded = packed_columns(columns, tiles)
    full = np.zeros((*batch, depth, padded), weights.dtype)
    full[..., :columns] = weights
    parts, start = [], 0
    for vectors in blocks:
        width = vectors * LANES
        part = full[..., start : start + width]
        parts.append(part.reshape(*batch, depth * width))
        start += width
    return np.ascontiguousarray(np.concatenate(parts, axis=-1))
