"""What the README says is so: its commands parse, its tables match the code, its Python runs."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import click
import pytest

from wasmgraph import errors
from wasmgraph.cli import COMMANDS, main
from wasmgraph.wasmfile import ABI_EXPORTS, THREAD_FUNCTIONS

CHECKOUT = Path(__file__).resolve().parents[1]
README = (CHECKOUT / "README.md").read_text(encoding="utf-8")
MAKE_TARGETS = set(
    re.findall(r"^([a-z-]+):", (CHECKOUT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
)


def blocks(language: str) -> list[str]:
    """The contents of the code blocks in a language."""
    return re.findall(rf"^```{language}\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)


def section(title: str) -> str:
    """The text from a heading to the next one."""
    found = re.search(rf"^##+ {re.escape(title)}\n(.*?)(?=^##|\Z)", README, re.M | re.DOTALL)
    assert found, title
    return found[1]


def rows(text: str) -> list[list[str]]:
    """The cells of a table's rows, without its head."""
    lines = [line for line in text.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines[2:]]


def console_commands() -> list[list[str]]:
    """The words of every command line shown, without comments and redirections."""
    lines = [
        line[2:] for block in blocks("console") for line in block.splitlines() if line[:2] == "$ "
    ]
    words = [shlex.split(line, comments=True) for line in lines]
    return [[word for word in line if word not in ("<", ">")] for line in words]


def wasmgraph_arguments() -> list[list[str]]:
    """The arguments of every `wasmgraph` line, here and in the examples of every `--help`."""
    shown = console_commands()
    for name in COMMANDS:
        command = main.get_command(click.Context(main), name)
        assert command is not None
        lines = re.findall(r"^ +(wasmgraph .*)$", command.epilog or "", re.MULTILINE)
        shown += [shlex.split(line) for line in lines]
    return [words[1:] for words in shown if words[0] == "wasmgraph"]


@pytest.mark.parametrize("arguments", wasmgraph_arguments(), ids=shlex.join)
def test_a_command_that_is_shown_has_the_options_it_is_shown_with(arguments: list[str]) -> None:
    name, *rest = arguments
    command = main.get_command(click.Context(main), name)
    assert command is not None
    context = click.Context(command, info_name=name)
    _, left, _ = command.make_parser(context).parse_args(list(rest))
    assert left == []


def test_every_command_has_an_example() -> None:
    for name in COMMANDS:
        assert re.search(rf"^\$ wasmgraph {name}\b", section(name), re.MULTILINE), name


def test_make_has_every_target_that_is_shown() -> None:
    shown = {words[1] for words in console_commands() if words[0] == "make"}
    assert {"demo", "test", "test-models", "lint"} <= shown <= MAKE_TARGETS


def test_other_programs_that_are_shown_are_there() -> None:
    known = {"wasmgraph", "make", "pip", "rustup", "wasmtime", "wazero", "node", "ls"}
    others = {words[0] for words in console_commands()} - known
    assert others
    assert all((CHECKOUT / name).stat().st_mode & 0o111 for name in others)


def test_files_that_are_named_are_there() -> None:
    linked = re.findall(r"\]\(([^)#:]+)\)", README)
    named = [word for words in console_commands() for word in words if word.startswith("samples/")]
    assert linked
    assert named
    for name in linked + named:
        assert (CHECKOUT / name).exists(), name


def test_the_abi_table_lists_every_export() -> None:
    cells = " ".join(row[0] for row in rows(section("The ABI, version 1")))
    assert set(re.findall(r"`(\w+)", cells)) == ABI_EXPORTS | set(THREAD_FUNCTIONS)


def test_the_error_table_has_every_kind_with_its_exit_code() -> None:
    shown = {}
    for codes, kinds, _ in rows(section("Errors")):
        shown.update(zip(re.findall(r"`(\w+)`", kinds), map(int, codes.split(",")), strict=False))
    kinds = errors.WasmgraphError.__subclasses__()
    documented = {kind for kind in kinds if kind.__module__ == errors.__name__}
    assert shown == {kind.__name__: kind.exit_code for kind in documented}


def test_the_python_example_does_what_its_comments_say(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    [example] = blocks("python")
    (tmp_path / "samples").symlink_to(CHECKOUT / "samples")
    monkeypatch.chdir(tmp_path)
    exec(compile(example, "README.md", "exec"), {})
    expected = re.findall(r"# -> (.*)$", example, re.MULTILINE)
    assert len(expected) == 3
    assert capsys.readouterr().out.splitlines() == expected
