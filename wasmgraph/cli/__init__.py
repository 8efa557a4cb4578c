"""The command line: click commands and nothing else; each stage's work is in its own module.

A command lives in the module of its name and is imported only when it is asked for. No module here
imports numpy, rich, TVM or Wasmtime at its top, so that every `--help` answers at once.
"""

from __future__ import annotations

import io
import sys
from collections.abc import Sequence
from importlib import import_module
from typing import Any, NoReturn

import click

from wasmgraph import __version__
from wasmgraph.cli.console import Interrupted, Terminal

COMMANDS = ("compile", "check", "link", "run", "verify", "inspect", "bench", "profile", "doctor")
"""In the order in which somebody meets them; module `wasmgraph.cli.X` holds `command`."""


class LazyGroup(click.Group):
    """Imports a command when it is used, and leaves with the documented exit codes."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002
        """The commands in the order of `COMMANDS`, which click would sort."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        """Import the command's module; None for a name that is not a command."""
        if cmd_name not in COMMANDS:
            return None
        command: click.Command = import_module(f"wasmgraph.cli.{cmd_name}").command
        return command

    def main(  # type: ignore[override]
        self, args: Sequence[str] | None = None, prog_name: str | None = None, **extra: Any
    ) -> NoReturn:
        """Run a command and exit; errors before a command's body begins are shown here."""
        if isinstance(sys.stdout, io.TextIOWrapper):
            # A name that the terminal's encoding lacks must not end the program.
            sys.stdout.reconfigure(errors="backslashreplace")
        arguments = list(sys.argv[1:] if args is None else args)
        terminal = Terminal(json="--json" in arguments)
        try:
            extra["standalone_mode"] = False  # click would print and exit by rules of its own
            code = super().main(arguments, prog_name or "wasmgraph", **extra)
        except click.ClickException as error:
            terminal.fail_click(error)
        except (KeyboardInterrupt, click.Abort) as interrupt:
            terminal.fail(Interrupted(interrupt))
        except BrokenPipeError:
            terminal.leave_broken_pipe()
        sys.exit(code if isinstance(code, int) else 0)


@click.group(
    "wasmgraph",
    cls=LazyGroup,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="Example: wasmgraph compile model.onnx && wasmgraph run model.wasm -i input.npy",
)
@click.version_option(__version__, prog_name="wasmgraph")
def main() -> None:
    """Compile an ONNX model into one self-contained WebAssembly file, and run it."""
