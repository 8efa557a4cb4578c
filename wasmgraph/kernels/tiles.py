"""Shapes of the tiles of matrix products: rows times vectors of columns, kept in registers.

In GFLOP/s, rows x vectors of columns (Wasmtime 50, one Zen 4 core at 3.6 GHz that does 58 at most,
240x240x256, 2026-11-20): 2x4 42.0, 3x3 40.3, 4x2 38.5, 5x2 37.1, 6x2 33.2; 3x4 and 4x3 28.3, since
with their operands they need more than 16 registers and Cranelift spills an accumulator. The inner
loop of 2x4 is 24 instructions for 64 FLOP: 4 loads, 16 multiplications and additions, 2 shuffles
and a branch that is never taken.
"""

from __future__ import annotations

LANES = 4

ROWS_OF_TILE = {4: 2, 3: 3, 2: 4, 1: 6}
"""Rows per tile, by vectors of columns; see the module's measurement."""

_COLUMN_COST = {4: 4.0, 3: 3.09, 2: 2.2, 1: 1.5}
"""Time per tile row relative to one full vector, from the same measurement."""


def column_blocks(columns: int) -> tuple[int, ...]:
    """How columns are cut: vectors per block, at most 4, the cheapest way."""
    vectors = -(-columns // LANES)
    best: dict[int, tuple[float, tuple[int, ...]]] = {0: (0.0, ())}
    for total in range(1, vectors + 1):
        best[total] = min(
            (best[total - size][0] + cost, (*best[total - size][1], size))
            for size, cost in _COLUMN_COST.items()
            if size <= total
        )
    return tuple(sorted(best[vectors][1], reverse=True))
