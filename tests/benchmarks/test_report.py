"""Tables say what was measured, and what was not and why."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from rich.console import Console

from benchmarks.report import draw
from benchmarks.results import ModelResult, Shipped, SystemResult
from benchmarks.systems import System
from tests.benchmarks.test_results import timed
from wasmgraph.measure.latency import Latency

RESULT = ModelResult(
    "tiny",
    flops=10**9,
    limit=50e9,
    compile_seconds=4.25,
    sizes={"file": 4, "code": 123_000, "weights": 100, "arena": 50, "io": 20},
    shipped={"wasmgraph": Shipped(111_000, 99_000, None), "ort-web": Shipped(14_000_000, 1, 2)},
    systems={
        "wasmgraph-1": timed(40.0, loaded=1.5, first=2.5, cold_loaded=77.0, peak=50_000_000),
        "ort-web-1": timed(90.0, loaded=400.0, first=100.0),
        "native-1": timed(8.125),
    },
)


def drawn(results: Sequence[ModelResult], systems: Sequence[System] = ()) -> str:
    """The report as text."""
    console = Console(width=160, color_system=None)
    with console.capture() as capture:
        draw(console, results, systems)
    return capture.get()


def test_medians_ratio_and_share_stand_in_the_model_s_row() -> None:
    row = next(line for line in drawn([RESULT]).splitlines() if line.startswith("tiny"))
    assert row.split() == ["tiny", "40.0", "-", "90.0", "8.125", "2.25x", "25.0", "50%"]


def test_with_two_threads_the_gain_over_one_stands_in_the_model_s_row() -> None:
    systems = {**RESULT.systems, "wasmgraph-2": timed(25.0), "ort-web-2": timed(50.0)}
    text = drawn([replace(RESULT, systems=systems, thread_gain=1.9)])
    rows = [line for line in text.splitlines() if line.startswith("tiny")]
    assert rows[1].split() == ["tiny", "25.0", "-", "50.0", "-", "2.00x", "1.60x", "1.90x"]
    gain = "1 thread over 2: geometric mean 1.60x, worst tiny 1.60x, 1 model above 10 ms"
    assert f"wasmgraph, Wasmtime, {gain}" in text
    assert "onnxruntime-web, 1 thread over 2: geometric mean 1.80x" in text
    assert (
        "the same of a loop in registers: geometric mean 1.90x, worst tiny 1.90x, 1 model" in text
    )


def test_load_memory_bytes_and_compile_time_are_there() -> None:
    text = drawn([RESULT])
    for expected in ("77.0", "1.500 + 2.500", "125.0x", "50.0 MB", "123 KB", "14.0 MB", "4.2 s"):
        assert expected in text


def test_means_and_goals_are_there() -> None:
    text = drawn([RESULT, replace(RESULT, name="other")])
    assert "geometric mean 2.25x" in text
    assert "must reached" in text
    assert "not measured" in text


def test_other_work_on_the_machine_is_pointed_out_with_the_fastest_runs() -> None:
    calm = replace(RESULT, systems={"wasmgraph-1": timed(40.0, cpu_share=0.99)})
    assert "busy" not in drawn([calm])
    latency = Latency.of([20.0, 40.0, 60.0])
    disturbed = {
        "wasmgraph-1": SystemResult(latency=latency, cpu_share=0.5),
        "ort-web-1": SystemResult(latency=Latency.of([30.0, 90.0]), cpu_share=0.5),
        "wasmgraph-2": SystemResult(latency=Latency.of([16.0, 50.0])),
        "ort-web-2": SystemResult(latency=Latency.of([24.0, 80.0])),
    }
    text = drawn([replace(RESULT, systems=disturbed)])
    assert "single threads had 50% of their core" in text
    assert "web / ours: geometric mean 1.50x" in text  # 30 over 20
    assert "web / ours, 2 threads: geometric mean 1.50x" in text  # 24 over 16
    assert "our 1 thread / 2, above 10 ms: geometric mean 1.25x, worst tiny 1.25x" in text
    assert "tiny 100%" in text  # 50 of 50 GFLOP/s


def test_a_missing_system_is_named_once_with_its_reason() -> None:
    missing = System("ort-web", 1, ("node",), "Node is not installed")
    failed = replace(
        RESULT, systems={"ort-web-1": replace(timed(1), problem=missing.missing, latency=None)}
    )
    text = drawn([failed, replace(failed, name="other")], [missing])
    assert text.count("Node is not installed") == 1


def test_what_went_wrong_with_a_model_is_told() -> None:
    wrong = replace(RESULT, systems={"wasmgraph-1": replace(timed(1), problem="disagrees: y[3]")})
    text = drawn([wrong, ModelResult("broken", problem="cannot be read")])
    assert "tiny, wasmgraph-1: disagrees: y[3]" in text
    assert "broken: cannot be read" in text
