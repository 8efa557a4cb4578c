"""What every command shares: quick help, one JSON object, exit codes, clean streams."""

from __future__ import annotations

import json
import os
import pty
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import click
import pytest
from click.testing import CliRunner, Result

from tests.cli.conftest import Command
from wasmgraph import __version__, errors
from wasmgraph.cli import COMMANDS
from wasmgraph.cli.console import Terminal, common_options

CHECKOUT = Path(__file__).resolve().parents[2]
HEAVY = ("numpy", "onnx", "onnxruntime", "rich", "tvm", "wasmtime")

# A command that runs two stages around `{body}`, as the real ones do.
SCRIPT = """
import click, os, sys, time, warnings
from wasmgraph import errors
from wasmgraph.cli import main
from wasmgraph.cli.console import Terminal, common_options
from wasmgraph.progress import stage

@main.command("frob")
@common_options
def frob(terminal: Terminal) -> None:
    with terminal.stages() as reporter:
        with stage(reporter, "import", {{}}):
            pass
        with stage(reporter, "lower", {{}}, total=2):
            reporter.advance("conv2d")
{body}
    terminal.result({{"answer": 42}}, lambda console: console.print("the report", style="red"))

main.get_command = lambda context, name: frob
main(["frob", *sys.argv[1:]])
"""


def script(body: str = "pass") -> list[str]:
    """The command line of a process that runs SCRIPT; its arguments are frob's."""
    return [sys.executable, "-c", SCRIPT.format(body=textwrap.indent(body, " " * 12))]


def frob(body: str, *args: str, **env: str) -> subprocess.CompletedProcess[str]:
    """Run SCRIPT on pipes."""
    return subprocess.run(
        [*script(body), *args],
        capture_output=True,
        text=True,
        env={**os.environ, **env},
        timeout=60,
        check=False,
    )


def frob_on_terminal(body: str, *args: str, **env: str) -> str:
    """Run SCRIPT on a pseudo-terminal; what somebody would see, escape sequences included."""
    leader, follower = pty.openpty()
    child = subprocess.Popen(
        [*script(body), *args],
        stdin=follower,
        stdout=follower,
        stderr=follower,
        env={**os.environ, "TERM": "xterm-256color", "COLUMNS": "100", **env},
    )
    os.close(follower)
    seen = b""
    try:
        while chunk := os.read(leader, 4096):
            seen += chunk
    except OSError:  # Linux reports the terminal's end as EIO
        pass
    os.close(leader)
    assert child.wait(timeout=60) == 0
    return seen.decode()


def raised(error: BaseException, *args: str) -> Result:
    """A command whose body raises `error`."""

    @click.command()
    @common_options
    def command(terminal: Terminal) -> None:
        raise error

    return CliRunner().invoke(command, list(args))


class TestHelp:
    @pytest.mark.parametrize("command", [(), *((name,) for name in COMMANDS)], ids="-".join)
    def test_imports_nothing_heavy(self, command: tuple[str, ...]) -> None:
        program = textwrap.dedent("""
            import sys
            from wasmgraph.cli import main
            try:
                main([*sys.argv[1:], "--help"])
            except SystemExit as end:
                assert end.code == 0, end.code
            print("loaded:", *(name.partition(".")[0] for name in sys.modules))
        """)
        done = subprocess.run(
            [sys.executable, "-c", program, *command], capture_output=True, text=True, check=True
        )
        loaded = set(done.stdout.rpartition("loaded:")[2].split())
        assert "click" in loaded
        assert not loaded.intersection(HEAVY)

    @pytest.mark.parametrize("command", COMMANDS)
    def test_ends_with_an_example(self, wasmgraph: Command, command: str) -> None:
        outcome = wasmgraph(command, "--help")
        assert outcome.code == 0
        head, _, example = outcome.stdout.partition("Example:")
        assert "--json" in head
        assert f"wasmgraph {command}" in example
        named = [word for word in example.split() if word.startswith("samples/")]
        assert [word for word in named if not (CHECKOUT / word).exists()] == []

    def test_lists_the_commands_in_the_order_of_use(self, wasmgraph: Command) -> None:
        listed = wasmgraph("--help").stdout.partition("Commands:")[2].splitlines()
        names = [line.split()[0] for line in listed if line.startswith("  ") and line.split()]
        assert [name for name in names if name in COMMANDS] == list(COMMANDS)

    def test_version(self, wasmgraph: Command) -> None:
        outcome = wasmgraph("--version")
        assert (outcome.code, outcome.stdout) == (0, f"wasmgraph, version {__version__}\n")

    def test_python_m_wasmgraph_is_the_command(self, process: Command) -> None:
        assert process("--help").stdout.startswith("Usage: wasmgraph ")


