"""Where a graph spends its time: every step timed alone, under the engine that runs it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from wasmgraph.measure.limit import measure_limit
from wasmgraph.runtime import Graph


@dataclass(frozen=True)
class StepTime:
    """One step.

    Attributes:
        step: Its number.
        kernel: The kernel's symbol.
        description: The operators it fuses.
        nodes: The ONNX nodes behind it.
        seconds: Of one execution, its inputs in the cache from the one before.
        share: Of the sum over all steps.
        flops: Of the direct algorithm, or 0.
    """

    step: int
    kernel: str
    description: str
    nodes: tuple[str, ...]
    seconds: float
    share: float
    flops: int

    @property
    def rate(self) -> float:
        """FLOP/s; 0 for a step that is not a product."""
        return self.flops / self.seconds if self.seconds else 0.0


@dataclass(frozen=True)
class Profile:
    """A profiled graph.

    Attributes:
        graph: Its path.
        steps: In execution order.
        limit: FLOP/s that the machine reaches at most, see `measure_limit`.
    """

    graph: str
    steps: tuple[StepTime, ...]
    limit: float

    @property
    def seconds(self) -> float:
        """The sum over all steps."""
        return sum(step.seconds for step in self.steps)

    def to_json(self) -> dict[str, Any]:
        """The profile as plain values."""
        steps = [
            {**asdict(step), "gflops": step.rate / 1e9, "of_limit": step.rate / self.limit}
            for step in self.steps
        ]
        return {
            "graph": self.graph,
            "seconds": self.seconds,
            "limit_gflops": self.limit / 1e9,
            "steps": steps,
        }


def profile_graph(graph: Graph, inputs: Mapping[str, object], seconds: float = 2.0) -> Profile:
    """Run a graph once, then time each of its steps.

    Args:
        graph: A loaded graph.
        inputs: By name; the steps then work on what they lead to.
        seconds: For how long to measure, about.

    Raises:
        InputError, InferenceError: the run fails.
        InferenceError: the graph cannot run its steps one by one.
    """
    graph.run(inputs)
    times = graph.time_steps(seconds)
    total = sum(times) or 1.0
    metadata = graph.metadata
    steps = []
    for number, (step, taken) in enumerate(zip(metadata.steps, times, strict=True)):
        kernel = metadata.kernels[step.kernel]
        steps.append(
            StepTime(
                number,
                kernel.symbol,
                kernel.description,
                step.nodes,
                taken,
                taken / total,
                step.flops,
            )
        )
    limit = measure_limit(relaxed=metadata.simd == "relaxed")
    return Profile(str(graph.path), tuple(steps), limit)
