"""A graph's file, open for reading: looked at in pieces, hashed or read whole only if need be.

A graph is mostly weights. Loading one whose native code is cached needs its metadata and proof that
it is the same file, which takes a few of its pages; reading 14 MB takes longer than all the rest.
"""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import overload

from wasmgraph.errors import LoadError

_BLOCK = 65536


@dataclass(frozen=True)
class Place:
    """Where and when a file was written, as the file system has it."""

    device: int
    inode: int
    size: int
    mtime_ns: int
    ctime_ns: int

    @classmethod
    def of(cls, info: os.stat_result) -> Place:
        """From a stat result."""
        return cls(info.st_dev, info.st_ino, info.st_size, info.st_mtime_ns, info.st_ctime_ns)


class Source:
    """An open file that can be indexed and sliced like `bytes`.

    Not a memory map: a file that somebody cuts short meanwhile would end the process.

    Raises:
        LoadError: the file cannot be read, or changes while it is (from every method).
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self._file = path.open("rb", buffering=0)
        except OSError as error:
            raise self._unreadable(error) from error
        self.place = Place.of(os.fstat(self._file.fileno()))
        self._block = b""
        self._block_start = 0

    def __len__(self) -> int:
        return self.place.size

    @overload
    def __getitem__(self, key: int) -> int: ...
    @overload
    def __getitem__(self, key: slice) -> bytes: ...
    def __getitem__(self, key: int | slice) -> int | bytes:
        if isinstance(key, slice):
            start, stop, step = key.indices(len(self))
            return self._bytes(start, max(start, stop))[::step]
        if not 0 <= key < len(self):
            raise IndexError(key)
        return self._bytes(key, key + 1)[0]

    def read(self) -> bytes:
        """All of it."""
        data = b"".join(self._pread(at, _BLOCK * 16) for at in range(0, len(self), _BLOCK * 16))
        self.check_unchanged()
        return data

    def sha256(self) -> str:
        """Hex digest of its bytes."""
        digest = hashlib.sha256()
        for at in range(0, len(self), _BLOCK):
            digest.update(self._pread(at, _BLOCK))
        self.check_unchanged()
        return digest.hexdigest()

    def check_unchanged(self) -> None:
        """Raise LoadError if the file was written to since it was opened."""
        now = Place.of(os.fstat(self._file.fileno()))
        # Not ctime: that of the file in hand changes too when another takes its name.
        if (now.size, now.mtime_ns) != (self.place.size, self.place.mtime_ns):
            raise LoadError(f"{self.path} changed while it was read", hint="load it again")

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def __enter__(self) -> Source:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _bytes(self, start: int, stop: int) -> bytes:
        if stop - start > _BLOCK:
            return b"".join(
                self._pread(at, min(_BLOCK * 16, stop - at))
                for at in range(start, stop, _BLOCK * 16)
            )
        offset = start - self._block_start
        if not (offset >= 0 and offset + stop - start <= len(self._block)):
            self._block, self._block_start, offset = self._pread(start, _BLOCK), start, 0
        return self._block[offset : offset + stop - start]

    def _pread(self, start: int, nbytes: int) -> bytes:
        """Exactly `nbytes` from `start`, or to the end if that comes first."""
        expected = min(nbytes, len(self) - start)
        pieces = []
        try:
            while expected > 0:
                piece = os.pread(self._file.fileno(), expected, start)
                if not piece:
                    raise LoadError(f"{self.path} became shorter while it was read")
                pieces.append(piece)
                start += len(piece)
                expected -= len(piece)
        except OSError as error:
            raise self._unreadable(error) from error
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def _unreadable(self, error: OSError) -> LoadError:
        return LoadError(f"{self.path} cannot be read: {error.strerror or error}")
