"""`wasmgraph profile`: time, share and speed of every kernel call, and the ONNX nodes behind it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from wasmgraph.cli.background import interruptible
from wasmgraph.cli.console import FILE, Terminal, common_options, example
from wasmgraph.cli.inputs import InputOptions, input_options, seed_option
from wasmgraph.errors import InputError

if TYPE_CHECKING:
    from rich.console import Console

    from wasmgraph.measure.profile import Profile

DEFAULT_SECONDS = 2.0
DEFAULT_TOP = 20


@click.command(
    epilog=example(
        "wasmgraph profile digits.wasm",
        "wasmgraph profile model.wasm --steps 10 --picture profile.svg",
    )
)
@click.argument("graph", type=FILE, metavar="GRAPH.wasm")
@input_options
@click.option(
    "--seconds",
    type=click.FloatRange(min=0, min_open=True),
    default=DEFAULT_SECONDS,
    show_default="2",
    metavar="S",
    help="For how long to measure, about.",
)
@click.option(
    "--steps",
    "shown",
    type=click.IntRange(min=1),
    default=DEFAULT_TOP,
    show_default="20",
    metavar="N",
    help="Show the N slowest steps; --json has them all.",
)
@click.option(
    "--picture",
    type=FILE,
    metavar="FILE.svg|FILE.png",
    help="Draw the slowest steps as bars.",
)
@seed_option
@common_options
def command(
    terminal: Terminal,
    /,
    *,
    graph: Path,
    seconds: float,
    shown: int,
    picture: Path | None,
    seed: int,
    **inputs: Any,
) -> None:
    """Time every step of GRAPH.wasm by itself under Wasmtime.

    A step that runs alone finds its inputs in the cache, so the steps' sum can be a little less
    than what a run takes. The limit is that of 128-bit multiply-adds on this machine.
    """
    options = InputOptions(**inputs)
    with terminal.stages():
        from wasmgraph.measure.picture import draw_profile
        from wasmgraph.measure.profile import profile_graph
        from wasmgraph.runtime import load
        from wasmgraph.tensors.random import random_inputs

        def measured() -> Profile:
            with load(graph) as loaded:
                if loaded.metadata.dynamic:
                    raise InputError(
                        f"{graph} has dynamic shapes, so no steps that can be timed by themselves",
                        hint="profile the model compiled for fixed shapes (--shape)",
                    )
                given = {**random_inputs(loaded.inputs, seed), **options.read(loaded.inputs)}
                return profile_graph(loaded, given, seconds)

        profile = interruptible(measured)
        if picture is not None:
            draw_profile(profile, picture)
    terminal.result(profile.to_json(), lambda console: _draw(console, profile, shown))


NAME_LENGTH = 44


def _shortened(nodes: tuple[str, ...]) -> str:
    """The end of the first node's name, where it differs from others, and how many there are."""
    if not nodes:
        return ""
    name = nodes[0] if len(nodes[0]) <= NAME_LENGTH else "…" + nodes[0][1 - NAME_LENGTH :]
    return name if len(nodes) == 1 else f"{name} +{len(nodes) - 1}"


def _draw(console: Console, profile: Profile, shown: int) -> None:
    from wasmgraph.cli.tables import plain_table
    from wasmgraph.runtime.base import printable

    figures = ["ms", "share", "GFLOP/s", "of limit"]
    table = plain_table("step", "kernel", *figures, "ONNX nodes", right=["step", *figures])
    for step in sorted(profile.steps, key=lambda s: -s.seconds)[:shown]:
        speed = f"{step.rate / 1e9:.1f}" if step.flops else ""
        of_limit = f"{step.rate / profile.limit:.0%}" if step.flops else ""
        table.add_row(
            str(step.step),
            printable(step.description),
            f"{step.seconds * 1e3:.3f}",
            f"{step.share:.1%}",
            speed,
            of_limit,
            printable(_shortened(step.nodes)),
        )
    flops = sum(step.flops for step in profile.steps)
    rate = flops / profile.seconds if profile.seconds else 0.0
    console.print(table)
    console.print(
        f"{len(profile.steps)} steps, {profile.seconds * 1e3:.2f} ms in all; "
        f"{rate / 1e9:.1f} GFLOP/s, {rate / profile.limit:.0%} of the limit of "
        f"{profile.limit / 1e9:.1f}"
    )
