"""Goals are judged by the figures, and what was not measured is said to be so."""

from __future__ import annotations

import pytest

from benchmarks.results import ModelResult, SystemResult
from benchmarks.targets import TARGETS, Judged, judge
from tests.benchmarks.test_results import timed
from wasmgraph.measure.latency import Latency


def judged(results: list[ModelResult], figure: str) -> Judged:
    """The goal whose name holds `figure`."""
    (found,) = (item for item in judge(results) if figure in item.target.figure)
    return found


def compared(name: str, ours: float, web: float) -> ModelResult:
    """A model with both medians, the same with one thread and with two."""
    systems = {f"wasmgraph-{threads}": timed(ours) for threads in (1, 2)}
    systems |= {f"ort-web-{threads}": timed(web) for threads in (1, 2)}
    return ModelResult(name, systems=systems)


def test_of_nothing_every_goal_is_not_measured() -> None:
    assert {item.verdict for item in judge([])} == {"not measured"}
    assert len(judge([])) == len(TARGETS) == 12


@pytest.mark.parametrize(
    ("web", "verdict"),
    [(25.0, "aim reached"), (24.9, "must reached"), (18.0, "must reached"), (17.9, "not reached")],
)
@pytest.mark.parametrize("threads", ["1 thread,", "2 threads,"])
def test_more_is_better_for_a_ratio(threads: str, web: float, verdict: str) -> None:
    figure = f"onnxruntime-web over wasmgraph, {threads} geometric"
    assert judged([compared("m", 10.0, web)], figure).verdict == verdict


@pytest.mark.parametrize(
    ("code", "verdict"),
    [(200_000, "aim reached"), (400_000, "must reached"), (400_001, "not reached")],
)
def test_less_is_better_for_a_size_and_the_largest_model_counts(code: int, verdict: str) -> None:
    results = [
        ModelResult("small", sizes={"code": 1}),
        ModelResult("large", sizes={"code": code}),
    ]
    found = judged(results, "code beyond")
    assert found.verdict == verdict
    assert found.found is not None
    assert found.found.model == "large"


def test_the_worst_model_is_named() -> None:
    found = judged([compared("a", 10, 30), compared("b", 10, 12)], "the same, worst").found
    assert found is not None
    assert (found.model, found.value) == ("b", pytest.approx(1.2))


def test_a_second_thread_must_help_long_models_only() -> None:
    def model(name: str, alone: float, together: float) -> ModelResult:
        systems = {"wasmgraph-1": timed(alone), "wasmgraph-2": timed(together)}
        return ModelResult(name, systems=systems)

    results = [model("short", 5, 5), model("long", 20, 11), model("longer", 40, 20)]
    worst = judged(results, "our 2 threads")
    assert worst.verdict == "must reached"
    assert worst.found is not None
    assert (worst.found.model, worst.found.value) == ("long", pytest.approx(20 / 11))
    mean = judged(results, "geometric mean of those").found
    assert mean is not None
    assert mean.value == pytest.approx((20 / 11 * 2) ** 0.5)


def test_the_start_is_compared_from_file_to_first_output() -> None:
    systems = {
        "wasmgraph-1": SystemResult(imported=500.0, loaded=5.0, first=5.0),
        "ort-web-1": SystemResult(imported=50.0, loaded=400.0, first=200.0),
    }
    found = judged([ModelResult("mobilenet_v2", systems=systems)], "load + first run").found
    assert found is not None
    assert found.value == pytest.approx(60.0)


def test_a_disturbed_median_leaves_the_gain_of_the_fastest_runs() -> None:
    slow, quick = (Latency.of([best, best * 2, best * 2]) for best in (20.0, 10.0))
    disturbed = Latency.of([10.0, 30.0, 30.0])
    for several, verdict in ((quick, "aim reached"), (disturbed, "not reached")):
        systems = {
            "wasmgraph-1": SystemResult(latency=slow),
            "wasmgraph-2": SystemResult(latency=several),
        }
        results = [ModelResult("m", systems=systems)]
        assert judged(results, "geometric mean of those models").verdict == verdict
        assert judged(results, "of the fastest runs").verdict == "aim reached"
