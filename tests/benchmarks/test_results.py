"""What is computed from measurements."""

from __future__ import annotations

import json

import pytest

from benchmarks.results import ModelResult, Shipped, SystemResult, geometric_mean, known, ratio
from wasmgraph.measure.latency import Latency


def timed(median: float, **fields: object) -> SystemResult:
    """A system's result with one latency."""
    return SystemResult(latency=Latency.of([median]), **fields)  # type: ignore[arg-type]


def test_the_geometric_mean_of_a_ratio_and_its_inverse_is_one() -> None:
    assert geometric_mean([4.0, 0.25]) == pytest.approx(1.0)
    assert geometric_mean([2.0, 8.0]) == pytest.approx(4.0)
    assert geometric_mean([]) is None


def test_a_ratio_of_something_unknown_is_unknown() -> None:
    assert ratio(6.0, 3.0) == 2.0
    assert ratio(None, 3.0) is None
    assert ratio(6.0, None) is None


def test_a_speedup_takes_both_medians() -> None:
    result = ModelResult("m", systems={"ort-web-1": timed(30.0), "wasmgraph-1": timed(10.0)})
    assert result.speedup("ort-web-1", "wasmgraph-1") == 3.0
    assert result.speedup("native-1", "wasmgraph-1") is None


def test_the_share_of_the_limit_is_of_the_median() -> None:
    result = ModelResult("m", flops=10**9, limit=50e9, systems={"wasmgraph-1": timed(40.0)})
    assert result.share_of_limit() == pytest.approx(0.5)  # 25 GFLOP/s of 50


def test_load_and_first_run_leave_out_the_import() -> None:
    assert SystemResult(imported=100.0, loaded=5.0, first=2.0).load_and_first == 7.0
    assert SystemResult(loaded=5.0).load_and_first is None


def test_guest_memory_after_the_runs_counts_before_that_at_the_start() -> None:
    sizes = {"weights": 100, "io": 20}
    start = {"total": 200, "weights": 100, "io": 20, "arena": 50, "rest": 30, "grows": True}
    both = {
        "wasmgraph-1": SystemResult(guest=start),
        "wasmgraph-node-1": SystemResult(guest={"total": 900}),
    }
    assert ModelResult("m", sizes=sizes, systems=both).guest_beyond == 780
    del both["wasmgraph-node-1"]
    assert ModelResult("m", sizes=sizes, systems=both).guest_beyond == 80


def test_bytes_to_ship_add_up_and_without_brotli_there_is_none() -> None:
    assert Shipped(3, 2, 1) + Shipped(30, 20, 10) == Shipped(33, 22, 11)
    assert Shipped(3, 2, None) + Shipped(30, 20, 10) == Shipped(33, 22, None)


def test_known_leaves_out_models_without_the_figure() -> None:
    results = [ModelResult("a", flops=1), ModelResult("b")]
    assert known(results, lambda result: result.flops) == {"a": 1}


def test_json_has_what_is_computed_too() -> None:
    systems = {"ort-web-1": timed(30.0), "wasmgraph-1": timed(10.0, loaded=1.0, first=2.0)}
    data = json.loads(json.dumps(ModelResult("m", systems=systems).to_json()))
    assert data["ort_web_over_wasmgraph_1"] == 3.0
    assert data["ort_web_over_wasmgraph_2"] is None
    assert data["wasmgraph_1_over_2"] is None
    assert data["systems"]["wasmgraph-1"]["load_and_first"] == 3.0
    assert data["systems"]["wasmgraph-1"]["latency"]["median"] == 10.0
