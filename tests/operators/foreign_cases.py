"""Tests of operators that onnx does not define: many nodes in one model, against onnxruntime."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

from tests.onnx_models import Array, run_as_wasm
from tests.operators.node_cases import Fixed

MICROSOFT = "com.microsoft"
MACHINE_LEARNING = "ai.onnx.ml"


@dataclass(frozen=True)
class Foreign:
    """One node.

    Attributes:
        what: Names the case, together with the operator.
        op: The operator.
        operands: Arrays are inputs; a `Fixed` is a weight; None is left out.
        attributes: The node's.
        outputs: How many outputs are asked for; False where one in between is left out.
        domain: The operator's.
    """

    what: str
    op: str
    operands: tuple[Array | Fixed | None, ...]
    attributes: dict[str, Any] = field(default_factory=dict)
    outputs: tuple[bool, ...] = (True,)
    domain: str = MICROSOFT

    def __str__(self) -> str:
        return f"{self.op}: {self.what}"


def run_foreign(
    cases: Sequence[Foreign], opset: int = 17, ml_opset: int = 3
) -> dict[str, list[tuple[Array, Array]]]:
    """Of every case, by its text, what its outputs are as WebAssembly and by onnxruntime."""
    assert len({str(case) for case in cases}) == len(cases), "two cases have one name"
    nodes, inputs, weights, outputs = [], [], [], []
    feeds: dict[str, Array] = {}
    for index, case in enumerate(cases):
        names = []
        for position, operand in enumerate(case.operands):
            name = "" if operand is None else f"c{index}_{position}"
            if isinstance(operand, Fixed):
                weights.append(numpy_helper.from_array(operand.array, name))
            elif operand is not None:
                feeds[name] = operand
                elem_type = helper.np_dtype_to_tensor_dtype(operand.dtype)
                inputs.append(helper.make_tensor_value_info(name, elem_type, operand.shape))
            names.append(name)
        found = _outputs_of(index, case)
        nodes.append(
            helper.make_node(
                case.op, names, found, f"node{index}", domain=case.domain, **case.attributes
            )
        )
        outputs += [onnx.ValueInfoProto(name=name) for name in found if name]
    graph = helper.make_graph(nodes, "foreign", inputs, outputs, weights)
    opsets = {"": opset, MICROSOFT: 1, MACHINE_LEARNING: ml_opset}
    model = helper.make_model(
        graph,
        opset_imports=[helper.make_opsetid(*item) for item in opsets.items()],
        ir_version=8,
    )
    expected = run_with_onnxruntime(model, feeds)
    for output in model.graph.output:
        dtype = expected[output.name].dtype
        output.type.tensor_type.elem_type = helper.np_dtype_to_tensor_dtype(dtype)
    got = run_as_wasm(model, feeds)
    return {
        str(case): [(got[name], expected[name]) for name in _outputs_of(index, case) if name]
        for index, case in enumerate(cases)
    }


def run_with_onnxruntime(model: onnx.ModelProto, feeds: dict[str, Any]) -> dict[str, Any]:
    """The outputs by name, computed node by node as the model has them."""
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = ort.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(None, feeds), strict=True))


def _outputs_of(index: int, case: Foreign) -> list[str]:
    return [f"c{index}_out{k}" if wanted else "" for k, wanted in enumerate(case.outputs)]


def compare(pairs: Sequence[tuple[Array, Array]], rtol: float, atol: float) -> None:
    """Same dtypes, same shapes, and close."""
    for got, wanted in pairs:
        assert got.dtype == wanted.dtype
        assert got.shape == wanted.shape
        np.testing.assert_allclose(got, wanted, rtol=rtol, atol=atol)
