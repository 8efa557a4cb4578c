"""Instance and group normalisation stay whole, whatever the layout and whatever follows."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from tests.onnx_models import make_model, node
from tests.optimise.test_shared_programs import run
from wasmgraph.importer import import_model, load_model
from wasmgraph.kernels.normalisation import ChannelNorm
from wasmgraph.optimise import optimise
from wasmgraph.optimise.program import Program

Array = NDArray[np.float32]


def program_of(model: onnx.ModelProto) -> Program:
    return optimise(import_model(load_model(model)))


def normalised(x: Array, groups: int, scale: Array, bias: Array) -> NDArray[np.float64]:
    wide = x.astype(np.float64).reshape(x.shape[0], groups, -1)
    mean, variance = wide.mean(2, keepdims=True), wide.var(2, keepdims=True)
    y = ((wide - mean) / np.sqrt(variance + 1e-5)).reshape(x.shape)
    shape = (-1, *[1] * (x.ndim - 2))
    return np.asarray(y * scale.reshape(shape) + bias.reshape(shape))


@settings(max_examples=40, deadline=None)
@given(
    st.integers(1, 2),
    st.integers(1, 5),
    st.integers(1, 4),
    st.lists(st.integers(1, 9), min_size=1, max_size=3),
    st.sampled_from(["", "relu", "add", "conv"]),
)
def test_results_equal_numpy(
    batch: int, groups: int, group: int, space: list[int], after: str
) -> None:
    channels = groups * group
    shape = (batch, channels, *space)
    rng = np.random.default_rng(0)
    weights = {
        "s": rng.uniform(0.5, 2, channels).astype(np.float32),
        "b": rng.standard_normal(channels).astype(np.float32),
        "w": np.eye(channels, dtype=np.float32).reshape(channels, channels, *[1] * len(space)),
    }
    norm = node("GroupNormalization", "a s b", "n", num_groups=groups)
    if group == 1:
        norm = node("InstanceNormalization", "a s b", "n")
    nodes = [node("Conv", "x w", "a"), norm]
    nodes.append(
        {
            "": node("Identity", "n", "y"),
            "relu": node("Relu", "n", "y"),
            "add": node("Add", "n x", "y"),
            "conv": node("Conv", "n w", "y"),
        }[after]
    )
    model = make_model(nodes, {"x": shape}, "y", weights, opset=21)
    program = program_of(model)
    assert sum(isinstance(call.kernel, ChannelNorm) for call in program.calls) == 1
    x = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
    want = normalised(x, groups, weights["s"], weights["b"])
    if after == "relu":
        want = np.maximum(want, 0)
    if after == "add":
        want = want + x
    got = np.frombuffer(run(program, 0)[0], np.float32).reshape(shape)
    # A group of two nearly equal values divides their rounding by a small deviation.
    np.testing.assert_allclose(got, want, rtol=1e-4, atol=2e-4)


@pytest.mark.parametrize(("op", "label"), [("Relu", "relu"), ("LeakyRelu", "leaky_relu")])
def test_an_activation_joins_the_kernel(op: str, label: str) -> None:
    nodes = [node("InstanceNormalization", "x s b", "n"), node(op, "n", "y")]
    weights = {"s": np.ones(6, np.float32), "b": np.zeros(6, np.float32)}
    model = make_model(nodes, {"x": (1, 6, 5, 5)}, "y", weights)
    found = [call.description for call in program_of(model).calls]
    assert found == ["copy", f"instance_norm + {label}", "copy"]


def test_scale_and_shift_may_be_computed() -> None:
    nodes = [
        node("Mul", "v v", "s"),
        node("InstanceNormalization", "x s v", "y"),
    ]
    model = make_model(nodes, {"x": (1, 6, 5, 5), "v": (6,)}, "y")
    program = program_of(model)
    rng = np.random.default_rng(0)
    x, v = (rng.standard_normal(s).astype(np.float32) for s in ((1, 6, 5, 5), (6,)))
    got = np.frombuffer(run(program, 0)[0], np.float32).reshape(x.shape)
    np.testing.assert_allclose(got, normalised(x, 6, v * v, v), rtol=1e-4, atol=1e-4)
