"""The link stage: a graph bundle and the executor crate become one `.wasm`.

It needs a Rust with a WASI target and nothing else: no TVM, no network.
"""

from __future__ import annotations

from wasmgraph.link.executor import crate_folder
from wasmgraph.link.module import KINDS, Kind, LinkReport, check_kind, link
from wasmgraph.link.rust import RustToolchain, find_rust

__all__ = [
    "KINDS",
    "Kind",
    "LinkReport",
    "RustToolchain",
    "check_kind",
    "crate_folder",
    "find_rust",
    "link",
]
