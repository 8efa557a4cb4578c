"""What engines whose graphs run in hosts have in common."""

from __future__ import annotations

from collections.abc import Callable

from wasmgraph.errors import ToolchainError
from wasmgraph.runtime.base import Capabilities, EngineStatus, GraphFile, Limits
from wasmgraph.runtime.hosted import HostedProgram
from wasmgraph.runtime.protocol import Channel


class HostedEngine:
    """An engine whose hosts find a graph by its path; see `wasmgraph.runtime.base.Engine`.

    One host is started at once, to hear what it can do; the first graph is loaded into it.

    Raises:
        ToolchainError: it does not start.
    """

    def __init__(self, name: str, start: Callable[[], Channel]) -> None:
        self.name = name
        self._start = start
        first = start()
        self.hello = first.hello
        self._started = [first]

    @property
    def capabilities(self) -> Capabilities:
        """See the interface."""
        can = self.hello.capabilities
        # A host that has no time limit of its own is ended when the time is over.
        return Capabilities(
            simd=can.simd,
            relaxed_simd=can.relaxed_simd,
            threads=can.threads,
            memory_limit=can.memory_limit,
            time_limit=True,
        )

    def load(
        self, file: GraphFile, limits: Limits, *, cache: bool, threads: int = 1
    ) -> HostedProgram:
        """Have a host compile a graph; see the interface."""
        path = str(file.path.resolve())
        return HostedProgram(
            self.name, file, path, self._open, limits, cache=cache, threads=threads
        )

    def close(self) -> None:
        """End the host that no graph has taken."""
        while self._started:
            self._started.pop().close()

    def _open(self) -> Channel:
        try:
            return self._started.pop()
        except IndexError:
            return self._start()


def examine_hosted(
    name: str, find: Callable[[], HostedEngine], where: Callable[[], str], fix: str
) -> EngineStatus:
    """The status of an engine by starting a host of its.

    Args:
        find: The engine.
        where: What it is and where, in words.
        fix: How to get it, where no error says it better.
    """
    try:
        place = where()
        engine = find()
    except ToolchainError as error:
        return EngineStatus(name, False, None, error.message, error.hint or fix, None)
    engine.close()
    return EngineStatus(name, True, engine.hello.version, place, None, engine.capabilities)
