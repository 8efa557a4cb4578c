"""Weights of a few bits with a scale per block, and activations of floats.

Agreement is asked to the tolerance of the other model tests: |a-b| <= 1e-4 + 1e-3|b|.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from click.testing import CliRunner

import wasmgraph
from tests.onnx_models import make_model, node
from tests.operators.foreign_cases import run_with_onnxruntime
from tests.operators.node_cases import Fixed
from tests.operators.weight_only_cases import nbits
from tests.quantised.weight_only import gated, quantised
from wasmgraph.bundle import read_bundle
from wasmgraph.cli import main
from wasmgraph.errors import UnsupportedModelError

FORMS = [
    ("QOperator", {"bits": 4, "block_size": 16, "is_symmetric": False}),
    ("QOperator", {"bits": 8, "block_size": 32, "is_symmetric": False}),
    ("QDQ", {"bits": 4, "block_size": 32, "is_symmetric": True}),
]


@pytest.mark.parametrize(("form", "options"), FORMS)
@pytest.mark.parametrize("is_open", [False, True])
def test_quantised_models_agree_with_onnxruntime(tmp_path, form, options, is_open):
    """With open axes, as language models have, and without; at two sizes where they are open."""
    opset = 21 if form == "QDQ" else 17
    shape = ("batch", "sequence", 96) if is_open else (2, 5, 96)
    model = quantised(gated(shape, opset), form, **options)
    out = tmp_path / "graph.wasm"
    wasmgraph.compile(model, out, verify=False)
    with wasmgraph.load(out) as graph:
        for extents in ((2, 5), (1, 1)) if is_open else ((2, 5),):
            x = np.random.default_rng(0).standard_normal((*extents, 96)).astype(np.float32)
            (expected,) = run_with_onnxruntime(model, {"x": x}).values()
            np.testing.assert_allclose(graph.run({"x": x})["y"], expected, rtol=1e-3, atol=1e-4)


def one_node(groups: np.ndarray[Any, Any] | None, dtype: str = "float32") -> onnx.ModelProto:
    """MatMulNBits of 64x16 with blocks of 32."""
    rng = np.random.default_rng(0)
    weights = {
        "w": rng.integers(0, 256, (16, 2, 16)).astype(np.uint8),
        "s": rng.normal(size=(16, 2), scale=0.05).astype(dtype),
    }
    operands = "x w s"
    if groups is not None:
        weights["g"] = groups.astype(np.int32)
        operands = ["x", "w", "s", "", "g"]
    model = make_model(
        [
            node(
                "MatMulNBits",
                operands,
                "y",
                domain="com.microsoft",
                K=64,
                N=16,
                bits=4,
                block_size=32,
            )
        ],
        {"x": (dtype, (3, 64))},
        {"y": (dtype, (3, 16))},
        weights,
    )
    model.opset_import.append(onnx.helper.make_opsetid("com.microsoft", 1))
    return model


def test_groups_in_another_order_are_refused(tmp_path):
    model = one_node(np.arange(64) % 2)
    path = tmp_path / "model.onnx"
    onnx.save(model, path)
    with pytest.raises(UnsupportedModelError, match="g_idx"):
        wasmgraph.compile(path, tmp_path / "graph.wasm")
    result = CliRunner().invoke(main, ["check", str(path)])
    assert result.exit_code == 4
    assert "g_idx" in result.output


def test_sizes_that_nothing_has_are_refused(tmp_path):
    """Before anything is allocated for them."""
    model = one_node(np.arange(64) // 32)
    for attribute in model.graph.node[0].attribute:
        if attribute.name in ("K", "block_size"):
            attribute.i = 1 << 40
    with pytest.raises(UnsupportedModelError, match="codes where 1099511627776 are expected"):
        wasmgraph.compile(model, tmp_path / "graph.wasm")


def test_weights_that_are_no_constants_are_refused(tmp_path):
    model = one_node(None)
    weights = model.graph.initializer[0]
    port = onnx.helper.make_tensor_value_info("w", weights.data_type, weights.dims)
    model.graph.initializer.remove(weights)
    model.graph.input.append(port)
    with pytest.raises(UnsupportedModelError, match="has to be a constant"):
        wasmgraph.compile(model, tmp_path / "graph.wasm")


def test_weights_of_another_size_are_refused(tmp_path):
    model = one_node(None)
    weights = onnx.numpy_helper.to_array(model.graph.initializer[0])[:, :, :9]
    model.graph.initializer[0].CopyFrom(onnx.numpy_helper.from_array(weights, "w"))
    with pytest.raises(UnsupportedModelError, match="18 codes where 32 are expected"):
        wasmgraph.compile(model, tmp_path / "graph.wasm")


def test_halves_are_multiplied_in_float32(tmp_path):
    """onnxruntime's product of halves is what its weights decoded to float32 give, rounded."""
    model = one_node(None, "float16")
    wasmgraph.compile(model, tmp_path / "graph.wasm", verify=False)
    x = np.random.default_rng(1).standard_normal((3, 64)).astype(np.float16)
    with wasmgraph.load(tmp_path / "graph.wasm") as graph:
        y = graph.run({"x": x})["y"]
    single = one_node(None)
    single.graph.initializer[1].CopyFrom(
        onnx.numpy_helper.from_array(
            onnx.numpy_helper.to_array(model.graph.initializer[1]).astype(np.float32), "s"
        )
    )
    (expected,) = run_with_onnxruntime(single, {"x": x.astype(np.float32)}).values()
    assert y.dtype == np.float16
    # A half has 11 bits, and its last one may be rounded the other way.
    np.testing.assert_allclose(y.astype(np.float32), expected, rtol=2**-10, atol=1e-4)


