"""All stages in a row: `compile` takes a model and leaves a verified graph."""

from __future__ import annotations

import re
import threading
from collections.abc import Collection, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from wasmgraph.atomic import folder_filled_when_done, replaced_when_done
from wasmgraph.bundle import (
    SIMD_LEVELS,
    WEIGHT_FORMATS,
    Bundle,
    SimdLevel,
    Source,
    Tensor,
    WeightFormat,
    write_bundle,
)
from wasmgraph.errors import InputError, UnsupportedModelError
from wasmgraph.interrupts import interrupts_kept
from wasmgraph.progress import SILENT, Reporter, stage

if TYPE_CHECKING:
    import onnx

    from wasmgraph.importer import DynamicModel, LoadedModel
    from wasmgraph.link import Kind
    from wasmgraph.optimise import Options
    from wasmgraph.verification import VerifyReport

    Model: TypeAlias = str | Path | onnx.ModelProto

# TVM keeps global state, such as the tag of the operator being built, so that two compilations in
# one process would break each other.
_ONE_AT_A_TIME = threading.Lock()

STAGES = ("import", "optimise", "lower", "codegen", "link", "verify")


@dataclass(frozen=True)
class CompileReport:
    """What a compilation made.

    Attributes:
        path: The graph.
        source: The model it came from.
        kind: Whether it is a "module" or a "component".
        simd: The SIMD level it needs.
        threads: Whether runs may use several threads.
        inputs, outputs: Names, dtypes and shapes.
        kernels: How many distinct kernels it holds; of a dynamic graph how many operators.
        steps: How many kernel calls one run makes; of a dynamic graph how many nodes it has.
        dynamic: Whether some shapes are known at run time only and nodes run one by one.
        openness: What of the shapes a run decides, and how it copes; empty where all are fixed.
        bounds: The largest extents of open axes that have one, by name; where all have one, "arena"
            is all that a run can allocate.
        rounded: As what weights were rounded to be stored smaller; None where they are the model's.
        sizes: Bytes of "file", "code" (the file less its weights), "weights", "arena" and "io"; and
            of "wide_weights", what the weights would be if every float were a float32.
        seconds: Wall time by stage.
        verification: The comparison with onnxruntime, or None where it was not asked for.
    """

    path: Path
    source: Source
    kind: Kind
    simd: SimdLevel
    threads: bool
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    kernels: int
    steps: int
    dynamic: bool
    bounds: Mapping[str, int]
    openness: str
    rounded: WeightFormat | None
    sizes: Mapping[str, int]
    seconds: Mapping[str, float]
    verification: VerifyReport | None

    def to_json(self) -> dict[str, Any]:
        """The report as plain values."""

        def tensor(item: Tensor) -> dict[str, Any]:
            return {"name": item.name, "dtype": item.dtype, "shape": list(item.shape)}

        return {
            "path": str(self.path),
            "model": {"name": self.source.name, "sha256": self.source.sha256},
            "kind": self.kind,
            "simd": self.simd,
            "threads": self.threads,
            "inputs": [tensor(item) for item in self.inputs],
            "outputs": [tensor(item) for item in self.outputs],
            "kernels": self.kernels,
            "steps": self.steps,
            "dynamic": self.dynamic,
            "bounds": dict(self.bounds),
            "openness": self.openness,
            "rounded": self.rounded,
            "sizes": dict(self.sizes),
            "seconds": {name: round(value, 3) for name, value in self.seconds.items()},
            "verification": None if self.verification is None else self.verification.to_json(),
        }


