"""`wasmgraph link`: the link stage alone."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from wasmgraph.cli.console import FILE, Terminal, common_options, example
from wasmgraph.cli.inputs import kind_option

if TYPE_CHECKING:
    from rich.console import RenderableType

    from wasmgraph.link import Kind


@click.command(
    epilog=example(
        "wasmgraph compile samples/digits/digits.onnx --bundle digits.bundle",
        "wasmgraph link digits.bundle -o digits.wasm",
    )
)
@click.argument("bundle", type=FILE, metavar="BUNDLE")
@click.option(
    "-o", "--output", type=FILE, metavar="OUT.wasm", required=True, help="The file to write."
)
@kind_option
@common_options
def command(terminal: Terminal, bundle: Path, output: Path, kind: Kind) -> None:
    """Link a graph bundle (the folder of `compile --bundle DIR`) into a .wasm file."""
    seconds: dict[str, float] = {}
    with terminal.stages() as reporter:
        from wasmgraph.bundle import read_bundle
        from wasmgraph.link import link
        from wasmgraph.progress import stage

        with stage(reporter, "link", seconds):
            report = link(read_bundle(bundle), output, reporter, kind)

    from wasmgraph.cli.tables import facts, sizes, written

    parts = {
        "file": report.file_nbytes,
        "code": report.code_nbytes,
        "weights": report.weights_nbytes,
        "arena": report.arena_nbytes,
        "io": report.io_nbytes,
    }
    rows: dict[str, RenderableType] = {
        "written": written(report.path, report.file_nbytes),
        "sizes": sizes(parts),
    }
    terminal.result(
        {"path": str(report.path), "sizes": parts, "seconds": seconds},
        lambda console: console.print(facts(rows)),
    )
