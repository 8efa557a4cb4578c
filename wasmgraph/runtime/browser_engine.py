"""The browser adapter: graphs run in headless Chromium, in a page that this process serves.

The Python package `playwright` starts Chromium and ends it; tensors and the graph go over HTTP. It
works in a thread of its own, since its objects belong to the thread that makes them.
"""

from __future__ import annotations

import os
import queue
import threading
import time
import weakref
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from wasmgraph.errors import ToolchainError
from wasmgraph.runtime.base import Capabilities, EngineStatus, GraphFile, Limits
from wasmgraph.runtime.browser_server import GRAPH, PageServer
from wasmgraph.runtime.host_channel import HostChannel
from wasmgraph.runtime.hosted import HostedProgram
from wasmgraph.runtime.hosted_engine import HostedEngine
from wasmgraph.runtime.programs import find_program, host_sources, program_version
from wasmgraph.runtime.protocol import Header, HostFailure, HostOverdue

PAGE = "host.html"
VARIABLE = "WASMGRAPH_CHROMIUM"
NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
FIX = "apt-get install chromium"
PACKAGE_FIX = "pip install 'wasmgraph[browser]'"

RELAXED_SINCE = 114
"""The version of Chromium that has relaxed SIMD."""

_CLOSING_SECONDS = 20


def find_engine(name: str) -> BrowserEngine:
    """Chromium, with a page that is ready; see `wasmgraph.runtime.registry`.

    Raises:
        ToolchainError: Chromium or playwright is missing, or Chromium does not start.
    """
    program = _program(name)
    return BrowserEngine(name, program, host_sources("javascript", PAGE))


def examine(name: str) -> EngineStatus:
    """What this machine has of it, without starting a page; see `wasmgraph.runtime.registry`."""
    try:
        program = _program(name)
        version = program_version(program)
        host_sources("javascript", PAGE)
    except ToolchainError as error:
        return EngineStatus(name, False, None, error.message, error.hint or FIX, None)
    can = Capabilities(
        simd=True,
        relaxed_simd=int(version.split(".")[0]) >= RELAXED_SINCE,
        threads=True,
        memory_limit=True,
        time_limit=True,
    )
    return EngineStatus(name, True, version, str(program), None, can)


def _program(name: str) -> Path:
    program = find_program(name, VARIABLE, NAMES, FIX)
    if find_spec("playwright") is None:
        raise ToolchainError(
            f"the runtime {name!r} needs the Python package playwright", hint=PACKAGE_FIX
        )
    return program


class BrowserEngine(HostedEngine):
    """Chromium; every graph's instance has a browser of its own."""

    def __init__(self, name: str, program: Path, folder: Path) -> None:
        super().__init__(name, lambda: BrowserPage(name, program, folder))

    def load(
        self,
        file: GraphFile,
        limits: Limits,
        *,
        cache: bool,  # noqa: ARG002 - what a browser keeps, it keeps for an address, and goes with it
        threads: int = 1,
    ) -> HostedProgram:
        """Have a page fetch and compile a graph; see the interface."""
        path = file.path.resolve()

        def open_page() -> BrowserPage:
            page = self._open()
            assert isinstance(page, BrowserPage)
            page.server.serve_graph(path)
            return page

        return HostedProgram(
            self.name, file, GRAPH, open_page, limits, cache=False, threads=threads
        )


class BrowserPage(HostChannel):
    """A browser with one page that is a host; see `wasmgraph.runtime.protocol.Channel`.

    Raises:
        ToolchainError: it does not start.
    """

    def __init__(self, name: str, program: Path, folder: Path) -> None:
        super().__init__()
        self.server = PageServer(folder)
        ends = threading.Event()
        driver = threading.Thread(
            target=_drive,
            args=(program, self.server, ends),
            name="wasmgraph-browser",
            daemon=True,
        )
        self._finalizer = weakref.finalize(self, _end, self.server, driver, ends, self._owner)
        driver.start()
        self.greet(name)

    @property
    def has_ended(self) -> bool:
        """Whether there is nobody to ask."""
        return not self._finalizer.alive

    def _send(self, frame: list[memoryview], deadline: float | None, most: int) -> None:  # noqa: ARG002 - the page fetches it
        self.server.line.most = most
        self.server.line.requests.put(frame)

    @property
    def process_peak(self) -> None:
        """A browser is many processes; see the interface."""

    def _receive(self, deadline: float | None, most: int) -> tuple[Header, memoryview]:  # noqa: ARG002 - known to the server
        rest = None if deadline is None else max(0.0, deadline - time.monotonic())
        try:
            answer = self.server.line.answers.get(timeout=rest)
        except queue.Empty:
            raise HostOverdue("it does not answer") from None
        if isinstance(answer, HostFailure):
            raise answer
        return answer


def _drive(program: Path, server: PageServer, ends: threading.Event) -> None:
    """Show the page until it is to end; for a thread of its own."""
    try:
        from playwright.sync_api import sync_playwright

        with sync_playwright() as playwright:
            browser: Any = playwright.chromium.launch(
                executable_path=program,
                # Chromium's own sandbox refuses to work for root.
                chromium_sandbox=os.getuid() != 0,
                handle_sigint=False,
                handle_sigterm=False,
                handle_sighup=False,
            )
            try:
                browser.new_page().goto(server.address + PAGE)
                ends.wait()
            finally:
                browser.close()
    except Exception as error:  # playwright's, or that of a package that does not suit it
        reason = str(error).strip()[:4096]
        server.line.answers.put(HostFailure(f"Chromium ended: {reason}"))


def _end(server: PageServer, driver: threading.Thread, ends: threading.Event, owner: int) -> None:
    if os.getpid() != owner:
        return  # a forked child has a copy of the object, not the browser
    ends.set()
    if driver is not threading.current_thread() and driver.is_alive():
        driver.join(_CLOSING_SECONDS)
    server.close()
