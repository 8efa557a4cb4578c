"""What wasmgraph must reach and aims at, and whether it does: the table of its speed goals."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from benchmarks.results import ModelResult, geometric_mean, known, ratio

LONG_MS = 10.0
"""Models that take longer on one thread must gain from a second one."""

Verdict = Literal["aim reached", "must reached", "not reached", "not measured"]


@dataclass(frozen=True)
class Finding:
    """A figure's value, and the model that it is of where it is the worst one's."""

    value: float
    model: str = ""


@dataclass(frozen=True)
class Target:
    """A figure with two thresholds.

    Attributes:
        figure: What it is.
        must, aim: The thresholds.
        unit: As it is shown: "x" (a ratio), "%" (of 1), "s", "MiB" or "KB" (of bytes).
        at_most: Whether less is better.
        find: The figure from the results, or None where it was not measured.
    """

    figure: str
    must: float
    aim: float
    unit: str
    at_most: bool
    find: Callable[[Sequence[ModelResult]], Finding | None]


@dataclass(frozen=True)
class Judged:
    """A target and what came of it."""

    target: Target
    found: Finding | None
    verdict: Verdict


def judge(results: Sequence[ModelResult]) -> list[Judged]:
    """Every target, with its figure and verdict."""
    return [_judge(target, target.find(results)) for target in TARGETS]


def _judge(target: Target, found: Finding | None) -> Judged:
    if found is None:
        return Judged(target, None, "not measured")

    def reached(threshold: float) -> bool:
        return found.value <= threshold if target.at_most else found.value >= threshold

    if reached(target.aim):
        return Judged(target, found, "aim reached")
    return Judged(target, found, "must reached" if reached(target.must) else "not reached")


def _speedups(results: Iterable[ModelResult], threads: int) -> dict[str, float]:
    return known(results, lambda r: r.speedup(f"ort-web-{threads}", f"wasmgraph-{threads}"))


def _mean_speedup(threads: int) -> Callable[[Sequence[ModelResult]], Finding | None]:
    def find(results: Sequence[ModelResult]) -> Finding | None:
        mean = geometric_mean(_speedups(results, threads).values())
        return None if mean is None else Finding(mean)

    return find


def _least(values: dict[str, float]) -> Finding | None:
    return min((Finding(value, name) for name, value in values.items()), key=_value, default=None)


def _most(values: dict[str, float]) -> Finding | None:
    return max((Finding(value, name) for name, value in values.items()), key=_value, default=None)


def _value(finding: Finding) -> float:
    return finding.value


def _of(
    model: str, figure: Callable[[ModelResult], float | None]
) -> Callable[[Sequence[ModelResult]], Finding | None]:
    def find(results: Sequence[ModelResult]) -> Finding | None:
        value = next((figure(result) for result in results if result.name == model), None)
        return None if value is None else Finding(value)

    return find


def long_models(results: Iterable[ModelResult]) -> list[ModelResult]:
    """Those of which a second thread is asked to help."""
    return [result for result in results if (result.median("wasmgraph-1") or 0.0) > LONG_MS]


def _gains(results: Iterable[ModelResult]) -> dict[str, float]:
    return known(long_models(results), lambda r: r.speedup("wasmgraph-1", "wasmgraph-2"))


def _mean_gain(results: Sequence[ModelResult]) -> Finding | None:
    mean = geometric_mean(_gains(results).values())
    return None if mean is None else Finding(mean)


def _fastest_mean_gain(results: Sequence[ModelResult]) -> Finding | None:
    gains = known(long_models(results), lambda r: r.fastest_speedup("wasmgraph-1", "wasmgraph-2"))
    mean = geometric_mean(gains.values())
    return None if mean is None else Finding(mean)


def _start(result: ModelResult) -> float | None:
    web, ours = result.system("ort-web-1"), result.system("wasmgraph-1")
    return ratio(web.load_and_first, ours.load_and_first)


def _code(result: ModelResult) -> float | None:
    return None if result.sizes is None else float(result.sizes["code"])


TARGETS = (
    Target(
        "onnxruntime-web over wasmgraph, 1 thread, geometric mean",
        *(1.8, 2.5, "x"),
        at_most=False,
        find=_mean_speedup(1),
    ),
    Target(
        "the same, worst model",
        *(1.15, 1.5, "x"),
        at_most=False,
        find=lambda results: _least(_speedups(results, 1)),
    ),
    Target(
        "resnet50, share of the limit",
        *(0.65, 0.90, "%"),
        at_most=False,
        find=_of("resnet50", ModelResult.share_of_limit),
    ),
    Target(
        "mobilenet_v2, share of the limit",
        *(0.50, 0.65, "%"),
        at_most=False,
        find=_of("mobilenet_v2", ModelResult.share_of_limit),
    ),
    Target(
        "onnxruntime-web over wasmgraph, 2 threads, geometric mean",
        *(1.8, 2.5, "x"),
        at_most=False,
        find=_mean_speedup(2),
    ),
    Target(
        f"our 2 threads over our 1, worst model above {LONG_MS:g} ms",
        *(1.7, 1.9, "x"),
        at_most=False,
        find=lambda results: _least(_gains(results)),
    ),
    Target(
        "the same, geometric mean of those models",
        *(1.7, 1.9, "x"),
        at_most=False,
        find=_mean_gain,
    ),
    Target(
        # The median pays for other work on either core, and twice as often as one thread does.
        "the same of the fastest runs, where neither core is disturbed",
        *(1.7, 1.9, "x"),
        at_most=False,
        find=_fastest_mean_gain,
    ),
    Target(
        "mobilenet_v2, onnxruntime-web's load + first run over ours",
        *(15.0, 50.0, "x"),
        at_most=False,
        find=_of("mobilenet_v2", _start),
    ),
    Target(
        "mobilenet_v2, guest memory beyond weights and io",
        *(16 * 2.0**20, 8 * 2.0**20, "MiB"),
        at_most=True,
        find=_of("mobilenet_v2", lambda result: result.guest_beyond),
    ),
    Target(
        "code beyond the weights, largest model",
        *(400e3, 200e3, "KB"),
        at_most=True,
        find=lambda results: _most(known(results, _code)),
    ),
    Target(
        "mobilenet_v2, compile time",
        *(25.0, 10.0, "s"),
        at_most=True,
        find=_of("mobilenet_v2", lambda result: result.compile_seconds),
    ),
)
