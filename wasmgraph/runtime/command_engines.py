"""Engines through their commands: a graph runs as a program that reads and writes NPY files.

Each run is a process, which sees one folder with its own tensors and nothing else of the machine.
These engines bring a WASI of their own, with a clock and randomness that cannot be taken away, so
graphs that import more of WASI than the executor needs are refused. What a graph's other functions
(`wg_input` and so on) would say does not matter here: it is asked through its `_start` alone.
"""

from __future__ import annotations

import os
import re
import select
import shutil
import signal
import subprocess
import tempfile
import time
import weakref
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from wasmgraph.errors import (
    InferenceError,
    LoadError,
    MemoryLimitExceeded,
    RunTimeout,
    ToolchainError,
)
from wasmgraph.interrupts import interrupts_held
from wasmgraph.runtime.base import (
    Array,
    Capabilities,
    EngineStatus,
    GraphFile,
    Limits,
    printable,
)
from wasmgraph.runtime.limits import format_size, speaks_of_memory
from wasmgraph.runtime.npy_files import read_tensor, write_tensor
from wasmgraph.runtime.programs import find_program, program_version
from wasmgraph.wasmfile import PAGE_NBYTES, parse_wasm, with_memory_maximum

GUEST_FOLDER = "/tensors"
KEPT_STDERR = 4096
COMPILE_SECONDS = 1800.0

_ANSWER_SECONDS = 20
_USAGE_ERROR = 2
"""What a command ends with where arguments are missing."""

_NOT_STARTED = 127
"""What `setpriv` ends with where there is no such program."""

_ENVIRONMENT = ("PATH", "HOME", "TMPDIR", "XDG_CACHE_HOME", "LD_LIBRARY_PATH", "WASMER_DIR")

NEEDED_OF_WASI = frozenset(
    [
        *("args_get", "args_sizes_get", "environ_get", "environ_sizes_get", "fd_close"),
        *("fd_fdstat_get", "fd_filestat_get", "fd_prestat_dir_name", "fd_prestat_get", "fd_read"),
        *("fd_seek", "fd_write", "path_open", "proc_exit"),
    ]
)
"""What reading and writing files takes, and nothing that tells of the machine."""


_MAIN_MODULE_FAILED = re.compile(
    r"^Error: failed to run main module .*\n {4}(?:\d+: )?(?=\S)", re.DOTALL | re.MULTILINE
)
"""Of what Wasmtime says, all from there to the innermost cause: a file's name and a backtrace."""


def _without_backtrace(said: str) -> str:
    """What Wasmtime and the graph said before it ended, with the innermost cause alone."""
    return _MAIN_MODULE_FAILED.sub("", said, count=1)


@dataclass(frozen=True)
class Command:
    """How one engine's command is used.

    Attributes:
        name: As in `load(..., runtime=NAME)`.
        program: Its name on PATH.
        variable: The environment variable that may name it.
        fix: How to get it.
        relaxed_simd: Whether it runs relaxed SIMD.
        suffix: Of a compiled graph.
        compile: Its arguments to compile a module into a file.
        run: Its arguments to run the compiled graph with a folder opened to it.
        subcommand: One that it may have been built without, or None.
        reason: Makes the reason of a failed run of what stands on its stderr.
    """

    name: str
    program: str
    variable: str
    fix: str
    relaxed_simd: bool
    suffix: str
    compile: Callable[[Path, Path], list[str]]
    run: Callable[[Path, Path], list[str]]
    subcommand: str | None = None
    reason: Callable[[str], str] = str


COMMANDS = {
    command.name: command
    for command in (
        Command(
            name="wasmtime-cli",
            program="wasmtime",
            variable="WASMGRAPH_WASMTIME",
            fix="cargo install wasmtime-cli, or wasmtime.dev",
            relaxed_simd=True,
            suffix=".cwasm",
            compile=lambda module, to: ["compile", "-o", str(to), str(module)],
            run=lambda compiled, folder: [
                *("run", "--allow-precompiled", f"--dir={folder}::{GUEST_FOLDER}"),
                str(compiled),
            ],
            subcommand="compile",
            reason=_without_backtrace,
        ),
        Command(
            name="wasmer",
            program="wasmer",
            variable="WASMGRAPH_WASMER",
            fix="wasmer.io",
            relaxed_simd=False,
            suffix=".wasmu",
            compile=lambda module, to: ["compile", str(module), "-o", str(to)],
            run=lambda compiled, folder: [
                *("run", f"--mapdir={GUEST_FOLDER}:{folder}", str(compiled), "--"),
            ],
        ),
        Command(
            name="wasmedge",
            program="wasmedge",
            variable="WASMGRAPH_WASMEDGE",
            fix="apt-get install wasmedge where there is one, or wasmedge.org",
            relaxed_simd=False,
            suffix=".so",
            compile=lambda module, to: ["compile", str(module), str(to)],
            run=lambda compiled, folder: [f"--dir={GUEST_FOLDER}:{folder}", str(compiled)],
        ),
    )
}


