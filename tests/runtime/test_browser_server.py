"""The server of the browser's page, against requests that no page of ours would send."""

from __future__ import annotations

import http.client
import json
import socket
import struct
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from wasmgraph.runtime.browser_server import PageServer, _Handler
from wasmgraph.runtime.protocol import HostFailure, encode


@pytest.fixture
def server(tmp_path: Path) -> Iterator[PageServer]:
    """Serves a folder with host.html and notes.txt, beside which lies secret.js."""
    folder = tmp_path / "package"
    folder.mkdir()
    (folder / "host.html").write_text("<p>page</p>")
    (folder / "notes.txt").write_text("not for pages")
    (tmp_path / "secret.js").write_text("secret")
    server = PageServer(folder)
    yield server
    server.close()


def ask(
    server: PageServer, name: str, body: bytes | None = None, *, root: str | None = None
) -> tuple[int, bytes, http.client.HTTPMessage]:
    """GET, or POST where there is a body; `root` is what stands before the name."""
    address = urlsplit(server.address)
    assert address.hostname
    connection = http.client.HTTPConnection(address.hostname, address.port, timeout=60)
    path = (address.path if root is None else root) + name
    connection.request("GET" if body is None else "POST", path, body)
    response = connection.getresponse()
    answer = response.status, response.read(), response.headers
    connection.close()
    return answer


def message(header: object, payload: bytes = b"") -> bytes:
    text = json.dumps(header).encode()
    return struct.pack("<I", len(text)) + text + payload


def test_files_of_the_package_are_served_to_isolated_pages(server: PageServer) -> None:
    status, body, headers = ask(server, "host.html")
    assert (status, body) == (200, b"<p>page</p>")
    assert headers["Cross-Origin-Opener-Policy"] == "same-origin"
    assert headers["Cross-Origin-Embedder-Policy"] == "require-corp"


@pytest.mark.parametrize(
    "name", ["", "absent.js", "notes.txt", "../secret.js", "%2e%2e/secret.js", "/etc/hosts", "."]
)
def test_nothing_else_is(server: PageServer, name: str) -> None:
    assert ask(server, name)[0] == 404


def test_without_the_secret_there_is_nothing(server: PageServer) -> None:
    for root in ("/", "/wrong/", server.address):
        assert ask(server, "host.html", root=root)[0] == 404
        assert ask(server, "channel", b"", root=root)[0] == 404
    assert server.line.answers.empty()


def test_the_graph_is_one_file(server: PageServer, tmp_path: Path) -> None:
    assert ask(server, "graph.wasm")[0] == 404
    path = tmp_path / "any name"
    path.write_bytes(b"\0asm")
    name = server.serve_graph(path)
    status, body, headers = ask(server, name)
    assert (status, body, headers["Content-Type"]) == (200, b"\0asm", "application/wasm")


def test_an_answer_is_exchanged_for_the_next_request(server: PageServer) -> None:
    server.line.most = 3
    server.line.requests.put(encode({"do": "run"}, [memoryview(b"xy")]))
    status, body, _ = ask(server, "channel", message({"ok": {}, "payload": 3}, b"abc"))
    assert (status, body) == (200, message({"do": "run", "payload": 2}, b"xy"))
    answer = server.line.answers.get(timeout=60)
    assert not isinstance(answer, HostFailure)
    assert (answer[0]["ok"], bytes(answer[1])) == ({}, b"abc")


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b"\1", "begins"),
        (b"\xff\xff\xff\xff", "begins"),
        (b"\5\0\0\0hello", "not JSON"),
        (message([]), "no JSON object"),
        (message({"payload": 4}, b"abcd"), "announced 4 bytes"),
        (message({"payload": 3}, b"ab"), "belong together"),
        (message({"payload": 3}, b"abcd"), "belong together"),
    ],
)
def test_a_frame_that_is_none_is_a_failure(server: PageServer, body: bytes, reason: str) -> None:
    server.line.most = 3
    server.line.requests.put(encode({}, []))
    ask(server, "channel", body)
    answer = server.line.answers.get(timeout=60)
    assert isinstance(answer, HostFailure)
    assert reason in str(answer)


def test_what_fails_on_the_page_is_told(server: PageServer) -> None:
    ask(server, "failed", b"no such module")
    assert "no such module" in str(server.line.answers.get(timeout=60))


def test_the_end_of_the_page_is_noticed(server: PageServer) -> None:
    address = urlsplit(server.address)
    assert address.hostname
    connection = http.client.HTTPConnection(address.hostname, address.port, timeout=60)
    connection.request("GET", address.path + "alive")
    connection.getresponse()
    assert server.line.answers.empty()
    connection.close()
    assert "page ended" in str(server.line.answers.get(timeout=60))


def test_an_answer_does_not_wait_for_its_head_to_be_confirmed(
    server: PageServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    options: list[int] = []
    answer = _Handler.do_GET

    def note(handler: _Handler) -> None:
        options.append(handler.connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY))
        answer(handler)

    monkeypatch.setattr(_Handler, "do_GET", note)
    ask(server, "host.html")
    assert options
    assert all(options)
