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
from wasmgraph.kernels.elementwise import Elementwise
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


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 2), st.integers(1, 4), st.integers(1, 4), st.booleans(), st.booleans())
def test_a_group_norm_that_was_taken_apart_is_one_kernel(
    batch: int, groups: int, group: int, affine: bool, relu: bool
) -> None:
    channels = groups * group
    shape = (batch, channels, 5, 3)
    rng = np.random.default_rng(0)
    gamma, beta = (rng.uniform(0.5, 2, (channels, 1, 1)).astype(np.float32) for _ in range(2))
    weights = {
        "ones": rng.uniform(0.5, 2, groups).astype(np.float32),
        "zeros": rng.standard_normal(groups).astype(np.float32),
        "apart": np.array([0, groups, -1]),
        "back": np.array(shape),
        "gamma": gamma,
        "beta": beta,
        "w": np.eye(channels, dtype=np.float32).reshape(channels, channels, 1, 1),
    }
    nodes = [
        node("Conv", "x w", "a"),
        node("Reshape", "a apart", "g"),
        node("InstanceNormalization", "g ones zeros", "n"),
        node("Reshape", "n back", "r"),
    ]
    if affine:
        nodes += [node("Mul", "r gamma", "m"), node("Add", "beta m", "s")]
    nodes.append(node("Relu" if relu else "Identity", "s" if affine else "r", "y"))
    program = program_of(make_model(nodes, {"x": shape}, "y", weights))
    kernels = [call.kernel for call in program.calls if isinstance(call.kernel, ChannelNorm)]
    assert [kernel.group for kernel in kernels] == [group]
    assert not any(isinstance(call.kernel, Elementwise) for call in program.calls)
    x = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
    want = normalised(x, groups, weights["ones"].repeat(group), weights["zeros"].repeat(group))
    if affine:
        want = want * gamma + beta
    if relu:
        want = np.maximum(want, 0)
    got = np.frombuffer(run(program, 0)[0], np.float32).reshape(shape)
    # Deviations of 15 values and more are well above 0.
    np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-4)


def test_reshapes_that_mix_images_are_left_alone() -> None:
    nodes = [
        node("Reshape", "x apart", "g"),
        node("InstanceNormalization", "g s b", "n"),
        node("Reshape", "n back", "y"),
    ]
    weights = {
        "s": np.ones(4, np.float32),
        "b": np.zeros(4, np.float32),
        "apart": np.array([1, 4, -1]),
        "back": np.array([2, 2, 3, 3]),
    }
    program = program_of(make_model(nodes, {"x": (2, 2, 3, 3)}, "y", weights))
    (kernel,) = (call.kernel for call in program.calls if isinstance(call.kernel, ChannelNorm))
    assert kernel.group == 1
    x = np.random.default_rng(0).standard_normal((2, 2, 3, 3)).astype(np.float32)
    want = normalised(x.reshape(1, 4, 9), 4, weights["s"], weights["b"]).reshape(x.shape)
    got = np.frombuffer(run(program, 0)[0], np.float32).reshape(x.shape)
    np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-4)
