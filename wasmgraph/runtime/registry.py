"""The engines by name: which there are, which of them are on this machine, what each can do.

An engine's module is imported when the engine is asked for; it has `find_engine(name)`, and
`examine(name)`, which looks without loading anything.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from importlib import import_module
from typing import Any

from wasmgraph.errors import LoadError
from wasmgraph.runtime.base import Engine, EngineStatus

DEFAULT = "wasmtime"

_MODULES = {
    DEFAULT: "wasmgraph.runtime.wasmtime_status",
    "node": "wasmgraph.runtime.node_engine",
    "browser": "wasmgraph.runtime.browser_engine",
    "wazero": "wasmgraph.runtime.wazero_engine",
    "wasmtime-cli": "wasmgraph.runtime.command_engines",
    "wasmer": "wasmgraph.runtime.command_engines",
    "wasmedge": "wasmgraph.runtime.command_engines",
}

RUNTIMES = tuple(_MODULES)
"""Their names; the default first."""


def find_engine(name: str) -> Engine:
    """The engine of this name.

    Raises:
        ValueError: there is none of this name.
        ToolchainError: it is not on this machine; the hint says how to get it.
    """
    engine: Engine = _module(name).find_engine(name)
    return engine


def find_component_engine(name: str) -> Engine:
    """The engine of this name for graphs that are components.

    Raises:
        ValueError: there is none of this name.
        LoadError: it takes modules only.
    """
    if name == DEFAULT:
        from wasmgraph.runtime.component_engine import ComponentEngine

        return ComponentEngine()
    _module(name)
    raise LoadError(
        f"the runtime {name} takes modules, and this is a component",
        hint="compile the model without --kind component, or leave out --runtime",
    )


def examine_engines(names: Sequence[str] = RUNTIMES) -> list[EngineStatus]:
    """What this machine has of these engines, in their order; looks only, at all at a time."""
    with ThreadPoolExecutor(len(names)) as pool:
        return list(pool.map(lambda name: _module(name).examine(name), names))


def _module(name: str) -> Any:
    if name not in _MODULES:
        raise ValueError(f"there is no runtime {name!r}; there are {', '.join(RUNTIMES)}")
    return import_module(_MODULES[name])
