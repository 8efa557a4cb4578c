"""Says whether a model would compile, and if not, all that stands in the way.

Everything but linking is done for it, on the model itself: what passes here compiles.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from wasmgraph.errors import Obstacle, UnsupportedModelError
from wasmgraph.progress import SILENT, Reporter

if TYPE_CHECKING:
    from wasmgraph.bundle import Source
    from wasmgraph.compiler import Model


@dataclass(frozen=True)
class Finding:
    """One obstacle and the way round it.

    Attributes:
        node, op, reason: As in `Obstacle`.
        opset: The version of the operator set that the node's operator is taken from; 0 where the
            obstacle is no operator.
        advice: What somebody could do.
    """

    node: str
    op: str
    reason: str
    opset: int
    advice: str


@dataclass(frozen=True)
class CheckReport:
    """What was found.

    Attributes:
        source: The model.
        findings: Empty where the model compiles.
        hint: For all of them together, or None.
        kernels, steps, weights_nbytes: Of the graph that would be made; 0 where none would be. A
            dynamic graph has operators instead of kernels, and nodes instead of steps.
        dynamic: Whether some of its shapes would be known at run time only.
        seconds: How long it took.
        openness: As in `wasmgraph.compiler.CompileReport`.
    """

    source: Source
    findings: tuple[Finding, ...]
    hint: str | None
    kernels: int
    steps: int
    weights_nbytes: int
    dynamic: bool
    seconds: float
    openness: str

    @property
    def compiles(self) -> bool:
        """Whether `compile` would make a graph of it."""
        return not self.findings

    def to_json(self) -> dict[str, Any]:
        """The report as plain values."""
        return {
            "model": {"name": self.source.name, "sha256": self.source.sha256},
            "compiles": self.compiles,
            "findings": [vars(finding) for finding in self.findings],
            "hint": self.hint,
            "kernels": self.kernels,
            "steps": self.steps,
            "weights": self.weights_nbytes,
            "dynamic": self.dynamic,
            "openness": self.openness,
            "seconds": round(self.seconds, 3),
        }


def check(
    model: Model,
    shapes: Mapping[str, Sequence[int]] | None = None,
    reporter: Reporter = SILENT,
) -> CheckReport:
    """Find out whether a model compiles. No file is written.

    Args:
        model: A path or a model in memory.
        shapes: Extents of inputs by name, for dynamic axes.
        reporter: Told about stages.

    Raises:
        ModelError: it is no valid model.
        InputError: `shapes` names no input, or does not fit.
    """
    from wasmgraph.compiler import make_bundle
    from wasmgraph.importer import describe_source, load_model

    began = time.perf_counter()
    loaded = load_model(model)
    source = describe_source(loaded)
    findings: tuple[Finding, ...] = ()
    hint, kernels, steps, weights, dynamic, openness = None, 0, 0, 0, False, ""
    try:
        graph = make_bundle(loaded, shapes, reporter=reporter).graph
        (kernels, steps), weights = graph.call_counts, graph.params_nbytes
        dynamic = graph.dynamic is not None
        openness = graph.openness
    except UnsupportedModelError as error:
        # One without obstacles (too much memory, say) is an obstacle of the whole model.
        obstacles = error.obstacles or (Obstacle(source.name, "", error.message),)
        opsets = {o.domain or "ai.onnx": o.version for o in loaded.proto.opset_import}
        findings = tuple(_finding(obstacle, opsets) for obstacle in obstacles)
        hint = error.hint
    seconds = time.perf_counter() - began
    return CheckReport(source, findings, hint, kernels, steps, weights, dynamic, seconds, openness)


def _finding(obstacle: Obstacle, opsets: Mapping[str, int]) -> Finding:
    domain = obstacle.op.rpartition(".")[0] or "ai.onnx"
    return Finding(
        obstacle.node,
        obstacle.op,
        obstacle.reason,
        opsets.get(domain, 0) if obstacle.op else 0,
        _advice(obstacle, domain),
    )


def _advice(obstacle: Obstacle, domain: str) -> str:
    if "has no extent" in obstacle.reason or "rank and shape" in obstacle.reason:
        return "give the shape with --shape"
    if "depends on" in obstacle.reason:
        return "end the model before this node, and do in the program what follows"
    if domain != "ai.onnx" and obstacle.op:
        if domain == "ai.onnx.ml":
            way = "convert the estimator with other options, on numbers alone"
        else:
            way = f"export it without {domain}: without the optimiser that put the node there"
        return way
    if "dtype" in obstacle.reason:
        return "export the model with another dtype here"
    if not obstacle.op:
        return "use a smaller model or smaller shapes"
    return "export the model with other operators here, or for an older opset"