class TestErrors:
    @pytest.mark.parametrize(
        ("kind", "code"),
        [
            (errors.ModelError, 3),
            (errors.UnsupportedModelError, 4),
            (errors.ToolchainError, 5),
            (errors.LoadError, 6),
            (errors.InputError, 7),
            (errors.MemoryLimitExceeded, 8),
            (errors.RunTimeout, 9),
            (errors.InferenceError, 10),
            (errors.VerificationError, 11),
        ],
    )
    def test_leave_with_their_kind_s_exit_code(
        self, kind: type[errors.WasmgraphError], code: int
    ) -> None:
        result = raised(kind("it broke", hint="mend it"))
        assert result.exit_code == code
        assert result.stderr == "error: it broke\nhint: mend it\n"
        assert result.stdout == ""

    def test_are_one_json_object_with_json(self) -> None:
        result = raised(errors.ModelError("it broke", hint="mend it"), "--json")
        assert json.loads(result.stdout) == {
            "error": {
                "kind": "ModelError",
                "message": "it broke",
                "hint": "mend it",
                "exit_code": 3,
            }
        }
        assert result.exit_code == 3
        assert result.stderr == ""

    def test_hold_nothing_that_a_terminal_would_obey(self) -> None:
        result = raised(errors.ModelError("node 'a\x1b[2Jb'\n  - and more"))
        assert result.stderr == "error: node 'a\N{REPLACEMENT CHARACTER}[2Jb'\n  - and more\n"

    def test_are_shown_by_quiet_too(self) -> None:
        assert raised(errors.ModelError("it broke"), "-q").stderr == "error: it broke\n"

    def test_come_with_a_traceback_only_when_verbose(self) -> None:
        assert "Traceback" not in raised(errors.ModelError("it broke")).stderr
        assert "Traceback" in raised(errors.ModelError("it broke"), "-v").stderr

    def test_an_unexpected_exception_is_called_a_bug(self) -> None:
        result = raised(ZeroDivisionError("division by zero"))
        assert result.exit_code == 1
        assert result.stderr == (
            "error: this is a bug in wasmgraph: ZeroDivisionError: division by zero\n"
            "hint: run again with -v for the traceback\n"
        )

    def test_an_unexpected_exception_shows_its_traceback_when_verbose(self) -> None:
        result = raised(ZeroDivisionError("division by zero"), "-v")
        assert "Traceback (most recent call last)" in result.stderr
        assert "hint" not in result.stderr

    def test_what_the_system_refuses_is_not_called_a_bug(self) -> None:
        result = raised(PermissionError(13, "Permission denied", "/etc/out.wasm"))
        assert result.exit_code == 1
        assert result.stderr == "error: /etc/out.wasm: Permission denied\n"

    def test_a_wrong_flag_exits_with_2(self, wasmgraph: Command) -> None:
        outcome = wasmgraph("doctor", "--frobnicate")
        assert outcome.code == 2
        assert "--frobnicate" in outcome.stderr
        assert "Usage: wasmgraph doctor" in outcome.stderr

    def test_a_wrong_flag_is_json_with_json(self, wasmgraph: Command) -> None:
        outcome = wasmgraph("doctor", "--json", "--frobnicate")
        assert outcome.code == 2
        assert outcome.json["error"]["kind"] == "UsageError"
        assert "--frobnicate" in outcome.json["error"]["message"]

    def test_an_unknown_command_exits_with_2(self, wasmgraph: Command) -> None:
        outcome = wasmgraph("frobnicate")
        assert outcome.code == 2
        assert "No such command" in outcome.stderr

    @pytest.mark.parametrize("args", [(), ("--json",)])
    @pytest.mark.parametrize(
        ("number", "code", "word"),
        [(signal.SIGINT, 130, "interrupted"), (signal.SIGTERM, 143, "terminated")],
    )
    def test_a_signal_unwinds_and_exits_as_a_shell_reports_it(
        self, number: signal.Signals, code: int, word: str, args: tuple[str, ...]
    ) -> None:
        child = subprocess.Popen(
            [*script("reporter.warn('ready')\ntime.sleep(60)"), *args],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert child.stderr is not None
        while "ready" not in child.stderr.readline():
            assert child.poll() is None
        child.send_signal(number)
        stdout, stderr = child.communicate(timeout=30)
        assert child.returncode == code
        assert word in (stdout if args else stderr)
        assert "Traceback" not in stderr

    def test_a_reader_that_goes_away_is_no_error(self) -> None:
        child = subprocess.Popen(
            script("time.sleep(0.2)"), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        assert child.stdout is not None
        assert child.stderr is not None
        child.stdout.close()
        stderr = child.stderr.read()
        child.wait(timeout=30)
        assert "Traceback" not in stderr
        assert "error" not in stderr.lower()


class TestStreams:
    NOISE = (
        "os.system('echo from a child; echo from a child >&2'); print('from python')\n"
        "print('from python to stderr', file=sys.stderr); warnings.warn('deprecated')"
    )

    @pytest.mark.parametrize("args", [(), ("--json",), ("-q",)])
    def test_what_libraries_print_is_not_shown(self, args: tuple[str, ...]) -> None:
        done = frob(self.NOISE, *args)
        expected = {(): "the report\n", ("--json",): '{\n  "answer": 42\n}\n', ("-q",): ""}[args]
        assert done.stdout == expected
        assert "from" not in done.stderr

    @pytest.mark.parametrize("args", [("-v",), ("-v", "--json")])
    def test_what_libraries_print_is_on_stderr_when_verbose(self, args: tuple[str, ...]) -> None:
        done = frob(self.NOISE, *args)
        assert "from" not in done.stdout
        for text in ("from a child", "from python", "from python to stderr"):
            assert text in done.stderr

    def test_python_warnings_are_details(self) -> None:
        assert "deprecated" not in frob(self.NOISE).stderr
        assert "UserWarning: deprecated" in frob(self.NOISE, "-v").stderr

    def test_a_pipe_gets_a_plain_line_per_stage(self) -> None:
        assert frob("pass").stderr == "import       0.00 s\nlower        0.00 s\n"

    @pytest.mark.parametrize("flag", ["-q", "--json"])
    def test_quiet_and_json_get_no_progress(self, flag: str) -> None:
        assert frob("pass", flag).stderr == ""

    def test_warnings_are_shown_even_when_quiet(self) -> None:
        assert frob("reporter.warn('look out')", "-q").stderr == "warning: look out\n"

    def test_a_pipe_gets_no_colours_even_where_they_are_forced(self) -> None:
        done = frob("pass", FORCE_COLOR="1", CLICOLOR_FORCE="1")
        assert "\x1b" not in done.stdout + done.stderr

    def test_a_terminal_gets_colours_and_a_line_per_stage(self) -> None:
        seen = frob_on_terminal("time.sleep(0.3)")
        assert "\x1b[31mthe report" in seen
        assert "✓" in seen
        assert "lower" in seen
        assert "conv2d" in seen

    def test_no_color_is_honoured_on_a_terminal(self) -> None:
        seen = frob_on_terminal("pass", NO_COLOR="1")
        assert "the report" in seen
        assert "\x1b[31m" not in seen
        assert "\x1b[32m" not in seen

    def test_json_on_a_terminal_is_only_json(self) -> None:
        assert json.loads(frob_on_terminal("pass", "--json")) == {"answer": 42}
