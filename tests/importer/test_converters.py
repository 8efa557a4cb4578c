"""Our converters, run as WebAssembly, against numpy.

Every case is a node in one and the same model, so that all of them cost one compilation. Integers
and data movement must be equal; float32 arithmetic may differ by rounding (a few units in the last
place, hence rtol 2e-6).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import wasmgraph
from tests.onnx_models import Array, make_model, node, run_as_wasm

INT64_MAX = 2**63 - 1
INT64_MIN = -(2**63)
NAN = float("nan")

RNG = np.random.default_rng(0)
INPUTS: dict[str, Array] = {
    "x": RNG.normal(size=(3, 4, 5)).astype(np.float32),
    "y": RNG.normal(size=(4, 1)).astype(np.float32),
    "z": RNG.normal(size=(5,)).astype(np.float32),
    "i": RNG.integers(-100, 100, (3, 4, 5)),
    "j": np.array([2, 0, -1, -3]),  # computed as far as the compiler knows
    "j32": np.array([[1, -4], [3, 0]], np.int32),
    "picture": RNG.normal(size=(2, 3, 4, 4)).astype(np.float32),
    "infinite": np.array([NAN, -np.inf, np.inf, 0.5], np.float32),
}
X, Y, Z, INTEGERS = (INPUTS[name] for name in "xyzi")


@dataclass(frozen=True)
class Case:
    """One node: its operator, operands (names of `INPUTS`, arrays or None) and what it gives."""

    what: str
    op: str
    operands: tuple[str | Array | None, ...]
    expected: Array
    attributes: dict[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        return f"{self.op}: {self.what}"


def ints(*values: int, dtype: type = np.int64) -> Array:
    return np.array(values, dtype)


def floats(value: float) -> Array:
    return np.array(value, np.float32)


def batch_norm(x: Array, scale: Array, bias: Array, mean: Array, var: Array, eps: float) -> Array:
    def per_channel(vector: Array) -> Array:
        return vector.astype(np.float64).reshape(-1, *[1] * (x.ndim - 2))

    y = (x - per_channel(mean)) / np.sqrt(per_channel(var) + eps)
    return (y * per_channel(scale) + per_channel(bias)).astype(np.float32)


STATISTICS = tuple(RNG.uniform(0.5, 2, 3).astype(np.float32) for _ in range(4))
VECTOR_STATISTICS = tuple(s[[0, 1, 2, 0]] for s in STATISTICS)

SLICES = [
    Case("the first axes by default", "Slice", ("x", ints(1), ints(3)), X[1:3]),
    Case("a negative axis", "Slice", ("x", ints(1), ints(4), ints(-1)), X[:, :, 1:4]),
    Case("an end of INT64_MAX", "Slice", ("x", ints(2), ints(INT64_MAX), ints(1)), X[:, 2:]),
    Case("an end beyond the axis", "Slice", ("x", ints(2), ints(1000), ints(1)), X[:, 2:]),
    Case("negative bounds", "Slice", ("x", ints(-3), ints(-1), ints(2)), X[:, :, -3:-1]),
    Case("a start before the axis", "Slice", ("x", ints(-99), ints(2), ints(1)), X[:, :2]),
    Case("steps", "Slice", ("x", ints(0, 1), ints(9, 9), ints(1, 2), ints(3, 2)), X[:, ::3, 1::2]),
    Case("int32 bounds", "Slice", ("x", *(ints(v, dtype=np.int32) for v in (1, 3, 1))), X[:, 1:3]),
    Case("nothing left", "Slice", ("x", ints(3), ints(2), ints(1)), X[:, 3:2]),
    Case(
        "a step backwards over all",
        "Slice",
        ("x", ints(-1), ints(INT64_MIN), ints(1), ints(-1)),
        X[:, ::-1],
    ),
    Case(
        "steps backwards and forwards",
        "Slice",
        ("i", ints(4, 0), ints(0, 3), ints(2, 0), ints(-2, 2)),
        INTEGERS[0:3:2, :, 4:0:-2],
    ),
    Case(
        "a step backwards to before the start",
        "Slice",
        ("x", ints(2), ints(-9), ints(1), ints(-1)),
        X[:, 2::-1],
    ),
]

GATHERS = [
    Case("constant indices", "Gather", ("x", ints(2, 0)), X[[2, 0]]),
    Case("negative indices", "Gather", ("x", ints(-1, -4)), X[:, [-1, -4]], {"axis": 1}),
    Case("a scalar drops the axis", "Gather", ("x", ints(-2)[0]), X[:, :, -2], {"axis": -1}),
    Case(
        "indices of rank 2",
        "Gather",
        ("x", ints(0, 1, 2, 3, dtype=np.int32).reshape(2, 2)),
        X[:, [[0, 1], [2, 3]]],
        {"axis": 1},
    ),
    Case("computed indices", "Gather", ("x", "j"), X[[2, 0, -1, -3]]),
    Case("computed int32 indices", "Gather", ("i", "j32"), INTEGERS[:, INPUTS["j32"]], {"axis": 1}),
    Case("from a constant", "Gather", (X, "j"), X[[2, 0, -1, -3]]),
]

CLIPS = [
    Case("both bounds", "Clip", ("x", floats(-0.5), floats(0.5)), np.clip(X, -0.5, 0.5)),
    Case("no lower bound", "Clip", ("x", None, floats(0.5)), np.minimum(X, np.float32(0.5))),
    Case("no upper bound", "Clip", ("x", floats(-0.5)), np.maximum(X, np.float32(-0.5))),
    Case("no bounds", "Clip", ("x",), X),
    Case("bounds of NaN", "Clip", ("x", floats(NAN), floats(NAN)), X),
    Case("infinite bounds", "Clip", ("x", floats(-np.inf), floats(np.inf)), X),
    Case("a lower bound above", "Clip", ("x", floats(1), floats(0)), np.zeros_like(X)),
    Case("integers", "Clip", ("i", np.array(-5), np.array(7)), np.clip(INTEGERS, -5, 7)),
    Case("bounds of one element", "Clip", ("x", floats(0).reshape(1)), np.maximum(X, 0)),
]

VARIADICS = [
    Case("of one", "Max", ("x",), X),
    Case("of two", "Max", ("x", "z"), np.maximum(X, Z)),
    Case("of three that broadcast", "Max", ("x", "y", "z"), np.maximum(np.maximum(X, Y), Z)),
    Case("broadcasts the first", "Min", ("z", "y", "x"), np.minimum(np.minimum(Z, Y), X)),
    Case("of integers", "Min", ("i", np.array(3)), np.minimum(INTEGERS, 3)),
    Case("of one", "Sum", ("x",), X),
    Case("of three that broadcast", "Sum", ("y", "z", "x"), Y + Z + X),
    Case("of one", "Mean", ("x",), X),
    Case("of three that broadcast", "Mean", ("y", "z", "x"), (Y + Z + X) / np.float32(3)),
]

BATCH_NORMS = [
    Case(
        "a picture",
        "BatchNormalization",
        ("picture", *STATISTICS),
        batch_norm(INPUTS["picture"], *STATISTICS, 1e-5),
    ),
    Case(
        "an epsilon",
        "BatchNormalization",
        ("picture", *STATISTICS),
        batch_norm(INPUTS["picture"], *STATISTICS, 0.1),
        {"epsilon": 0.1},
    ),
    Case(
        "a series",
        "BatchNormalization",
        ("x", *VECTOR_STATISTICS),
        batch_norm(X, *VECTOR_STATISTICS, 1e-5),
    ),
    Case(
        "vectors",
        "BatchNormalization",
        (INPUTS["y"].T, *VECTOR_STATISTICS),
        batch_norm(INPUTS["y"].T, *VECTOR_STATISTICS, 1e-5),
    ),
]

POWERS = [
    Case("of floats", "Pow", (np.abs(X), "z"), np.power(np.abs(X), Z)),
    Case("floats to integers", "Pow", ("x", ints(3)[0]), X**3),
    Case("integers to the power 0", "Pow", ("i", ints(0)[0]), INTEGERS**0),
    Case("integers to the power 1", "Pow", ("i", ints(1)[0]), INTEGERS),
    Case("integers to the power 5", "Pow", ("i", ints(5)[0]), INTEGERS**5),
    Case("integers to a whole float", "Pow", ("i", floats(2)), INTEGERS**2),
]

INFINITE = INPUTS["infinite"]
INFINITIES = [
    Case("of both signs", "IsInf", ("infinite",), np.isinf(INFINITE)),
    Case("positive", "IsInf", ("infinite",), np.isposinf(INFINITE), {"detect_negative": 0}),
    Case("negative", "IsInf", ("infinite",), np.isneginf(INFINITE), {"detect_positive": 0}),
    Case(
        "neither",
        "IsInf",
        ("infinite",),
        np.zeros(4, bool),
        {"detect_negative": 0, "detect_positive": 0},
    ),
]

CASES = [*INFINITIES, *POWERS, *SLICES, *GATHERS, *CLIPS, *VARIADICS, *BATCH_NORMS]


@pytest.fixture(scope="module")
def results() -> dict[str, Array]:
    """What every case gives, by its text."""
    nodes, weights, outputs = [], {}, {}
    for index, case in enumerate(CASES):
        names = []
        for position, operand in enumerate(case.operands):
            if operand is None:
                names.append("")
            elif isinstance(operand, str):
                names.append(operand)
            else:
                names.append(f"w{index}_{position}")
                weights[names[-1]] = operand
        nodes.append(node(case.op, names, [f"out{index}"], **case.attributes))
        outputs[f"out{index}"] = (case.expected.dtype.name, None)
    inputs = {name: (array.dtype.name, array.shape) for name, array in INPUTS.items()}
    found = run_as_wasm(make_model(nodes, inputs, outputs, weights), INPUTS)
    return {str(case): found[f"out{index}"] for index, case in enumerate(CASES)}


@pytest.mark.parametrize("case", CASES, ids=str)
def test_gives_what_numpy_gives(case: Case, results: dict[str, Array]) -> None:
    found = results[str(case)]
    assert found.dtype == case.expected.dtype
    assert found.shape == case.expected.shape
    if case.op in ("Sum", "Mean", "BatchNormalization", "Pow"):
        np.testing.assert_allclose(found, case.expected, rtol=2e-6, atol=1e-6)
    else:
        np.testing.assert_array_equal(found, case.expected)


def test_every_case_has_a_name_of_its_own() -> None:
    assert len({str(case) for case in CASES}) == len(CASES)


def test_an_index_out_of_range_reads_nothing_foreign() -> None:
    """ONNX leaves it undefined; a sandboxed graph must stay within the tensor."""
    table = np.arange(6, dtype=np.float32).reshape(3, 2)
    model = make_model([node("Gather", "t i", "y")], {"i": ("int64", (4,))}, "y", {"t": table})
    indices = np.array([99, -99, 2**40, INT64_MIN])
    found = run_as_wasm(model, {"i": indices})["y"]
    assert all(row in table.tolist() for row in found.tolist())


def test_operators_without_a_converter_run_by_their_definition(tmp_path: Path) -> None:
    """Against onnxruntime, with attributes left at their defaults; tolerances are verify's own."""
    nodes = [
        node("Celu", "x", "celu"),
        node("Mish", "x", "mish"),
        node("ThresholdedRelu", "x", "threshold"),
        node("Shrink", "x", "shrink"),
        node("MeanVarianceNormalization", "picture", "mvn"),
        node("GroupNormalization", "picture scale bias", "group", num_groups=3),
        node("RMSNormalization", "picture one", "rms", axis=0),
        node("HannWindow", "size", "window"),
        node("Mul", "window z8", "windowed"),
    ]
    model = make_model(
        nodes,
        {"x": (3, 4, 5), "picture": (2, 3, 4, 4), "z8": (8,)},
        "celu mish threshold shrink mvn group rms windowed",
        {
            "scale": STATISTICS[0],
            "bias": STATISTICS[1],
            "size": np.array(8),
            # Whole: onnxruntime 1.23, the last one for Python 3.10, broadcasts no scale.
            "one": np.ones((2, 3, 4, 4), np.float32),
        },
        opset=23,
    )
    wasmgraph.compile(model, tmp_path / "out.wasm", verify=False)
    feeds = {"x": X * 3, "picture": INPUTS["picture"], "z8": np.ones(8, np.float32)}
    report = wasmgraph.verify(tmp_path / "out.wasm", model, feeds)
    assert report.agrees, [str(output) for output in report.outputs if not output.agrees]


def test_dropout_at_inference_keeps_everything_and_says_so() -> None:
    model = make_model(
        [node("Dropout", "x", "y mask")],
        {"x": (2, 3)},
        {"y": ("float32", None), "mask": ("bool", None)},
    )
    found = run_as_wasm(model, {"x": X[0, :2, :3]})
    np.testing.assert_array_equal(found["y"], X[0, :2, :3])
    np.testing.assert_array_equal(found["mask"], np.ones((2, 3), bool))
