"""The Node adapter: graphs run in V8, in processes that run `toolchain/javascript/host.mjs`."""

from __future__ import annotations

from pathlib import Path

from wasmgraph.runtime.base import EngineStatus
from wasmgraph.runtime.host_process import HostProcess
from wasmgraph.runtime.hosted_engine import HostedEngine, examine_hosted
from wasmgraph.runtime.programs import find_program, host_sources

HOST = "host.mjs"
FIX = "install Node 20 or newer: apt-get install nodejs, or nodejs.org"


def find_engine(name: str) -> HostedEngine:
    """Node, by its first host; see `wasmgraph.runtime.registry`.

    Raises:
        ToolchainError: there is no Node, or it does not run the host.
    """
    program = _program(name)
    script = host_sources("javascript", HOST) / HOST
    return HostedEngine(name, lambda: HostProcess(name, [program, script]))


def examine(name: str) -> EngineStatus:
    """What this machine has of it; see `wasmgraph.runtime.registry`."""
    return examine_hosted(name, lambda: find_engine(name), lambda: str(_program(name)), FIX)


def _program(name: str) -> Path:
    return find_program(name, "WASMGRAPH_NODE", ("node", "nodejs"), FIX)
