"""Serves a page that runs a graph, and passes messages between Python and that page.

The page asks for requests: every POST to `channel` carries its last answer and is answered with the
next request. A second connection, `alive`, stays open as long as the page does, so that the end of
its process shows while it works. Addresses begin with a secret, for this machine has other users.
"""

from __future__ import annotations

import os
import queue
import secrets
import shutil
import threading
from contextlib import suppress
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from wasmgraph.runtime.protocol import (
    LENGTH_NBYTES,
    MAX_HEADER_NBYTES,
    Header,
    HostFailure,
    decode_header,
    header_nbytes,
)

POLL_SECONDS = 20.0
"""How long the page's question for a request stays open; then it asks again."""

GRAPH = "graph.wasm"

_PIECE = 1 << 20
_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".mjs": "text/javascript; charset=utf-8",
    ".wasm": "application/wasm",
}
# What a page needs to share memory between threads.
_ISOLATION = {
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Embedder-Policy": "require-corp",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}

Frame = tuple[Header, memoryview]


class Line:
    """What goes between Python and one page.

    Attributes:
        requests: Frames for the page, in pieces.
        answers: Frames from it, or what is wrong with it.
        most: Bytes of payload that the next answer may have.
    """

    def __init__(self) -> None:
        self.requests: queue.Queue[list[memoryview]] = queue.Queue()
        self.answers: queue.Queue[Frame | HostFailure] = queue.Queue()
        self.most = 0


class PageServer:
    """Serves the files of one folder and one graph, on a free port of this machine only.

    Args:
        folder: The JavaScript package.
    """

    def __init__(self, folder: Path) -> None:
        self.line = Line()
        secret = secrets.token_urlsafe(16)
        self._server = _Server(("127.0.0.1", 0), _Handler)
        self._server.daemon_threads = True
        self._server.line = self.line
        self._server.prefix = f"/{secret}/"
        self._server.folder = folder.resolve()
        self.address = f"http://127.0.0.1:{self._server.server_port}/{secret}/"
        threading.Thread(
            target=self._server.serve_forever, name="wasmgraph-pages", daemon=True
        ).start()

    def serve_graph(self, path: Path) -> str:
        """Serve this file; its address, relative to the page's."""
        self._server.graph = path
        return GRAPH

    def close(self) -> None:
        """End serving; calling it again does nothing."""
        self._server.shutdown()
        self._server.server_close()


class _Server(ThreadingHTTPServer):
    line: Line
    prefix: str
    folder: Path
    graph: Path | None = None

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A connection that breaks off is the page's end, which `alive` tells."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    # Or an answer's body waits 40 ms for the page's system to confirm its head.
    disable_nagle_algorithm = True
    server: _Server

    def do_GET(self) -> None:
        name = self._name()
        if name == "alive":
            self._stay_open()
            return
        path = self.server.graph if name == GRAPH else self._file(name)
        try:
            # A folder cannot be opened either.
            file = None if path is None else path.open("rb")
        except OSError:
            file = None
        if file is None:
            self._answer(HTTPStatus.NOT_FOUND)
            return
        with file:
            self._begin(
                HTTPStatus.OK, os.fstat(file.fileno()).st_size, _TYPES[Path(name or "").suffix]
            )
            shutil.copyfileobj(file, self.wfile, _PIECE)

    def do_POST(self) -> None:
        name, line = self._name(), self.server.line
        body = self.rfile.read(self._body_nbytes())
        if name == "failed":
            line.answers.put(
                HostFailure(f"its page failed: {body[:4096].decode(errors='replace')}")
            )
        elif name == "channel":
            if body:
                line.answers.put(_frame(body, line.most))
            with suppress(queue.Empty):
                request = line.requests.get(timeout=POLL_SECONDS)
                self._answer(HTTPStatus.OK, b"".join(request))
                return
        else:
            self._answer(HTTPStatus.NOT_FOUND)
            return
        self._answer(HTTPStatus.NO_CONTENT)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - http.server's name
        """Nothing: what matters is told in errors."""

    def _name(self) -> str | None:
        prefix = self.server.prefix
        return self.path[len(prefix) :] if self.path.startswith(prefix) else None

    def _file(self, name: str | None) -> Path | None:
        folder = self.server.folder
        path = (folder / (name or "")).resolve()
        is_served = path.is_relative_to(folder) and path.suffix in _TYPES
        return path if is_served else None

    def _body_nbytes(self) -> int:
        length = self.headers.get("Content-Length", "")
        nbytes = int(length) if length.isdecimal() else 0
        allowed = LENGTH_NBYTES + MAX_HEADER_NBYTES + self.server.line.most
        return min(nbytes, allowed + 1)  # one too many is told as such

    def _answer(self, status: HTTPStatus, body: bytes = b"") -> None:
        self._begin(status, len(body), "application/octet-stream")
        self.wfile.write(body)

    def _begin(self, status: HTTPStatus, nbytes: int, kind: str) -> None:
        self.send_response(status)
        fields = {**_ISOLATION, "Content-Type": kind, "Content-Length": str(nbytes)}
        for name, value in fields.items():
            self.send_header(name, value)
        self.end_headers()

    def _stay_open(self) -> None:
        # Of a length that is never reached.
        self._begin(HTTPStatus.OK, 1 << 30, "application/octet-stream")
        with suppress(OSError):
            self.connection.recv(1)
        self.server.line.answers.put(HostFailure("its page ended"))
        self.close_connection = True


def _frame(body: bytes, most: int) -> Frame | HostFailure:
    try:
        start = LENGTH_NBYTES + header_nbytes(body[:LENGTH_NBYTES].ljust(LENGTH_NBYTES, b"\xff"))
        header, nbytes = decode_header(body[LENGTH_NBYTES:start], most)
        if len(body) != start + nbytes:
            raise HostFailure(f"it sent {len(body)} bytes where {start + nbytes} belong together")
        return header, memoryview(body)[start:]
    except HostFailure as failure:
        return failure
