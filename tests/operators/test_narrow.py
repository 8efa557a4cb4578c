"""Dtypes that are only stored: every code decoded, every kind of number encoded, all bit by bit.

Nothing has a tolerance: a conversion has one right answer, that of onnx's reference evaluator.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from onnx.reference import ReferenceEvaluator

from tests.onnx_models import Array, compile_to_bundle, make_model, node, run_as_wasm
from wasmgraph.errors import ModelError, UnsupportedModelError

FLOAT8 = ("float8_e4m3fn", "float8_e4m3fnuz", "float8_e5m2", "float8_e5m2fnuz")
FLOATS = (*FLOAT8, "float4_e2m1fn", "bfloat16")
SCALES = "float8_e8m0fnu"
INTEGERS = ("int4", "uint4", "int2", "uint2")
OPSET = 25


def elem_type(dtype: str) -> int:
    return int(helper.np_dtype_to_tensor_dtype(np.dtype(dtype)))


def all_codes(dtype: str) -> Array:
    """Every element that a dtype has."""
    bits = 8 * np.dtype(dtype).itemsize
    if dtype.startswith(("int", "uint", "float4")):
        bits = 4 if "4" in dtype else 2
    return np.arange(2**bits).astype(f"uint{8 * np.dtype(dtype).itemsize}").view(dtype)


def awkward_floats() -> Array:
    """float32 of every magnitude, with what lies on, beside and halfway between narrow numbers."""
    rng = np.random.default_rng(0)
    anything = rng.integers(0, 2**32, 20000, np.uint32).view(np.float32)
    near_one = rng.normal(0, 10, 5000).astype(np.float32)
    exact = np.concatenate(
        [all_codes(dtype).astype(np.float32) for dtype in (*FLOAT8, "float4_e2m1fn")]
    )
    exact = np.unique(exact[np.isfinite(exact)])
    halfway = ((exact[1:].astype(np.float64) + exact[:-1]) / 2).astype(np.float32)
    special = np.array([0, -0.0, np.inf, -np.inf, np.nan, -np.nan, 1e-45, 3.4e38], np.float32)
    beyond = np.array([448, 464, 464.1, 480, 57344, 61440, 61441, 65536, 240, 248], np.float32)
    values = np.concatenate([near_one, exact, halfway, beyond])
    both = [np.nextafter(values, np.float32(np.inf)), np.nextafter(values, np.float32(-np.inf))]
    return np.concatenate([anything, values, -values, *both, special])


def halfway_bfloat16() -> Array:
    """float32 halfway between neighbours of bfloat16, and just beside."""
    upper = np.random.default_rng(1).integers(0, 2**16, 4000, np.uint32) << 16
    return np.concatenate([upper | low for low in (0x7FFF, 0x8000, 0x8001)]).view(np.float32)


def reference(model: onnx.ModelProto, feeds: dict[str, Array]) -> dict[str, Array]:
    names = [value.name for value in model.graph.output]
    with np.errstate(all="ignore"):
        found = ReferenceEvaluator(model).run(None, feeds)
    return dict(zip(names, found, strict=True))


def assert_same_bits(found: Array, expected: Array, what: str) -> None:
    """Equal elements; a NaN is any NaN, and for int4 only the four bits count."""
    assert found.dtype == expected.dtype, what
    assert found.shape == expected.shape, what
    wide = expected.astype(np.float32)
    missing = np.isnan(wide)
    np.testing.assert_array_equal(np.isnan(found.astype(np.float32)), missing, what)
    assert found[~missing].tobytes() == expected[~missing].tobytes(), what


def test_every_code_means_what_onnx_says() -> None:
    dtypes = (*FLOATS, SCALES, *INTEGERS, "float16")
    feeds = {dtype: all_codes(dtype) for dtype in dtypes}
    model = make_model(
        [node("Cast", dtype, f"{dtype}_out", to=TensorProto.FLOAT) for dtype in dtypes],
        {dtype: (dtype, array.shape) for dtype, array in feeds.items()},
        {f"{dtype}_out": ("float32", feeds[dtype].shape) for dtype in dtypes},
        opset=OPSET,
    )
    found = run_as_wasm(model, feeds)
    with np.errstate(all="ignore"):
        for dtype in dtypes:
            assert_same_bits(found[f"{dtype}_out"], feeds[dtype].astype(np.float32), dtype)


def casts() -> dict[str, tuple[str, dict[str, Any]]]:
    """Dtype and attributes of every way to round, by the output's name."""
    ways: dict[str, tuple[str, dict[str, Any]]] = {dtype: (dtype, {}) for dtype in FLOATS}
    ways |= {f"{dtype}_unbounded": (dtype, {"saturate": 0}) for dtype in FLOAT8}
    for mode in ("up", "down", "nearest"):
        for saturate in (0, 1):
            attributes = {"round_mode": mode, "saturate": saturate}
            ways[f"{SCALES}_{mode}_{saturate}"] = (SCALES, attributes)
    return ways


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_floats_are_rounded_to_the_nearest(dtype: str) -> None:
    with np.errstate(invalid="ignore"):  # NaNs that signal
        x = np.concatenate([awkward_floats(), halfway_bfloat16()]).astype(dtype)
    ways = casts()
    nodes = [
        node("Cast", "x", name, to=elem_type(to), **attributes)
        for name, (to, attributes) in ways.items()
    ]
    outputs = {name: (to, x.shape) for name, (to, _) in ways.items()}
    model = make_model(nodes, {"x": (dtype, x.shape)}, outputs, opset=OPSET)
    found = run_as_wasm(model, {"x": x})
    expected = reference(model, {"x": x})
    for name, (to, _) in ways.items():
        # float4 has no NaN, and ONNX does not say what becomes of one.
        told = ~np.isnan(x) if to.startswith("float4") else slice(None)
        assert_same_bits(found[name][told], expected[name][told], name)


