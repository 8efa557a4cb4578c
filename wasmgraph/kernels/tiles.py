"""Shapes of the tiles of matrix products: rows times vectors of columns, kept in registers.

In GFLOP/s, rows x vectors of columns (Wasmtime 50, one Zen 4 core at 3.6 GHz that does 58 at most,
240x240x256, 2026-11-20): 2x4 42.0, 3x3 40.3, 4x2 38.5, 5x2 37.1, 6x2 33.2; 3x4 and 4x3 28.3, since
with their operands they need more than 16 registers and Cranelift spills an accumulator. The inner
loop of 2x4 is 24 instructions for 64 FLOP: 4 loads, 16 multiplications and additions, 2 shuffles
and a branch that is never taken.

Fused, Cranelift overwrites a factor with every sum (vfmadd213), so that there are copies of factors
and, from 8 accumulators on, spills: 3x2 40.1, 2x3 39.4, 6x1 34.9, 2x4 34.6, 4x2 34.7, 5x1 31.4, 1x4
29.3, 6x2 29.9, 3x3 22.9, where separate multiplications and additions gave 39.3 in the same run.
What bounds 3x2 is the latency of its 6 sums, 43 GFLOP/s. No other order of the factors and no other
way to spread them (a load of every single one) was quicker.
"""

from __future__ import annotations

from dataclasses import dataclass

LANES = 4


@dataclass(frozen=True)
class Tiles:
    """What shapes there are; see the module's measurements.

    Attributes:
        shapes: (vectors of columns, rows, time per row relative to one of the best vectors).
        fused: Whether a product is added in the same instruction, where there is one.
    """

    shapes: tuple[tuple[int, int, float], ...]
    fused: bool

    def rows(self, vectors: int) -> int:
        """Rows per tile of so many vectors."""
        return next(rows for width, rows, _ in self.shapes if width == vectors)


SEPARATE = Tiles(((4, 2, 4.0), (3, 3, 3.09), (2, 4, 2.2), (1, 6, 1.5)), fused=False)
FUSED = Tiles(((3, 2, 3.05), (2, 3, 2.0), (1, 6, 1.15)), fused=True)


def column_blocks(columns: int, tiles: Tiles = SEPARATE) -> tuple[int, ...]:
    """How columns are cut: vectors per block, the cheapest way."""
    vectors = -(-columns // LANES)
    best: dict[int, tuple[float, tuple[int, ...]]] = {0: (0.0, ())}
    for total in range(1, vectors + 1):
        best[total] = min(
            (best[total - size][0] + cost, (*best[total - size][1], size))
            for size, _, cost in tiles.shapes
            if size <= total
        )
    return tuple(sorted(best[vectors][1], reverse=True))
