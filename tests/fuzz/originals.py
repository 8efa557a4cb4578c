"""The sound models that get damaged: small ones, which together hold many operators."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper

from tests.onnx_models import CUSTOM_DOMAIN, make_model, node

DIGITS = Path(__file__).resolve().parents[2] / "samples" / "digits" / "digits.onnx"
LARGEST_NBYTES = 600_000
"""Of a model taken from a folder: larger ones take seconds each, and are damaged no differently."""


@cache
def originals() -> Mapping[str, bytes]:
    """The serialised models, by name."""
    built = {make.__name__: make() for make in BUILDERS}
    return {
        "digits": DIGITS.read_bytes(),
        **{name: model.SerializeToString(deterministic=True) for name, model in built.items()},
    }


def models_in(folder: Path) -> dict[str, bytes]:
    """The smaller models of a folder, by file name."""
    paths = sorted(folder.glob("*.onnx"))
    return {path.name: path.read_bytes() for path in paths if _is_small(path)}


def _is_small(path: Path) -> bool:
    return path.stat().st_size <= LARGEST_NBYTES


def _weights(seed: int, **shapes: tuple[int, ...]) -> dict[str, Any]:
    rng = np.random.default_rng(seed)
    return {name: rng.standard_normal(shape, np.float32) for name, shape in shapes.items()}


def picture() -> onnx.ModelProto:
    """A small network for pictures, for a batch of any size."""
    return make_model(
        [
            node("Conv", "x w b", "a", pads=[1, 1, 1, 1], strides=[2, 2]),
            node("BatchNormalization", "a s b m v", "n", epsilon=1e-5),
            node("Relu", "n", "r"),
            node("Conv", "r d", "p", group=4, dilations=[2, 2], auto_pad="SAME_UPPER"),
            node("Clip", "p zero six", "c"),
            node("Add", "c r", "k"),
            node("MaxPool", "k", "q", kernel_shape=[2, 2], strides=[2, 2], ceil_mode=1),
            node("ConvTranspose", "q t", "u", strides=[2, 2], output_padding=[1, 1]),
            node("GlobalAveragePool", "u", "g"),
            node("Flatten", "g", "f", axis=1),
            node("Gemm", "f e", "z", transB=1, alpha=0.5),
            node("Softmax", "z", "y", axis=-1),
        ],
        {"x": (1, 3, 9, 9)},
        {"y": ("float32", (1, 5))},
        {
            **_weights(1, w=(4, 3, 3, 3), b=(4,), s=(4,), m=(4,), d=(4, 1, 3, 3)),
            **_weights(2, t=(4, 2, 3, 3), e=(5, 2)),
            "v": np.ones(4, np.float32),
            "zero": np.float32(0),
            "six": np.float32(6),
        },
    )


def attention() -> onnx.ModelProto:
    """Rows that look at each other."""
    return make_model(
        [
            node("MatMul", "x w", "q"),
            node("Reshape", "q split", "h"),
            node("Transpose", "h", "t", perm=[0, 2, 1, 3]),
            node("Transpose", "h", "u", perm=[0, 2, 3, 1]),
            node("MatMul", "t u", "s"),
            node("Div", "s scale", "d"),
            node("Softmax", "d", "p", axis=3),
            node("MatMul", "p t", "o"),
            node("Transpose", "o", "b", perm=[0, 2, 1, 3]),
            node("Reshape", "b join", "j"),
            node("Add", "j x", "r"),
            node("LayerNormalization", "r g c", "l", axis=-1),
            node("Gelu", "l", "y"),
        ],
        {"x": (1, 5, 8)},
        "y",
        {
            **_weights(3, w=(8, 8), g=(8,), c=(8,)),
            "split": [0, 0, 2, 4],
            "join": [0, 0, -1],
            "scale": np.float32(2),
        },
        opset=20,
    )


def axes() -> onnx.ModelProto:
    """What moves, cuts and joins."""
    return make_model(
        [
            node("Slice", "x starts ends ax steps", "a"),
            node("Gather", "x index", "b", axis=1),
            node("Concat", "a b", "c", axis=1),
            node("Split", "c parts", "d e", axis=1),
            node("Pad", "d pads fill", "f", mode="constant"),
            node("Tile", "e repeats", "g"),
            node("Unsqueeze", "g one", "h"),
            node("Squeeze", "h one", "i"),
            node("Expand", "i wide", "j"),
            node("DepthToSpace", "x4", "k", blocksize=2, mode="DCR"),
            node("SpaceToDepth", "k", "l", blocksize=2),
            node("ScatterND", "f where rows", "m"),
            node("GatherElements", "m at", "n", axis=1),
            node("Shape", "j", "o"),
            node("Resize", "x4  scales", "p", mode="linear"),
        ],
        {"x": (2, 6), "x4": (1, 4, 2, 3)},
        {**dict.fromkeys("jlnp", ("float32", None)), "o": ("int64", None)},
        {
            **_weights(4, rows=(1, 6), fill=()),
            "starts": [4],
            "ends": [-9],
            "ax": [1],
            "steps": [-2],
            "index": [0, 5, -1],
            "parts": [4, 2],
            "pads": [0, 1, 0, 1],
            "repeats": [1, 2],
            "one": [1],
            "wide": [2, 4],
            "where": [[1]],
            "at": [[0, 1], [5, 2]],
            "scales": np.array([1, 1, 2, 1.5], np.float32),
        },
        opset=18,
    )


def numbers() -> onnx.ModelProto:
    """Element-wise operators, reductions and comparisons on several dtypes."""
    return make_model(
        [
            node("Mul", "x row", "a"),
            node("Exp", "a", "b"),
            node("Pow", "b two", "c"),
            node("Where", "flag c x", "d"),
            node("ReduceMean", "d ax", "e", keepdims=1),
            node("ReduceMax", "d", "f", keepdims=0),
            node("ArgMax", "d", "g", axis=1, keepdims=0),
            node("TopK", "d k", "h i", axis=-1),
            node("CumSum", "d one", "j"),
            node("OneHot", "g depth values", "l", axis=-1),
            node("Cast", "h", "m", to=TensorProto.INT32),
            node("Mod", "m seven", "n"),
            node("BitShift", "u u", "o", direction="LEFT"),
            node("Einsum", "d d", "p", equation="ij,kj->ik"),
            node("HardSigmoid", "e", "q", alpha=0.1),
            node("Sum", "q f e", "r"),
        ],
        {"x": (2, 5), "flag": ("bool", (2, 1)), "u": ("uint8", (3,))},
        {
            **dict.fromkeys("jlpr", ("float32", None)),
            "i": ("int64", None),
            "n": ("int32", None),
            "o": ("uint8", None),
        },
        {
            **_weights(5, row=(5,)),
            "two": np.float32(2),
            "ax": [1],
            "k": [2],
            "one": 1,
            "depth": 5,
            "values": np.array([0, 1], np.float32),
            "seven": np.int32(7),
        },
    )


def recurrent() -> onnx.ModelProto:
    """LSTM and GRU, in both directions."""
    return make_model(
        [
            node("LSTM", "x w r b", "a h c", hidden_size=3, direction="bidirectional"),
            node("GRU", "x v s", " g", hidden_size=2, linear_before_reset=1, clip=2.0),
        ],
        {"x": (4, 1, 5)},
        "a g",
        {
            **_weights(6, w=(2, 12, 5), r=(2, 12, 3), b=(2, 24)),
            **_weights(7, v=(1, 6, 5), s=(1, 6, 2)),
        },
    )


def control() -> onnx.ModelProto:
    """If, and a Loop whose count is known."""
    value = helper.make_tensor_value_info
    y = value("t", TensorProto.FLOAT, (2,))
    then = helper.make_graph([node("Relu", "x", "t")], "then", [], [y])
    other = helper.make_graph([node("Neg", "x", "t")], "else", [], [y])
    body = helper.make_graph(
        [node("Add", "v x", "w"), node("Identity", "c", "d")],
        "body",
        [
            value("i", TensorProto.INT64, ()),
            value("c", TensorProto.BOOL, ()),
            value("v", TensorProto.FLOAT, (2,)),
        ],
        [value("d", TensorProto.BOOL, ()), value("w", TensorProto.FLOAT, (2,))],
    )
    return make_model(
        [
            node("If", "flag", "a", then_branch=then, else_branch=other),
            node("Loop", "n yes a", "y", body=body),
        ],
        {"x": (2,), "flag": ("bool", ())},
        "y",
        {"n": 3, "yes": np.bool_(True)},
    )


def functions() -> onnx.ModelProto:
    """A function of the model's own that calls another."""
    opsets = [helper.make_opsetid("", 18), helper.make_opsetid(CUSTOM_DOMAIN, 1)]
    scaled = helper.make_node("LeakyRelu", ["a"], ["b"])
    scaled.attribute.add(name="alpha", ref_attr_name="slope", type=onnx.AttributeProto.FLOAT)
    inner = helper.make_function(
        CUSTOM_DOMAIN, "Inner", ["a"], ["b"], [scaled], opsets, attributes=["slope"]
    )
    outer = helper.make_function(
        CUSTOM_DOMAIN,
        "Outer",
        ["p", "q"],
        ["r"],
        [
            node("Inner", "p", "s", domain=CUSTOM_DOMAIN, slope=0.5),
            node("Add", "s q", "r"),
        ],
        opsets,
    )
    call = node("Outer", "x w", "y", domain=CUSTOM_DOMAIN)
    return make_model([call], {"x": (2, 3)}, "y", _weights(8, w=(3,)), functions=[inner, outer])


