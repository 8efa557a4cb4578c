"""What every command shares: its common options, where its output goes, how it fails.

Results go to stdout, everything else (progress, warnings, errors) to stderr. With `--json` stdout
holds exactly one JSON object, on success and on failure alike.

A command is written as

    @click.command(epilog=example("wasmgraph frob model.onnx"))
    @click.argument("model", type=FILE)
    @common_options
    def command(terminal: Terminal, model: Path) -> None:
        with terminal.stages() as reporter:
            report = frob(model, reporter)
        terminal.result(report.to_json(), lambda console: console.print(table(report)))

This module draws nothing itself and knows nothing of any stage.
"""

from __future__ import annotations

import ctypes
import functools
import json as json_module
import os
import signal
import sys
import threading
import traceback
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Concatenate, NoReturn, ParamSpec

import click

from wasmgraph.errors import WasmgraphError
from wasmgraph.progress import SILENT, Reporter

if TYPE_CHECKING:
    from rich.console import Console

P = ParamSpec("P")

FILE = click.Path(path_type=Path)
"""A path argument. Whether it exists is for the stage to say, with its own error and exit code."""

PIPE_WIDTH = 120
"""Columns of a table on a pipe, where there is no terminal to ask and COLUMNS is not set."""

EXIT_BROKEN_PIPE = 1  # as rich has it


class Terminated(KeyboardInterrupt):
    """SIGTERM, which a CI system sends before it kills; cleans up the way Ctrl-C does."""


class Interrupted(WasmgraphError):  # noqa: N818 - nothing went wrong
    """Ctrl-C or SIGTERM; exits with 128 + the signal's number, as a shell reports it."""

    def __init__(self, cause: BaseException) -> None:
        terminated = isinstance(cause, Terminated)
        super().__init__("terminated" if terminated else "interrupted")
        self.exit_code = 128 + (signal.SIGTERM if terminated else signal.SIGINT)


def example(*lines: str) -> str:
    """The epilog of a command's help: one or more command lines, kept as they are."""
    return "\b\nExample:\n" + "\n".join(f"  {line}" for line in lines)


@dataclass(frozen=True)
class Terminal:
    """Where one command's output goes, from its common options.

    Attributes:
        quiet: Errors only: no progress and no report for people.
        verbose: Details and tracebacks too.
        json: One JSON object on stdout instead of a report for people, and no progress.
    """

    quiet: bool = False
    verbose: bool = False
    json: bool = False

    @contextmanager
    def stages(self) -> Iterator[Reporter]:
        """Run stages inside: yields the reporter that draws them on stderr.

        Whatever a library prints meanwhile is shown with `-v` only, and never on stdout.
        """
        from wasmgraph.cli.reporters import PlainReporter, RichReporter

        silent = self.quiet or self.json
        with sigterm_interrupts(), libraries_apart(shown=self.verbose) as stream:
            console = self.console(stream)
            reporter: PlainReporter | RichReporter
            # What libraries print would tear the bars apart.
            if console.is_terminal and not silent and not self.verbose:
                reporter = RichReporter(console)
            else:
                reporter = PlainReporter(console, silent=silent, verbose=self.verbose)
            with warnings_to(reporter), reporter:
                yield reporter

    def console(self, stream: IO[str] | None = None) -> Console:
        """A rich console on stdout or `stream`: no colours unless that is a terminal."""
        from rich.console import Console

        stream = stream or sys.stdout
        tty = stream.isatty()
        return Console(
            file=stream,
            force_terminal=tty,
            width=None if tty or "COLUMNS" in os.environ else PIPE_WIDTH,
            highlight=False,
            markup=False,
            emoji=False,
        )

    def result(self, data: Mapping[str, Any], draw: Callable[[Console], None]) -> None:
        """The command's result: `data` as JSON with `--json`, else `draw` unless `--quiet`."""
        if self.json:
            click.echo(json_module.dumps(data, indent=2))
        elif not self.quiet:
            console = self.console()
            if console.is_terminal:
                draw(console)
                return
            with console.capture() as drawn:
                draw(console)
            # rich fills every cell to its column's width; in a log that is only noise.
            click.echo("\n".join(line.rstrip() for line in drawn.get().splitlines()))

    def fail(self, error: WasmgraphError) -> NoReturn:
        """Show an error that a caller can act on, and exit with its code."""
        if self.verbose and not isinstance(error, Interrupted):
            traceback.print_exception(error, file=sys.stderr)
        self._show(error.kind, error.message, error.hint, error.exit_code)

    def fail_click(self, error: click.ClickException) -> NoReturn:
        """Show wrong flags the way click does (with `--json`, as JSON), and exit with its code."""
        if not self.json:
            error.show()
            sys.exit(error.exit_code)
        context = getattr(error, "ctx", None)
        path = context.command_path if context else "wasmgraph"
        hint = f"try '{path} --help'"
        self._show("UsageError", error.format_message(), hint, error.exit_code)

    def fail_system(self, error: OSError) -> NoReturn:
        """Show what the operating system refused (a full disk, a missing permission)."""
        where = f"{error.filename}: " if error.filename else ""
        self._show("OSError", where + (error.strerror or str(error)), None, 1)

    def fail_bug(self, error: Exception) -> NoReturn:
        """Show an exception nobody expected; with `-v`, its traceback."""
        if self.verbose:
            traceback.print_exception(error, file=sys.stderr)
        hint = None if self.verbose else "run again with -v for the traceback"
        kind = type(error).__name__
        self._show("InternalError", f"this is a bug in wasmgraph: {kind}: {error}", hint, 1)

    def leave_broken_pipe(self) -> NoReturn:
        """Whoever read our stdout has gone: end quietly, as other programs do on SIGPIPE."""
        # The interpreter flushes stdout once more at its end; let that go nowhere.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(EXIT_BROKEN_PIPE)

    def _show(self, kind: str, message: str, hint: str | None, exit_code: int) -> NoReturn:
        if self.json:
            error = {"kind": kind, "message": message, "hint": hint, "exit_code": exit_code}
            click.echo(json_module.dumps({"error": error}, indent=2))
        else:
            self._line("error:", "red", message)
            if hint:
                self._line("hint:", None, hint)
        sys.exit(exit_code)

    @staticmethod
    def _line(label: str, colour: str | None, text: str) -> None:
        from wasmgraph.runtime.base import printable

        # A message may quote names from a model of any origin.
        colours = sys.stderr.isatty() and not os.environ.get("NO_COLOR")
        start = click.style(label, fg=colour, bold=True)
        click.echo(f"{start} {printable(text)}", err=True, color=colours)


