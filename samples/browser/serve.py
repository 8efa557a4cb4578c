"""Serve the demo page: `make web`.

    python samples/browser/serve.py FOLDER [PORT]

Serves FOLDER, where `make web` has put the page together, until Ctrl-C. Any web server will do in
its place; two headers make a page "cross-origin isolated", which is what threads need.
"""

from __future__ import annotations

import os
import sys
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

PORT = 8000

_TYPES = {".js": "text/javascript", ".wasm": "application/wasm"}


class Handler(SimpleHTTPRequestHandler):
    """Files, with their types and the headers of isolation."""

    protocol_version = "HTTP/1.1"

    def end_headers(self) -> None:
        self.send_header("Cross-Origin-Opener-Policy", "same-origin")
        self.send_header("Cross-Origin-Embedder-Policy", "require-corp")
        self.send_header("Cache-Control", "no-cache")
        super().end_headers()

    def guess_type(self, path: str | os.PathLike[str]) -> str:
        """A machine's own table may lack these types, and browsers insist on them."""
        return _TYPES.get(Path(path).suffix) or super().guess_type(path)

    def log_request(self, code: int | str = "-", size: int | str = "-") -> None:
        """Nothing: the browser's own tools show what it asks for."""


def main() -> None:
    """The command."""
    if len(sys.argv) not in {2, 3} or not Path(sys.argv[1], "index.html").is_file():
        sys.exit(__doc__)
    port = int(sys.argv[2]) if len(sys.argv) == 3 else PORT
    try:
        server = ThreadingHTTPServer(("127.0.0.1", port), partial(Handler, directory=sys.argv[1]))
    except OSError as error:
        sys.exit(f"port {port} cannot be used ({error.strerror}): make web PORT=...")
    with server:
        print(f"http://localhost:{server.server_port}/  (Ctrl-C ends it)", flush=True)
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            print()


if __name__ == "__main__":
    main()
