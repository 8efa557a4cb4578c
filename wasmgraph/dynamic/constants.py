"""The constants of a program while it is changed."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence

import numpy as np

from wasmgraph.dynamic.view import Array, Value
from wasmgraph.kernels.block_scaled import BlockScaled, KnownBlocks
from wasmgraph.kernels.exact_storage import MIN_ELEMENTS


class Constants:
    """Arrays by slot; new ones get new slots.

    Attributes:
        slots: How many slots there are.
    """

    def __init__(
        self,
        constants: Sequence[tuple[Value, str]],
        slots: int,
        blocks: Iterable[BlockScaled] = (),
    ) -> None:
        self._known = {value.slot: (value, name) for value, name in constants}
        self._narrowed: dict[int, int] = {}
        self._blocks = KnownBlocks(blocks)
        self.slots = slots

    def blocks(self, matrix: Array) -> BlockScaled | None:
        """What a matrix was decoded from, where that takes less and is not little anyway."""
        return self._blocks.find(matrix) if matrix.size >= MIN_ELEMENTS else None

    def array(self, slot: int | None) -> Array | None:
        """The elements of a slot, if it is a constant."""
        if slot is None or slot not in self._known:
            return None
        return self._known[slot][0].constant

    def name(self, slot: int) -> str:
        """What a constant is called."""
        return self._known[slot][1]

    def add(self, array: Array, name: str, wide_nbytes: int | None = None) -> int:
        """A new constant's slot.

        Args:
            wide_nbytes: What it would take as float32, where it is stored as something else.
        """
        slot, self.slots = self.slots, self.slots + 1
        array = np.ascontiguousarray(array).reshape(array.shape)
        self._known[slot] = (Value(slot, array.dtype.name, array), name)
        if wide_nbytes is not None:
            self._narrowed[slot] = wide_nbytes - array.nbytes
        return slot

    def narrowed(self, slots: Collection[int]) -> int:
        """How many bytes more these would take as float32."""
        return sum(nbytes for slot, nbytes in self._narrowed.items() if slot in slots)

    def used(self, slots: Collection[int]) -> list[tuple[Value, str]]:
        """Those among these slots."""
        return [entry for slot, entry in self._known.items() if slot in slots]
