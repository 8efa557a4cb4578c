"""Graphs whose weights take fewer bytes than float32: smaller, and right about what that costs."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import numpy_helper

import wasmgraph
from tests.onnx_models import make_model, node
from wasmgraph.bundle import read_bundle
from wasmgraph.errors import InputError, UnsupportedModelError
from wasmgraph.inspection import inspect

pytest.importorskip("onnxruntime", reason="the graphs are compared with onnxruntime")


def random(*shape: int, seed: int) -> NDArray[np.float32]:
    scale = np.prod(shape[1:]) ** -0.5
    return (scale * np.random.default_rng(seed).standard_normal(shape)).astype(np.float32)


def network(dtype: type = np.float32) -> onnx.ModelProto:
    """A lookup, both kinds of convolution, batch normalisation, products of many and of one row."""
    weights: dict[str, Any] = {
        "table": random(300, 16, seed=0),
        "w1": random(37, 16, 3, 3, seed=1),
        "gamma": random(37, seed=2) + 1,
        "beta": random(37, seed=3),
        "mean": random(37, seed=4),
        "var": abs(random(37, seed=5)) + 0.5,
        "w2": random(64, 37, 3, 3, seed=6),
        "b2": random(64, seed=7),
        "w3": random(70, 64, 1, 1, seed=8),
        "w4": random(70, 90, seed=9),
        "w5": random(90, 61, seed=10),
    }
    weights = {name: array.astype(dtype) for name, array in weights.items()}
    name = np.dtype(dtype).name
    return make_model(
        [
            node("Gather", "table i", "rows"),
            node("Transpose", "rows", "image", perm=[0, 3, 1, 2]),
            node("Add", "image x", "sum"),
            node("Conv", "sum w1", "c1", pads=[1, 1, 1, 1], strides=[2, 2]),
            node("BatchNormalization", "c1 gamma beta mean var", "n1"),
            node("Relu", "n1", "r1"),
            node("Conv", "r1 w2 b2", "c2", pads=[1, 1, 1, 1]),
            node("Relu", "c2", "r2"),
            node("Conv", "r2 w3", "c3"),
            node("GlobalAveragePool", "c3", "p"),
            node("Flatten", "p", "f"),
            node("MatMul", "f w4", "m"),
            node("Tanh", "m", "t"),
            node("Gemm", "t w5", "y"),
        ],
        {"x": (name, (1, 16, 30, 30)), "i": ("int64", (1, 30, 30))},
        {"y": (name, (1, 61))},
        weights,
    )


def reductions(report: wasmgraph.CompileReport) -> float:
    return report.sizes["wide_weights"] / report.sizes["weights"]


@pytest.mark.parametrize("threads", [False, True])
@pytest.mark.parametrize(("weights", "ratio", "most"), [("f16", 1.9, 2e-3), ("int8", 3.4, 5e-2)])
def test_rounded_weights_make_a_smaller_graph_of_known_cost(
    tmp_path, weights, ratio, most, threads
):
    """It agrees with the model of the rounded weights, and says how far it is from the other.

    A half has 11 bits and a channel of int8 127 steps: outputs of about 1 after five layers move
    by several times 2**-11 and 1/254 at most.
    """
    out = tmp_path / "small.wasm"
    report = wasmgraph.compile(network(), out, weights=weights, threads=threads)
    assert report.verification is not None
    assert report.verification.agrees
    assert report.rounded == report.verification.rounded == weights
    assert reductions(report) > ratio
    (cost,) = report.verification.cost
    (exact,) = report.verification.outputs
    assert exact.max_abs < cost.max_abs < most
    assert 0.1 < cost.largest < 10
    assert report.to_json()["verification"]["cost"][0]["max_abs"] == cost.max_abs
    described = inspect(out)
    assert (described.rounded, described.wide_weights) == (weights, report.sizes["wide_weights"])
    again = wasmgraph.verify(out, network(), seed=5)
    assert again.agrees
    assert again.cost


def test_the_bytes_are_the_same_every_time(tmp_path):
    files = [tmp_path / "a.wasm", tmp_path / "b.wasm"]
    for out in files:
        wasmgraph.compile(network(), out, weights="int8", verify=False)
    assert files[0].read_bytes() == files[1].read_bytes()


def test_a_graph_of_other_weights_does_not_agree(tmp_path):
    """Rounding does not widen the tolerance: weights off by less than it are found."""
    model = network()
    other = onnx.ModelProto()
    other.CopyFrom(model)
    tensor = next(t for t in other.graph.initializer if t.name == "w4")
    array = numpy_helper.to_array(tensor) * np.float32(1.01)
    tensor.CopyFrom(numpy_helper.from_array(array, "w4"))
    wasmgraph.compile(model, tmp_path / "a.wasm", weights="int8")
    report = wasmgraph.verify(tmp_path / "a.wasm", other)
    assert not report.agrees


def test_a_half_precision_model_keeps_its_weights(tmp_path):
    """As halves by default, which changes no bit of the results; as float32 if asked for."""
    feeds = {
        "x": random(1, 16, 30, 30, seed=11).astype(np.float16),
        "i": np.random.default_rng(0).integers(0, 300, (1, 30, 30)),
    }
    results = {}
    sizes = {}
    for weights in (None, "f16", "f32"):
        out = tmp_path / f"{weights}.wasm"
        # Halves of outputs: a step is 2**-11 of them.
        report = wasmgraph.compile(network(np.float16), out, weights=weights, atol=1e-3, rtol=5e-3)
        sizes[weights] = report.sizes
        with wasmgraph.load(out) as graph:
            results[weights] = graph.run(feeds)["y"]
    assert results[None].tobytes() == results["f32"].tobytes()
    assert sizes[None]["weights"] < 0.6 * sizes["f32"]["weights"]
    assert sizes["f32"]["weights"] == sizes["f32"]["wide_weights"]
    # Each weight begins at a multiple of 64 bytes.
    assert sizes[None]["wide_weights"] == pytest.approx(sizes["f32"]["weights"], abs=64 * 10)
    assert sizes["f16"]["weights"] <= sizes[None]["weights"]


def test_weights_quantised_without_activations_stay_int8(tmp_path):
    """Per channel and per tensor, with float activations: what QDQ of weights alone is."""
    rng = np.random.default_rng(0)
    steps = {"q1": rng.integers(-127, 128, (64, 96)), "q2": rng.integers(-127, 128, (96, 80))}
    model = make_model(
        [
            node("DequantizeLinear", "q1 s1", "w1", axis=1),
            node("MatMul", "x w1", "h"),
            node("Relu", "h", "r"),
            node("DequantizeLinear", "q2 s2", "w2"),
            node("MatMul", "r w2", "y"),
        ],
        {"x": (7, 64)},
        {"y": (7, 80)},
        {
            **{name: array.astype(np.int8) for name, array in steps.items()},
            "s1": rng.uniform(1e-3, 1e-2, 96).astype(np.float32),
            "s2": np.float32(0.00371),
        },
    )
    report = wasmgraph.compile(model, tmp_path / "a.wasm", bundle_dir=tmp_path / "bundle")
    assert report.rounded is None
    dtypes = {c.name: c.dtype for c in read_bundle(tmp_path / "bundle").graph.constants}
    assert sorted(dtypes.values()) == ["float32", "float32", "int8", "int8"]
    assert reductions(report) > 3


@pytest.mark.parametrize("simd", ["none", "relaxed"])
@pytest.mark.parametrize("weights", ["f16", "int8"])
def test_other_simd_levels(tmp_path, simd, weights):
    report = wasmgraph.compile(network(), tmp_path / "a.wasm", weights=weights, simd=simd)
    assert report.verification is not None


def test_open_axes_and_unknown_formats_are_refused(tmp_path):
    model = make_model(
        [node("MatMul", "x w", "y")], {"x": ("n", "m", 64)}, "y", {"w": random(64, 128, seed=0)}
    )
    with pytest.raises(UnsupportedModelError, match="open axes") as caught:
        wasmgraph.compile(model, tmp_path / "a.wasm", weights="f16")
    assert "--weights" in str(caught.value.hint)
    with pytest.raises(InputError, match="int4"):
        wasmgraph.compile(model, tmp_path / "a.wasm", weights="int4")  # type: ignore[arg-type]
    assert list(tmp_path.iterdir()) == []
    wasmgraph.compile(model, tmp_path / "a.wasm", {"x": (1, 5, 64)}, weights="f16")


def test_an_open_batch_can_have_rounded_weights(tmp_path):
    """Its graph is that of one sample."""
    model = make_model(
        [node("Conv", "x w", "c", pads=[1, 1, 1, 1]), node("Relu", "c", "y")],
        {"x": ("n", 16, 28, 28)},
        {"y": ("n", 32, 28, 28)},
        {"w": random(32, 16, 3, 3, seed=0)},
    )
    report = wasmgraph.compile(model, tmp_path / "a.wasm", weights="int8")
    assert not report.dynamic
    assert report.verification is not None
    assert report.verification.cost[0].shape[0] > 1
    assert reductions(report) > 3
