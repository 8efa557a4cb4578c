"""`python -m benchmarks`: measure models with every system, print tables, write JSON."""

from __future__ import annotations

import json
import shutil
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from benchmarks.compiling import CHECKOUT
from benchmarks.environment import describe
from benchmarks.models import ModelsError, find_models
from benchmarks.node import find_node
from benchmarks.report import draw
from benchmarks.results import ModelResult
from benchmarks.session import Options, measure_model
from benchmarks.systems import System, all_systems
from benchmarks.targets import judge
from wasmgraph.cli.console import Terminal
from wasmgraph.progress import stage

SHARED_MODELS = CHECKOUT.parent / "shared" / "models"
SAMPLE = CHECKOUT / "samples" / "digits"
EXIT_NOT_MEASURED = 1


@click.command()
@click.option(
    "--models",
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    help="A folder of *.onnx.  [default: ../shared/models where it is, else the sample]",
)
@click.option(
    "--only",
    multiple=True,
    metavar="NAME",
    help='Models by name, also with commas between; "all" for every one.',
)
@click.option(
    "--seconds",
    type=click.FloatRange(min=0, min_open=True),
    default=Options.seconds,
    show_default=True,
    help="Of timed runs, per model and system.",
)
@click.option(
    "--warm-up",
    type=click.FloatRange(min=0),
    default=Options.warm_up,
    show_default=True,
    help="Seconds of runs beforehand, per model and system.",
)
@click.option(
    "--cache",
    type=click.Path(path_type=Path, file_okay=False),
    default=CHECKOUT / "build" / "bench",
    show_default="build/bench",
    help="Folder for compiled graphs.",
)
@click.option(
    "--json",
    "target",
    type=click.Path(path_type=Path, dir_okay=False),
    help="The JSON to write.  [default: results.json in the cache folder]",
)
def main(
    models: Path | None,
    only: tuple[str, ...],
    seconds: float,
    warm_up: float,
    cache: Path,
    target: Path | None,
) -> None:
    """Compare wasmgraph with onnxruntime-web and native onnxruntime, on every model of a folder.

    Exits with 1 if wasmgraph fails or disagrees on one of them.
    """
    folder = models or (SHARED_MODELS if SHARED_MODELS.is_dir() else SAMPLE)
    names = [name for text in only for name in text.split(",") if name]
    try:
        chosen = find_models(folder, names)
    except ModelsError as error:
        raise click.ClickException(str(error)) from error
    options = Options(cache.resolve(), seconds, warm_up)
    # So that the first load of every graph is a cold one.
    shutil.rmtree(options.cache / "xdg-cache", ignore_errors=True)
    terminal = Terminal()
    node = find_node()
    environment = describe(node)
    console = terminal.console()
    console.print(_headline(environment), soft_wrap=True)
    systems = all_systems(node)
    target = target or options.cache / "results.json"
    results: list[ModelResult] = []
    took: dict[str, float] = {}
    began = time.perf_counter()
    with terminal.stages() as reporter:
        for model in chosen:
            with stage(reporter, model.name, took):
                results.append(measure_model(model, systems, node, options, reporter))
            environment["seconds"] = round(time.perf_counter() - began, 1)
            # After every model, so that an interrupted run leaves what it has.
            _write(target, environment, options, results)
    terminal.result({}, lambda console: draw(console, results, systems))
    busiest = max(result.load_average or 0.0 for result in results)
    console.print(
        f"\n{environment['seconds']:.0f} s in all, load average up to {busiest:.1f}; "
        f"everything measured: {target}"
    )
    sys.exit(0 if all(_measured(result, systems) for result in results) else EXIT_NOT_MEASURED)


def _headline(environment: dict[str, Any]) -> str:
    versions = environment["versions"]
    named = ", ".join(f"{name} {value}" for name, value in versions.items() if value is not None)
    load = " ".join(f"{value:.2f}" for value in environment["load_average"])
    return (
        f"{environment['date']}  {environment['cpu']}, {environment['cores']} cores, "
        f"load average {load}\n{named}"
    )


def _write(
    target: Path, environment: dict[str, Any], options: Options, results: list[ModelResult]
) -> None:
    goals = [
        {
            "figure": item.target.figure,
            "must": item.target.must,
            "aim": item.target.aim,
            "unit": item.target.unit,
            "found": None if item.found is None else item.found.value,
            "model": None if item.found is None else item.found.model or None,
            "verdict": item.verdict,
        }
        for item in judge(results)
    ]
    data = {
        "environment": environment,
        "seconds": options.seconds,
        "warm_up": options.warm_up,
        "slices": options.slices,
        "goals": goals,
        "models": [result.to_json() for result in results],
    }
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(json.dumps(data, indent=1) + "\n", encoding="utf-8")


def _measured(result: ModelResult, systems: Sequence[System]) -> bool:
    """Whether wasmgraph ran the model and agreed, under every engine that is there."""
    ours = [system.key for system in systems if system.runs_wasm and system.missing is None]
    return result.problem is None and all(result.system(key).problem is None for key in ours)


if __name__ == "__main__":
    main()
