"""Whole models compute the same bits when their calls are shared out, whatever runs first."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from tests.kernels.runner import FILL, PAGE, Instance
from wasmgraph.importer import import_model, load_model
from wasmgraph.optimise import Options, optimise, parallel
from wasmgraph.optimise.memory import plan_memory
from wasmgraph.optimise.program import Place, Program

DIGITS = Path(__file__).parents[2] / "samples" / "digits" / "digits.onnx"


@pytest.fixture(autouse=True)
def shares_whatever_is_long_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also in programs that are too short to gain by it."""
    monkeypatch.setattr(parallel, "WORTH_SECONDS", 0.0)


def run(program: Program, seed: int) -> list[bytes]:
    """Call the kernels stage by stage, those of a stage in a random order; the outputs' bytes.

    Every place must lie within its storage.
    """
    plan = plan_memory(program)
    arena = PAGE + plan.params_nbytes + plan.io_nbytes
    starts = {"params": PAGE, "io": PAGE + plan.params_nbytes, "arena": arena}
    names = {kernel: f"k{i}" for i, kernel in enumerate({call.kernel for call in program.calls})}
    functions = [kernel.assemble(name) for kernel, name in names.items()]  # type: ignore[union-attr]
    instance = Instance(functions, -(-(arena + plan.arena_nbytes) // PAGE))
    instance.memory[:] = FILL

    def span(place: Place) -> slice:
        assert 0 <= place.offset <= place.offset + place.nbytes
        assert place.offset + place.nbytes <= program.storages[place.storage].nbytes
        buffer = plan.buffers[place.storage]
        start = starts[buffer.region] + buffer.offset + place.offset
        return slice(start, start + place.nbytes)

    rng = np.random.default_rng(0)
    for storage, weight in program.weights.items():
        place = Place(storage, 0, weight.array.nbytes)
        instance.memory[span(place)] = np.frombuffer(weight.array.tobytes(), np.uint8)
    for port in program.inputs:
        value = rng.standard_normal(port.shape).astype(port.dtype)
        instance.memory[span(port.place)] = np.frombuffer(value.tobytes(), np.uint8)
    for stage in program.stages:
        for index in np.random.default_rng(seed).permutation(len(stage)):
            call = stage[index]
            places = (*call.reads, *call.writes)
            instance.call(names[call.kernel], *(span(place).start for place in places))
    return [instance.memory[span(port.place)].tobytes() for port in program.outputs]


def winograd_and_softmax() -> onnx.ModelProto:
    """3x3 convolutions that take scratch memory, one after the other, then a softmax of pixels."""
    rng = np.random.default_rng(0)
    weights = rng.standard_normal((16, 16, 3, 3)).astype(np.float32) / 10
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["a"], pads=[1] * 4),
        helper.make_node("Relu", ["a"], ["b"]),
        helper.make_node("Conv", ["b", "w"], ["c"], pads=[1] * 4),
        helper.make_node("Add", ["c", "x"], ["d"]),
        helper.make_node("Softmax", ["d"], ["y"], axis=1),
    ]
    ports = [helper.make_tensor_value_info(n, TensorProto.FLOAT, [1, 16, 30, 20]) for n in "xy"]
    graph = helper.make_graph(
        nodes, "two", ports[:1], ports[1:], [numpy_helper.from_array(weights, "w")]
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])


@pytest.mark.parametrize("shares", [2, 3, 8])
@pytest.mark.parametrize("model", [DIGITS, winograd_and_softmax()], ids=["digits", "winograd"])
def test_shared_programs_compute_the_same_bits(
    model: Path | onnx.ModelProto, shares: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    imported = import_model(load_model(model))
    expected = run(optimise(imported), 0)
    monkeypatch.setattr(parallel, "SHARES", ((0.0, shares),))
    shared = optimise(imported, options=Options(threads=True))
    assert max(len(stage) for stage in shared.stages) == shares
    for seed in range(3):
        assert run(shared, seed) == expected


def test_without_threads_every_call_is_a_stage_of_its_own() -> None:
    program = optimise(import_model(load_model(winograd_and_softmax())))
    assert not program.threads
    assert {len(stage) for stage in program.stages} == {1}
