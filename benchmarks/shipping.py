"""Bytes to ship: files as they are, and as a web server would send them."""

from __future__ import annotations

import hashlib
import json
import subprocess
import zlib
from dataclasses import asdict
from pathlib import Path

from benchmarks.node import FOLDER, INSTALLED, Node
from benchmarks.results import Shipped

GZIP_LEVEL = 9
BROTLI_QUALITY = 9
"""Of 11. The best gains another tenth and takes fifteen times as long."""

ORT_WEB_FILES = (
    INSTALLED / "dist" / "ort.wasm.bundle.min.mjs",
    INSTALLED / "dist" / "ort-wasm-simd-threaded.wasm",
)
"""What a web page with the wasm backend loads: the smallest bundle, and its only wasm."""

HOST_FILES = tuple(sorted((FOLDER.parent / "toolchain" / "javascript" / "src").glob("*.js")))
"""What a JavaScript program needs to run a graph: the package, comments and all."""


def shipped(files: tuple[Path, ...], node: Node, cache: Path) -> Shipped:
    """The sizes of some files together. Compressing is slow, so results are kept in `cache`."""
    total = Shipped(0, 0, 0)
    for file in files:
        total += _of_file(file, node, cache)
    return total


def _of_file(file: Path, node: Node, cache: Path) -> Shipped:
    data = file.read_bytes()
    kept = cache / "sizes" / f"{hashlib.sha256(data).hexdigest()[:32]}.json"
    if kept.is_file():
        return Shipped(**json.loads(kept.read_text(encoding="utf-8")))
    packer = zlib.compressobj(GZIP_LEVEL, zlib.DEFLATED, zlib.MAX_WBITS | 16)
    gzip = len(packer.compress(data)) + len(packer.flush())
    found = Shipped(len(data), gzip, _brotli(file, node))
    if found.brotli is not None:
        kept.parent.mkdir(parents=True, exist_ok=True)
        kept.write_text(json.dumps(asdict(found)), encoding="utf-8")
    return found


def _brotli(file: Path, node: Node) -> int | None:
    if node.path is None:
        return None
    script = FOLDER / "node" / "brotli_size.mjs"
    done = subprocess.run(
        [node.path, str(script), str(file), str(BROTLI_QUALITY)],
        capture_output=True,
        text=True,
        check=False,
    )
    return int(done.stdout) if done.returncode == 0 else None
