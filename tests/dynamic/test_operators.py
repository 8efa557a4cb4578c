"""Dynamic operators through real wasm, each model at several sizes, against onnx's reference, or
onnxruntime where the reference cannot do it.

Tolerance: 1e-5 relative and absolute, the float32 roundings of sums of a few dozen values up to 5.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import parser
from onnx.reference import ReferenceEvaluator

import wasmgraph
from tests.onnx_models import Array, make_model, node
from wasmgraph.errors import InferenceError, InputError

_MATH = (
    *("Exp", "Sqrt", "Reciprocal", "Erf", "Sin", "Cos", "Tan", "Atan", "Sinh", "Cosh", "Tanh"),
    *("Asinh", "Floor", "Ceil", "Round"),
)
_ACTIVATIONS = (
    *("Sigmoid", "Softplus", "Softsign", "Mish", "HardSwish", "LeakyRelu", "Elu", "Celu", "Selu"),
    *("HardSigmoid", "ThresholdedRelu", "Shrink", "Gelu"),
)

RNG = np.random.default_rng(0)


def floats(*shape: int) -> Array:
    return RNG.normal(size=shape).astype(np.float32)


def integers(*shape: int, high: int = 5) -> Array:
    return np.asarray(RNG.integers(-high, high, shape))


def check(
    model: onnx.ModelProto,
    folder: Path,
    *feeds: Mapping[str, Array],
    reference: Callable[[onnx.ModelProto], Any] = ReferenceEvaluator,
) -> None:
    """One graph, run on feeds of several sizes."""
    target = folder / "graph.wasm"
    assert wasmgraph.compile(model, target, verify=False, by_sample=False).dynamic
    evaluator = reference(model)
    with wasmgraph.load(target) as graph:
        for given in feeds:
            found = graph.run(dict(given))
            for name, expected in zip(found, evaluator.run(None, dict(given)), strict=True):
                np.testing.assert_allclose(found[name], expected, 1e-5, 1e-5, err_msg=name)
                assert found[name].dtype == np.asarray(expected).dtype


def onnxruntime_session(model: onnx.ModelProto) -> onnxruntime.InferenceSession:
    """Where the reference is wrong: groups of ConvTranspose, scalars that a loop collects."""
    return onnxruntime.InferenceSession(model.SerializeToString())


def unary_model(ops: Sequence[str], dtype: str) -> onnx.ModelProto:
    nodes = [node(op, "x", op.lower()) for op in ops]
    names = [op.lower() for op in ops]
    kinds = {"IsNaN": "bool", "IsInf": "bool"}
    outputs = {name: (kinds.get(op, dtype), None) for op, name in zip(ops, names, strict=True)}
    return make_model(nodes, {"x": (dtype, ["N", "M"])}, outputs, opset=20)  # type: ignore[arg-type]


def test_functions_of_floats(tmp_path: Path) -> None:
    ops = [*_MATH, *_ACTIVATIONS, "IsNaN", "IsInf", "Relu", "Abs", "Neg", "Sign"]
    values = np.abs(floats(3, 5)) + 0.1
    check(unary_model(ops, "float32"), tmp_path, {"x": values}, {"x": floats(0, 2)})


@pytest.mark.parametrize("dtype", ["int8", "int32", "int64", "float64"])
def test_functions_of_all_numbers(tmp_path: Path, dtype: str) -> None:
    model = unary_model(["Abs", "Neg", "Sign", "Relu"], dtype)
    check(model, tmp_path, *({"x": integers(*s).astype(dtype)} for s in ((3, 4), (1, 1))))


@pytest.mark.parametrize("dtype", ["float32", "int32", "uint8", "int64", "float64"])
def test_two_operands_are_broadcast(tmp_path: Path, dtype: str) -> None:
    arithmetic = ["Add", "Sub", "Mul", "Div", "Max", "Min"]
    comparisons = ["Less", "LessOrEqual", "Greater", "GreaterOrEqual", "Equal"]
    nodes = [node(op, "a b", op.lower()) for op in (*arithmetic, *comparisons)]
    outputs: dict[str, Any] = {op.lower(): (dtype, None) for op in arithmetic}
    outputs |= {op.lower(): ("bool", None) for op in comparisons}
    inputs = {"a": (dtype, ["A", "B", "C"]), "b": (dtype, ["D", "E"])}
    shapes = [((2, 3, 4), (3, 4)), ((2, 3, 4), (1, 1)), ((2, 1, 4), (5, 1)), ((1, 3, 1), (1, 7))]
    feeds = [
        {"a": integers(*a).astype(dtype), "b": integers(*b).astype(dtype) + np.array(7, dtype)}
        for a, b in shapes
    ]
    check(make_model(nodes, inputs, outputs), tmp_path, *feeds)


def test_conversions(tmp_path: Path) -> None:
    types = {"float64": 11, "int32": 6, "uint8": 2, "bool": 9, "float16": 10, "int64": 7}
    nodes = [node("Cast", "x", name, to=code) for name, code in types.items()]
    outputs = {name: (name, None) for name in types}
    model = make_model(nodes, {"x": ["N"]}, outputs)  # type: ignore[arg-type]
    check(model, tmp_path, {"x": np.array([0, 1.5, 2.75, 200], np.float32)}, {"x": floats(0)})


def test_matrix_products(tmp_path: Path) -> None:
    nodes = [
        node("MatMul", "a b", "plain"),
        node("MatMul", "a v", "column"),
        node("Gemm", "m w c", "gemm", transB=1, alpha=0.5, beta=2.0),
    ]
    inputs = {
        "a": ["B", "M", "K"],
        "b": ["K", "N"],
        "v": ["K"],
        "m": ["M", 3],
        "w": [5, 3],
        "c": [5],
    }
    feeds = [
        {
            "a": floats(b, m, k),
            "b": floats(k, n),
            "v": floats(k),
            "m": floats(m, 3),
            "w": floats(5, 3),
            "c": floats(5),
        }
        for b, m, k, n in ((1, 1, 1, 1), (2, 5, 7, 9), (1, 9, 33, 35))
    ]
    check(make_model(nodes, inputs, "plain column gemm"), tmp_path, *feeds)


def test_reductions(tmp_path: Path) -> None:
    ops = ["Sum", "Mean", "Max", "Min", "Prod", "L1", "L2", "SumSquare", "LogSumExp"]
    nodes = [node(f"Reduce{op}", "x axes", f"{op}_0", keepdims=0) for op in ops]
    nodes += [node(f"Reduce{op}", "x", f"{op}_1") for op in ops]
    nodes += [node("ArgMax", "x", "top", axis=1), node("Softmax", "x", "share", axis=1)]
    outputs: dict[str, Any] = {n.output[0]: ("float32", None) for n in nodes}
    outputs["top"] = ("int64", None)
    model = make_model(nodes, {"x": ["A", "B", "C"]}, outputs, {"axes": np.array([0, 2])})
    check(model, tmp_path, *({"x": floats(*s)} for s in ((2, 3, 4), (1, 1, 1), (3, 20, 17))))


def test_elements_by_index(tmp_path: Path) -> None:
    nodes = [
        node("Gather", "x i", "gather", axis=1),
        node("Slice", "x s e a t", "slice"),
        node("Split", "x", "left right", axis=0, num_outputs=2),
        node("Pad", "x p", "pad", mode="reflect"),
        node("Tile", "x r", "tile"),
        node("Transpose", "x", "turned"),
        node("Concat", "x x", "both", axis=-1),
        node("Trilu", "x", "upper"),
        node("CumSum", "x one", "sums"),
    ]
    weights = {
        "i": np.array([[0, -1]]),
        "s": np.array([-1, 0]),
        "e": np.array([-(2**31), 2**31]),
        "a": np.array([1, 0]),
        "t": np.array([-2, 1]),
        "p": np.array([1, 0, 0, 2]),
        "r": np.array([2, 1]),
        "one": np.array(1),
    }
    outputs = " ".join(name for n in nodes for name in n.output)
    model = make_model(nodes, {"x": ["N", "M"]}, outputs, weights)
    check(model, tmp_path, *({"x": floats(*s)} for s in ((4, 5), (2, 3), (7, 8))))


def test_sizes_that_depend_on_data(tmp_path: Path) -> None:
    nodes = [
        node("NonZero", "x", "places"),
        node("Unique", "x", "values first which counts"),
        node("Greater", "x zero", "positive"),
        node("Compress", "x positive", "kept", axis=0),
        node("Range", "zero limit one", "range"),
        node("TopK", "x k", "largest where"),
    ]
    weights = {"zero": np.float32(0), "one": np.float32(1)}
    inputs = {"x": ["N"], "limit": [], "k": ("int64", [1])}
    outputs: dict[str, Any] = {"values": ["U"], "kept": ["K"], "range": ["R"], "largest": ["T"]}
    outputs |= dict.fromkeys(("places", "first", "which", "counts", "where"), ("int64", None))
    model = make_model(nodes, inputs, outputs, weights)
    check(
        model,
        tmp_path,
        *(
            {"x": integers(n).astype(np.float32), "limit": np.float32(n), "k": np.array([n // 2])}
            for n in (9, 1, 0, 40)
        ),
    )


@pytest.mark.parametrize("group", [1, 2])
def test_convolutions_and_pooling(tmp_path: Path, group: int) -> None:
    nodes = [
        node("Conv", "x w b", "conv", group=group, pads=[1, 0, 2, 1], strides=[2, 1]),
        node("Conv", "x w", "dilated", group=group, dilations=[2, 2], pads=[2, 2, 2, 2]),
        node("Conv", "x w", "same", group=group, strides=[2, 2], auto_pad="SAME_UPPER"),
        node("ConvTranspose", "x v", "up", group=group, strides=[2, 2], output_padding=[1, 0]),
        node("MaxPool", "x", "top", kernel_shape=[3, 2], strides=[2, 2], pads=[1, 0, 1, 1]),
        node("AveragePool", "x", "mean", kernel_shape=[2, 2], pads=[1, 1, 0, 0]),
        node("GlobalAveragePool", "x", "all"),
    ]
    weights = {
        "w": floats(6, 4 // group, 3, 3),
        "b": floats(6),
        "v": floats(4, 3, 3, 2),
    }
    outputs = "conv dilated same up top mean all"
    model = make_model(nodes, {"x": ["N", 4, "H", "W"]}, outputs, weights)
    feeds = [{"x": floats(*size)} for size in ((1, 4, 7, 8), (2, 4, 5, 5), (1, 4, 33, 20))]
    check(model, tmp_path, *feeds, reference=onnxruntime_session)


@pytest.mark.parametrize("op", ["LSTM", "GRU", "RNN"])
def test_recurrent_networks(tmp_path: Path, op: str) -> None:
    gates = {"LSTM": 4, "GRU": 3, "RNN": 1}[op]
    model = make_model(
        [node(op, "x w r b", "all last", hidden_size=5)],
        {"x": ["T", "N", 3]},
        "all last",
        {
            "w": floats(1, gates * 5, 3),
            "r": floats(1, gates * 5, 5),
            "b": floats(1, 2 * gates * 5),
        },
    )
    check(model, tmp_path, *({"x": floats(*s)} for s in ((1, 1, 3), (6, 2, 3))))


BRANCHES = """
<ir_version: 8, opset_import: ["": 18]>
g (float[N] x, bool c) => (float[M] y) {
    y = If (c) <
        then_branch = t () => (float[A] a) { a = Neg (x) },
        else_branch = e () => (float[B] b) { b = Concat <axis = 0> (x, x) }
    >
}
"""

COLLATZ = """
<ir_version: 8, opset_import: ["": 18]>
g (int64 n) => (int64 end, int64[S] seen) {
    limit = Constant <value_int = 200> ()
    one = Constant <value_int = 1> ()
    two = Constant <value_int = 2> ()
    three = Constant <value_int = 3> ()
    start = Greater (n, one)
    end, seen = Loop (limit, start, n) <body = b (int64 i, bool c, int64 k)
        => (bool goes, int64 next, int64 now) {
        odd = Mod (k, two)
        is_odd = Cast <to = 9> (odd)
        next = If (is_odd) <
            then_branch = t () => (int64 up) { m = Mul (k, three) up = Add (m, one) },
            else_branch = e () => (int64 down) { down = Div (k, two) }
        >
        goes = Greater (next, one)
        now = Identity (next)
    }>
}
"""


def test_a_branch_decides_the_shape(tmp_path: Path) -> None:
    feeds = [{"x": floats(n), "c": np.array(n % 2 == 0)} for n in (1, 2, 5)]
    check(parser.parse_model(BRANCHES), tmp_path, *feeds)


def test_a_loop_ends_when_its_body_says_so(tmp_path: Path) -> None:
    feeds = [{"n": np.array(n)} for n in (6, 27, 2)]
    model = parser.parse_model(COLLATZ)
    check(model, tmp_path, *feeds, reference=onnxruntime_session)


def test_a_failure_names_the_node(tmp_path: Path) -> None:
    nodes = [node("Reshape", "x shape", "y", name="fold")]
    model = make_model(nodes, {"x": ["N"]}, {"y": ["A", 2]}, {"shape": np.array([-1, 2])})
    target = tmp_path / "graph.wasm"
    wasmgraph.compile(model, target, verify=False, by_sample=False)
    with wasmgraph.load(target) as graph:
        with pytest.raises(InferenceError, match=r"fold: .* shape \[3\]"):
            graph.run({"x": floats(3)})
        assert graph.run({"x": floats(4)})["y"].shape == (2, 2)


def test_inputs_that_share_an_axis_must_agree(tmp_path: Path) -> None:
    model = make_model([node("Add", "a b", "y")], {"a": ["rows", 1], "b": ["rows", 2]}, "y")
    target = tmp_path / "graph.wasm"
    report = wasmgraph.compile(model, target, by_sample=False)
    assert report.verification is not None
    assert report.verification.agrees
    with (
        wasmgraph.load(target) as graph,
        pytest.raises(InputError, match=r"axis 'rows' is 2 in input 'a' and 3 in input 'b'"),
    ):
        graph.run({"a": floats(2, 1), "b": floats(3, 2)})