@pytest.mark.parametrize("source", ["float32", "int8", "int64", "uint8", "bool"])
def test_narrow_integers_keep_the_low_bits(source: str) -> None:
    x = np.arange(-128, 128)
    x = (x % 2 if source == "bool" else x.clip(0) if source == "uint8" else x).astype(source)
    nodes = [node("Cast", "x", dtype, to=elem_type(dtype)) for dtype in INTEGERS]
    outputs = {dtype: (dtype, x.shape) for dtype in INTEGERS}
    found = run_as_wasm(make_model(nodes, {"x": (source, x.shape)}, outputs, opset=OPSET), {"x": x})
    for dtype in INTEGERS:
        # Of a float beyond the dtype ONNX says nothing: low bits are what an integer keeps.
        expected = (x.astype(np.int64) & (2 ** int(dtype[-1]) - 1)).astype(np.uint8)
        np.testing.assert_array_equal(found[dtype].view(np.uint8), expected, dtype)


@pytest.mark.parametrize("to", ["float64", "int32", "bool", "float8_e5m2", "int4", "bfloat16"])
def test_a_narrow_tensor_is_cast_to_anything(to: str) -> None:
    sources = ("float8_e4m3fn", "float4_e2m1fn", "uint4", "int2")
    feeds = {dtype: np.array([0, 1, 3, 1, 0], np.float32).astype(dtype) for dtype in sources}
    nodes = [node("Cast", dtype, f"{dtype}_out", to=elem_type(to)) for dtype in sources]
    outputs = {f"{dtype}_out": (to, (5,)) for dtype in sources}
    inputs = {dtype: (dtype, (5,)) for dtype in sources}
    model = make_model(nodes, inputs, outputs, opset=OPSET)
    found = run_as_wasm(model, feeds)
    for dtype in sources:
        wide = feeds[dtype].astype(np.float32)
        assert_same_bits(found[f"{dtype}_out"], wide.astype(to), dtype)


def test_movers_take_narrow_tensors_as_they_are() -> None:
    moved = ("float8_e4m3fn", "float4_e2m1fn", "int4", "uint2")
    nodes: list[onnx.NodeProto] = []
    feeds: dict[str, Array] = {}
    weights: dict[str, Array] = {}
    inputs, outputs = dict[str, Any](), dict[str, Any]()
    rng = np.random.default_rng(2)
    for dtype in moved:
        codes = all_codes(dtype)
        feeds[dtype] = rng.choice(codes, (2, 6))
        weights[f"{dtype}_w"] = rng.choice(codes, (1, 6))
        nodes += [
            node("Pad", f"{dtype} pads {dtype}_v", f"{dtype}_rows"),
            node("Transpose", f"{dtype}_rows", f"{dtype}_y", perm=[1, 0]),
            node("Reshape", f"{dtype}_w shape", f"{dtype}_column"),
        ]
        weights[f"{dtype}_v"] = codes[-1]
        inputs[dtype] = (dtype, (2, 6))
        outputs |= {f"{dtype}_y": (dtype, (6, 3)), f"{dtype}_column": (dtype, (6, 1))}
    weights |= {"pads": np.array([0, 0, 1, 0]), "shape": np.array([6, 1])}
    found = run_as_wasm(make_model(nodes, inputs, outputs, weights, opset=OPSET), feeds)
    for dtype in moved:
        rows = np.concatenate([feeds[dtype], np.full((1, 6), weights[f"{dtype}_v"])])
        assert found[f"{dtype}_y"].tobytes() == np.ascontiguousarray(rows.T).tobytes(), dtype
        assert found[f"{dtype}_column"].tobytes() == weights[f"{dtype}_w"].tobytes(), dtype


