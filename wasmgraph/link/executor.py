"""The compiled executor crate: built by cargo once per Rust toolchain, kept in the user's cache.

An archive is found again by what it was made from: the crate's sources, the compiler and the
features asked for. Its folder is the user's own with mode 0700.
"""

from __future__ import annotations

import hashlib
import logging
import os
import shutil
import tempfile
from pathlib import Path

from wasmgraph.cache_folder import cache_folder
from wasmgraph.errors import ToolchainError
from wasmgraph.link.cargo import build_archive
from wasmgraph.link.rust import RustToolchain
from wasmgraph.progress import Reporter

log = logging.getLogger(__name__)

_KEPT = 12
"""Archives of 4 to 14 MB each (Rust 1.95): a few toolchains, versions and kinds of graph."""


def executor_archive(
    rust: RustToolchain,
    reporter: Reporter,
    folder: Path,
    *,
    threads: bool = False,
    dynamic: bool = False,
    simd: bool = False,
    component: bool = False,
) -> Path:
    """The executor as a static library, from the cache or built.

    Args:
        folder: A temporary one to build in.
        threads: Whether it is for shared memory and several threads.
        dynamic: Whether it is for a graph whose shapes are known at run time only.
        simd: Whether such a graph may use 128-bit vectors.
        component: Whether it has the functions of a component.

    Raises:
        ToolchainError: the crate is missing, or cargo fails.
    """
    sources = _sources()
    kinds = {"threads": threads, "dynamic": dynamic, "simd": simd, "component": component}
    entry = "-".join([_digest(sources, rust), *(name for name, on in kinds.items() if on)]) + ".a"
    cache = _open_cache()
    if cache is not None and (cache / entry).is_file():
        os.utime(cache / entry)
        return cache / entry
    reporter.log(f"cargo build (once; Rust {rust.version})")
    crate = folder / "executor"
    for name, contents in sources.items():
        (crate / name).parent.mkdir(parents=True, exist_ok=True)
        (crate / name).write_bytes(contents)
    archive = build_archive(
        rust, crate, threads=threads, dynamic=dynamic, simd=simd, component=component
    )
    if cache is None:
        return archive
    try:
        _keep(archive, cache / entry)
    except OSError as error:
        log.warning("the executor is not cached: %s", error)
    return archive


def crate_folder() -> Path:
    """The executor crate: in the checkout, or in the installed package.

    Raises:
        ToolchainError: neither is there, so the installation is damaged.
    """
    package = Path(__file__).resolve().parent.parent
    for folder in (package / "_toolchain" / "executor", package.parent / "toolchain" / "executor"):
        if (folder / "Cargo.toml").is_file():
            return folder
    raise ToolchainError(
        "this installation of wasmgraph lacks its executor crate",
        hint="install wasmgraph again",
    )


def _sources() -> dict[str, bytes]:
    """The crate's files by name, relative to its folder."""
    folder = crate_folder()
    paths = sorted((*folder.glob("Cargo.*"), *folder.glob("src/**/*.rs")))
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in paths}


def _digest(sources: dict[str, bytes], rust: RustToolchain) -> str:
    digest = hashlib.sha256()
    # The same version from another place may be another build.
    compiler = f"{rust.version} {rust.target} {rust.rustc.resolve()} {_stamp(rust.rustc)}"
    for part in (compiler.encode(), *(x for item in sources.items() for x in item)):
        data = part.encode() if isinstance(part, str) else part
        digest.update(len(data).to_bytes(8, "little") + data)
    return digest.hexdigest()


def _stamp(path: Path) -> int:
    return path.stat().st_mtime_ns


def _open_cache() -> Path | None:
    whole = cache_folder()
    if whole is None:
        return None
    folder = whole / "executor"
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        info = folder.lstat()
        if info.st_uid != os.geteuid() or info.st_mode & 0o077:
            log.warning("%s is open to other users: the executor is not cached", folder)
            return None
    except OSError as error:
        log.warning("the executor is not cached: %s", error)
        return None
    return folder


def _keep(archive: Path, entry: Path) -> None:
    """Copy under a temporary name, then rename: nobody sees half an archive."""
    descriptor, name = tempfile.mkstemp(prefix=".", dir=entry.parent)
    try:
        with os.fdopen(descriptor, "wb") as target, archive.open("rb") as source:
            shutil.copyfileobj(source, target)
        os.replace(name, entry)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
    entries = sorted(entry.parent.glob("*.a"), key=lambda path: path.stat().st_mtime)
    for old in entries[:-_KEPT]:
        old.unlink(missing_ok=True)
