"""What becomes one node where shapes are open: products with chains behind them, chains alone, each
graph at several sizes against onnxruntime.

Tolerance: 1e-4 relative and absolute, the float32 roundings of sums of up to a few hundred products
of numbers below 4, in another order.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx.parser
import onnxruntime
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import wasmgraph
from tests.onnx_models import Array, make_model, node
from wasmgraph.compiler import make_bundle
from wasmgraph.dynamic.program import all_nodes
from wasmgraph.optimise import Options

WHOLE = Options(by_sample=False)
"""Also where a batch alone is open, what is tested here are dynamic graphs."""


def numbers(seed: int, *shape: int) -> Array:
    return np.random.default_rng(seed).uniform(-2, 2, shape).astype(np.float32)


def operators(model: onnx.ModelProto) -> list[str]:
    """What the graph's nodes call, without "wgd_"."""
    program = make_bundle(model, options=WHOLE).graph.dynamic
    assert program is not None
    return [found.operator.removeprefix("wgd_") for found in all_nodes(program.body)]


def check(
    model: onnx.ModelProto,
    folder: Path,
    *feeds: Mapping[str, Array],
    atol: float = 1e-4,
    winograd: bool = False,
) -> None:
    """One graph, run on feeds of several sizes, twice each as buffers are used again."""
    target = folder / "graph.wasm"
    wasmgraph.compile(model, target, verify=False, winograd=winograd, by_sample=False)
    session = onnxruntime.InferenceSession(model.SerializeToString())
    with wasmgraph.load(target) as graph:
        for given_ in (*feeds, *feeds):
            found = graph.run(dict(given_))
            for name, expected in zip(found, session.run(None, dict(given_)), strict=True):
                np.testing.assert_allclose(found[name], expected, 1e-4, atol, err_msg=name)
                assert found[name].shape == expected.shape


WINDOWS: Sequence[dict[str, Any]] = [
    {"kernel_shape": [1, 1]},
    {"kernel_shape": [1, 1], "strides": [2, 2]},
    {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1]},
    {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1], "strides": [2, 2]},
    {"kernel_shape": [3, 3]},
    {"kernel_shape": [5, 3], "pads": [0, 1, 3, 2], "strides": [1, 3]},
    {"kernel_shape": [3, 3], "pads": [2, 2, 2, 2], "dilations": [2, 2]},
    {"kernel_shape": [2, 2], "strides": [2, 2], "auto_pad": "SAME_UPPER"},
    {"kernel_shape": [3, 5], "dilations": [1, 2], "strides": [2, 1], "pads": [4, 0, 0, 4]},
]
GROUPS = ((6, 5, 1), (3, 17, 1), (8, 8, 8), (4, 8, 4), (6, 4, 2), (40, 33, 1))
"""Channels, features, groups."""


