"""A server of files for pages under test, that counts what is asked of it."""

from __future__ import annotations

import mimetypes
import threading
from collections.abc import Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

ISOLATED = {
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Embedder-Policy": "require-corp",
}
"""Headers that let a page share memory between threads."""

TYPES = {".js": "text/javascript", ".mjs": "text/javascript", ".wasm": "application/wasm"}


class Site:
    """A server on this machine.

    Args:
        files: Folders, files and contents by their path on the server, such as {"/src": folder}.
        headers: Of every answer.
    """

    def __init__(self, files: Mapping[str, Path | bytes], headers: Mapping[str, str]) -> None:
        self.asked: list[str] = []
        site = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                path = self.path.split("?")[0]
                site.asked.append(path)
                found = _find(files, path)
                self.send_response(404 if found is None else 200)
                suffix = Path(path).suffix
                kind = TYPES.get(suffix) or mimetypes.guess_type(path)[0] or "text/html"
                fields = {**headers, "Content-Type": kind, "Content-Length": len(found or b"")}
                for name, value in fields.items():
                    self.send_header(name, str(value))
                self.end_headers()
                self.wfile.write(found or b"")

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def stop(self) -> None:
        """Be gone: nobody answers at its address any more. Calling it again does nothing."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


def _find(files: Mapping[str, Path | bytes], path: str) -> bytes | None:
    for place, found in files.items():
        if path == place:
            return found if isinstance(found, bytes) else found.read_bytes()
        if isinstance(found, Path) and path.startswith(f"{place.rstrip('/')}/"):
            file = found / path[len(place.rstrip("/")) + 1 :]
            if file.is_file():
                return file.read_bytes()
    return None
