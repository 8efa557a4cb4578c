"""Panels of matrices, as the executor's `fast` operators read them."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from wasmgraph.dynamic.view import Array


def pack(matrix: Array) -> NDArray[np.float32]:
    """Panels of 16 columns, then what is left up to whole vectors; in each, the rows in order.

    toolchain/executor/src/dynamic/fast/panels.rs reads it.
    """
    depth, columns = matrix.shape
    padded = np.zeros((depth, -(-columns // 4) * 4), np.float32)
    padded[:, :columns] = matrix
    parts, column = [], 0
    for width in panel_widths(columns):
        parts.append(padded[:, column : column + width].reshape(-1))
        column += width
    return np.concatenate(parts) if parts else np.zeros(0, np.float32)


def panel_widths(columns: int) -> list[int]:
    """How columns are cut into panels."""
    widths: list[int] = []
    while (left := columns - sum(widths)) > 0:
        widths.append(16 if left > 12 else 8 if left > 4 else 4)
    return widths