@settings(max_examples=10, deadline=None)
@given(
    st.sampled_from(WINDOWS),
    st.sampled_from(GROUPS),
    st.booleans(),
    st.lists(
        st.tuples(st.integers(1, 2), st.integers(5, 20), st.integers(5, 40)), min_size=3, max_size=3
    ),
    st.integers(0, 99),
)
def test_convolutions(
    tmp_path_factory: pytest.TempPathFactory,
    window: dict[str, Any],
    groups: tuple[int, int, int],
    has_bias: bool,
    sizes: list[tuple[int, int, int]],
    seed: int,
) -> None:
    channels, features, count = groups
    weights = {"w": numbers(seed, features, channels // count, *window["kernel_shape"])}
    if has_bias:
        weights["b"] = numbers(seed + 1, features)
    nodes = [
        node("Conv", "x w b" if has_bias else "x w", "c", group=count, **window),
        node("HardSwish", "c", "y"),
    ]
    model = make_model(nodes, {"x": ["N", channels, "H", "W"]}, "y", weights)
    assert operators(model) == ["fast_conv"]
    feeds = [{"x": numbers(seed + 2, n, channels, h, w)} for n, h, w in sizes]
    check(model, tmp_path_factory.mktemp("conv"), *feeds)


def test_depthwise_convolutions(tmp_path: Path) -> None:
    """All windows in one graph; some see nothing but padding in some rows, or are read in place."""
    windows = [
        *WINDOWS,
        {"kernel_shape": [3, 3], "pads": [0, 1, 0, 1]},
        {"kernel_shape": [2, 3], "pads": [3, 1, 3, 1]},
        {"kernel_shape": [5, 3], "pads": [2, 1, 2, 1], "dilations": [2, 1]},
        {"kernel_shape": [5, 5], "pads": [2, 2, 2, 2]},
    ]
    nodes, weights = [], {"b": numbers(99, 5)}
    for i, window in enumerate(windows):
        weights[f"w{i}"] = numbers(i, 5, 1, *window["kernel_shape"])
        nodes.append(node("Conv", f"x w{i} b", f"y{i}", group=5, **window))
    outputs = " ".join(f"y{i}" for i in range(len(windows)))
    model = make_model(nodes, {"x": ["N", 5, "H", "W"]}, outputs, weights)
    sizes = ((1, 9, 13), (2, 5, 9), (1, 6, 96), (1, 30, 11))
    check(model, tmp_path, *({"x": numbers(7, n, 5, h, w)} for n, h, w in sizes))


@settings(max_examples=6, deadline=None)
@given(
    st.integers(8, 21),
    st.integers(8, 21),
    st.lists(st.integers(0, 2), min_size=4, max_size=4),
    st.lists(
        st.tuples(st.integers(1, 2), st.integers(9, 40), st.integers(9, 90)), min_size=4, max_size=4
    ),
)
def test_convolutions_by_winograd(
    tmp_path_factory: pytest.TempPathFactory,
    channels: int,
    features: int,
    pads: list[int],
    sizes: list[tuple[int, int, int]],
) -> None:
    weights = {"w": numbers(0, 2 * features, channels, 3, 3), "b": numbers(1, 2 * features)}
    nodes = [
        node("Conv", "x w b", "c", group=2, pads=pads),
        node("Relu", "c", "y"),
    ]
    model = make_model(nodes, {"x": ["N", 2 * channels, "H", "W"]}, "y", weights)
    feeds = [{"x": numbers(2, n, 2 * channels, h, w)} for n, h, w in sizes]
    # 1e-5 of the largest output, which is below 200 (see `wasmgraph.kernels.winograd`).
    check(model, tmp_path_factory.mktemp("conv"), *feeds, atol=2e-3, winograd=True)


def test_a_convolution_over_one_axis(tmp_path: Path) -> None:
    weights = {"w": numbers(0, 7, 3, 4), "v": numbers(1, 7, 1, 3)}
    nodes = [
        node("Conv", "x w", "c", pads=[2, 1], strides=[2]),
        node("Conv", "c v", "d", group=7),
        node("Sigmoid", "d", "y"),
    ]
    model = make_model(nodes, {"x": ["N", 3, "L"]}, "y", weights)
    assert operators(model) == ["fast_conv", "fast_conv"]
    check(model, tmp_path, *({"x": numbers(2, n, 3, length)} for n, length in ((1, 9), (2, 50))))


def test_the_only_place_of_a_window(tmp_path: Path) -> None:
    weights = {"w": numbers(0, 9, 6, 1, 1), "v": numbers(1, 6, 9, 1, 1), "b": numbers(2, 6)}
    nodes = [
        node("GlobalAveragePool", "x", "p"),
        node("Conv", "p w", "c"),
        node("Relu", "c", "r"),
        node("Conv", "r v b", "d"),
        node("HardSigmoid", "d", "s"),
        node("Mul", "x s", "y"),
    ]
    model = make_model(nodes, {"x": ["N", 6, "H", "W"]}, "y", weights)
    # The product with the image has another shape than the convolution before it.
    assert operators(model)[-2:] == ["fast_conv", "fast_conv"]
    check(model, tmp_path, *({"x": numbers(3, 2, 6, h, h)} for h in (1, 2, 9)))


def test_normalisation_and_residual_become_part_of_a_convolution(tmp_path: Path) -> None:
    norm = {name: numbers(i, 5) for i, name in enumerate(("scale", "shift", "mean"))}
    weights = {"w": numbers(5, 5, 5, 3, 3), "b": numbers(6, 5), "variance": np.abs(numbers(7, 5))}
    nodes = [
        node("Conv", "x w b", "c", pads=[1, 1, 1, 1]),
        node("BatchNormalization", "c scale shift mean variance", "n", epsilon=0.1),
        node("Add", "n x", "a"),
        node("Relu", "a", "y"),
    ]
    model = make_model(nodes, {"x": ["N", 5, "H", "W"]}, "y", weights | norm)
    assert operators(model) == ["fast_conv"]
    check(model, tmp_path, *({"x": numbers(3, 2, 5, h, w)} for h, w in ((4, 4), (3, 30), (9, 2))))


@pytest.mark.parametrize("operands", [("B S 40", "40 33"), ("B S 40", "40 1"), ("S 40", "40 100")])
def test_products_with_constants(operands: tuple[str, str], tmp_path: Path) -> None:
    left, right = ([int(d) if d.isdigit() else d for d in text.split()] for text in operands)
    matrix = numbers(0, *[int(d) for d in right])
    nodes = [
        node("MatMul", "x w", "m"),
        node("Add", "b m", "a"),
        node("Gelu", "a", "g"),
        node("Add", "g x2", "y"),
    ]
    inputs = {"x": left, "x2": ["one"]}
    model = make_model(
        nodes, inputs, "y", {"w": matrix, "b": numbers(1, matrix.shape[1])}, opset=20
    )
    assert operators(model) == ["fast_packed", "fast_chain"]
    feeds = [
        {
            "x": numbers(2, *[{"B": b, "S": s}.get(str(d), d) for d in left]),
            "x2": numbers(3, 1),
        }
        for b, s in ((1, 1), (2, 5), (3, 70))
    ]
    check(model, tmp_path, *feeds)


@pytest.mark.parametrize("turned", [0, 1])
def test_gemm(turned: int, tmp_path: Path) -> None:
    weights = {"w": numbers(0, *((19, 30) if turned else (30, 19))), "b": numbers(1, 19)}
    nodes = [
        node("Gemm", "x w b", "g", transB=turned, alpha=0.5, beta=2.0),
        node("Tanh", "g", "y"),
    ]
    model = make_model(nodes, {"x": ["N", 30]}, "y", weights)
    assert operators(model) == ["fast_packed"]
    check(model, tmp_path, *({"x": numbers(2, n, 30)} for n in (1, 3, 50)))


def test_products_of_computed_operands(tmp_path: Path) -> None:
    nodes = [
        node("MatMul", "a b", "m"),
        node("Mul", "m half", "s"),
        node("Add", "s mask", "y"),
    ]
    inputs = {"a": ["B", "H", "S", "D"], "b": ["C", "H", "D", "T"], "mask": ["B", 1, 1, "T"]}
    model = make_model(nodes, inputs, "y", {"half": np.float32(0.5)})
    assert operators(model) == ["fast_matmul"]
    feeds = [
        {
            "a": numbers(0, b, h, s, d),
            "b": numbers(1, c, h, d, t),
            "mask": numbers(2, b, 1, 1, t),
        }
        for b, c, h, s, d, t in ((1, 1, 2, 3, 4, 5), (2, 1, 3, 20, 9, 33), (2, 2, 1, 1, 7, 1))
    ]
    check(model, tmp_path, *feeds)


@pytest.mark.parametrize("shapes", [(["D"], ["D"]), (["D"], ["D", 3]), ([2, "D"], ["D"])])
def test_products_with_vectors(shapes: tuple[list[Any], list[Any]], tmp_path: Path) -> None:
    nodes = [node("MatMul", "a b", "m"), node("Relu", "m", "y")]
    model = make_model(nodes, {"a": shapes[0], "b": shapes[1]}, "y")
    feeds = [
        {
            name: numbers(i, *[d if x == "D" else x for x in shape])
            for i, (name, shape) in enumerate(zip("ab", shapes, strict=True))
        }
        for d in (1, 30)
    ]
    check(model, tmp_path, *feeds)


def test_a_chain_broadcasts_its_operands(tmp_path: Path) -> None:
    nodes = [
        node("Mul", "x row", "a"),
        node("Add", "a column", "b"),
        node("Sub", "b one", "c"),
        node("Div", "two c", "d"),
        node("Sigmoid", "d", "e"),
        node("Mul", "d e", "y"),
    ]
    inputs = {"x": ["A", "B", "C"], "row": ["C"], "column": ["B", 1], "one": [1]}
    model = make_model(nodes, inputs, "y", {"two": numbers(0, 1, 1, 1, 1) + 9})
    assert operators(model) == ["fast_chain"]
    feeds = [
        {
            "x": numbers(0, a, b, c),
            "row": numbers(1, c),
            "column": numbers(2, b, 1) + 40,
            "one": numbers(3, 1),
        }
        for a, b, c in ((1, 1, 1), (2, 3, 5), (3, 40, 3), (2, 2, 100), (0, 2, 3))
    ]
    check(model, tmp_path, *feeds)


def test_what_is_read_twice_or_given_out_is_not_swallowed(tmp_path: Path) -> None:
    nodes = [
        node("Relu", "x", "a"),
        node("Neg", "a", "b"),
        node("Softmax", "b", "s"),
        node("Add", "b s", "y"),
    ]
    model = make_model(nodes, {"x": ["A", "B"]}, "a y")
    assert operators(model) == ["fast_chain", "fast_chain", "fast_softmax", "fast_chain"]
    check(model, tmp_path, *({"x": numbers(0, a, 5)} for a in (1, 30)))


def test_without_simd_nodes_stay_apart() -> None:
    model = make_model([node("Relu", "x", "a"), node("Neg", "a", "y")], {"x": ["A"]}, "y")
    program = make_bundle(model, simd="none", options=WHOLE).graph.dynamic
    assert program is not None
    assert [found.operator for found in program.body.nodes] == ["wgd_relu_f32", "wgd_neg_f32"]


@settings(max_examples=5, deadline=None)
@given(
    st.sampled_from(["MaxPool", "AveragePool"]),
    st.sampled_from(WINDOWS[1:6]),
    st.booleans(),
    st.booleans(),
    st.lists(
        st.tuples(st.integers(1, 2), st.integers(5, 20), st.integers(5, 40)), min_size=3, max_size=3
    ),
)
def test_pooling(
    tmp_path_factory: pytest.TempPathFactory,
    op: str,
    window: dict[str, Any],
    rounds_up: bool,
    counts_pads: bool,
    sizes: list[tuple[int, int, int]],
) -> None:
    # onnxruntime wants pads to be smaller than the window.
    pads = {"pads": [min(p, 2) for p in window["pads"]]} if "pads" in window else {}
    counted = {"count_include_pad": int(counts_pads)} if op == "AveragePool" else {}
    pool = node(op, "x", "y", **window | pads | counted | {"ceil_mode": int(rounds_up)})
    model = make_model([pool], {"x": ["N", 3, "H", "W"]}, "y", opset=22)
    assert operators(model) == [f"fast_{'max' if op == 'MaxPool' else 'average'}_pool"]
    feeds = [{"x": numbers(0, n, 3, h, w)} for n, h, w in sizes]
    check(model, tmp_path_factory.mktemp("pool"), *feeds)


def test_pooling_that_gives_places_stays_as_it_is() -> None:
    pool = node("MaxPool", "x", "y i", kernel_shape=[2, 2])
    shape = ["N", 3, "h", "w"]
    outputs = {"y": shape, "i": ("int64", shape)}
    model = make_model([pool], {"x": ["N", 3, "H", "W"]}, outputs)
    assert operators(model) == ["max_pool_f32"]


TRANSPOSED: Sequence[dict[str, Any]] = [
    {"kernel_shape": [2, 2], "strides": [2, 2]},
    {"kernel_shape": [4, 4], "strides": [2, 2], "pads": [1, 1, 1, 1]},
    {"kernel_shape": [3, 3], "strides": [2, 2], "pads": [1, 1, 1, 1], "output_padding": [1, 1]},
    {"kernel_shape": [3, 2], "strides": [1, 3], "pads": [0, 1, 1, 0], "dilations": [2, 1]},
    {"kernel_shape": [2, 3], "strides": [2, 2], "auto_pad": "SAME_UPPER"},
]


@settings(max_examples=5, deadline=None)
@given(
    st.sampled_from(TRANSPOSED),
    st.sampled_from([(5, 6, 1), (8, 4, 4), (20, 33, 1)]),
    st.booleans(),
    st.lists(
        st.tuples(st.integers(1, 2), st.integers(2, 9), st.integers(2, 30)), min_size=3, max_size=3
    ),
)
def test_transposed_convolutions(
    tmp_path_factory: pytest.TempPathFactory,
    window: dict[str, Any],
    groups: tuple[int, int, int],
    has_bias: bool,
    sizes: list[tuple[int, int, int]],
) -> None:
    channels, features, count = groups
    weights = {"w": numbers(0, channels, features // count, *window["kernel_shape"])}
    if has_bias:
        weights["b"] = numbers(1, features)
    weights |= {name: numbers(2 + i, features) for i, name in enumerate(("s", "t", "m"))}
    weights["v"] = np.abs(numbers(9, features))
    inputs = "x w b" if has_bias else "x w"
    nodes = [
        node("ConvTranspose", inputs, "c", group=count, **window),
        node("BatchNormalization", "c s t m v", "n", epsilon=0.5),
        node("Relu", "n", "y"),
    ]
    model = make_model(nodes, {"x": ["N", channels, "H", "W"]}, "y", weights)
    assert operators(model) == ["fast_conv_transpose"]
    feeds = [{"x": numbers(2, n, channels, h, w)} for n, h, w in sizes]
    check(model, tmp_path_factory.mktemp("transposed"), *feeds)


def test_a_transposed_convolution_over_one_axis(tmp_path: Path) -> None:
    nodes = [node("ConvTranspose", "x w", "y", strides=[3], pads=[2, 1])]
    model = make_model(nodes, {"x": ["N", 4, "L"]}, "y", {"w": numbers(0, 4, 5, 4)})
    check(model, tmp_path, *({"x": numbers(1, n, 4, length)} for n, length in ((1, 2), (2, 30))))


def test_a_branch_may_give_a_constant(tmp_path: Path) -> None:
    model = onnx.parser.parse_model("""
        <ir_version: 8, opset_import: ["": 18]>
        g (bool c, float[N] x) => (float[M] y) {
            y = If (c) <
                then_branch = t () => (float[M] a) { a = Constant <value = float[2] {1, 2}> () },
                else_branch = e () => (float[M] b) { b = Relu (x) }
            >
        }
    """)
    feeds = [{"c": np.array(c), "x": numbers(0, 5)} for c in (True, False)]
    check(model, tmp_path, *feeds)


@pytest.mark.parametrize("op", ["LSTM", "GRU"])
@pytest.mark.parametrize("direction", ["forward", "reverse", "bidirectional"])
@pytest.mark.parametrize("lengths", [False, True])
def test_recurrent_networks(op: str, direction: str, lengths: bool, tmp_path: Path) -> None:
    hidden, features, count = 7, 5, 2 if direction == "bidirectional" else 1
    wide = (4 if op == "LSTM" else 3) * hidden
    weights = {
        "w": numbers(0, count, wide, features) / 2,
        "r": numbers(1, count, wide, hidden) / 2,
        "b": numbers(2, count, 2 * wide),
    }
    states = ["h", "c"] if op == "LSTM" else ["h"]
    flags = {} if op == "LSTM" else {"linear_before_reset": 1}
    inputs = ["x", "w", "r", "b", "n" if lengths else "", *states]
    outputs = ["y", "y_h", "y_c"][: 1 + len(states)]
    cell = node(op, inputs, outputs, hidden_size=hidden, direction=direction, **flags)
    ports: dict[str, Any] = {"x": ["T", "B", features]}
    ports |= {name: [count, "B", hidden] for name in states}
    if lengths:
        ports["n"] = ("int32", ["B"])
    model = make_model([cell], ports, " ".join(outputs), weights)
    assert operators(model) == ["fast_recurrent"]
    feeds = []
    for steps, batch in ((1, 1), (6, 3), (9, 1)):
        given_: dict[str, Array] = {"x": numbers(3, steps, batch, features)}
        given_ |= {name: numbers(4, count, batch, hidden) for name in states}
        if lengths:
            given_["n"] = np.minimum(np.arange(batch) + 1, steps).astype(np.int32)
        feeds.append(given_)
    check(model, tmp_path, *feeds)


def test_unusual_recurrent_networks_stay_as_they_are() -> None:
    weights = {"w": numbers(0, 1, 12, 5), "r": numbers(1, 1, 12, 3), "p": numbers(2, 1, 9)}
    usual = {"hidden_size": 3}
    cells = [
        node("LSTM", "x w r", "y", **usual, clip=1.0),
        node("LSTM", "x w r", "y", **usual, activations=["Sigmoid", "Relu", "Tanh"]),
        node("LSTM", "x w r", "y", **usual, input_forget=1),
        node("LSTM", ["x", "w", "r", "", "", "", "", "p"], ["y"], **usual),
        node("GRU", "x w3 r3", "y", **usual),
    ]
    weights |= {"w3": weights["w"][:, :9], "r3": weights["r"][:, :9]}
    for cell in cells:
        model = make_model([cell], {"x": ["T", "B", 5]}, "y", weights)
        assert operators(model) == ["recurrent_f32"]


@pytest.mark.parametrize("axis", [-1, 1, 0])
def test_softmax(axis: int, tmp_path: Path) -> None:
    model = make_model([node("Softmax", "x", "y", axis=axis)], {"x": ["A", "B", "C"]}, "y")
    assert operators(model) == ["fast_softmax"]
    feeds = [{"x": 30 * numbers(0, *shape)} for shape in ((1, 1, 1), (2, 3, 37), (3, 70, 2))]
    check(model, tmp_path, *feeds)


@pytest.mark.parametrize("has_bias", [False, True])
def test_layer_normalisation(has_bias: bool, tmp_path: Path) -> None:
    weights = {"s": numbers(0, 37), "b": numbers(1, 37)}
    nodes = [
        node("LayerNormalization", "x s b" if has_bias else "x s", "a", epsilon=0.1),
        node("LayerNormalization", "a t", "y", axis=1),
    ]
    model = make_model(nodes, {"x": ["A", 2, 37]}, "y", weights | {"t": numbers(2, 2, 37)})
    assert operators(model) == ["fast_layer_norm", "fast_layer_norm"]
    check(model, tmp_path, *({"x": numbers(3, n, 2, 37) + 1} for n in (1, 5)))
