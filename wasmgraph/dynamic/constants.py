"""The constants of a program while it is changed."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import numpy as np

from wasmgraph.dynamic.view import Array, Value


class Constants:
    """Arrays by slot; new ones get new slots.

    Attributes:
        slots: How many slots there are.
    """

    def __init__(self, constants: Sequence[tuple[Value, str]], slots: int) -> None:
        self._known = {value.slot: (value, name) for value, name in constants}
        self.slots = slots

    def array(self, slot: int | None) -> Array | None:
        """The elements of a slot, if it is a constant."""
        if slot is None or slot not in self._known:
            return None
        return self._known[slot][0].constant

    def name(self, slot: int) -> str:
        """What a constant is called."""
        return self._known[slot][1]

    def add(self, array: Array, name: str) -> int:
        """A new constant's slot."""
        slot, self.slots = self.slots, self.slots + 1
        array = np.ascontiguousarray(array).reshape(array.shape)
        self._known[slot] = (Value(slot, array.dtype.name, array), name)
        return slot

    def used(self, slots: Collection[int]) -> list[tuple[Value, str]]:
        """Those among these slots."""
        return [entry for slot, entry in self._known.items() if slot in slots]
