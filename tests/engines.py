"""Whether an engine can be tested on this machine; tests skip with the reason where it cannot."""

from __future__ import annotations

from functools import cache

import pytest

from wasmgraph.errors import ToolchainError
from wasmgraph.runtime.registry import examine_engines, find_engine


@cache
def why_missing(name: str) -> str | None:
    """Why an engine cannot be used here, or None where it can."""
    (status,) = examine_engines([name])
    if not status.available:
        return f"{status.detail} ({status.fix})"
    try:
        find_engine(name).close()
    except ToolchainError as error:
        return error.message
    return None


def need_engine(name: str) -> None:
    """Skip the test where the engine is not here."""
    reason = why_missing(name)
    if reason is not None:
        pytest.skip(f"no runtime {name}: {reason}")
