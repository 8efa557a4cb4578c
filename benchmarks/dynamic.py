"""`python -m benchmarks.dynamic`: graphs with open axes against the same models of fixed shapes.

Every model is compiled twice: with its axes open, and for the shapes below. The two take turns in
one process, run by run, on the same inputs; what counts is the least time of each on the processor,
since other work hardly changes the ratio of those. They must agree with each other.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import click
import numpy as np
import onnx

import wasmgraph
from benchmarks.__main__ import EXIT_NOT_MEASURED, SHARED_MODELS
from benchmarks.compiling import CHECKOUT
from benchmarks.models import Model, ModelsError, find_models, make_inputs, prepare
from benchmarks.tensorfiles import Array
from wasmgraph.cli.console import Terminal
from wasmgraph.cli.tables import plain_table
from wasmgraph.errors import WasmgraphError
from wasmgraph.progress import stage
from wasmgraph.verification import ATOL, compare

WARM_UP = 3
"""Runs of each beforehand."""


@dataclass(frozen=True)
class Case:
    """Shapes to measure a model at.

    Attributes:
        shapes: Of its inputs.
        dynamic: Inputs whose axes are opened though the model fixes them.
        values: Inputs that are not random.
        range: Of random float inputs, where it is not the model's.
        atol: How far outputs may be apart, beside a thousandth of them.
    """

    shapes: Mapping[str, tuple[int, ...]]
    dynamic: tuple[str, ...] = ()
    values: Mapping[str, int] = field(default_factory=dict)
    range: tuple[float, float] | None = None
    atol: float = ATOL


TOKENS = ("input_ids", "attention_mask")
SPEECH = {"input": (1, 512), "state": (2, 1, 128), "sr": ()}

CASES: Mapping[str, tuple[Case, ...]] = {
    "yunet_n_dynamic": (
        Case({"input": (1, 3, 320, 320)}),
        Case({"input": (1, 3, 480, 640)}),
    ),
    "ppocr_v3_det_en": (Case({"x": (1, 3, 320, 320)}), Case({"x": (1, 3, 640, 640)})),
    "ppocr_v2_cls": (Case({"x": (1, 3, 48, 192)}),),
    "super_resolution_10": (Case({"input": (1, 1, 224, 224)}),),
    "magika_v3_3": (Case({"bytes": (1, 2048)}),),
    # Outputs up to 255; it divides by deviations of whole images, again and again.
    "fns_mosaic": (Case({"inputImage": (1, 3, 720, 720)}, range=(0, 255), atol=0.05),),
    "minilm_l6_h384": (Case(dict.fromkeys(TOKENS, (1, 128)), TOKENS),),
    "silero_vad_16k_op15": (Case(SPEECH, values={"sr": 16000}),),
    "tract_bidi_lstm": (Case({"input": (1, 64)}),),
}


@dataclass(frozen=True)
class Result:
    """One model at one size.

    Attributes:
        model: Its name.
        shapes: Of its inputs.
        dynamic, fixed: Milliseconds on the processor, of the fastest runs.
        dynamic_nbytes, fixed_nbytes: The files' sizes.
        problem: Why there are no figures.
    """

    model: str
    shapes: Mapping[str, tuple[int, ...]]
    dynamic: float = 0.0
    fixed: float = 0.0
    dynamic_nbytes: int = 0
    fixed_nbytes: int = 0
    problem: str | None = None

    @property
    def ratio(self) -> float:
        """How many times as long the graph with open axes takes."""
        return self.dynamic / self.fixed


def measure(model: Model, case: Case, folder: Path, seconds: float) -> Result:
    """Compile both graphs, check that they agree, and time them in turns."""
    chosen = replace(model, shapes=dict(case.shapes), range=case.range or model.range)
    result = Result(model.name, case.shapes)
    try:
        # Without shapes, as they would be written into the file.
        file = prepare(replace(model, shapes={}), folder)
        proto = onnx.load(file)
        inputs = make_inputs(chosen, proto)
        given = {name: np.asarray(value, inputs[name].dtype) for name, value in case.values.items()}
        opened, fixed = (folder / f"{model.name}-{kind}.wasm" for kind in ("dynamic", "fixed"))
        report = wasmgraph.compile(file, opened, verify=False, dynamic=case.dynamic)
        if all(isinstance(d, int) for tensor in report.inputs for d in tensor.shape):
            return Result(model.name, case.shapes, problem="its axes are not open")
        wasmgraph.compile(file, fixed, dict(case.shapes), verify=False)
        return _take_turns(result, (opened, fixed), inputs | given, seconds, case.atol)
    except (WasmgraphError, ModelsError) as error:
        return Result(model.name, case.shapes, problem=str(error))


def _take_turns(
    result: Result,
    files: tuple[Path, Path],
    inputs: Mapping[str, Array],
    seconds: float,
    atol: float,
) -> Result:
    best = [float("inf")] * 2
    with wasmgraph.load(files[0]) as first, wasmgraph.load(files[1]) as second:
        graphs = (first, second)
        found, expected = ([graph.run(inputs) for _ in range(WARM_UP)][-1] for graph in graphs)
        for name, array in expected.items():
            if not compare(name, found[name], array, atol=atol).agrees:
                return replace(result, problem=f"{name!r} disagrees")
        end = time.perf_counter() + seconds
        while time.perf_counter() < end:
            for number, graph in enumerate(graphs):
                began = time.thread_time()
                graph.run(inputs)
                best[number] = min(best[number], 1e3 * (time.thread_time() - began))
    (opened, fixed), sizes = best, [file.stat().st_size for file in files]
    return replace(
        result,
        dynamic=opened,
        fixed=fixed,
        dynamic_nbytes=sizes[0],
        fixed_nbytes=sizes[1],
    )


@click.command()
@click.option(
    "--models",
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    default=SHARED_MODELS if SHARED_MODELS.is_dir() else None,
    help="Their folder.  [default: ../shared/models]",
)
@click.option("--only", multiple=True, metavar="NAME", help="Models by name, more than once.")
@click.option("--seconds", type=float, default=4.0, show_default=True, help="Per model and size.")
def main(models: Path | None, only: tuple[str, ...], seconds: float) -> None:
    """Compare graphs with open axes with graphs of fixed shapes.

    Exits with 1 if one of them fails or they disagree.
    """
    if models is None:
        raise click.ClickException("give the folder of the models with --models")
    try:
        chosen = find_models(models, [name for name in CASES if name in only or not only])
    except ModelsError as error:
        raise click.ClickException(str(error)) from error
    folder = CHECKOUT / "build" / "bench" / "dynamic"
    folder.mkdir(parents=True, exist_ok=True)
    terminal = Terminal()
    results: list[Result] = []
    took: dict[str, float] = {}
    with terminal.stages() as reporter:
        for model in chosen:
            with stage(reporter, model.name, took):
                results += [measure(model, case, folder, seconds) for case in CASES[model.name]]
    rows = [asdict(result) for result in results]
    (folder / "results.json").write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")
    columns = ["dynamic ms", "fixed ms", "dynamic / fixed"]
    table = plain_table("model", "shapes", *columns, right=columns)
    for result in results:
        shapes = " ".join("x".join(map(str, shape)) for shape in result.shapes.values())
        figures = ["", "", result.problem or ""]
        if result.problem is None:
            figures = [f"{x:.2f}" for x in (result.dynamic, result.fixed, result.ratio)]
        table.add_row(result.model, shapes, *figures)
    terminal.result({}, lambda console: console.print(table))
    sys.exit(EXIT_NOT_MEASURED if any(result.problem for result in results) else 0)


if __name__ == "__main__":
    main()
