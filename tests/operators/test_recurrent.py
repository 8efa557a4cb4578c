"""LSTM, GRU and RNN as WebAssembly agree with onnxruntime, whatever of them is used together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper

import wasmgraph
from tests.onnx_models import Array, compile_to_bundle, make_model, node, run_as_wasm
from tests.operators.node_cases import Case, Fixed, check, run_cases
from wasmgraph.errors import UnsupportedModelError

onnxruntime = pytest.importorskip("onnxruntime", reason="they are compared with onnxruntime")

OPSET = 14

GATES = {"LSTM": 4, "GRU": 3, "RNN": 1}
FUNCTIONS = {"LSTM": 3, "GRU": 2, "RNN": 1}

PARAMETERS: dict[str, tuple[float | None, float | None]] = {
    "Affine": (0.6, 0.1),
    "Elu": (0.8, None),
    "HardSigmoid": (0.3, 0.4),
    "LeakyRelu": (0.2, None),
    "Relu": (None, None),
    "ScaledTanh": (0.9, 0.7),
    "Sigmoid": (None, None),
    "Softplus": (None, None),
    "Softsign": (None, None),
    "Tanh": (None, None),
    "ThresholdedRelu": (0.3, None),
}
"""alpha and beta of every activation that has them, chosen so that states stay small."""


@dataclass(frozen=True)
class Layer:
    """One node: what it is called with, time first.

    Attributes:
        operands: By ONNX's name; those that are left out are missing.
    """

    op: str
    operands: dict[str, Array]
    attributes: dict[str, Any] = field(default_factory=dict)

    @property
    def names(self) -> tuple[str, ...]:
        """ONNX's order."""
        extra = ("initial_c", "P") if self.op == "LSTM" else ()
        return ("X", "W", "R", "B", "sequence_lens", "initial_h", *extra)

    @property
    def outputs(self) -> int:
        return 3 if self.op == "LSTM" else 2

    def expected(self) -> tuple[Array, ...]:
        """What onnxruntime makes of it."""
        names = [name if name in self.operands else "" for name in self.names]
        found = [f"out{i}" for i in range(self.outputs)]
        graph = helper.make_graph(
            [node(self.op, names, found, **self.attributes)],
            "expected",
            [
                helper.make_tensor_value_info(
                    name, helper.np_dtype_to_tensor_dtype(array.dtype), array.shape
                )
                for name, array in self.operands.items()
            ],
            [helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None) for name in found],
        )
        opsets = [helper.make_opsetid("", OPSET)]
        model = helper.make_model(graph, opset_imports=opsets, ir_version=8)
        session = onnxruntime.InferenceSession(
            model.SerializeToString(), providers=["CPUExecutionProvider"]
        )
        return tuple(session.run(None, self.operands))

    def case(self, what: str, *, computed: bool, batch_first: bool = False) -> Case:
        """The node as WebAssembly.

        Args:
            what: Its name.
            computed: Whether the weights are inputs, too.
            batch_first: Whether it has ONNX's layout 1, which onnxruntime lacks.
        """
        expected, attributes = self.expected(), self.attributes
        operands = dict(self.operands)
        if batch_first:
            y, *states = expected
            expected = (y.transpose(2, 0, 1, 3), *(s.swapaxes(0, 1) for s in states))
            attributes = attributes | {"layout": 1}
            for name in operands.keys() & {"X", "initial_h", "initial_c"}:
                operands[name] = np.ascontiguousarray(operands[name].swapaxes(0, 1))
        inputs = {"X"} if not computed else set(operands) - {"sequence_lens"}
        if "sequence_lens" in operands:
            inputs.add("sequence_lens")
        return Case(
            what,
            self.op,
            tuple(
                None
                if name not in operands
                else operands[name]
                if name in inputs
                else Fixed(operands[name])
                for name in self.names
            ),
            attributes,
            expected,
            self.outputs,
        )


