"""Where wasmgraph keeps what it can make again: native code and the compiled executor."""

from __future__ import annotations

import os
from pathlib import Path


def cache_folder() -> Path | None:
    """wasmgraph's folder under the user's cache, or None where there is no home."""
    configured = os.environ.get("XDG_CACHE_HOME", "")
    try:
        # The XDG specification: a relative path is to be ignored.
        base = Path(configured) if os.path.isabs(configured) else Path.home() / ".cache"
    except RuntimeError:
        return None
    return base / "wasmgraph"