def quantised() -> onnx.ModelProto:
    """A product of integers, between a quantisation and its inverse."""
    scale, zero = np.float32(0.02), np.uint8(128)
    rng = np.random.default_rng(9)
    return make_model(
        [
            node("QuantizeLinear", "x s z", "a"),
            node("DequantizeLinear", "a s z", "b"),
            node("DequantizeLinear", "w s i", "c"),
            node("Conv", "b c", "d", pads=[1, 1, 1, 1]),
            node("QuantizeLinear", "d s z", "e"),
            node("DequantizeLinear", "e s z", "f"),
            node("DynamicQuantizeLinear", "f", "g t u"),
            node("MatMulInteger", "g v u", "y"),
        ],
        {"x": (1, 2, 4, 4)},
        {"y": ("int32", None)},
        {
            "s": scale,
            "z": zero,
            "i": np.int8(0),
            "w": rng.integers(-128, 128, (3, 2, 3, 3), np.int8),
            "v": rng.integers(0, 256, (4, 2), np.uint8),
        },
    )


def old() -> onnx.ModelProto:
    """Operators that have changed since, or are gone."""
    return make_model(
        [
            node("Slice", "x", "a", axes=[2, 3], starts=[0, 0], ends=[4, 4]),
            node("Upsample", "a scales", "b", mode="nearest"),
            node("Clip", "b", "c", min=0.0, max=1.0),
            node("Dropout", "c", "d", ratio=0.5),
            node("ReduceSum", "d", "e", axes=[1], keepdims=1),
            node("Squeeze", "e", "f", axes=[1]),
            node("Softmax", "f", "y", axis=1),
        ],
        {"x": (1, 2, 5, 5)},
        "y",
        {"scales": np.array([1, 1, 2, 2], np.float32)},
        opset=9,
    )


