"""Files that appear whole or not at all, whatever interrupts the work."""

from __future__ import annotations

import os
import secrets
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
