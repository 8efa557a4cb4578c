"""Weights of at most 8 bits whose columns are cut into blocks, each with a scale and a zero point.

What weight-only quantisers make of the weights of products. This is their meaning, in numpy;
`stored` says how kernels hold and decode them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class BlockScaled:
    """A matrix [k, column] of (code - zero point) * scale, rounded to float32 once.

    Attributes:
        codes: uint8 [k, column].
        scales: float32 [blocks, column].
        zeros: float32 [blocks, column].
        block: How many k share a scale and a zero point; the last block may be shorter.
        bits: Of a code: 2, 4 or 8.
    """

    codes: NDArray[np.uint8]
    scales: NDArray[np.float32]
    zeros: NDArray[np.float32]
    block: int
    bits: int

    def decoded(self) -> NDArray[np.float32]:
        """float32 [k, column]"""
        depth = self.codes.shape[0]
        scales, zeros = (self._spread(values, depth) for values in (self.scales, self.zeros))
        return np.asarray((self.codes.astype(np.float32) - zeros) * scales, np.float32)

    def _spread(self, values: NDArray[Any], depth: int) -> NDArray[Any]:
        return np.repeat(values, min(self.block, depth), 0)[:depth]


class KnownBlocks:
    """Finds what a matrix was decoded from by its numbers, whatever became of its name.

    So what is found is exact, and what was changed on the way (scaled, cut) is not found.
    """

    def __init__(self, weights: Iterable[BlockScaled] = ()) -> None:
        self._by_digest = {_digest(each.decoded()): each for each in weights}

    def find(self, matrix: NDArray[Any]) -> BlockScaled | None:
        """What float32 [k, column] is, or None."""
        return self._by_digest.get(_digest(matrix)) if self._by_digest else None


def _digest(matrix: NDArray[Any]) -> bytes:
    """Of the shape and the elements."""
    digest = hashlib.blake2b(repr((matrix.shape, matrix.dtype.name)).encode())
    digest.update(np.ascontiguousarray(matrix).data)
    return digest.digest()
