"""Chromium for tests: found, started, driven by playwright. Skips where one of both is missing."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from playwright.sync_api import Browser

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")


def find_chromium() -> str | None:
    """$WASMGRAPH_CHROMIUM, or the first on PATH."""
    named = os.environ.get("WASMGRAPH_CHROMIUM")
    return named or next(filter(None, map(shutil.which, NAMES)), None)


@contextmanager
def chromium() -> Iterator[Browser]:
    """A headless Chromium; every `new_context` of it is a browser without a past."""
    pytest.importorskip("playwright", reason="playwright is missing: pip install playwright")
    from playwright.sync_api import sync_playwright

    path = find_chromium()
    if path is None:
        pytest.skip(f"none of {', '.join(NAMES)} is on PATH (WASMGRAPH_CHROMIUM names another)")
    # Chromium does not sandbox its own processes where the user is root; the pages are our own.
    arguments = ["--no-sandbox"] if os.geteuid() == 0 else []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=arguments)
        yield browser
        browser.close()
