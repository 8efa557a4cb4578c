"""Tries one case in a process of its own, with limits, and says how it ended.

The process is a copy of this one (a fork), in which everything is imported already: a case takes a
fraction of a second, and whatever one breaks is gone with it.
"""

from __future__ import annotations

import json
import os
import resource
import select
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

import wasmgraph
from tests.fuzz.cases import GRAPH, MODEL, Case
from wasmgraph.bundle import read_bundle
from wasmgraph.compiler import make_bundle
from wasmgraph.errors import WasmgraphError
from wasmgraph.link import link

GIB = 2**30
RUN_SECONDS = 5.0
"""For a damaged graph: it may run for ever."""

LONGEST_MESSAGE = 20_000


@dataclass(frozen=True)
class Limits:
    """What a case may take.

    Attributes:
        seconds: Wall time.
        resident: Bytes of memory that are really used, on top of what the process began with.
        address_space: Bytes of addresses, likewise. An engine reserves many more than it uses.
    """

    seconds: float = 120.0
    resident: int = 2 * GIB
    address_space: int = 4 * GIB


ENGINE_ADDRESS_SPACE = 64 * GIB


@dataclass(frozen=True)
class Ending:
    """How a case ended.

    Attributes:
        verdict: "accepted", the kind of a documented error, or what must not happen: "crash",
            "timeout", "memory", "files", "message", or the class of another exception.
        text: The message, the traceback, or what the process said last.
        is_finding: Whether it must not happen.
        seconds: How long it took.
    """

    verdict: str
    text: str
    is_finding: bool
    seconds: float


def try_case(case: Case, limits: Limits = Limits()) -> Ending:
    """Run a case. Its folder is gone afterwards."""
    with tempfile.TemporaryDirectory(prefix="fuzz-") as name:
        folder = Path(name)
        (folder / "case").mkdir()
        (folder / "tmp").mkdir()
        case.write(folder / "case")
        before = _files(folder)
        began = time.monotonic()
        verdict, text, is_finding = _in_a_fork(case, folder, limits)
        seconds = time.monotonic() - began
        left = sorted(_files(folder) - before - {"said.txt"})
        if left and not is_finding:
            return Ending("files", f"left behind: {', '.join(left)}", True, seconds)
        return Ending(verdict, text, is_finding, seconds)


def _files(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*")}


def _in_a_fork(case: Case, folder: Path, limits: Limits) -> tuple[str, str, bool]:
    reading, writing = os.pipe()
    sys.stdout.flush()
    sys.stderr.flush()
    child = os.fork()
    if child == 0:
        os.close(reading)
        _child(case, folder, limits, writing)
    os.close(writing)
    with open(reading, "rb") as pipe:
        deadline = time.monotonic() + limits.seconds
        said = b""
        # The pipe ends with the process; it is a few kilobytes, or nothing.
        while select.select([pipe], [], [], max(0.0, deadline - time.monotonic()))[0]:
            more = os.read(reading, 65536)
            if not more:
                break
            said += more
        else:
            os.killpg(child, signal.SIGKILL)
            os.wait4(child, 0)
            return "timeout", f"took more than {limits.seconds:g} s\n{_said(folder)}", True
    _, status, usage = os.wait4(child, 0)
    if not said or status != 0:
        code = os.waitstatus_to_exitcode(status)
        how = signal.Signals(-code).name if code < 0 else f"exit status {code}"
        return "crash", f"{how}\n{_said(folder)}", True
    began_with, (verdict, text, is_finding) = json.loads(said)
    resident = usage.ru_maxrss * 1024 - began_with
    if not is_finding and resident > limits.resident:
        return "memory", f"used {resident / GIB:.1f} GiB, then {verdict}: {text}", True
    return verdict, text, is_finding


def _said(folder: Path) -> str:
    log = folder / "said.txt"
    return log.read_text(encoding="utf-8", errors="replace")[-4000:] if log.exists() else ""


def _resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


def _child(case: Case, folder: Path, limits: Limits, writing: int) -> None:
    """Never returns."""
    try:
        # A fork leaves behind what its parent has mapped from files: the parent's figure is larger.
        began_with = _resident()
        os.setpgid(0, 0)
        log = os.open(folder / "said.txt", os.O_CREAT | os.O_WRONLY)
        os.dup2(log, 1)
        os.dup2(log, 2)
        os.environ["TMPDIR"] = str(folder / "tmp")
        tempfile.tempdir = None
        used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        space = limits.address_space if case.kind == "model" else ENGINE_ADDRESS_SPACE
        resource.setrlimit(resource.RLIMIT_AS, (used + space, used + space))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        ending = _verdict(lambda: _TRIALS[case.kind](folder / "case", case.number))
        os.write(writing, json.dumps([began_with, ending]).encode())
        os.close(writing)
        os._exit(0)
    finally:
        os._exit(99)


def _verdict(attempt: Callable[[], None]) -> tuple[str, str, bool]:
    try:
        attempt()
    except WasmgraphError as error:
        text = f"{error.message}\n{error.hint or ''}".strip()
        if not error.message.strip() or len(text) > LONGEST_MESSAGE:
            return "message", f"{error.kind} of {len(text)} characters: {text[:2000]}", True
        return error.kind, text, False
    except BaseException as error:
        return type(error).__name__, traceback.format_exc()[-8000:], True
    return "accepted", "", False


def _try_model(folder: Path, number: int) -> None:
    make_bundle(folder / MODEL)


def _try_bundle(folder: Path, number: int) -> None:
    out = folder / "out.wasm"
    link(read_bundle(folder), out)
    try:
        _run(out, number)
    finally:
        out.unlink()  # what else is there was left behind


def _try_graph(folder: Path, number: int) -> None:
    _run(folder / GRAPH, number)


def _run(path: Path, number: int) -> None:
    """Load a graph and run it twice on random bytes."""
    rng = np.random.default_rng(number)
    with wasmgraph.load(path, max_memory=GIB, timeout=RUN_SECONDS, cache=False) as graph:
        for _ in range(2):
            inputs = {
                spec.name: np.frombuffer(rng.bytes(spec.nbytes), spec.dtype).reshape(spec.shape)
                for spec in graph.inputs
            }
            graph.run(inputs)


_TRIALS: dict[str, Callable[[Path, int], None]] = {
    "model": _try_model,
    "bundle": _try_bundle,
    "graph": _try_graph,
}
