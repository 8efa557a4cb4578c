"""Whether an engine can do what is asked of it, before anything runs."""

from __future__ import annotations

from wasmgraph.errors import LoadError, MemoryLimitExceeded, ToolchainError
from wasmgraph.runtime.base import Capabilities, EngineStatus, GraphFile, Limits
from wasmgraph.runtime.limits import format_size
from wasmgraph.runtime.registry import find_component_engine
from wasmgraph.wasmfile import PAGE_NBYTES, parse_wasm


def check_engine(status: EngineStatus, file: GraphFile, limits: Limits, threads: int) -> None:
    """Check that an engine is on this machine and can run a graph, without starting it for that.

    Raises:
        ToolchainError: it is not here.
        LoadError, MemoryLimitExceeded: as `check_request` does, or the graph is a component and
            the engine takes modules only.
    """
    if not status.available or status.capabilities is None:
        raise ToolchainError(status.detail, status.fix)
    can = status.capabilities
    if file.component is not None:
        can = find_component_engine(status.name).capabilities
    check_request(status.name, can, file, limits, threads)


def check_request(
    name: str, can: Capabilities, file: GraphFile, limits: Limits, threads: int
) -> None:
    """Check that an engine can run a graph within these limits on so many threads.

    Args:
        name: The engine's, for messages.

    Raises:
        LoadError: the engine lacks what the graph needs or what the caller asks for, or the graph
            was compiled for one thread.
        MemoryLimitExceeded: the graph needs more memory to start with than the limit allows.
    """
    metadata = file.metadata
    if threads > 1 and file.component is not None:
        raise LoadError(
            f"{file.path} is a component, which runs on one thread, not on {threads}",
            hint="compile the model with --threads and without --kind component",
        )
    if threads > 1 and not metadata.threads:
        raise LoadError(
            f"{file.path} was compiled for one thread, not for {threads}",
            hint="compile the model with --threads",
        )
    lacks = f"{name} cannot run {file.path}: it "
    if metadata.simd != "none" and not can.simd:
        raise LoadError(f"{lacks}has no SIMD", hint="compile the model with --simd none")
    if metadata.simd == "relaxed" and not can.relaxed_simd:
        raise LoadError(
            f"{lacks}has no relaxed SIMD, for which the graph was compiled",
            hint="compile the model with --simd simd128, or choose another --runtime",
        )
    if metadata.threads and not can.threads:
        raise LoadError(
            f"{lacks}has no threads, for which the graph was compiled",
            hint="compile the model without --threads, or choose another --runtime",
        )
    if limits.memory is not None and not can.memory_limit:
        raise LoadError(f"{name} cannot keep a memory limit", hint="choose another --runtime")
    if limits.seconds is not None and not can.time_limit:
        raise LoadError(f"{name} cannot keep a time limit", hint="choose another --runtime")
    if limits.memory is not None:
        _check_start(file, limits.memory)


def _check_start(file: GraphFile, limit: int) -> None:
    if file.component is not None:
        needed = file.component.memory_pages * PAGE_NBYTES
    else:
        memory = parse_wasm(file.source).memory  # type: ignore[arg-type]  # it only slices
        assert memory is not None  # `check_graph` has seen to it
        needed = memory.minimum * PAGE_NBYTES
    if needed > limit:
        raise MemoryLimitExceeded(
            f"{file.path} needs {format_size(needed)} of memory to start with, "
            f"the limit is {format_size(limit)}",
            hint=f"allow at least {needed} bytes",
        )
