"""What scatters, against numpy; nothing is rounded, so all must be equal."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

from tests.onnx_models import Array, compile_to_bundle, make_model, node, run_as_wasm
from tests.operators.node_cases import Case, check, run_cases
from wasmgraph.errors import InferenceError, ModelError, UnsupportedModelError

RNG = np.random.default_rng(0)
REDUCTIONS = {
    "none": lambda old, new: new,
    "add": lambda old, new: old + new,
    "mul": lambda old, new: old * new,
    "max": np.maximum,
    "min": np.minimum,
}


def small(dtype: str, *shape: int) -> Array:
    """Whole numbers, whose sums and products are exact."""
    values = RNG.integers(0, 2, shape) if dtype == "bool" else RNG.integers(1, 5, shape)
    return values.astype(dtype)


def scatter_nd(data: Array, indices: Array, updates: Array, reduction: str) -> Array:
    out = data.copy()
    for place in np.ndindex(indices.shape[:-1]):
        target = tuple(indices[place])
        out[target] = REDUCTIONS[reduction](out[target], updates[place])
    return out


def scatter_elements(
    data: Array, indices: Array, updates: Array, axis: int, reduction: str
) -> Array:
    out = data.copy()
    for place in np.ndindex(indices.shape):
        target = list(place)
        target[axis] = indices[place]
        out[tuple(target)] = REDUCTIONS[reduction](out[tuple(target)], updates[place])
    return out


def nd_case(what: str, dtype: str, shape: tuple[int, ...], indices: Array, reduction: str) -> Case:
    data = small(dtype, *shape)
    updates = small(dtype, *indices.shape[:-1], *shape[indices.shape[-1] :])
    attributes = {} if reduction == "none" else {"reduction": reduction}
    expected = scatter_nd(data, indices, updates, reduction)
    return Case(what, "ScatterND", (data, indices, updates), attributes, (expected,))


def elements_case(
    what: str, dtype: str, indices: Array, axis: int = 0, reduction: str = "none"
) -> Case:
    data, updates = small(dtype, 4, 5), small(dtype, *indices.shape)
    attributes = {"axis": axis, "reduction": reduction}
    expected = scatter_elements(data, indices, updates, axis, reduction)
    return Case(what, "ScatterElements", (data, indices, updates), attributes, (expected,))


TWICE = np.array([[0, 1], [3, -1], [0, 1]])
CASES = [
    *(nd_case(f"{r} of slices", "float32", (4, 5, 2), TWICE, r) for r in REDUCTIONS),
    *(
        nd_case(f"{r} of {t}", t, (4, 5), TWICE, r)
        for r in ("none", "add")
        for t in ("int64", "uint8")
    ),
    nd_case("of float64", "float64", (4, 5), TWICE, "max"),
    nd_case("of bool", "bool", (4, 5), TWICE, "none"),
    nd_case("of whole rows", "float32", (4, 5), np.array([[2], [-4]]), "none"),
    nd_case("of an array of indices", "float32", (4, 5), RNG.integers(-4, 4, (2, 3, 2)), "add"),
    nd_case("of nothing", "float32", (4, 5), np.zeros((0, 2), np.int64), "none"),
    elements_case("along the first axis", "float32", np.array([[0, 1, 2], [3, -1, 0]])),
    elements_case("along a negative axis", "float32", np.array([[0, 1], [3, -5]]), -1),
    elements_case("int32 indices", "float32", np.array([[0, 1], [3, 2]], np.int32), 1),
    elements_case("of int16", "int16", np.array([[4, 4, 4]]), 1, "add"),
    elements_case("of bool", "bool", np.array([[4, 0, 4]]), 1),
    *(elements_case(r, "int32", np.array([[0, 0], [-1, 3]]), 1, r) for r in REDUCTIONS),
]


@pytest.fixture(scope="module")
def results() -> dict[str, list[Array]]:
    return run_cases(CASES)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_gives_what_numpy_gives(case: Case, results: dict[str, list[Array]]) -> None:
    check(case, results[str(case)])


def test_nan_is_the_largest_and_the_smallest() -> None:
    """As numpy's maximum and minimum have it."""
    nodes = [
        node("ScatterND", "x i u", "most", reduction="max"),
        node("ScatterND", "x i u", "least", reduction="min"),
    ]
    shapes = {"x": (4,), "i": ("int64", (4, 1)), "u": (4,)}
    x, u = (np.array(v, np.float32) for v in ([1, np.nan, 2, 3], [np.nan, 5, 1, 4]))
    found = run_as_wasm(
        make_model(nodes, shapes, "most least"), {"x": x, "i": np.arange(4)[:, None], "u": u}
    )
    np.testing.assert_array_equal(found["most"], np.maximum(x, u))
    np.testing.assert_array_equal(found["least"], np.minimum(x, u))


@pytest.mark.parametrize("op", ["ScatterND", "ScatterElements"])
def test_an_index_out_of_range_is_an_error(op: str) -> None:
    indices = np.array([[4]])
    model = make_model(
        [node(op, "x i u", "y")], {"x": (4, 1), "i": ("int64", (1, 1)), "u": (1, 1)}, "y"
    )
    one = np.ones((1, 1), np.float32)
    with pytest.raises(InferenceError, match=op):
        run_as_wasm(model, {"x": np.zeros((4, 1), np.float32), "i": indices, "u": one})


def tensor_scatter(cache: Array, update: Array, first: Array, axis: int, circular: bool) -> Array:
    out = np.moveaxis(cache.copy(), axis, 1)
    moved = np.moveaxis(update, axis, 1)
    for batch, begin in enumerate(first):
        places = begin + np.arange(moved.shape[1])
        out[batch][places % out.shape[1] if circular else places] = moved[batch]
    return np.moveaxis(out, 1, axis)


def tensor_case(mode: str, axis: int, dtype: str) -> Case:
    shape = [2, 5, 5, 3]
    cache = small(dtype, *shape)
    shape[axis] = 2
    update, first = small(dtype, *shape), np.array([1, 4 if mode == "circular" else 3])
    expected = tensor_scatter(cache, update, first, axis % 4, mode == "circular")
    attributes = {"mode": mode, "axis": axis}
    return Case(f"{mode} {axis}", "TensorScatter", (cache, update, first), attributes, (expected,))


@pytest.mark.skipif(onnx.defs.onnx_opset_version() < 24, reason="this onnx has no TensorScatter")
def test_tensor_scatter() -> None:
    cases = [
        tensor_case("linear", -2, "float32"),
        tensor_case("circular", 1, "uint8"),
        tensor_case("circular", -2, "float64"),
    ]
    results = run_cases(cases, opset=24)
    for case in cases:
        check(case, results[str(case)])


@pytest.mark.parametrize(
    ("op", "indices", "updates"),
    [
        ("ScatterND", (2, 1), (2, 3)),
        ("ScatterND", (1, 3), (1,)),
        ("ScatterElements", (1, 5), (1, 5)),
        ("ScatterElements", (1, 4), (2, 4)),
    ],
)
def test_shapes_that_do_not_fit_are_refused(
    op: str, indices: tuple[int, ...], updates: tuple[int, ...]
) -> None:
    model = make_model(
        [node(op, "x i u", "y")], {"x": (4, 4), "i": ("int64", indices), "u": updates}, "y"
    )
    with pytest.raises((ModelError, UnsupportedModelError)):
        compile_to_bundle(model)
