"""Small models whose batch is open, as exporters write them."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import onnx

from tests.onnx_models import Array, make_model, node

RNG = np.random.default_rng(0)


def floats(*shape: int) -> Array:
    return RNG.normal(size=shape).astype(np.float32) / np.float32(np.sqrt(shape[-1]))


def ints(*values: int) -> Array:
    return np.array(values, np.int64)


def network() -> onnx.ModelProto:
    """Two images per sample, of which the second input is shared by none and the third by all."""
    nodes = [
        node("Conv", "x w0", "c0", pads=[1, 1, 1, 1]),
        node("Relu", "c0", "r0"),
        node("Add", "r0 offset", "s0"),
        node("Mul", "s0 gain", "s1"),
        node("GlobalAveragePool", "s1", "mean"),
        node("Flatten", "mean", "flat"),
        node("Gemm", "flat w1 b1", "scores", transB=1),
        node("Relu", "gain", "shared"),
        node("Reshape", "s1 rows", "pixels"),
    ]
    return make_model(
        nodes,
        {"x": ("N", 3, 16, 16), "offset": ("N", 1, 1, 1), "gain": (16, 1, 1)},
        {"scores": ("N", 5), "shared": (16, 1, 1), "pixels": (None, 256)},
        {
            "w0": floats(16, 3, 3, 3),
            "w1": floats(5, 16),
            "b1": floats(5),
            "rows": ints(-1, 256),
        },
    )


def attention() -> onnx.ModelProto:
    """A layer of a transformer as exporters write it: the batch by Shape, a token per sample."""
    nodes = [
        node("Shape", "x", "n", end=1),
        node("Concat", "n one width", "to", axis=0),
        node("Expand", "token to", "tokens"),
        node("Concat", "tokens x", "t", axis=1),
        node("Add", "t places", "p"),
        *(node("MatMul", f"p w{i}", f"m{i}") for i in "qkv"),
        node("Concat", "n split", "heads", axis=0),
        *(node("Reshape", f"m{i} heads", f"h{i}") for i in "qkv"),
        node("Transpose", "hq", "q", perm=[0, 2, 1, 3]),
        node("Transpose", "hk", "k", perm=[0, 2, 3, 1]),
        node("Transpose", "hv", "v", perm=[0, 2, 1, 3]),
        node("MatMul", "q k", "scores"),
        node("Softmax", "scores", "shares", axis=-1),
        node("MatMul", "shares v", "mixed"),
        node("Transpose", "mixed", "turned", perm=[0, 2, 1, 3]),
        node("Concat", "n join", "back", axis=0),
        node("Reshape", "turned back", "joined"),
        node("Add", "joined p", "sum"),
        node("LayerNormalization", "sum scale", "norm"),
        node("Gather", "norm first", "y", axis=1),
    ]
    weights = {f"w{i}": floats(24, 24) for i in "qkv"}
    weights |= {"token": floats(1, 1, 24), "places": floats(1, 12, 24), "scale": floats(24)}
    weights |= {"one": ints(1), "width": ints(24), "split": ints(12, 3, 8), "join": ints(12, 24)}
    return make_model(nodes, {"x": ("batch", 11, 24)}, "y", {**weights, "first": np.int64(0)})


def recurrent() -> onnx.ModelProto:
    """Sequences on axis 1, as PyTorch has them: its initial state is made for the batch."""
    nodes = [
        node("Shape", "x", "n", start=1, end=2),
        node("Concat", "two n hidden", "to", axis=0),
        node("ConstantOfShape", "to", "zeros"),
        node(
            *("LSTM", ["x", "w", "r", "b", "", "zeros", "zeros"], "all last"),
            hidden_size=32,
            direction="bidirectional",
        ),
        node("Transpose", "all", "turned", perm=[0, 2, 1, 3]),
        node("Reshape", "turned join", "y"),
    ]
    weights = {"w": floats(2, 128, 16), "r": floats(2, 128, 32), "b": floats(2, 256)}
    weights |= {"two": ints(2), "hidden": ints(32), "join": ints(0, 0, -1)}
    return make_model(nodes, {"x": (7, "B", 16)}, "y last", weights)


def inputs(model: str, n: int) -> dict[str, Array]:
    if model == "network":
        return {
            "x": floats(n, 3, 16, 16),
            "offset": floats(n, 1, 1, 1),
            "gain": floats(16, 1, 1),
        }
    return {"x": floats(n, 11, 24) if model == "attention" else floats(7, n, 16)}


MODELS: Mapping[str, Callable[[], onnx.ModelProto]] = {
    "network": network,
    "attention": attention,
    "recurrent": recurrent,
}
