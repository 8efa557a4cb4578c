"""Lays out tables as the executor's structures have them: words, texts, and lists of both."""

from __future__ import annotations

import struct
from collections.abc import Sequence

from wasmgraph.assembler.object_file import Data, Fill, Relocation

_ALIGNMENT = 8

Word = int | Relocation
"""32 bits: a number, or what the linker fills in."""


class Tables:
    """Little-endian words, texts and numbers, and the places in them that are addresses.

    Args:
        symbol: Of the first word.
        root_words: How many words the structure there has.
    """

    def __init__(self, symbol: str, root_words: int) -> None:
        self._symbol = symbol
        self._root_words = root_words
        self._bytes = bytearray(4 * root_words)
        self._relocations: list[Relocation] = []
        self._known: dict[bytes, int] = {}

    def data(self) -> Data:
        """All of it, for an object file."""
        return Data(self._symbol, bytes(self._bytes), _ALIGNMENT, tuple(self._relocations))

    def fill_root(self, words: Sequence[Word]) -> None:
        """Write the first structure."""
        assert len(words) == self._root_words
        self._put(0, words)

    def table(self, rows: Sequence[Sequence[Word]]) -> list[Word]:
        """The words (address, count) of structures that lie one after the other."""
        start = self._aligned()
        for row in rows:
            self._bytes += bytes(4 * len(row))
            self._put(len(self._bytes) - 4 * len(row), row)
        return [self._within(start), len(rows)]

    def text(self, text: str) -> list[Word]:
        """The words (address, bytes) of a text in UTF-8; equal texts are one."""
        encoded = text.encode()
        return [self._shared(encoded), len(encoded)]

    def numbers(self, numbers: Sequence[int], code: str) -> list[Word]:
        """The words (address, count) of numbers, each packed by a code of `struct`."""
        return [self._shared(struct.pack(f"<{len(numbers)}{code}", *numbers)), len(numbers)]

    def _shared(self, contents: bytes) -> Relocation:
        if contents not in self._known:
            self._known[contents] = self._aligned()
            self._bytes += contents
        return self._within(self._known[contents])

    def _aligned(self) -> int:
        self._bytes += bytes(-len(self._bytes) % _ALIGNMENT)
        return len(self._bytes)

    def _put(self, offset: int, words: Sequence[Word]) -> None:
        for place, word in enumerate(words):
            where = offset + 4 * place
            if isinstance(word, Relocation):
                self._relocations.append(Relocation(word.fill, where, word.symbol, word.addend))
            else:
                self._bytes[where : where + 4] = struct.pack("<I", word)

    def _within(self, offset: int) -> Relocation:
        """The address of a byte of the tables; where it is written is not known yet."""
        return Relocation(Fill.ADDRESS_I32, 0, self._symbol, offset)