def compile(  # noqa: A001 - the public name, used as wasmgraph.compile
    model: Model,
    out: str | Path | None = None,
    shapes: Mapping[str, Sequence[int]] | None = None,
    simd: SimdLevel = "simd128",
    *,
    bundle_dir: str | Path | None = None,
    verify: bool = True,
    rtol: float = 1e-3,
    atol: float = 1e-4,
    seed: int = 0,
    input_range: tuple[float, float] = (0.0, 1.0),
    winograd: bool = True,
    threads: bool = False,
    dynamic: Collection[str] | Mapping[str, int | None] = (),
    by_sample: bool = True,
    kind: Kind = "module",
    weights: WeightFormat | None = None,
    reporter: Reporter = SILENT,
) -> CompileReport:
    """Compile an ONNX model into one WebAssembly file.

    Args:
        model: A path or a model in memory.
        out: The graph to write; by default the model's name with the suffix .wasm, in the current
            folder.
        shapes: Extents of inputs by name, for dynamic axes.
        simd: "none", "simd128" or "relaxed".
        bundle_dir: Where to keep the graph bundle.
        verify: Whether to compare the graph with onnxruntime on seeded inputs. Where they
            disagree, no file is written.
        rtol, atol: Agreement is |a - b| <= atol + rtol * |b| for every element.
        seed: Of the inputs to verify on.
        input_range: In which their random floats lie: what the model expects, e.g. (0, 255).
        winograd: Whether 3x3 convolutions may use Winograd's algorithm, which is faster and rounds
            more coarsely.
        threads: Whether runs may use several threads: the graph then imports a shared memory, and
            large kernels are cut into parts. The results stay the same, bit for bit.
        dynamic: Names of axes that stay open, or of inputs whose axes all do; "x:1" is axis 1 of
            input x. Axes that the model leaves open and `shapes` does not fix stay open too. As a
            mapping it gives their largest extents, or None; where every open axis has one, the
            graph's memory is fixed at what runs at the bounds take.
        by_sample: Whether a model that leaves only a batch open, and treats every sample alone, is
            compiled for one sample and run once for each. Else it becomes a dynamic graph.
        kind: "module", or "component" for a WebAssembly component of toolchain/wit.
        weights: How large weights of convolutions, products and tables are stored: "f32"; "f16",
            rounded to half precision; "int8", rounded to 255 steps per output channel. None stores
            them in as few bytes as hold them exactly. They are computed with in float32 always.
            Rounded ones are verified against a model whose weights were rounded the same way; what
            the rounding costs is reported besides.
        reporter: Told about stages.

    Raises:
        ModelError, UnsupportedModelError, InputError, ToolchainError: as their docstrings say.
        VerificationError: the outputs disagree; the graph is not written.
    """
    from wasmgraph.link import KINDS, check_kind, find_rust, link
    from wasmgraph.optimise import Options
    from wasmgraph.reference import find_onnxruntime
    from wasmgraph.reserving import with_reserved_memory

    if simd not in SIMD_LEVELS:
        raise InputError(f"unknown SIMD level {simd!r}; there are {', '.join(SIMD_LEVELS)}")
    if kind not in KINDS:
        raise InputError(f"unknown kind {kind!r}; there are {', '.join(KINDS)}")
    check_kind(kind, threads=threads)
    if weights not in (None, *WEIGHT_FORMATS):
        raise InputError(f"unknown format of weights {weights!r}: {', '.join(WEIGHT_FORMATS)}")
    # What is missing or cannot be written is said now, not after a minute of work.
    find_rust()
    if verify:
        find_onnxruntime()
    target = _target(model, out)
    seconds: dict[str, float] = {}
    verification = None
    with ExitStack() as stack:
        unfinished = stack.enter_context(replaced_when_done(target))
        kept = bundle_dir and stack.enter_context(folder_filled_when_done(Path(bundle_dir)))
        options = Options(
            winograd=winograd,
            threads=threads,
            fused=simd == "relaxed",
            by_sample=by_sample,
            small_weights=weights != "f32",
        )
        bundle = make_bundle(model, shapes, simd, options, seconds, reporter, dynamic, weights)
        with stage(reporter, "link", seconds):
            if kind == "module":
                bundle = with_reserved_memory(bundle, reporter)
            linked = link(bundle, unfinished, reporter, kind)
        if verify:
            with stage(reporter, "verify", seconds):
                verification = _verify(
                    unfinished,
                    target,
                    model,
                    rtol=rtol,
                    atol=atol,
                    seed=seed,
                    input_range=input_range,
                    threads=2 if threads else 1,
                )
        if kept:
            write_bundle(bundle, kept)
    kernels, steps = bundle.graph.call_counts
    return CompileReport(
        path=target,
        source=bundle.graph.source,
        kind=kind,
        simd=simd,
        threads=threads,
        inputs=bundle.graph.inputs,
        outputs=bundle.graph.outputs,
        kernels=kernels,
        steps=steps,
        dynamic=bundle.graph.dynamic is not None,
        bounds=bundle.graph.bounds,
        openness=bundle.graph.openness,
        rounded=bundle.graph.rounded,
        sizes={
            "file": linked.file_nbytes,
            "code": linked.code_nbytes,
            "weights": linked.weights_nbytes,
            "arena": linked.arena_nbytes,
            "io": linked.io_nbytes,
            "wide_weights": bundle.graph.wide_nbytes,
        },
        seconds=seconds,
        verification=verification,
    )