def test_bits_are_read_as_another_dtype() -> None:
    pairs = [
        *(("float8_e4m3fn", "uint8"), ("int8", "float8_e5m2"), ("float8_e5m2", "int8")),
        *(("int4", "uint4"), ("uint4", "int4"), ("float4_e2m1fn", "int4"), ("int2", "uint2")),
    ]
    names = [f"{source}_as_{to}" for source, to in pairs]
    feeds = {
        name: np.arange(256, dtype=np.int8 if source == "int8" else np.uint8)
        if source == "int8"
        else all_codes(source)
        for name, (source, _) in zip(names, pairs, strict=True)
    }
    nodes = [
        node("BitCast", name, f"{name}_out", to=elem_type(to))
        for name, (_, to) in zip(names, pairs, strict=True)
    ]
    inputs = {n: (p[0], feeds[n].shape) for n, p in zip(names, pairs, strict=True)}
    outputs = {f"{n}_out": (p[1], feeds[n].shape) for n, p in zip(names, pairs, strict=True)}
    found = run_as_wasm(make_model(nodes, inputs, outputs, opset=26), feeds)
    for name, (_, to) in zip(names, pairs, strict=True):
        assert found[f"{name}_out"].dtype == to
        assert found[f"{name}_out"].tobytes() == feeds[name].tobytes(), name


def test_infinities_and_nans_of_8_bits() -> None:
    feeds = {dtype: all_codes(dtype) for dtype in FLOAT8}
    nodes = [node(op, dtype, f"{dtype}_{op}") for dtype in FLOAT8 for op in ("IsInf", "IsNaN")]
    outputs = {f"{dtype}_{op}": ("bool", (256,)) for dtype in FLOAT8 for op in ("IsInf", "IsNaN")}
    inputs = {dtype: (dtype, (256,)) for dtype in FLOAT8}
    found = run_as_wasm(make_model(nodes, inputs, outputs, opset=OPSET), feeds)
    for dtype in FLOAT8:
        wide = feeds[dtype].astype(np.float32)
        np.testing.assert_array_equal(found[f"{dtype}_IsInf"], np.isinf(wide), dtype)
        np.testing.assert_array_equal(found[f"{dtype}_IsNaN"], np.isnan(wide), dtype)


def linear_model(dtype: str, scale: Array, attributes: dict[str, Any]) -> onnx.ModelProto:
    """x quantised, and that dequantised again."""
    nodes = [
        node("QuantizeLinear", "x scale", "q", output_dtype=elem_type(dtype), **attributes),
        node("DequantizeLinear", "q scale", "y", **attributes),
    ]
    outputs = {"q": (dtype, (4, 6)), "y": ("float32", (4, 6))}
    inputs = {"x": ("float32", (4, 6)), "scale": ("float32", scale.shape)}
    return make_model(nodes, inputs, outputs, opset=OPSET)


@pytest.mark.parametrize("dtype", ["float8_e4m3fn", "float8_e5m2fnuz", "float4_e2m1fn", *INTEGERS])
@pytest.mark.parametrize("way", ["tensor", "axis", "blocks"])
def test_quantised_per_tensor_per_axis_and_by_blocks(dtype: str, way: str) -> None:
    rng = np.random.default_rng(3)
    x = rng.normal(0, 8, (4, 6)).astype(np.float32)
    shape = {"tensor": (), "axis": (6,), "blocks": (2, 6)}[way]
    scale = rng.choice([0.5, 1.0, 2.0], shape).astype(np.float32)
    attributes = {"tensor": {}, "axis": {"axis": 1}, "blocks": {"axis": 0, "block_size": 2}}[way]
    model = linear_model(dtype, scale, attributes)
    feeds = {"x": x, "scale": scale}
    found, expected = run_as_wasm(model, feeds), reference(model, feeds)
    for name in ("q", "y"):
        assert_same_bits(found[name], np.asarray(expected[name]), name)


def test_weights_of_four_bits_multiply() -> None:
    """What a model quantised to four bits by blocks looks like."""
    rng = np.random.default_rng(4)
    weights = {
        "w": rng.integers(-8, 8, (64, 32)).astype(np.int8).astype("int4"),
        "scale": rng.uniform(0.5, 1, (2, 32)).astype(np.float32),
    }
    nodes = [
        node("DequantizeLinear", "w scale", "d", axis=0, block_size=32),
        node("MatMul", "x d", "y"),
    ]
    model = make_model(nodes, {"x": (3, 64)}, {"y": ("float32", (3, 32))}, weights, opset=OPSET)
    x = rng.normal(size=(3, 64)).astype(np.float32)
    wide = weights["w"].astype(np.float32) * np.repeat(weights["scale"], 32, 0)
    # float32 sums of 64 products in another order.
    np.testing.assert_allclose(run_as_wasm(model, {"x": x})["y"], x @ wide, rtol=1e-4, atol=1e-4)


