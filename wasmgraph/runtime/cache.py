"""Native code compiled before, kept per user in `wasmgraph/native` of the XDG cache folder.

Loading an entry is running its machine code outside any sandbox, so an entry is used only if it is
the file that was written. What is believed, and why:

* The folder is the user's own with mode 0700, a file is the user's own, a regular file with one
  name, and closed to everybody else. Anything else is not loaded.
* Each entry `ID.cwasm` has a seal `ID.seal`: the SHA-256 of its bytes and its place in the file
  system (device, inode, size, mtime, ctime), under an HMAC-SHA256 with a random key that lies in
  the folder with mode 0600. A file from elsewhere, be it a valid one, has no seal of ours.
* Hashing 14 MB costs 8 ms, mapping them copy-on-write 0.04 ms, so the digest is not computed
  where the place proves it: every write, rename over, chmod or link changes inode or ctime, and
  ctime cannot be set back by a process. Since the clock behind ctime is coarse, that holds only
  when ctime was well past at the time of sealing (as in git's index); otherwise, and where
  anything differs, the bytes are hashed, and an entry found whole is sealed anew.
* What was checked is what is loaded: one descriptor, opened without following links, is stat'ed,
  hashed and handed to the engine as /dev/fd/N.

The SHA-256 of the `.wasm` itself, which is part of an entry's ID, is remembered the same way.

This keeps out other users, half-written and damaged files, and files that stray in. It cannot keep
out a program that runs as the same user: that one needs no cache to run code.

A cache that cannot be used costs time, never a result: every failure is logged and the graph is
compiled again. Nothing here knows of tensors, or of any engine but through what it is handed.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import logging
import os
import secrets
import stat
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TypeVar

from wasmgraph.cache_folder import cache_folder
from wasmgraph.runtime.limits import format_size
from wasmgraph.runtime.source import Place, Source

log = logging.getLogger(__name__)

MAX_BYTES = 2 * 1024**3
"""Native code kept at most; the least recently used entries beyond it are removed."""

STALE_SECONDS = 30 * 24 * 3600
"""The digest of a `.wasm` is remembered for so long, then computed once more."""

LEFTOVER_SECONDS = 3600
"""A temporary file older than this belongs to a process that is gone."""

SETTLED_NS = 2_000_000_000
"""A later write cannot share a ctime so far in the past (FAT's clock is the coarsest: 2 s)."""

SETTLED_HERE_NS = 100_000_000
"""The same for entries: a file system that has owners and modes has a clock of 10 ms at worst."""

_BLOCK = 65536

T = TypeVar("T")


class _Distrusted(Exception):  # noqa: N818 - never leaves this module
    """The file is not the one that was written."""


@dataclass(frozen=True)
class Seal:
    """What was known of a file when it was hashed.

    Attributes:
        sha256: Hex digest of its bytes.
        place: Its place then.
        sealed_ns: When, in nanoseconds since the epoch.
    """

    sha256: str
    place: Place
    sealed_ns: int

    def vouches_for(self, place: Place, settled_ns: int = SETTLED_NS) -> bool:
        """Whether the file at `place` is proven to hold the bytes of the digest."""
        return self.place == place and self.sealed_ns - place.ctime_ns > settled_ns


def open_cache(folder: Path | None = None) -> NativeCache | None:
    """The cache in `folder` (default: the user's), or None, with a warning, if it is not usable."""
    if folder is None:
        whole = cache_folder()
        if whole is None:
            log.warning("no home folder: native code is not cached")
            return None
        folder = whole / "native"
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        info = folder.lstat()
        if not stat.S_ISDIR(info.st_mode) or info.st_uid != os.geteuid():
            log.warning("%s is not a folder of this user: native code is not cached", folder)
            return None
        if stat.S_IMODE(info.st_mode) != 0o700:
            folder.chmod(0o700)
        return NativeCache(folder, _read_or_make_key(folder / "key"))
    except OSError as error:
        log.warning("native code is not cached: %s", error)
        return None


class NativeCache:
    """Entries of one folder, sealed with one key. Made by `open_cache`."""

    def __init__(self, folder: Path, key: bytes) -> None:
        self.folder = folder
        self._key = key

    def digest_of(self, source: Source) -> str:
        """SHA-256 (hex) of a file's bytes, from memory where its place proves them unchanged."""
        name = "source-" + hashlib.sha256(os.fsencode(source.path.absolute())).hexdigest()[:32]
        seal = self._read_seal(name)
        if seal is not None and seal.vouches_for(source.place):
            return seal.sha256
        seal = Seal(source.sha256(), source.place, time.time_ns())
        if seal.vouches_for(source.place):  # else the next load would not believe it
            self._write_seal(name, seal)
        return seal.sha256

    def load(self, entry: str, deserialize: Callable[[str], T]) -> T | None:
        """What `deserialize` makes of an entry, or None if there is none to be trusted.

        Args:
            entry: The ID it was stored under.
            deserialize: Gets a path that names exactly the file that was checked. Its failure
                removes the entry.
        """
        path = self.folder / f"{entry}.cwasm"
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        except FileNotFoundError:
            return None
        except OSError as error:
            self._discard(entry, f"cannot be opened: {error.strerror}")
            return None
        try:
            self._verify(entry, descriptor)
            return deserialize(f"/dev/fd/{descriptor}")
        except _Distrusted as reason:
            self._discard(entry, str(reason))
        except Exception as error:  # whatever the engine raises, the way on is to compile
            self._discard(entry, f"is refused by the engine: {error}")
        finally:
            os.close(descriptor)
        return None

    def store(self, entry: str, code: bytes | bytearray) -> None:
        """Keep `code` under `entry`: all of it or nothing. Failing is logged, not raised."""
        path = self.folder / f"{entry}.cwasm"
        try:
            place = _write_atomically(path, code)
        except OSError as error:
            log.warning("native code is not cached: %s", error)
            return
        self._write_seal(entry, Seal(hashlib.sha256(code).hexdigest(), place, time.time_ns()))
        self.prune()

    def prune(self, max_bytes: int = MAX_BYTES) -> None:
        """Remove the least recently used entries beyond `max_bytes`, and leftovers."""
        now = time.time()
        entries: list[tuple[float, int, str]] = []
        total = 0
        try:
            for item in os.scandir(self.folder):
                info = item.stat(follow_symlinks=False)
                age = now - info.st_mtime
                leftover = item.name.endswith(".tmp") and age > LEFTOVER_SECONDS
                stale = item.name.startswith("source-") and age > STALE_SECONDS
                if leftover or stale:
                    _unlink(Path(item.path))
                elif item.name.endswith(".cwasm"):
                    entry = item.name.removesuffix(".cwasm")
                    entries.append((self._last_use(entry, info), info.st_size, entry))
                    total += info.st_size
        except OSError as error:
            log.warning("the cache of native code cannot be pruned: %s", error)
            return
        for _, size, entry in sorted(entries):
            if total <= max_bytes:
                break
            log.info("removing native code %s (%s): unused longest", entry, format_size(size))
            self._remove(entry)
            total -= size

    def _verify(self, entry: str, descriptor: int) -> None:
        """Raise `_Distrusted` unless the file is what was stored."""
        info = os.fstat(descriptor)
        if not stat.S_ISREG(info.st_mode) or info.st_nlink != 1:
            raise _Distrusted("is not a regular file of one name")
        if info.st_uid != os.geteuid() or info.st_mode & 0o077:
            raise _Distrusted("is not this user's alone")
        seal = self._read_seal(entry)
        if seal is None:
            raise _Distrusted("has no valid seal")
        place = Place.of(info)
        if seal.vouches_for(place, SETTLED_HERE_NS):
            self._touch(entry)
            return
        digest = _sha256(descriptor)
        if not hmac.compare_digest(digest, seal.sha256):
            raise _Distrusted("is not the file that was written")
        if Place.of(os.fstat(descriptor)) != place:
            raise _Distrusted("changed while it was read")
        self._write_seal(entry, Seal(digest, place, time.time_ns()))

    def _read_seal(self, name: str) -> Seal | None:
        """The seal under `name` if it is ours and was made for that name, else None."""
        try:
            text = (self.folder / f"{name}.seal").read_bytes()
        except OSError:
            return None
        mac, _, body = text.partition(b"\n")
        if not hmac.compare_digest(mac, self._mac(name, body)):
            return None
        fields = json.loads(body)
        return Seal(fields["sha256"], Place(**fields["place"]), fields["sealed_ns"])

    def _write_seal(self, name: str, seal: Seal) -> None:
        body = json.dumps(asdict(seal)).encode()
        try:
            _write_atomically(self.folder / f"{name}.seal", self._mac(name, body) + b"\n" + body)
        except OSError as error:
            log.warning("native code is not cached: %s", error)

    def _mac(self, name: str, body: bytes) -> bytes:
        message = b"wasmgraph seal 1\n" + name.encode() + b"\n" + body
        return hmac.new(self._key, message, "sha256").hexdigest().encode()

    def _touch(self, entry: str) -> None:
        """Note the use, for `prune`; the seal is under the HMAC, so its own times prove nothing."""
        try:
            os.utime(self.folder / f"{entry}.seal")
        except OSError as error:
            log.debug("the use of %s is not noted: %s", entry, error)

    def _last_use(self, entry: str, info: os.stat_result) -> float:
        try:
            return (self.folder / f"{entry}.seal").stat().st_mtime
        except OSError:
            return info.st_mtime

    def _discard(self, entry: str, reason: str) -> None:
        log.warning(
            "cached native code %s %s: compiling again", self.folder / f"{entry}.cwasm", reason
        )
        self._remove(entry)

    def _remove(self, entry: str) -> None:
        _unlink(self.folder / f"{entry}.seal")
        _unlink(self.folder / f"{entry}.cwasm")


def _read_or_make_key(path: Path) -> bytes:
    """The folder's 32 random bytes. A key that others could read or write is replaced."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        return _make_key(path)
    try:
        info = os.fstat(descriptor)
        private = info.st_uid == os.geteuid() and not info.st_mode & 0o077
        if private and stat.S_ISREG(info.st_mode) and info.st_size == 32:
            return os.read(descriptor, 32)
    finally:
        os.close(descriptor)
    return _make_key(path)


def _make_key(path: Path) -> bytes:
    key = secrets.token_bytes(32)
    _write_atomically(path, key)
    return key


def _write_atomically(path: Path, data: bytes | bytearray) -> Place:
    """Write a file of mode 0600 under its name once it is whole and on the disk; its place."""
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=path.stem, suffix=".tmp")
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            # A crash must not leave a file of the sealed size and times with other content.
            os.fsync(file.fileno())
            os.replace(temporary, path)
            return Place.of(os.fstat(file.fileno()))  # after the rename, which changes ctime
    except BaseException:
        _unlink(Path(temporary))
        raise


def _sha256(descriptor: int) -> str:
    digest = hashlib.sha256()
    offset = 0
    while block := os.pread(descriptor, _BLOCK, offset):
        digest.update(block)
        offset += len(block)
    return digest.hexdigest()


def _unlink(path: Path) -> None:
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        log.warning("%s cannot be removed: %s", path, error)
