"""Finding Wasmtime without importing it, which takes as long as all the rest of a short command."""

from __future__ import annotations

from importlib import metadata

from wasmgraph.runtime.base import Capabilities, Engine, EngineStatus

CAPABILITIES = Capabilities(
    simd=True, relaxed_simd=True, threads=True, memory_limit=True, time_limit=True
)


def find_engine(name: str) -> Engine:  # noqa: ARG001 - there is one
    """The engine; wasmgraph depends on its package."""
    from wasmgraph.runtime.wasmtime_engine import WasmtimeEngine

    return WasmtimeEngine()


def examine(name: str) -> EngineStatus:
    """Its version; see `wasmgraph.runtime.registry`."""
    try:
        version = metadata.version("wasmtime")
    except metadata.PackageNotFoundError:
        fix = "pip install wasmtime"
        return EngineStatus(name, False, None, "the Python package is missing", fix, None)
    return EngineStatus(name, True, version, "in this process", None, CAPABILITIES)