def test_bfloat16_is_computed_in_single_precision() -> None:
    rng = np.random.default_rng(5)
    x, w = (rng.normal(size=(4, 4)).astype("bfloat16") for _ in range(2))
    nodes = [node("MatMul", "x w", "p"), node("Tanh", "p", "y"), node("Identity", "x", "same")]
    outputs = {"y": ("bfloat16", (4, 4)), "same": ("bfloat16", (4, 4))}
    model = make_model(nodes, {"x": ("bfloat16", (4, 4))}, outputs, {"w": w}, opset=OPSET)
    found = run_as_wasm(model, {"x": x})
    expected = np.tanh(x.astype(np.float32) @ w.astype(np.float32))
    # One rounding to 8 bits at the end.
    np.testing.assert_allclose(found["y"].astype(np.float32), expected, rtol=2**-8, atol=1e-6)
    assert found["same"].tobytes() == x.tobytes()


def test_matrices_of_float8_are_multiplied_as_float32() -> None:
    f8 = "float8_e4m3fn"
    rng = np.random.default_rng(6)
    a, b = (rng.choice([-2.0, -0.5, 0.0, 1.0, 3.0], (4, 4)) for _ in range(2))
    zeros = {name: np.zeros((), f8) for name in ("az", "bz", "yz")}
    scales = {name: np.ones((), np.float32) for name in ("as", "bs", "ys")}
    multiply = node("QLinearMatMul", "a as az b bs bz ys yz", "y")
    weights = zeros | scales | {"b": b.astype(f8)}
    model = make_model([multiply], {"a": (f8, (4, 4))}, {"y": (f8, (4, 4))}, weights, opset=OPSET)
    found = run_as_wasm(model, {"a": a.astype(f8)})
    # Sums of a few quarters are exact.
    assert_same_bits(found["y"], (a @ b).astype(f8), "y")


@pytest.mark.parametrize(
    ("shape", "scales", "block", "reason"),
    [
        ((3, 4), (2, 4), 2, "blocks of 2 do not fit axis 0 of [3, 4]"),
        ((), (), 2, "blocks of 2 do not fit axis 0 of []"),
        ((4, 4), (4, 4), 2, "its scale has the shape [4, 4], it needs [2, 4]"),
        ((4, 6), (6,), 0, "its scale has the shape [6], it needs [4]"),
    ],
)
def test_scales_that_do_not_fit_are_refused_by_name(
    shape: tuple[int, ...], scales: tuple[int, ...], block: int, reason: str
) -> None:
    attributes = {"axis": 0, "block_size": block}
    quantise = node("QuantizeLinear", "x s z", "y", name="uneven", **attributes)
    weights = {"s": np.ones(scales, np.float32), "z": np.zeros(scales, "float8_e5m2")}
    outputs = {"y": ("float8_e5m2", shape)}
    model = make_model([quantise], {"x": ("float32", shape)}, outputs, weights, opset=OPSET)
    with pytest.raises((ModelError, UnsupportedModelError), match="uneven") as caught:
        compile_to_bundle(model)
    assert reason in str(caught.value)


def test_four_bits_times_quantised_activations_are_products_of_integers() -> None:
    rng = np.random.default_rng(7)
    weights = {
        "w": rng.integers(-8, 8, (32, 16)).astype(np.int8).astype("int4"),
        "ws": np.float32(0.5),
        "xs": np.float32(0.25),
        "xz": np.uint8(128),
    }
    nodes = [
        node("QuantizeLinear", "x xs xz", "q"),
        node("DequantizeLinear", "q xs xz", "xd"),
        node("DequantizeLinear", "w ws", "wd"),
        node("MatMul", "xd wd", "y"),
    ]
    model = make_model(nodes, {"x": (3, 32)}, {"y": ("float32", (3, 16))}, weights, opset=21)
    x = (rng.integers(-100, 100, (3, 32)) * 0.25).astype(np.float32)
    # Eighths, whose sums are exact.
    expected = x @ (weights["w"].astype(np.float32) * np.float32(0.5))
    np.testing.assert_array_equal(run_as_wasm(model, {"x": x})["y"], expected)
    constants = compile_to_bundle(model).graph.constants
    assert max(constants, key=lambda item: item.nbytes).dtype == "int8"