def find_engine(name: str) -> CommandEngine:
    """The engine, if its command is there; see `wasmgraph.runtime.registry`.

    Raises:
        ToolchainError: it is not.
    """
    command = COMMANDS[name]
    return CommandEngine(command, _program(command))


def examine(name: str) -> EngineStatus:
    """What this machine has of it; see `wasmgraph.runtime.registry`."""
    command = COMMANDS[name]
    try:
        program = _program(command)
        version = program_version(program)
    except ToolchainError as error:
        return EngineStatus(name, False, None, error.message, error.hint or command.fix, None)
    return EngineStatus(name, True, version, str(program), None, _capabilities(command))


def _program(command: Command) -> Path:
    program = find_program(command.name, command.variable, (command.program,), command.fix)
    if command.subcommand is not None:
        _check_subcommand(program, command.subcommand, command.fix)
    return program


def _check_subcommand(program: Path, name: str, fix: str) -> None:
    """Check that a program was built with a subcommand; without it, the name is that of a file.

    Raises:
        ToolchainError: it was not, or does not run.
    """
    try:
        done = subprocess.run(
            [program, name],
            cwd="/",  # where there is no file of that name
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=_ANSWER_SECONDS,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise ToolchainError(f"{program} does not run: {error}") from error
    if done.returncode != _USAGE_ERROR:
        raise ToolchainError(f"{program} has no command {name!r}", hint=fix)


def _capabilities(command: Command) -> Capabilities:
    return Capabilities(
        simd=True,
        relaxed_simd=command.relaxed_simd,
        threads=False,
        memory_limit=True,
        time_limit=True,
    )


class CommandEngine:
    """An engine's command; see `wasmgraph.runtime.base.Engine`."""

    def __init__(self, command: Command, program: Path) -> None:
        self.name = command.name
        self.capabilities = _capabilities(command)
        self.command = command
        self.program = program

    def load(
        self,
        file: GraphFile,
        limits: Limits,
        *,
        cache: bool,  # noqa: ARG002 - compiling ahead is the engine's, and kept as long as the graph
        threads: int = 1,  # noqa: ARG002 - one, as the capabilities say
    ) -> CommandProgram:
        """Have the command compile a graph; see the interface."""
        return CommandProgram(self, file, limits)

    def close(self) -> None:
        """Nothing is kept ready."""


class CommandProgram:
    """A graph that the command has compiled; see `wasmgraph.runtime.base.Program`."""

    def __init__(self, engine: CommandEngine, file: GraphFile, limits: Limits) -> None:
        self.engine = engine
        self.file = file
        self.limits = limits
        _check_imports(engine.name, file)
        self._folder = Path(tempfile.mkdtemp(prefix="wasmgraph-"))
        self._finalizer = weakref.finalize(self, shutil.rmtree, self._folder, ignore_errors=True)
        module = self._folder / "graph.wasm"
        data = file.source.read()
        if limits.memory is not None:
            data = with_memory_maximum(data, limits.memory // PAGE_NBYTES)
        module.write_bytes(data)
        self.compiled = module.with_suffix(engine.command.suffix)
        began = time.perf_counter()
        command = [str(engine.program), *engine.command.compile(module, self.compiled)]
        ended = run_command(command, COMPILE_SECONDS)
        self.load_ms = 1e3 * (time.perf_counter() - began)
        if ended.code != 0 or not self.compiled.is_file():
            raise LoadError(f"{engine.name} does not compile {file.path}: {ended.reason()}")
        module.unlink()

    def instantiate(self) -> CommandInstance:
        """Runs are instances of their own; see the interface."""
        return CommandInstance(self)

    def close(self) -> None:
        """Remove the compiled code."""
        self._finalizer()


class CommandInstance:
    """Runs a command per run; see `wasmgraph.runtime.base.Instance`."""

    def __init__(self, program: CommandProgram) -> None:
        self._program = program
        self.run_ms = 0.0

    @property
    def process_peak(self) -> None:
        """Its processes end with their runs; see the interface."""

    def run(self, inputs: Sequence[Array]) -> list[Array]:
        """Run once; see the interface. `run_ms` has the start of the process in it."""
        program = self._program
        file, engine = program.file, program.engine
        with tempfile.TemporaryDirectory(prefix="wasmgraph-") as name:
            folder = Path(name)
            arguments = []
            for index, (array, spec) in enumerate(zip(inputs, file.inputs, strict=True)):
                write_tensor(folder / f"in{index}.npy", array, spec)
                arguments += ["-i", f"{spec.name}={GUEST_FOLDER}/in{index}.npy"]
            for index, spec in enumerate(file.outputs):
                arguments += ["-o", f"{spec.name}={GUEST_FOLDER}/out{index}.npy"]
            began = time.perf_counter()
            ended = run_command(
                [
                    str(engine.program),
                    *engine.command.run(program.compiled, folder),
                    *arguments,
                ],
                program.limits.seconds,
            )
            self.run_ms = 1e3 * (time.perf_counter() - began)
            self._check(ended)
            return [
                read_tensor(folder / f"out{index}.npy", spec)
                for index, spec in enumerate(file.outputs)
            ]

    def run_step(self, index: int, times: int) -> None:  # noqa: ARG002 - there is no such way in
        """A command runs whole graphs only; see the interface."""
        raise InferenceError(
            f"{self._program.engine.name} cannot run single steps", hint="choose another --runtime"
        )

    def close(self) -> None:
        """Nothing is kept between runs."""

    def _check(self, ended: Ended) -> None:
        program = self._program
        limits = program.limits
        if ended.code is None:
            raise RunTimeout(
                f"{program.file.path} was stopped after its time limit of {limits.seconds:g} s"
            )
        if ended.code == 0:
            return
        engine = program.engine
        what = f"the graph failed under {engine.name}: {engine.command.reason(ended.reason())}"
        if limits.memory is not None and speaks_of_memory(ended.stderr):
            raise MemoryLimitExceeded(
                f"{what}; the limit is {format_size(limits.memory)}",
                hint="allow more memory, or none at all to use what the engine has (4 GiB)",
            )
        raise InferenceError(what)


@dataclass(frozen=True)
class Ended:
    """How a process ended: its exit code, or None where its time was over, and its last words."""

    code: int | None
    stderr: str

    def reason(self) -> str:
        """For a message."""
        return self.stderr or f"exit code {self.code}"


def run_command(command: Sequence[str], seconds: float | None) -> Ended:
    """Run a process to its end, or until its time is over; nothing of it is left then.

    It ends when Python exits, whatever other threads wait for, and when Python is killed where
    util-linux' `setpriv` is, which can ask the system for that.

    Raises:
        ToolchainError: it cannot be started.
    """
    deadline = None if seconds is None else time.monotonic() + seconds
    setpriv = shutil.which("setpriv")
    tied = [] if setpriv is None else [setpriv, "--pdeathsig", "KILL", "--"]
    with interrupts_held():  # until its end is arranged for
        process = _start([*tied, *command])
        finalizer = weakref.finalize(process, _kill_group, process.pid, os.getpid())
        # A thread that waits for the process would go on where it is killed before Python exits,
        # and begin what it then cannot end: to remove folders, which Python removes at its exit.
        finalizer.atexit = not tied
    try:
        said = _last_words(process, deadline)
        code = None if said is None else process.wait(_rest(deadline))
    except subprocess.TimeoutExpired:
        return Ended(None, "")
    finally:
        finalizer.detach()
        _kill(process)
    text = printable((said or b"").decode("utf-8", errors="replace").strip())
    if tied and code == _NOT_STARTED and text.startswith("setpriv: failed to execute"):
        raise ToolchainError(f"{command[0]} does not run: {text}")
    return Ended(code, text)


def _start(command: Sequence[str]) -> subprocess.Popen[bytes]:
    try:
        return subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            bufsize=0,
            start_new_session=True,  # so that Ctrl-C reaches this process alone, which then ends it
            # No more than the engine itself needs: some can be told to pass it all on.
            env={name: os.environ[name] for name in _ENVIRONMENT if name in os.environ},
        )
    except OSError as error:
        raise ToolchainError(f"{command[0]} does not run: {error.strerror or error}") from error


def _last_words(process: subprocess.Popen[bytes], deadline: float | None) -> bytes | None:
    """The end of its stderr once it has closed it; None where the time is over before."""
    assert process.stderr is not None
    kept = b""
    while True:
        rest = _rest(deadline)
        ready, _, _ = select.select([process.stderr], [], [], rest)
        if not ready:
            return None
        text = process.stderr.read(65536)
        if not text:
            return kept
        kept = (kept + text)[-KEPT_STDERR:]


def _rest(deadline: float | None) -> float | None:
    return None if deadline is None else max(0.0, deadline - time.monotonic())


def _kill_group(pid: int, owner: int) -> None:
    """Kill a process that nobody has waited for, and what it has started."""
    if os.getpid() == owner:  # a forked child has a copy of the finalizer, not the process
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(pid, signal.SIGKILL)


def _kill(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is None:
        _kill_group(process.pid, os.getpid())
        process.wait()
    if process.stderr is not None:
        process.stderr.close()


def _check_imports(name: str, file: GraphFile) -> None:
    module = parse_wasm(file.source)  # type: ignore[arg-type]  # it only slices
    foreign = sorted({item.name for item in module.imports} - NEEDED_OF_WASI)
    if foreign:
        raise LoadError(
            f"{file.path} imports {printable(', '.join(foreign))}, which {name} would let it have",
            hint="choose another --runtime: in the others there is nothing behind WASI",
        )
