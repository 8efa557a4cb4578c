"""Parts of concatenations are written to their places, and in-place steps compute the same."""

from __future__ import annotations

from unittest.mock import patch

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from tests.onnx_models import make_model, node
from tests.optimise.test_shared_programs import run
from wasmgraph.importer import import_model, load_model
from wasmgraph.kernels.copying import StridedCopy
from wasmgraph.optimise import Options, optimise, parallel
from wasmgraph.optimise.memory import plan_memory
from wasmgraph.optimise.program import Program

RNG = np.random.default_rng(3)


def weight(*shape: int) -> NDArray[np.float32]:
    scale = float(np.prod(shape[1:])) ** -0.5
    return RNG.standard_normal(shape).astype(np.float32) * np.float32(scale)


CHANNELS = 8
WEIGHTS = {
    "w1": weight(CHANNELS, CHANNELS, 1, 1),
    "w3": weight(CHANNELS, CHANNELS, 3, 3),
    "wd": weight(CHANNELS, 1, 3, 3),
    "wg": weight(CHANNELS, CHANNELS // 2, 3, 3),
    "m": weight(7, 7),
    "s": weight(7),
    "shuffled": np.array([-1, 2, CHANNELS // 2, 13, 7], np.int64),
    "whole": np.array([-1, CHANNELS, 13, 7], np.int64),
    "rows": np.array([0, -1, CHANNELS], np.int64),
}

PARTS: dict[str, list[onnx.NodeProto]] = {
    "pointwise": [node("Conv", "x w1", "P")],
    "winograd": [node("Conv", "x w3", "Pa", pads=[1] * 4), node("Add", "Pa x", "P")],
    "depthwise": [
        node("Conv", "x wd", "Pa", pads=[1] * 4, group=CHANNELS),
        node("Relu", "Pa", "P"),
    ],
    "grouped": [node("Conv", "x wg", "P", pads=[1] * 4, group=2)],
    "residual": [node("Conv", "x w1", "Pa"), node("Add", "Pa x", "Pb"), node("Relu", "Pb", "P")],
    "elementwise": [node("Mul", "x s", "P")],
    "pooled": [node("MaxPool", "x", "P", kernel_shape=[3, 3], pads=[1] * 4)],
    "softmax": [node("Softmax", "x", "P", axis=1)],
    "matrix": [node("MatMul", "x m", "P")],
    "input": [node("Identity", "x", "P")],
    "shuffle": [
        node("Relu", "x", "Pa"),
        node("Reshape", "Pa shuffled", "Pb"),
        node("Transpose", "Pb", "Pc", perm=[0, 2, 1, 3, 4]),
        node("Reshape", "Pc whole", "P"),
    ],
    "nested": [
        node("Relu", "x", "Pa"),
        node("Concat", "Pa Pa", "Pb", axis=2),
        node("Conv", "x w1", "Pc"),
        node("Sigmoid", "x", "Pd"),
        node("Concat", "Pc Pd", "Pe", axis=0),
        node("Split", "Pe", "P Pf", axis=0, num_outputs=2),
    ],
    "read twice": [node("Conv", "x w1", "P"), node("Relu", "P", "Pa")],
}
"""What makes a part of the shape of x; P is replaced by a prefix."""

ENDS = {
    "output": [node("Identity", "c", "y")],
    "relu": [node("Relu", "c", "y")],
    "channels last": [node("Transpose", "c", "y", perm=[0, 2, 3, 1])],
    "flat": [node("Flatten", "c", "y", axis=2)],
}


def model(parts: list[str], axis: int, end: str, batch: int) -> onnx.ModelProto:
    nodes, names = [], []
    for index, kind in enumerate(parts):
        for template in PARTS[kind]:
            copy = onnx.NodeProto()
            copy.CopyFrom(template)
            for field in (copy.input, copy.output):
                field[:] = [n.replace("P", f"p{index}", 1) if n[0] == "P" else n for n in field]
            nodes.append(copy)
        names.append(f"p{index}")
    nodes += [node("Concat", " ".join(names), "c", axis=axis), *ENDS[end]]
    return make_model(nodes, {"x": (batch, CHANNELS, 13, 7)}, "y", WEIGHTS)


def agrees(tested: onnx.ModelProto, program: Program) -> None:
    """Against onnxruntime, on the input that `run` makes."""
    onnxruntime = pytest.importorskip("onnxruntime", reason="the reference is onnxruntime")
    port = program.inputs[0]
    x = np.random.default_rng(0).standard_normal(port.shape).astype(np.float32)
    session = onnxruntime.InferenceSession(
        tested.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    (want,) = session.run(None, {"x": x})
    found = np.frombuffer(run(program, 0)[0], np.float32).reshape(want.shape)
    # Sums of 72 products of order 1; Winograd's rounds ten times as coarsely.
    np.testing.assert_allclose(found, want, rtol=1e-4, atol=1e-4)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.sampled_from(sorted(PARTS)), min_size=1, max_size=4),
    st.integers(0, 3),
    st.sampled_from(sorted(ENDS)),
    st.integers(1, 2),
)
def test_concatenations_agree_with_onnxruntime(
    parts: list[str], axis: int, end: str, batch: int
) -> None:
    tested = model(parts, axis, end, batch)
    imported = import_model(load_model(tested))
    program = optimise(imported)
    agrees(tested, program)
    with patch.object(parallel, "SHARES", ((0.0, 3),)):
        shared = optimise(imported, options=Options(threads=True))
    assert run(shared, 1) == run(program, 0)
    agrees(tested, optimise(imported, options=Options(fused=True)))


def copies(program: Program) -> int:
    return sum(isinstance(call.kernel, StridedCopy) for call in program.calls)


def program_of(nodes: list[onnx.NodeProto]) -> Program:
    tested = make_model(nodes, {"x": (1, CHANNELS, 13, 7)}, "y", WEIGHTS)
    program = optimise(import_model(load_model(tested)))
    agrees(tested, program)
    return program


def test_convolutions_write_their_channels_into_the_concatenation() -> None:
    nodes = [
        node("Conv", "x w1", "a"),
        node("Relu", "a", "b"),
        node("Conv", "b w1", "c"),
        node("Relu", "c", "d"),
        node("Conv", "b w3", "e", pads=[1] * 4),
        node("Concat", "d e", "f", axis=1),
        node("Transpose", "f", "y", perm=[0, 2, 3, 1]),
    ]
    # The input becomes channel-last, nothing else moves.
    assert copies(program_of(nodes)) == 1


def test_heads_write_through_a_transpose_and_a_reshape() -> None:
    nodes = [
        node("Conv", "x w1", "a"),
        node("Transpose", "a", "b", perm=[0, 2, 3, 1]),
        node("Reshape", "b rows", "c"),
        node("Conv", "x w3", "d", strides=[2, 2]),
        node("Transpose", "d", "e", perm=[0, 2, 3, 1]),
        node("Reshape", "e rows", "f"),
        node("Concat", "c f", "y", axis=1),
    ]
    assert copies(program_of(nodes)) == 1


def test_a_channel_shuffle_moves_its_elements_once() -> None:
    nodes = [
        node("Conv", "x w1", "a"),
        node("Reshape", "a shuffled", "b"),
        node("Transpose", "b", "c", perm=[0, 2, 1, 3, 4]),
        node("Reshape", "c whole", "d"),
        node("Conv", "d w1", "e"),
        node("Transpose", "e", "y", perm=[0, 2, 3, 1]),
    ]
    assert copies(program_of(nodes)) == 2


def test_a_residual_block_needs_room_for_two_tensors() -> None:
    nodes = [
        node("Conv", "x w1", "a"),
        node("Sigmoid", "a", "b"),
        node("Conv", "b w1", "c"),
        node("Add", "c a", "d"),
        node("Conv", "d w1", "y"),
    ]
    program = program_of(nodes)
    largest = max(s.nbytes for s in program.storages if s.kind == "computed")
    assert plan_memory(program).arena_nbytes <= 2 * (largest + 64)
