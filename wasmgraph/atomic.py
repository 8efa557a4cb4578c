"""Files and folders that appear whole or not at all, whatever interrupts the work."""

from __future__ import annotations

import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from wasmgraph.errors import WasmgraphError


@contextmanager
def replaced_when_done(target: Path) -> Iterator[Path]:
    """A path beside `target` to write to; it takes `target`'s place when the block ends well.

    On any exception, KeyboardInterrupt included, the unfinished file goes and `target` stays as it
    was.

    Raises:
        WasmgraphError: the folder is missing or cannot be written to.
    """
    unfinished = target.with_name(f".{target.stem}-{secrets.token_hex(4)}{target.suffix}")
    try:
        if target.is_dir():
            raise IsADirectoryError(f"{target} is a folder")
        unfinished.touch(exist_ok=False)
    except OSError as error:
        raise WasmgraphError(
            f"cannot write {target}: {error.strerror or error}",
            hint="choose another place with -o",
        ) from error
    try:
        yield unfinished
        os.replace(unfinished, target)
    finally:
        unfinished.unlink(missing_ok=True)


@contextmanager
def folder_filled_when_done(target: Path) -> Iterator[Path]:
    """A new folder to write files to; they move to the folder `target` when the block ends well.

    `target` and the folders above it are made if need be; files of the same names in it are
    replaced. On any exception, KeyboardInterrupt included, nothing has changed.

    Raises:
        WasmgraphError: the folder cannot be made or written to.
    """
    # On the file system of the target, so that moving is renaming; and writing there is tried now.
    home = next(folder for folder in (target, *target.absolute().parents) if folder.exists())
    unfinished = home / f".{target.name}-{secrets.token_hex(4)}"
    try:
        with _named_in_errors(target):
            unfinished.mkdir()
        yield unfinished
        with _named_in_errors(target):
            target.mkdir(parents=True, exist_ok=True)
            for file in sorted(unfinished.iterdir()):
                os.replace(file, target / file.name)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


@contextmanager
def _named_in_errors(target: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise WasmgraphError(
            f"cannot write to the folder {target}: {error.strerror or error}",
            hint="choose another folder",
        ) from error
