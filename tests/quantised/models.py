"""Small seeded networks, quantised with onnxruntime's own quantiser."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray

from tests.onnx_models import make_model, node

ort = pytest.importorskip("onnxruntime", reason="onnxruntime quantises the models")
quantization = pytest.importorskip("onnxruntime.quantization")

Feeds = Mapping[str, NDArray[Any]]


def weights(rng: np.random.Generator, *shape: int) -> NDArray[Any]:
    """As large as keeps activations near one."""
    fan_in = np.prod(shape[1:]) if len(shape) > 1 else 1
    return (rng.standard_normal(shape) / np.sqrt(fan_in)).astype(np.float32)


def convolutions() -> onnx.ModelProto:
    """A strided, a padded, a depthwise, a grouped and a pointwise one, a residual, a classifier."""
    rng = np.random.default_rng(0)
    nodes = [
        node("Conv", "x w0 b0", "c0", pads=[1, 1, 1, 1], strides=[2, 2]),
        node("Relu", "c0", "r0"),
        node("MaxPool", "r0", "p0", kernel_shape=[2, 2], strides=[2, 2]),
        node("Conv", "p0 w1 b1", "c1", pads=[1, 1, 1, 1], group=12),
        node("Clip", "c1 low high", "r1"),
        node("Conv", "r1 w2", "c2", pads=[0, 1, 1, 0], group=3),
        node("Conv", "c2 w3 b3", "c3"),
        node("Add", "c3 p0", "sum"),
        node("Relu", "sum", "r3"),
        node("Concat", "r3 p0", "both", axis=1),
        node("GlobalAveragePool", "both", "mean"),
        node("Flatten", "mean", "flat"),
        node("Gemm", "flat w4 b4", "y", transB=1),
    ]
    parameters = {
        "w0": weights(rng, 12, 3, 3, 3),
        "b0": weights(rng, 12),
        "w1": weights(rng, 12, 1, 3, 3),
        "b1": weights(rng, 12),
        "low": np.float32(0),
        "high": np.float32(6),
        "w2": weights(rng, 9, 4, 2, 2),
        "w3": weights(rng, 12, 9, 1, 1),
        "b3": weights(rng, 12),
        "w4": weights(rng, 7, 24),
        "b4": weights(rng, 7),
    }
    return make_model(nodes, {"x": (1, 3, 22, 18)}, {"y": (1, 7)}, parameters)


def attention() -> onnx.ModelProto:
    """One layer of a transformer: products of two computed tensors, softmax, norm, GELU."""
    rng = np.random.default_rng(1)
    length, width, heads = 11, 24, 3
    nodes = []
    for name in "qkv":
        nodes += [
            node("MatMul", f"x w{name}", f"{name}m"),
            node("Add", f"{name}m b{name}", f"{name}b"),
            node("Reshape", f"{name}b split", f"{name}r"),
            node("Transpose", f"{name}r", name, perm=[0, 2, 3, 1] if name == "k" else [0, 2, 1, 3]),
        ]
    nodes += [
        node("MatMul", "q k", "scores"),
        node("Mul", "scores scale", "scaled"),
        node("Softmax", "scaled", "shares", axis=-1),
        node("MatMul", "shares v", "mixed"),
        node("Transpose", "mixed", "turned", perm=[0, 2, 1, 3]),
        node("Reshape", "turned join", "joined"),
        node("Add", "joined x", "residual"),
        node("LayerNormalization", "residual gain shift", "normed"),
        node("MatMul", "normed w1", "wide"),
        node("Div", "wide root", "ratio"),
        node("Erf", "ratio", "erf"),
        node("Add", "erf one", "more"),
        node("Mul", "wide more", "gelu"),
        node("MatMul", "gelu w2", "y"),
    ]
    parameters = {
        **{f"w{name}": weights(rng, width, width) for name in "qkv"},
        **{f"b{name}": weights(rng, width) for name in "qkv"},
        "split": np.array([1, length, heads, width // heads]),
        "join": np.array([1, length, width]),
        "scale": np.float32(0.35),
        "gain": np.ones(width, np.float32),
        "shift": np.zeros(width, np.float32),
        "w1": weights(rng, width, 40),
        "root": np.float32(np.sqrt(2)),
        "one": np.float32(1),
        "w2": weights(rng, 40, 5),
    }
    return make_model(nodes, {"x": (1, length, width)}, {"y": (1, length, 5)}, parameters)


class _Calibration(quantization.CalibrationDataReader):  # type: ignore[misc]
    def __init__(self, feeds: list[Feeds]) -> None:
        self.feeds: Iterator[Feeds] = iter(feeds)

    def get_next(self) -> Feeds | None:
        return next(self.feeds, None)


def feeds_of(model: onnx.ModelProto, seed: int = 0) -> dict[str, NDArray[Any]]:
    """Random inputs."""
    rng = np.random.default_rng(seed)
    shapes = {
        value.name: [dim.dim_value for dim in value.type.tensor_type.shape.dim]
        for value in model.graph.input
    }
    return {n: rng.standard_normal(shape).astype(np.float32) for n, shape in shapes.items()}


def quantised(model: onnx.ModelProto, folder: Path, **options: Any) -> onnx.ModelProto:
    """The model as `quantize_static` makes it; `options` are its own."""
    source, target = folder / "float.onnx", folder / "quantised.onnx"
    onnx.save(model, source)
    calibration = _Calibration([feeds_of(model, seed) for seed in range(4)])
    quantization.quantize_static(source, target, calibration, **options)
    return onnx.load(target)


def with_quantised_outputs(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy that also gives every tensor that is quantised, as integers."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    zeros = {t.name: t.data_type for t in model.graph.initializer}
    for item in model.graph.node:
        if item.op_type == "QuantizeLinear":
            dtype = zeros[item.input[2]]
            name = item.output[0]
            copy.graph.output.append(onnx.helper.make_tensor_value_info(name, dtype, None))
    return copy


def reference(model: onnx.ModelProto, feeds: Feeds) -> dict[str, NDArray[Any]]:
    """What onnxruntime gives, node by node: its optimiser rounds sums differently."""
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = ort.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    names = [value.name for value in session.get_outputs()]
    return dict(zip(names, session.run(names, dict(feeds)), strict=True))
