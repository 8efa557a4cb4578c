"""Tests of single operators: many nodes in one model, so that all of them cost one compilation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
from onnx.reference import ReferenceEvaluator

from tests.onnx_models import Array, make_model, node, run_as_wasm

OPSET = 21


@dataclass(frozen=True)
class Case:
    """One node.

    Attributes:
        what: Names the case, together with the operator.
        op: The operator.
        operands: Arrays are inputs, so that nothing is folded; a `Fixed` is known when compiling;
            None is left out.
        attributes: The node's.
        expected: What it gives; left out, what onnx's reference evaluator gives.
        outputs: How many outputs are asked for.
    """

    what: str
    op: str
    operands: tuple[Array | Fixed | None, ...]
    attributes: dict[str, Any] = field(default_factory=dict)
    expected: tuple[Array, ...] = ()
    outputs: int = 1

    def __str__(self) -> str:
        return f"{self.op}: {self.what}"


@dataclass(frozen=True)
class Fixed:
    """An operand that is known when compiling."""

    array: Array


def fixed(values: object, dtype: str = "int64") -> Fixed:
    """An operand that is known when compiling."""
    return Fixed(np.array(values, dtype))


def run_cases(cases: Sequence[Case], opset: int = OPSET) -> dict[str, list[Array]]:
    """What every case gives as WebAssembly, by its text."""
    assert len({str(case) for case in cases}) == len(cases), "two cases have one name"
    nodes: list[onnx.NodeProto] = []
    feeds: dict[str, Array] = {}
    weights: dict[str, Array] = {}
    outputs: dict[str, Any] = {}
    for index, case in enumerate(cases):
        names = []
        for position, operand in enumerate(case.operands):
            name = "" if operand is None else f"c{index}_{position}"
            if isinstance(operand, Fixed):
                weights[name] = operand.array
            elif operand is not None:
                feeds[name] = operand
            names.append(name)
        found = [f"c{index}_out{position}" for position in range(case.outputs)]
        nodes.append(node(case.op, names, found, **case.attributes))
        for name, array in zip(found, expected(case, opset), strict=True):
            outputs[name] = (array.dtype.name, None)
    inputs = {name: (array.dtype.name, array.shape) for name, array in feeds.items()}
    results = run_as_wasm(make_model(nodes, inputs, outputs, weights, opset=opset), feeds)
    return {
        str(case): [results[f"c{index}_out{position}"] for position in range(case.outputs)]
        for index, case in enumerate(cases)
    }


def expected(case: Case, opset: int = OPSET) -> tuple[Array, ...]:
    """What a case should give."""
    if case.expected:
        return case.expected
    names = ["" if operand is None else f"i{k}" for k, operand in enumerate(case.operands)]
    outputs = [f"o{k}" for k in range(case.outputs)]
    values = {
        name: operand.array if isinstance(operand, Fixed) else operand
        for name, operand in zip(names, case.operands, strict=True)
        if operand is not None
    }
    graph = onnx.helper.make_graph(
        [node(case.op, names, outputs, **case.attributes)],
        "reference",
        [onnx.ValueInfoProto(name=name) for name in values],
        [onnx.ValueInfoProto(name=name) for name in outputs],
    )
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", opset)])
    return tuple(np.asarray(array) for array in ReferenceEvaluator(model).run(None, values))


def check(case: Case, found: Sequence[Array], rtol: float = 0, atol: float = 0) -> None:
    """Compare; without tolerances every element must be equal (NaN equals NaN)."""
    for got, wanted in zip(found, expected(case), strict=True):
        assert got.dtype == wanted.dtype
        assert got.shape == wanted.shape
        if rtol or atol:
            np.testing.assert_allclose(got, wanted, rtol=rtol, atol=atol)
        else:
            np.testing.assert_array_equal(got, wanted)