def half() -> onnx.ModelProto:
    """Half precision, with a tensor among the attributes."""
    constant = helper.make_tensor("c", TensorProto.FLOAT16, (3,), [0.5, 1.0, 2.0])
    return make_model(
        [
            node("Constant", "", "c", value=constant),
            node("Mul", "x c", "a"),
            node("InstanceNormalization", "a s b", "n"),
            node("Tanh", "n", "y"),
        ],
        {"x": ("float16", (1, 2, 3))},
        {"y": ("float16", None)},
        {"s": np.ones(2, np.float16), "b": np.zeros(2, np.float16)},
    )


def trees() -> onnx.ModelProto:
    """Two decision trees and a scaler, as scikit-learn's are exported."""
    model = make_model(
        [
            node("Scaler", "x", "s", domain="ai.onnx.ml", offset=[0.5], scale=[2.0]),
            node(
                "TreeEnsembleRegressor",
                "s",
                "y",
                domain="ai.onnx.ml",
                n_targets=1,
                nodes_treeids=[0, 0, 0, 1, 1, 1],
                nodes_nodeids=[0, 1, 2, 0, 1, 2],
                nodes_featureids=[0, 0, 0, 2, 0, 0],
                nodes_modes=["BRANCH_LEQ", "LEAF", "LEAF", "BRANCH_LEQ", "LEAF", "LEAF"],
                nodes_values=[0.5, 0.0, 0.0, -0.25, 0.0, 0.0],
                nodes_truenodeids=[1, 0, 0, 1, 0, 0],
                nodes_falsenodeids=[2, 0, 0, 2, 0, 0],
                target_treeids=[0, 0, 1, 1],
                target_nodeids=[1, 2, 1, 2],
                target_ids=[0, 0, 0, 0],
                target_weights=[1.0, 2.0, 3.0, 4.0],
            ),
        ],
        {"x": (4, 3)},
        "y",
    )
    model.opset_import.append(helper.make_opsetid("ai.onnx.ml", 3))
    return model


def optimised() -> onnx.ModelProto:
    """Operators that onnxruntime's optimiser writes."""
    domain = "com.microsoft"
    model = make_model(
        [
            node("FusedMatMul", "x w", "a", domain=domain, transB=1, alpha=0.5),
            node("BiasGelu", "a b", "g", domain=domain),
            node("SkipLayerNormalization", "g x s b", "n", domain=domain, epsilon=1e-5),
            node("FastGelu", "n", "y", domain=domain),
        ],
        {"x": (1, 3, 8)},
        "y",
        _weights(10, w=(8, 8), b=(8,), s=(8,)),
    )
    model.opset_import.append(helper.make_opsetid(domain, 1))
    return model


BUILDERS: tuple[Callable[[], onnx.ModelProto], ...] = (
    picture,
    attention,
    axes,
    numbers,
    recurrent,
    control,
    functions,
    quantised,
    old,
    half,
    trees,
    optimised,
)