def layer(
    op: str,
    *,
    steps: int = 5,
    batch: int = 3,
    size: int = 4,
    hidden: int = 6,
    direction: str = "forward",
    given: Sequence[str] = ("B",),
    seed: int = 0,
    **attributes: Any,
) -> Layer:
    """A layer with random weights and inputs."""
    rng = np.random.default_rng(seed)
    ways, width = 1 + (direction == "bidirectional"), GATES[op] * hidden

    def normal(*shape: int) -> Array:
        return (rng.standard_normal(shape) * 0.4).astype(np.float32)

    made = {
        "X": normal(steps, batch, size),
        "W": normal(ways, width, size),
        "R": normal(ways, width, hidden),
        "B": normal(ways, 2 * width),
        "sequence_lens": rng.integers(0, steps + 1, batch).astype(np.int32),
        "initial_h": normal(ways, batch, hidden),
        "initial_c": normal(ways, batch, hidden),
        "P": normal(ways, 3 * hidden),
    }
    chosen = {"X", "W", "R", *given}
    operands = {name: array for name, array in made.items() if name in chosen}
    return Layer(op, operands, {"hidden_size": hidden, "direction": direction, **attributes})


def activations(rng: np.random.Generator, count: int) -> dict[str, Any]:
    """Attributes for random functions."""
    names = [str(name) for name in rng.choice(sorted(PARAMETERS), count)]
    alphas, betas = (
        [PARAMETERS[name][i] for name in names if PARAMETERS[name][i] is not None] for i in (0, 1)
    )
    attributes: dict[str, Any] = {"activations": names}
    if alphas:
        attributes["activation_alpha"] = alphas
    if betas:
        attributes["activation_beta"] = betas
    return attributes


def random_case(seed: int) -> Case:
    """Everything at random."""
    rng = np.random.default_rng(seed)

    def chance(probability: float = 0.5) -> bool:
        return bool(rng.random() < probability)

    op = list(GATES)[seed % 3]
    direction = str(rng.choice(["forward", "reverse", "bidirectional"]))
    optional = ["B", "sequence_lens", "initial_h"]
    attributes: dict[str, Any] = {}
    if op == "LSTM":
        optional += ["initial_c", "P"]
        attributes["input_forget"] = int(chance(0.3))
    if op == "GRU":
        attributes["linear_before_reset"] = int(chance())
    if chance(0.6):
        count = FUNCTIONS[op] * (1 + (direction == "bidirectional"))
        attributes |= activations(rng, count)
    if chance(0.3):
        attributes["clip"] = 0.5
    made = layer(
        op,
        steps=int(rng.integers(1, 7)),
        batch=int(rng.integers(1, 5)),
        size=int(rng.integers(1, 9)),
        hidden=int(rng.integers(1, 14)),
        direction=direction,
        given=[name for name in optional if chance()],
        seed=seed,
        **attributes,
    )
    return made.case(f"random {seed}", computed=chance(0.4), batch_first=chance(0.3))


def known_lengths(what: str, lengths: Sequence[int]) -> Case:
    """Lengths that are known when compiling."""
    made = layer("GRU", given=["B", "initial_h"])
    made.operands["sequence_lens"] = np.array(lengths, np.int32)
    case = made.case(what, computed=False)
    operands = list(case.operands)
    operands[4] = Fixed(made.operands["sequence_lens"])
    return replace(case, operands=tuple(operands))


CASES = [
    *(random_case(seed) for seed in range(45)),
    known_lengths("all of full length", [5, 5, 5]),
    known_lengths("known lengths", [5, 2, 0]),
    *(
        layer(op, given=["B", "sequence_lens", "initial_h"], direction="bidirectional").case(
            "batch first", computed=False, batch_first=True
        )
        for op in GATES
    ),
    *(layer(op, batch=1, hidden=40, size=40).case("one row", computed=False) for op in GATES),
    *(
        layer("RNN", activations=[name], given=[]).case(f"{name} without alpha", computed=False)
        for name in ("Elu", "HardSigmoid", "LeakyRelu")
    ),
    layer("RNN", activations=["HardSigmoid"], activation_beta=[0.2]).case(
        "beta without alpha", computed=False
    ),
]


