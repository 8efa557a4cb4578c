"""onnx's node tests, each with the operator that it is about."""

from __future__ import annotations

import contextlib
import io
import re
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import onnx
from onnx import numpy_helper

_EXPANDED = re.compile(r"_expanded(_ver\d+)?$")
"""The end of the name of a test that has an operator's definition in place of the operator."""


@dataclass(frozen=True)
class Operator:
    """What a test is about.

    Attributes:
        domain: "ai.onnx" for ONNX's own.
        name: The op type.
        version: The opset version that defined what is tested.
    """

    domain: str
    name: str
    version: int

    def __str__(self) -> str:
        return self.name if self.domain == "ai.onnx" else f"{self.domain}.{self.name}"


@dataclass(frozen=True)
class Case:
    """One node test.

    Attributes:
        name: Begins with "test_".
        operator: Of an expanded definition, the operator that it defines.
        model: Without initializers: whatever the node takes is an input.
        inputs, outputs: A value per input and output that is not left out: an array, a list of
            them for a sequence, None for an empty optional.
        rtol, atol: As the test has them.
    """

    name: str
    operator: Operator
    model: onnx.ModelProto
    inputs: tuple[Any, ...]
    outputs: tuple[Any, ...]
    rtol: float
    atol: float


@lru_cache(maxsize=1)
def collect() -> Mapping[str, Case]:
    """Every node test of the installed onnx, by name, sorted (takes about five seconds)."""
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")  # numpy's, from computing the expectations
        from onnx.backend.test.case.node import collect_testcases

        found = {test.name: test for test in collect_testcases()}
    cases = {}
    for name in sorted(found):
        test = found[name]
        about = found[_EXPANDED.sub("", name)]
        [(inputs, outputs)] = test.data_sets
        cases[name] = Case(
            name,
            _operator(about.model),
            test.model,
            tuple(map(_value, inputs)),
            tuple(map(_value, outputs)),
            test.rtol,
            test.atol,
        )
    return cases


def _operator(model: onnx.ModelProto) -> Operator:
    [node] = model.graph.node
    versions = {opset.domain: opset.version for opset in model.opset_import}
    schema = onnx.defs.get_schema(node.op_type, versions[node.domain], node.domain)
    return Operator(node.domain or "ai.onnx", node.op_type, schema.since_version)


def _value(value: Any) -> Any:
    return numpy_helper.to_array(value) if isinstance(value, onnx.TensorProto) else value
