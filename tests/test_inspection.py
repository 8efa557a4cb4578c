"""What `inspect` computes by itself: the memory plan's sharing, and calls per kernel."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from wasmgraph.bundle import (
    Buffer,
    Bundle,
    Constant,
    Graph,
    Kernel,
    Source,
    Step,
    Tensor,
    write_bundle,
)
from wasmgraph.inspection import MemoryPlan, inspect, memory_plan


def three_step_graph() -> Graph:
    """x -> a -> b -> y; a and b lie in the arena one after the other, y outside of it."""
    x, y = Buffer("io", 0, 64), Buffer("io", 64, 64)
    a, b = Buffer("arena", 0, 256), Buffer("arena", 256, 128)
    weight = Buffer("params", 0, 64)
    return Graph(
        source=Source("three.onnx", "0" * 64, 17, {"Relu": 2, "Add": 1}),
        producer={"wasmgraph": "0"},
        simd="simd128",
        inputs=(Tensor("x", "float32", (16,), x),),
        outputs=(Tensor("y", "float32", (16,), y),),
        constants=(Constant("w", "float32", (16,), 0),),
        kernels=(Kernel("relu", 2, "relu"), Kernel("add", 3, "add")),
        steps=(
            Step(0, (x, a), ("relu1",), stage=0),
            Step(0, (a, b), ("relu2",), stage=1),
            Step(1, (b, weight, y), ("add",), stage=2),
        ),
        params_nbytes=64,
        io_nbytes=128,
        arena_nbytes=384,
    )


def test_the_memory_plan_counts_what_steps_write_into_the_arena() -> None:
    assert memory_plan(three_step_graph()) == MemoryPlan(
        weights=64, io=128, arena=384, intermediates=2, intermediate_nbytes=384
    )


def test_a_step_that_writes_two_buffers_counts_both() -> None:
    graph = three_step_graph()
    a, b = graph.steps[0].buffers[1], graph.steps[1].buffers[1]
    split = Step(0, (graph.inputs[0].buffer, a, b), ("split",), writes=2, stage=0)
    plan = memory_plan(Graph(**{**vars(graph), "steps": (split,)}))
    assert (plan.intermediates, plan.intermediate_nbytes) == (2, 384)


def test_what_the_steps_of_a_stage_write_together_counts_once() -> None:
    graph = three_step_graph()
    (x, a), b = graph.steps[0].buffers, graph.steps[1].buffers[1]
    rest = Buffer("arena", a.offset + 16, a.nbytes - 16)
    steps = [Step(0, (x, part), ("relu1",), stage=0) for part in (rest, a)]
    steps += [Step(0, (a, b), ("relu2",), stage=1)]
    plan = memory_plan(replace(graph, steps=tuple(steps)))
    assert (plan.intermediates, plan.intermediate_nbytes) == (2, a.nbytes + b.nbytes)


def test_calls_are_counted_per_kernel(tmp_path: Path) -> None:
    write_bundle(Bundle(three_step_graph(), b"object", bytes(64)), tmp_path / "bundle")
    found = inspect(tmp_path / "bundle")
    assert found.kind == "bundle"
    assert [(k.symbol, k.calls) for k in found.kernels] == [("relu", 2), ("add", 1)]
    assert [step.nodes for step in found.steps] == [("relu1",), ("relu2",), ("add",)]
    assert found.sizes["graph.o"] == len(b"object")