SIZES = [
    ("QOperator", {"bits": 4, "block_size": 32, "is_symmetric": True}, 6.0),
    ("QOperator", {"bits": 8, "block_size": 32, "is_symmetric": False}, 3.4),
    ("QDQ", {"bits": 4, "block_size": 32, "is_symmetric": False}, 5.8),
]


@pytest.mark.parametrize(("form", "options", "ratio"), SIZES)
def test_weights_stay_as_small_as_they_are(tmp_path, form, options, ratio):
    """A block of 32 takes 16 bytes of 4 bits, a scale of 4 and a zero point of 1, where float32
    takes 128; and the results are those of float32, bit by bit."""
    model = quantised(gated(opset=21), form, **options)
    x = np.random.default_rng(0).standard_normal((2, 5, 96)).astype(np.float32)
    results = []
    for weights in (None, "f32"):
        report = wasmgraph.compile(model, tmp_path / "graph.wasm", weights=weights, verify=False)
        with wasmgraph.load(tmp_path / "graph.wasm") as graph:
            results.append(graph.run({"x": x})["y"].tobytes())
        reduction = report.sizes["wide_weights"] / report.sizes["weights"]
        assert (reduction == 1) if weights == "f32" else (reduction > ratio)
    assert results[0] == results[1]


@pytest.mark.parametrize(("form", "bits", "ratio"), [("QOperator", 8, 3.4), ("QDQ", 4, 5.8)])
def test_weights_stay_small_where_axes_are_open(tmp_path, form, bits, ratio):
    """And the results are those of float32, bit by bit, for one row and for many."""
    model = gated(("batch", "sequence", 96), opset=21)
    model = quantised(model, form, bits=bits, block_size=32, is_symmetric=False)
    results = []
    for weights in (None, "f32"):
        report = wasmgraph.compile(model, tmp_path / "graph.wasm", weights=weights, verify=False)
        assert report.dynamic
        reduction = report.sizes["wide_weights"] / report.sizes["weights"]
        assert (reduction == 1) if weights == "f32" else (reduction > ratio)
        with wasmgraph.load(tmp_path / "graph.wasm") as graph:
            for extents in ((1, 1), (3, 7)):
                x = np.random.default_rng(0).standard_normal((*extents, 96)).astype(np.float32)
                results.append(graph.run({"x": x})["y"].tobytes())
    assert results[:2] == results[2:]


def test_rounding_leaves_quantised_weights_alone(tmp_path):
    model = quantised(gated(), bits=4, block_size=32)
    sizes = [
        wasmgraph.compile(model, tmp_path / "graph.wasm", weights=weights, verify=False).sizes
        for weights in (None, "f16")
    ]
    assert sizes[0]["weights"] == sizes[1]["weights"]


LAYOUTS: list[tuple[str, tuple[int, ...], dict[str, int], str]] = [
    # Scales of all, of columns, of rows, of blocks of either; and the products that can have the
    # weights as codes: of them as they are ("a"), or across ("t").
    ("uint4", (), {}, "at"),
    ("int4", (80,), {"axis": 1}, "a"),
    ("uint4", (96,), {"axis": 0}, "t"),
    ("int4", (3, 80), {"axis": 0, "block_size": 32}, "a"),
    ("uint4", (96, 5), {"axis": 1, "block_size": 16}, "t"),
    ("uint8", (), {}, "at"),
    ("uint8", (80,), {"axis": 1}, "a"),
    ("int8", (96,), {"axis": 0}, "t"),
    ("uint8", (6, 80), {"axis": 0, "block_size": 16}, "a"),
]
_SPANS = {"int4": (-8, 8), "uint4": (0, 16), "int8": (-128, 128), "uint8": (0, 256)}


