"""What is rewritten at the top of a graph is so in branches and bodies too: against onnxruntime.

Tolerance: 1e-5 as for other dynamic operators; of float16, which is computed in float32 here, 5e-3:
a few roundings of 2^-11 each in onnxruntime.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper, parser

import wasmgraph
from tests.onnx_models import Array
from wasmgraph.errors import UnsupportedModelError

RNG = np.random.default_rng(11)

HEAD = """
<ir_version: 8, opset_import: ["": 17, "com.microsoft": 1, "ai.onnx.ml": 3]>
"""


def floats(*shape: int, dtype: str = "float32") -> Array:
    return RNG.normal(size=shape).astype(dtype)


def parsed(text: str, **weights: Array) -> onnx.ModelProto:
    """A model with initializers of its graph."""
    model = parser.parse_model(HEAD + text)
    model.graph.initializer.extend(numpy_helper.from_array(w, n) for n, w in weights.items())
    return model


def check(
    model: onnx.ModelProto, folder: Path, *feeds: Mapping[str, Array], tolerance: float = 1e-5
) -> None:
    """One graph, run on feeds of several sizes or branches."""
    target = folder / "graph.wasm"
    assert wasmgraph.compile(model, target, verify=False).dynamic
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    with wasmgraph.load(target, timeout=60) as graph:
        for given in feeds:
            found = graph.run(dict(given))
            for name, expected in zip(found, session.run(None, dict(given)), strict=True):
                np.testing.assert_allclose(found[name], expected, tolerance, tolerance, name)
                assert found[name].dtype == expected.dtype


def test_operators_of_onnxruntime_in_branches(tmp_path: Path) -> None:
    model = parsed(
        """
        g (bool c, float[N, 4] x) => (float[N, M] y) {
            y = If (c) <
                then_branch = t () => (float[N, M] p) {
                    a = com.microsoft.FusedMatMul <alpha = 0.5, transB = 1> (x, w)
                    p = com.microsoft.BiasGelu (a, b)
                },
                else_branch = e () => (float[N, M] q) {
                    d = com.microsoft.QuickGelu (x)
                    q = com.microsoft.FastGelu (d, b)
                }
            >
        }
        """,
        w=floats(4, 4),
        b=floats(4),
    )
    yes, no = np.array(True), np.array(False)
    check(model, tmp_path, {"c": yes, "x": floats(3, 4)}, {"c": no, "x": floats(5, 4)})


def test_operators_of_onnxruntime_on_what_a_loop_carries(tmp_path: Path) -> None:
    model = parsed(
        """
        g (int64 n, float[N, 4] x) => (float[N, 4] last, float[M, N, 4] all) {
            yes = Constant <value = bool {1}> ()
            last, all = Loop (n, yes, x) <body = b (int64 i, bool c, float[N, 4] s)
                => (bool c2, float[N, 4] next, float[N, 4] seen) {
                c2 = Identity (c)
                next = com.microsoft.SkipLayerNormalization <epsilon = 0.001> (s, x, scale, shift)
                seen = com.microsoft.Gelu (next)
            }>
        }
        """,
        scale=floats(4),
        shift=floats(4),
    )
    count = np.array(3, np.int64)
    check(model, tmp_path, {"n": count, "x": floats(2, 4)}, {"n": count, "x": floats(1, 4)})


def test_plain_operators_of_machine_learning_in_a_scan(tmp_path: Path) -> None:
    model = parsed("""
        g (float[T, 5, 3] x) => (float[T, 5, 3] y) {
            y = Scan <num_scan_inputs = 1, body = b (float[5, 3] v) => (float[5, 3] w) {
                s = ai.onnx.ml.Scaler <offset = [0.5], scale = [2.0]> (v)
                w = ai.onnx.ml.Normalizer <norm = "L2"> (s)
            }> (x)
        }
    """)
    check(model, tmp_path, {"x": floats(4, 5, 3)}, {"x": floats(2, 5, 3)})


def test_functions_of_the_standard_in_a_branch_of_a_branch(tmp_path: Path) -> None:
    model = parsed("""
        g (bool c, float[N, 3, 4, 4] x) => (float[N, 3, 4, 4] y) {
            y = If (c) <
                then_branch = t () => (float[N, 3, 4, 4] p) {
                    p = If (c) <
                        then_branch = tt () => (float[N, 3, 4, 4] r) {
                            r = MeanVarianceNormalization <axes = [0, 2, 3]> (x)
                        },
                        else_branch = te () => (float[N, 3, 4, 4] s) { s = Neg (x) }
                    >
                },
                else_branch = e () => (float[N, 3, 4, 4] q) { q = Abs (x) }
            >
        }
    """)
    yes, no = np.array(True), np.array(False)
    feeds = [{"c": flag, "x": floats(2, 3, 4, 4)} for flag in (yes, no)]
    check(model, tmp_path, *feeds, tolerance=1e-4)


def test_half_precision_in_branches_loops_and_scans(tmp_path: Path) -> None:
    model = parsed(
        """
        g (bool c, int64 n, float16[N, 4] x) => (float16[N, 4] y, float16[M, N, 4] all,
                                                 float16[N, 4] sums) {
            y = If (c) <
                then_branch = t () => (float16[N, 4] p) {
                    two = Constant <value = float16 {16384}> ()
                    p = Mul (x, two)
                },
                else_branch = e () => (float16[N, 4] q) { q = Mul (x, w) }
            >
            yes = Constant <value = bool {1}> ()
            last, all = Loop (n, yes, y) <body = b (int64 i, bool go, float16[N, 4] s)
                => (bool on, float16[N, 4] next, float16[N, 4] seen) {
                on = Identity (go)
                wide = Cast <to = 1> (s)
                half = Cast <to = 10> (wide)
                next = Add (half, x)
                seen = Neg (next)
            }>
            start = CastLike (zeros, x)
            end, sums = Scan <num_scan_inputs = 1, body = d (float16[4] before, float16[4] row)
                => (float16[4] after, float16[4] told) {
                after = Add (before, row)
                told = Identity (after)
            }> (start, x)
        }
        """,
        w=floats(4, dtype="float16"),
        zeros=np.zeros(4, np.float32),
    )
    # The parser reads the bits of a float16: 0x4000 is 2.
    yes, no, count = np.array(True), np.array(False), np.array(2, np.int64)
    feeds = [
        {"c": flag, "n": count, "x": floats(rows, 4, dtype="float16")}
        for flag, rows in ((yes, 3), (no, 2))
    ]
    check(model, tmp_path, *feeds, tolerance=5e-3)


def weights_of(dtype: int, values: Array) -> onnx.TensorProto:
    return helper.make_tensor("w", dtype, values.shape, values.reshape(-1).tolist())


@pytest.mark.parametrize("dtype", [TensorProto.INT4, TensorProto.UINT4, TensorProto.FLOAT8E4M3FN])
@pytest.mark.parametrize("where", ["top", "branch", "outside"])
def test_narrow_weights(tmp_path: Path, dtype: int, where: str) -> None:
    """Against what they mean: onnxruntime lacks some of these types in branches."""
    values = RNG.integers(0, 8, (4, 3)).astype(np.float32)
    tensor = weights_of(dtype, values)
    scale = numpy_helper.from_array(np.float32([0.5, 0.25, 2.0]), "s")
    dequantise = helper.make_node("DequantizeLinear", ["w", "s"], ["f"], axis=1)
    product = helper.make_node("MatMul", ["x", "f"], ["t" if where != "top" else "y"])
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 4])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 3])
    c = helper.make_tensor_value_info("c", TensorProto.BOOL, [])
    t = helper.make_tensor_value_info("t", TensorProto.FLOAT, ["N", 3])
    if where == "top":
        graph = helper.make_graph([dequantise, product], "g", [x, c], [y], [tensor, scale])
    else:
        inside = [tensor, scale] if where == "branch" else []
        then = helper.make_graph([dequantise, product], "then", [], [t], inside)
        other_nodes = [
            helper.make_node("ReduceSum", ["x"], ["r"], keepdims=1),
            helper.make_node("Constant", [], ["shape"], value_ints=[1, 3]),
            helper.make_node("Expand", ["r", "shape"], ["t"]),
        ]
        other = helper.make_graph(other_nodes, "other", [], [t])
        branch = helper.make_node("If", ["c"], ["y"], then_branch=then, else_branch=other)
        outside = [tensor, scale] if where == "outside" else []
        graph = helper.make_graph([branch], "g", [x, c], [y], outside)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    target = tmp_path / "graph.wasm"
    wasmgraph.compile(model, target, verify=False)
    given = floats(5, 4)
    with wasmgraph.load(target, timeout=60) as loaded:
        found = loaded.run({"x": given, "c": np.array(True)})["y"]
    expected = given @ (values * np.float32([0.5, 0.25, 2.0]))
    np.testing.assert_allclose(found, expected, 1e-5, 1e-5)


def test_what_is_not_supported_in_a_body_is_listed(tmp_path: Path) -> None:
    model = parsed("""
        g (bool c, float[N, 3] x) => (float[N, 3] y) {
            y = If (c) <
                then_branch = t () => (float[N, 3] p) { p = com.microsoft.Frob (x) },
                else_branch = e () => (float[N, 3] q) { q = com.microsoft.Gelu (x) }
            >
        }
    """)
    with pytest.raises(UnsupportedModelError, match=r"com\.microsoft\.Frob"):
        wasmgraph.compile(model, tmp_path / "out.wasm", verify=False)