def common_options(body: Callable[Concatenate[Terminal, P], None]) -> Callable[P, None]:
    """Give a command `-q`, `-v` and `--json`, and show its errors; put it nearest to the function.

    The function gets the `Terminal` as its first argument.
    """

    @click.option("-q", "--quiet", is_flag=True, help="Errors only: no progress, no report.")
    @click.option("-v", "--verbose", is_flag=True, help="Details, and tracebacks of errors.")
    @click.option("--json", "as_json", is_flag=True, help="One JSON object on stdout.")
    @functools.wraps(body)
    def wrapped(*args: P.args, **kwargs: P.kwargs) -> None:
        quiet, verbose, as_json = (
            bool(kwargs.pop(name)) for name in ("quiet", "verbose", "as_json")
        )
        terminal = Terminal(quiet, verbose, as_json)
        try:
            body(terminal, *args, **kwargs)
            sys.stdout.flush()
        except WasmgraphError as error:
            terminal.fail(error)
        except KeyboardInterrupt as interrupt:
            terminal.fail(Interrupted(interrupt))
        except BrokenPipeError:
            terminal.leave_broken_pipe()
        except click.ClickException:
            raise
        except OSError as error:
            terminal.fail_system(error)
        except Exception as error:
            terminal.fail_bug(error)

    return wrapped


@contextmanager
def libraries_apart(*, shown: bool) -> Iterator[IO[str]]:
    """Keep what libraries print to stdout and stderr apart from what we print.

    TVM's C++ side and onnxruntime write to the file descriptors, past `sys.stdout`, so those are
    redirected too: to stderr if `shown`, else to nowhere.

    Yields:
        Our own way to stderr meanwhile.
    """
    _flush()
    streams = sys.stdout, sys.stderr
    descriptors = os.dup(1), os.dup(2)
    with ExitStack() as stack:
        own: IO[str] = sys.stderr
        if _descriptor(own) == 2:
            own = stack.enter_context(
                os.fdopen(os.dup(2), "w", 1, encoding=sys.stderr.encoding, errors="replace")
            )
        if not shown:
            os.dup2(stack.enter_context(open(os.devnull, "wb")).fileno(), 2)
        os.dup2(2, 1)
        sys.stdout = sys.stderr = stack.enter_context(
            os.fdopen(os.dup(2), "w", 1, encoding="utf-8")
        )
        try:
            yield own
        finally:
            _flush()
            sys.stdout, sys.stderr = streams
            for number, saved in enumerate(descriptors, start=1):
                os.dup2(saved, number)
                os.close(saved)


def _descriptor(stream: IO[str]) -> int | None:
    try:
        return stream.fileno()
    except OSError:  # a stream in memory
        return None


def _flush() -> None:
    sys.stdout.flush()
    sys.stderr.flush()
    ctypes.CDLL(None).fflush(None)  # C's stdio has a buffer of its own


@contextmanager
def warnings_to(reporter: Reporter = SILENT) -> Iterator[None]:
    """Hand Python warnings (numpy's, TVM's) to the reporter as details for a verbose user."""

    def show(message: Warning | str, category: type[Warning], *_: object, **__: object) -> None:
        reporter.log(f"{category.__name__}: {message}")

    with warnings.catch_warnings():
        warnings.showwarning = show
        yield


@contextmanager
def sigterm_interrupts() -> Iterator[None]:
    """Let SIGTERM unwind like Ctrl-C meanwhile, so that temporary files and cargo go with us."""

    def interrupt(number: int, frame: object) -> NoReturn:  # noqa: ARG001
        raise Terminated

    if threading.current_thread() is not threading.main_thread():
        yield  # Python handles signals in its main thread only
        return
    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