def _target(model: Model, out: str | Path | None) -> Path:
    if out is not None:
        return Path(out)
    if isinstance(model, (str, Path)):
        return Path(Path(model).stem + ".wasm")
    # A graph may be named like a path, which must not lead to other folders.
    name = re.sub(r"[^\w.-]+", "_", model.graph.name).strip("._")
    return Path((name or "model") + ".wasm")


def make_bundle(
    model: Model | LoadedModel,
    shapes: Mapping[str, Sequence[int]] | None = None,
    simd: SimdLevel = "simd128",
    options: Options | None = None,
    seconds: dict[str, float] | None = None,
    reporter: Reporter = SILENT,
    dynamic: Collection[str] | Mapping[str, int | None] = (),
    weights: WeightFormat | None = None,
) -> Bundle:
    """All stages before the linker.

    Args:
        model: A path, a model in memory, or what `importer.load_model` gave.
        shapes, simd, dynamic, weights: As for `compile`.
        options: What else was chosen.
        seconds: Gets the wall time of each stage.
        reporter: Told about stages.

    Raises:
        ModelError, UnsupportedModelError, InputError: as their docstrings say.
    """
    from wasmgraph.codegen import generate
    from wasmgraph.codegen.batches import for_batches
    from wasmgraph.importer import LoadedModel, import_model, load_model
    from wasmgraph.lower import lower
    from wasmgraph.optimise import optimise
    from wasmgraph.optimise.options import DEFAULT

    seconds = {} if seconds is None else seconds
    options = options or DEFAULT
    with _ONE_AT_A_TIME, interrupts_kept():
        with stage(reporter, "import", seconds):
            loaded = model if isinstance(model, LoadedModel) else load_model(model)
            imported = import_model(
                loaded,
                shapes,
                reporter,
                dynamic,
                weights,
                by_sample=options.by_sample,
                threads=options.threads,
            )
            if imported.dynamic is not None and options.threads:
                raise UnsupportedModelError(
                    f"{loaded.name} has {imported.dynamic.reason}: such a graph runs on one thread",
                    hint="leave out --threads, or fix all shapes with --shape",
                )
        if imported.dynamic is not None:
            with stage(reporter, "codegen", seconds):
                bundle = _build_dynamic(imported.source, imported.dynamic, simd, options)
                return replace(bundle, graph=replace(bundle.graph, bounds=imported.bounds))
        with stage(reporter, "optimise", seconds):
            program = optimise(imported, reporter, options)
        with stage(reporter, "lower", seconds):
            lowered = lower(program, simd, reporter)
        with stage(reporter, "codegen", seconds):
            bundle = generate(program, lowered, imported.source, simd, reporter)
            if imported.batch is not None:
                bundle = for_batches(bundle, imported.batch)
        rounded = weights if weights != "f32" else None
        graph = replace(bundle.graph, rounded=rounded, bounds=imported.bounds)
        return replace(bundle, graph=graph)


def _build_dynamic(
    source: Source, model: DynamicModel, simd: SimdLevel, options: Options
) -> Bundle:
    from wasmgraph.codegen import producer
    from wasmgraph.dynamic.build import build_bundle

    bundle = build_bundle(
        model.network,
        model.converted,
        model.outputs,
        source,
        simd,
        producer(),
        winograd=options.winograd,
        small_weights=options.small_weights,
    )
    return replace(bundle, graph=replace(bundle.graph, whole_batch=model.whole_batch))


def _verify(
    unfinished: Path,
    target: Path,
    model: Model,
    *,
    rtol: float,
    atol: float,
    seed: int,
    input_range: tuple[float, float],
    threads: int,
) -> VerifyReport:
    from wasmgraph.verification import verify

    report = verify(
        unfinished,
        model,
        rtol=rtol,
        atol=atol,
        seed=seed,
        input_range=input_range,
        threads=threads,
    )
    report = replace(report, graph=str(target))
    report.raise_if_disagree()
    return report