@pytest.fixture(scope="module")
def results() -> dict[str, list[Array]]:
    return run_cases(CASES, OPSET)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_agrees_with_onnxruntime(case: Case, results: dict[str, list[Array]]) -> None:
    """The project's tolerance: sums are rounded in another order, and steps feed on that."""
    assert max(np.abs(array).max() for array in case.expected) < 100, "rounding grows too fast"
    check(case, results[str(case)], rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("extents", [{"steps": 0}, {"batch": 0}, {"size": 0}], ids=str)
def test_axes_without_extent(extents: dict[str, int]) -> None:
    """onnxruntime ends the process for some of them."""
    made = layer("LSTM", given=["B", "initial_h"], **extents)
    weights = dict(made.operands)
    inputs = {"X": weights.pop("X")}
    names = [name if name in made.operands else "" for name in made.names]
    nodes = [node("LSTM", names, ["y", "h"], **made.attributes)]
    model = make_model(nodes, {"X": inputs["X"].shape}, "y h", weights, opset=OPSET)
    found = run_as_wasm(model, inputs)
    if extents == {"size": 0}:
        # The same as an input of zeros.
        same = layer("LSTM", given=["B", "initial_h"], size=1)
        operands = same.operands | weights | {name: 0 * same.operands[name] for name in ("X", "W")}
        y, h, _ = Layer("LSTM", operands, same.attributes).expected()
        np.testing.assert_allclose(found["y"], y, rtol=1e-3, atol=1e-4)
        np.testing.assert_allclose(found["h"], h, rtol=1e-3, atol=1e-4)
    else:
        assert not found["y"].size
        assert not found["h"].any()


def test_outputs_that_are_left_out() -> None:
    made = layer("LSTM")
    weights = {name: made.operands[name] for name in ("W", "R", "B")}
    nodes = [
        node("LSTM", "X W R B", ["", "h", ""], hidden_size=6),
        node("LSTM", "X W R B", ["", "", "c"], hidden_size=6),
    ]
    model = make_model(nodes, {"X": (5, 3, 4)}, "h c", weights, opset=OPSET)
    found = run_as_wasm(model, {"X": made.operands["X"]})
    _, h, c = made.expected()
    np.testing.assert_allclose(found["h"], h, rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(found["c"], c, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(("batch", "shares"), [(1, 2), (3, 6)])
def test_directions_and_rows_are_shared_out(batch: int, shares: int, tmp_path: Path) -> None:
    """And what two threads make of them is the same, bit by bit.

    The sizes are such that it is worth it: see `wasmgraph.optimise.parallel`.
    """
    made = layer("LSTM", direction="bidirectional", steps=100, batch=batch, size=128, hidden=128)
    weights = {name: made.operands[name] for name in ("W", "R", "B")}
    nodes = [node("LSTM", "X W R B", "y", **made.attributes)]
    model = make_model(nodes, {"X": (100, batch, 128)}, "y", weights, opset=OPSET)
    graph = compile_to_bundle(model, threads=True).graph
    assert sum(graph.kernels[step.kernel].description == "lstm" for step in graph.steps) == shares
    wasmgraph.compile(model, tmp_path / "shared.wasm", threads=True, verify=False)
    inputs = {"X": made.operands["X"]}
    with wasmgraph.load(tmp_path / "shared.wasm", threads=2, timeout=60) as loaded:
        found = [loaded.run(inputs)["y"] for _ in range(5)]
    expected = run_as_wasm(model, inputs)["y"]
    for y in found:
        np.testing.assert_array_equal(y, expected)


@pytest.mark.parametrize(
    ("operand", "shape"),
    [("R", (1, 25, 6)), ("B", (1, 47)), ("initial_h", (1, 2, 6)), ("P", (1, 17))],
)
def test_an_operand_of_another_shape_is_refused(operand: str, shape: tuple[int, ...]) -> None:
    """A kernel would read beyond its end."""
    made = layer("LSTM", given=["B", "initial_h", "P"])
    weights = made.operands | {operand: np.zeros(shape, np.float32)}
    del weights["X"]
    names = [name if name in made.operands else "" for name in made.names]
    model = make_model(
        [node("LSTM", names, "y", **made.attributes)], {"X": (5, 3, 4)}, "y", weights, opset=OPSET
    )
    with pytest.raises(UnsupportedModelError) as caught:
        run_as_wasm(model, {"X": made.operands["X"]})
    assert operand in str(caught.value)


@pytest.mark.parametrize(
    ("attributes", "reason"),
    [
        ({"activations": ["Sinus"]}, "sinus"),
        ({"activations": ["Sigmoid"], "direction": "bidirectional"}, "1 activations"),
        ({"clip": 0.0}, "clip"),
    ],
)
def test_attributes_that_mean_nothing_are_refused(attributes: dict[str, Any], reason: str) -> None:
    made = layer("RNN", direction=attributes.get("direction", "forward"))
    weights = {name: made.operands[name] for name in ("W", "R")}
    model = make_model(
        [node("RNN", "X W R", "y", **made.attributes | attributes)],
        {"X": (5, 3, 4)},
        "y",
        weights,
        opset=OPSET,
    )
    with pytest.raises(UnsupportedModelError, match=reason):
        run_as_wasm(model, {"X": made.operands["X"]})