def dequantised(rows: int | str) -> onnx.ModelProto:
    """96x80 weights of every layout, with zero points, behind a DequantizeLinear each.

    Args:
        rows: Of what is multiplied; a name is an open axis.
    """
    rng = np.random.default_rng(5)
    nodes, weights, outputs = [], [], {}
    for i, (dtype, scales, attributes, ways) in enumerate(LAYOUTS):
        elem_type = onnx.TensorProto.DataType.Value(dtype.upper())
        for name, shape in ((f"q{i}", (96, 80)), (f"z{i}", scales)):
            values = rng.integers(*_SPANS[dtype], shape).reshape(-1).tolist()
            weights.append(onnx.helper.make_tensor(name, elem_type, shape, values))
        factors = rng.uniform(0.01, 0.02, scales).astype(np.float32)
        weights.append(onnx.numpy_helper.from_array(factors, f"s{i}"))
        nodes.append(node("DequantizeLinear", f"q{i} s{i} z{i}", f"w{i}", **attributes))
        if "a" in ways:
            nodes.append(node("MatMul", f"a w{i}", f"a{i}"))
            outputs[f"a{i}"] = (rows, 80)
        if "t" in ways:
            nodes.append(node("Gemm", f"t w{i}", f"t{i}", transB=1))
            outputs[f"t{i}"] = (rows, 96)
    model = make_model(nodes, {"a": (rows, 96), "t": (rows, 80)}, outputs, opset=21)
    model.graph.initializer.extend(weights)
    return model


@pytest.mark.parametrize("rows", [3, "n"])
def test_constants_that_are_dequantised_stay_small(tmp_path, rows):
    """Every product takes a byte or half of one per weight, plus its scales."""
    model = dequantised(rows)
    options = {"verify": False, "bundle_dir": tmp_path / "bundle", "by_sample": False}
    wasmgraph.compile(model, tmp_path / "g.wasm", **options)
    constants = read_bundle(tmp_path / "bundle").graph.constants
    codes = [c for c in constants if c.shape != () and c.dtype == "uint8"]
    assert len(codes) == len("".join(ways for *_, ways in LAYOUTS))
    assert sum(c.shape[0] < 0.85 * 96 * 80 for c in codes) == 6
    assert all(c.shape[0] < 1.4 * 96 * 80 for c in codes)
    rng = np.random.default_rng(0)
    feeds = {name: rng.normal(size=(3, n)).astype(np.float32) for name, n in (("a", 96), ("t", 80))}
    expected = run_with_onnxruntime(model, feeds)
    with wasmgraph.load(tmp_path / "g.wasm") as graph:
        for name, y in graph.run(feeds).items():
            np.testing.assert_allclose(y, expected[name], rtol=1e-3, atol=1e-3, err_msg=name)


@pytest.mark.parametrize("threads", [False, True])
def test_the_bytes_are_the_same_every_time(tmp_path, threads):
    model = quantised(gated(), bits=4, block_size=16, is_symmetric=False)
    files = [tmp_path / "a.wasm", tmp_path / "b.wasm"]
    for out in files:
        report = wasmgraph.compile(model, out, threads=threads)
        assert report.verification is not None
        assert report.verification.agrees
    assert files[0].read_bytes() == files[1].read_bytes()


def test_short_blocks_where_axes_are_open(tmp_path):
    """100 rows of weights end within a block, and within a word of codes."""
    cases = {
        f"{bits}_{zeros or 'one'}": nbits("", 100, 50, 32, bits, zeros=zeros)
        for bits, zeros in ((2, "packed"), (4, "packed"), (4, "floats"), (8, ""))
    }
    nodes, weights, outputs = [], {}, {}
    for name, case in cases.items():
        fixed = [operand for operand in case.operands if isinstance(operand, Fixed)]
        names = [f"{name}_{i}" for i in range(len(fixed))]
        weights.update({key: f.array for key, f in zip(names, fixed, strict=True)})
        attributes = {"domain": "com.microsoft", **case.attributes}
        nodes.append(node("MatMulNBits", ["x", *names], [name], **attributes))
        outputs[name] = ("n", 50)
    model = make_model(nodes, {"x": ("n", 100)}, outputs, weights)
    model.opset_import.append(onnx.helper.make_opsetid("com.microsoft", 1))
    report = wasmgraph.compile(model, tmp_path / "g.wasm", verify=False, by_sample=False)
    assert report.sizes["wide_weights"] > 4 * report.sizes["weights"]
    with wasmgraph.load(tmp_path / "g.wasm") as graph:
        for rows in (1, 2, 30):
            x = np.random.default_rng(rows).standard_normal((rows, 100)).astype(np.float32)
            expected = run_with_onnxruntime(model, {"x": x})
            for name, y in graph.run({"x": x}).items():
                np.testing.assert_allclose(y, expected[name], rtol=1e-3, atol=1e-4, err_msg=name)
