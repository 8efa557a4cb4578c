"""`wasmgraph compile`: all stages, from model.onnx to a verified model.wasm."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from wasmgraph.cli.console import FILE, Terminal, common_options, example
from wasmgraph.cli.inputs import (
    input_range_option,
    kind_option,
    seed_option,
    tolerance_options,
)
from wasmgraph.cli.shapes import dynamic_option, shapes_option

if TYPE_CHECKING:
    from wasmgraph.bundle import SimdLevel, WeightFormat
    from wasmgraph.link import Kind


@click.command(
    epilog=example(
        "wasmgraph compile samples/digits/digits.onnx -o digits.wasm",
        "wasmgraph compile detector.onnx --shape input=1,3,320,320",
        "wasmgraph compile detector.onnx --dynamic batch=..8",
    )
)
@click.argument("model", type=FILE, metavar="MODEL.onnx")
@click.option(
    "-o",
    "--output",
    type=FILE,
    metavar="OUT.wasm",
    help="The file to write.  [default: MODEL.wasm in the current folder]",
)
@shapes_option
@dynamic_option
@click.option(
    "--simd",
    type=click.Choice(["none", "simd128", "relaxed"]),
    default="simd128",
    show_default=True,
    help="The vector instructions that the engine must have.",
)
@click.option(
    "--weights",
    type=click.Choice(["f32", "f16", "int8"]),
    help="How large weights are stored: as float32, rounded to half precision, or rounded to 255 "
    "steps per output channel; computing is in float32 always.  [default: in as few bytes as hold "
    "the model's exactly]",
)
@click.option(
    "--bundle",
    "bundle_dir",
    type=FILE,
    metavar="DIR",
    help="Keep the graph bundle (graph.o, graph.json, graph.params) there.",
)
@click.option(
    "--verify/--no-verify",
    default=True,
    show_default=True,
    help="Compare the result with onnxruntime on seeded inputs.",
)
@tolerance_options
@seed_option
@input_range_option
@click.option(
    "--winograd/--no-winograd",
    default=True,
    show_default=True,
    help="Faster 3x3 convolutions, which round a little more coarsely.",
)
@click.option(
    "--threads",
    is_flag=True,
    help="Let runs use several threads; the host must share memory between them.",
)
@kind_option
@common_options
def command(
    terminal: Terminal,
    *,
    model: Path,
    output: Path | None,
    shapes: dict[str, tuple[int, ...]],
    dynamic: dict[str, int | None],
    simd: SimdLevel,
    weights: WeightFormat | None,
    bundle_dir: Path | None,
    verify: bool,
    rtol: float,
    atol: float,
    seed: int,
    input_range: tuple[float, float],
    winograd: bool,
    threads: bool,
    kind: Kind,
) -> None:
    """Compile MODEL.onnx into one self-contained .wasm file.

    An output agrees with onnxruntime where |a - b| <= atol + rtol * |b| everywhere; if one does
    not, no file is written and the exit code is 11. With rounded weights that is onnxruntime on
    the model with its weights rounded likewise; how far it is from the model itself is reported.
    """
    target = output or Path(f"{model.stem}.wasm")
    if target.resolve() == model.resolve():
        raise click.BadParameter(f"{target} is the model itself", param_hint="'-o'")
    with terminal.stages() as reporter:
        import wasmgraph

        report = wasmgraph.compile(
            model,
            target,
            shapes=shapes,
            simd=simd,
            bundle_dir=bundle_dir,
            verify=verify,
            rtol=rtol,
            atol=atol,
            seed=seed,
            input_range=input_range,
            winograd=winograd,
            threads=threads,
            dynamic=dynamic,
            kind=kind,
            weights=weights,
            reporter=reporter,
        )

    from wasmgraph.cli.tables import compile_summary

    terminal.result(report.to_json(), lambda console: console.print(compile_summary(report)))
