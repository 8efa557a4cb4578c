"""Operators of com.microsoft against onnxruntime, node by node.

The tolerance is a few units in the last place of float32, at the size that the sums in between
have; probabilities of a softmax pass on what exp differs by.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tests.onnx_models import Array
from tests.operators.foreign_cases import Foreign, compare, run_foreign
from tests.operators.node_cases import Fixed
from tests.operators.weight_only_cases import CASES as WEIGHT_ONLY

RNG = np.random.default_rng(7)


def f32(*shape: int) -> Array:
    return RNG.normal(size=shape).astype(np.float32)


def weight(*shape: int) -> Fixed:
    return Fixed(f32(*shape))


def conv(what: str, *more: Array | None, **attributes: Any) -> Foreign:
    operands = (f32(1, 4, 6, 5), weight(8, 4, 3, 3), weight(8), *more)
    return Foreign(what, "FusedConv", operands, {"pads": [1, 1, 1, 1], **attributes})


CONVOLUTIONS = [
    conv("Relu", activation="Relu"),
    conv("LeakyRelu", activation="LeakyRelu", activation_params=[0.2]),
    conv("Clip", activation="Clip", activation_params=[-0.5, 1.5]),
    conv("HardSigmoid", activation="HardSigmoid", activation_params=[0.3, 0.4]),
    conv("Tanh", activation="Tanh"),
    conv("a sum, then Relu", f32(1, 8, 6, 5), activation="Relu"),
    conv("strides", activation="Sigmoid", strides=[2, 2]),
]


def gemm(activation: str, **attributes: float) -> Foreign:
    attrs = {"activation": activation, "transB": 1, "alpha": 0.5, **attributes}
    return Foreign(activation, "FusedGemm", (f32(3, 5), weight(7, 5), weight(7)), attrs)


def matmul(what: str, a: tuple[int, ...], b: tuple[int, ...], **attributes: Any) -> Foreign:
    return Foreign(what, "FusedMatMul", (f32(*a), f32(*b)), attributes)


PRODUCTS = [
    gemm("Relu"),
    gemm("LeakyRelu", activation_alpha=0.1),
    gemm("HardSigmoid", activation_alpha=0.3, activation_beta=0.6),
    matmul("alpha", (2, 3, 4), (2, 4, 5), alpha=0.125),
    matmul("A across", (2, 4, 3), (2, 4, 5), transA=1),
    matmul("B across", (2, 3, 4), (2, 5, 4), transB=1, alpha=2.0),
    matmul("both across", (4, 3), (5, 4), transA=1, transB=1),
    matmul("A with its batch", (3, 2, 4), (2, 4, 5), transBatchA=1),
    matmul("A with its batch, across", (4, 2, 3), (2, 4, 5), transBatchA=1, transA=1),
    matmul("B with its batch, across", (2, 3, 4), (5, 2, 4), transBatchB=1, transB=1),
    Foreign("vector", "FusedMatMul", (f32(4), f32(4, 5)), {"transA": 1}),
]

GELUS = [
    Foreign("", "Gelu", (f32(2, 9),)),
    Foreign("", "BiasGelu", (f32(2, 3, 8), weight(8))),
    Foreign("", "FastGelu", (f32(2, 8),)),
    Foreign("bias", "FastGelu", (f32(2, 8), weight(8))),
    Foreign("", "QuickGelu", (f32(2, 8),)),
    Foreign("alpha 1", "QuickGelu", (f32(2, 8),), {"alpha": 1.0}),
]

NORMALISATIONS = [
    Foreign("", "SkipLayerNormalization", (f32(2, 3, 8), f32(2, 3, 8), weight(8), weight(8))),
    Foreign(
        "bias, its sum",
        "SkipLayerNormalization",
        (f32(2, 3, 8), f32(2, 3, 8), weight(8), weight(8), weight(8)),
        {"epsilon": 1e-5},
        (True, False, False, True),
    ),
    Foreign("no shift", "SkipLayerNormalization", (f32(2, 3, 8), f32(3, 8), weight(8))),
    Foreign("", "SkipSimplifiedLayerNormalization", (f32(2, 3, 8), f32(2, 3, 8), weight(8))),
    Foreign(
        "bias, its sum",
        "SkipSimplifiedLayerNormalization",
        (f32(2, 3, 8), f32(2, 3, 8), weight(8), weight(8)),
        {"epsilon": 1e-6},
        (True, False, False, True),
    ),
    Foreign("", "SimplifiedLayerNormalization", (f32(2, 3, 8), weight(8)), {"axis": -1}, domain=""),
    Foreign(
        "all axes but the first",
        "SimplifiedLayerNormalization",
        (f32(2, 3, 8), weight(3, 8)),
        {"axis": 1},
        domain="",
    ),
    Foreign(
        "before opset 17", "LayerNormalization", (f32(2, 3, 8), weight(8), weight(8)), domain=""
    ),
]


def ids(high: int, *shape: int) -> Array:
    return RNG.integers(0, high, shape).astype(np.int32)


TABLES = (weight(20, 8), weight(10, 8), weight(2, 8), weight(8), weight(8))
MASK = np.array([[1, 1, 1, 0], [1, 1, 0, 0]], np.int32)
EMBEDDINGS = [
    Foreign(
        "segments and mask",
        "EmbedLayerNormalization",
        (ids(20, 2, 4), ids(2, 2, 4), *TABLES, MASK),
        outputs=(True, True),
    ),
    Foreign(
        "no segments",
        "EmbedLayerNormalization",
        (ids(20, 2, 4), None, TABLES[0], TABLES[1], None, TABLES[3], TABLES[4]),
        outputs=(True, True),
    ),
]


def attention(what: str, *more: Array | None, sizes: int = 24, **attributes: Any) -> Foreign:
    operands = (f32(2, 4, 8), weight(8, sizes), weight(sizes), *more)
    return Foreign(what, "Attention", operands, {"num_heads": 2, **attributes})


ATTENTIONS = [
    attention("no mask"),
    attention("a mask per key", MASK),
    attention("a mask per query and key", np.tril(np.ones((2, 4, 4), np.int32))),
    attention("lengths", np.array([3, 2], np.int32)),
    attention("lengths and starts", np.array([4, 3, 1, 0], np.int32)),
    attention("causal", unidirectional=1),
    attention("causal with a mask", MASK, unidirectional=1, mask_filter_value=-1000.0),
    attention("sizes", sizes=20, qkv_hidden_sizes=[8, 8, 4], scale=0.3),
    attention("something added", None, None, f32(2, 2, 4, 4)),
    Foreign(
        "past and present",
        "Attention",
        (f32(2, 4, 8), weight(8, 24), weight(24), None, f32(2, 2, 2, 3, 4)),
        {"num_heads": 2, "unidirectional": 1},
        (True, True),
    ),
    Foreign(
        "separate",
        "MultiHeadAttention",
        (f32(2, 4, 8), f32(2, 5, 8), f32(2, 5, 6)),
        {"num_heads": 2},
    ),
    Foreign(
        "bias, mask and more",
        "MultiHeadAttention",
        (f32(2, 4, 8), f32(2, 4, 8), f32(2, 4, 8), weight(24), MASK, f32(1, 2, 4, 4)),
        {"num_heads": 2, "scale": 0.25},
    ),
    Foreign(
        "keys and values by heads",
        "MultiHeadAttention",
        (f32(2, 4, 8), f32(2, 2, 5, 4), f32(2, 2, 5, 4)),
        {"num_heads": 2},
    ),
    Foreign(
        "past and present",
        "MultiHeadAttention",
        (
            *(f32(2, 4, 8) for _ in range(3)),
            None,
            None,
            None,
            f32(2, 2, 3, 4),
            f32(2, 2, 3, 4),
        ),
        {"num_heads": 2, "unidirectional": 1},
        (True, True, True),
    ),
]


def rotary(what: str, x: Array, at: Array, **attributes: Any) -> Foreign:
    angles = RNG.uniform(0, 6, (12, 2))
    tables = (Fixed(np.cos(angles).astype(np.float32)), Fixed(np.sin(angles).astype(np.float32)))
    return Foreign(what, "RotaryEmbedding", (x, at, *tables), attributes)


PLACES = np.array([[3, 1, 5, 0], [2, 2, 11, 7]], np.int64)
ROTARIES = [
    rotary("halves", f32(2, 4, 8), PLACES),
    rotary("neighbours", f32(2, 4, 8), PLACES, interleaved=1),
    rotary("from a place on", f32(2, 4, 8), np.array([5], np.int64)),
    rotary("by heads", f32(2, 3, 4, 4), PLACES),
    rotary("a part of each head", f32(2, 4, 12), PLACES, rotary_embedding_dim=4, num_heads=2),
]

CASES = [
    *CONVOLUTIONS,
    *PRODUCTS,
    *GELUS,
    *NORMALISATIONS,
    *EMBEDDINGS,
    *ATTENTIONS,
    *ROTARIES,
    *WEIGHT_ONLY,
]


@pytest.fixture(scope="module")
def found() -> dict[str, list[tuple[Array, Array]]]:
    return run_foreign(CASES, opset=16)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_agrees_with_onnxruntime(
    case: Foreign, found: dict[str, list[tuple[Array, Array]]]
) -> None:
    compare(found[str(case)], rtol=1e-5, atol=1e-5)
