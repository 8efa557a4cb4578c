"""Operators along one axis, against onnx's reference evaluator and numpy.

Sums and products are of small whole numbers, so all must be equal.
"""

from __future__ import annotations

import numpy as np
import pytest

from tests.onnx_models import Array, make_model, node, run_as_wasm
from tests.operators.node_cases import Case, check, fixed, run_cases
from wasmgraph.errors import InferenceError

RNG = np.random.default_rng(0)
DTYPES = ("float32", "float64", "int32", "int64", "uint32", "uint64")


def whole(dtype: str, *shape: int) -> Array:
    return RNG.integers(1, 4, shape).astype(dtype)


def cumulative(op: str, dtype: str, axis: int, **attributes: int) -> Case:
    x = whole(dtype, 2, 4, 3)
    return Case(f"{dtype} {axis} {attributes}", op, (x, fixed(axis)), attributes)


def cumprod(dtype: str, axis: int) -> Case:
    """The reference evaluator of some versions of onnx has no CumProd."""
    x = whole(dtype, 2, 4, 3)
    return Case(f"{dtype} {axis}", "CumProd", (x, fixed(axis)), {}, (np.cumprod(x, axis, x.dtype),))


def top_k(what: str, x: Array, k: int, axis: int = -1, **attributes: int) -> Case:
    largest = attributes.get("largest", 1)
    keys = -x.astype(np.float64) if largest else x
    order = np.argsort(keys, axis, kind="stable")
    indices = np.take(order, np.arange(k), axis).astype(np.int64)
    values = np.take_along_axis(x, indices, axis)
    attributes["axis"] = axis
    return Case(what, "TopK", (x, fixed([k])), attributes, (values, indices), outputs=2)


def reverse(dtype: str, time: int, lengths: list[int]) -> Case:
    x = RNG.integers(0, 2, (4, 4, 2)).astype(dtype)
    attributes = {"time_axis": time, "batch_axis": 1 - time}
    return Case(f"{dtype} {time}", "ReverseSequence", (x, np.array(lengths)), attributes)


ONE_HOT = np.array([[0, 3], [-1, 7]])
CASES = [
    *(cumulative("CumSum", dtype, 1) for dtype in DTYPES),
    *(
        cumulative("CumSum", "float32", axis, exclusive=exclusive, reverse=reverse)
        for axis in (0, -1)
        for exclusive in (0, 1)
        for reverse in (0, 1)
    ),
    top_k("of distinct", RNG.permutation(24).reshape(4, 6).astype(np.float32), 3),
    top_k("of equals", whole("float32", 3, 40), 7),
    top_k("the smallest of equals", whole("float32", 3, 40), 7, largest=0),
    top_k("the first axis", whole("int32", 5, 4), 2, 0),
    top_k("all of them", whole("int64", 5, 4), 4, 1),
    top_k("none", whole("float32", 5, 4), 0, 1),
    top_k("not sorted", whole("uint8", 3, 9), 4, sorted=0),
    top_k("with infinities", np.array([1, -np.inf, np.inf, 2], np.float64), 4),
    *(reverse(dtype, 0, [4, 0, 1, 3]) for dtype in ("float32", "float64", "int16", "bool")),
    reverse("float32", 1, [4, 0, 1, 3]),
    Case("the last axis", "OneHot", (ONE_HOT, fixed(4), np.array([2, 5], np.float32))),
    Case("the first axis", "OneHot", (ONE_HOT, fixed(4), np.array([0, 1])), {"axis": 0}),
    Case("an axis between", "OneHot", (ONE_HOT, fixed(5), np.array([0, 1], "u1")), {"axis": -2}),
    Case("of floats", "OneHot", (ONE_HOT.astype("f4"), fixed(4), np.array([0, 1], "f4"))),
]
PRODUCTS = [*(cumprod(dtype, 1) for dtype in DTYPES), cumprod("float32", -3)]


@pytest.fixture(scope="module")
def results() -> dict[str, list[Array]]:
    return run_cases(CASES)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_gives_what_the_reference_gives(case: Case, results: dict[str, list[Array]]) -> None:
    check(case, results[str(case)])


def test_top_k_takes_nan_for_the_largest() -> None:
    x = np.array([1, np.nan, 3, 2], np.float32)
    nodes = [node("TopK", "x k", "v1 i1"), node("TopK", "x k", "v2 i2", largest=0)]
    outputs = dict.fromkeys(("i1", "i2"), ("int64", None))
    found = run_as_wasm(make_model(nodes, {"x": (4,)}, outputs, {"k": np.array([4])}), {"x": x})
    assert found["i1"].tolist() == [1, 2, 3, 0]
    assert found["i2"].tolist() == [0, 3, 2, 1]


def test_a_sequence_longer_than_the_tensor_is_an_error() -> None:
    model = make_model(
        [node("ReverseSequence", "x n", "y")], {"x": (3, 1), "n": ("int64", (1,))}, "y"
    )
    with pytest.raises(InferenceError, match="ReverseSequence"):
        run_as_wasm(model, {"x": np.zeros((3, 1), np.float32), "n": np.array([4])})


@pytest.mark.skipif(
    "CumProd" not in dir(__import__("onnx.reference.ops._op_list", fromlist=["_"])),
    reason="this onnx has no CumProd",
)
def test_cumulative_products() -> None:
    results = run_cases(PRODUCTS, opset=26)
    for case in PRODUCTS:
        check(case, results[str(case)])
