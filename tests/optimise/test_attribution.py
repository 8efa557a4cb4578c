"""Every kernel call names the ONNX nodes it computes, also after fusion."""

from __future__ import annotations

import numpy as np
import onnx

from tests.onnx_models import node
from tests.optimise.relax_modules import imported
from wasmgraph.optimise import optimise
from wasmgraph.optimise.program import Program

W = np.ones((4, 3, 3, 3), np.float32)
ONES = np.ones(4, np.float32)


def program(*nodes: onnx.NodeProto, outputs: str = "y", **weights: object) -> Program:
    return optimise(imported(nodes, {"x": (1, 3, 8, 8)}, outputs, weights))


def attributed(result: Program) -> list[tuple[str, ...]]:
    """The nodes of every call, but for the copies that bring outputs into the host's order."""
    return [call.nodes for call in result.calls if call.nodes or call.description != "copy"]


def test_fused_nodes_are_all_named() -> None:
    result = program(
        node("Conv", "x w", "a", name="conv", pads=[1, 1, 1, 1]),
        node("Relu", "a", "y", name="relu"),
        w=W,
    )
    assert ("conv", "relu") in attributed(result)


def test_folded_nodes_are_named_by_what_they_were_folded_into() -> None:
    result = program(
        node("Conv", "x w", "a", name="conv"),
        node("BatchNormalization", "a g b m v", "n", name="norm"),
        node("Relu", "n", "y", name="relu"),
        w=W,
        g=ONES,
        b=ONES,
        m=ONES,
        v=ONES,
    )
    assert ("conv", "norm", "relu") in attributed(result)


def test_nodes_without_a_name_get_one_from_operator_and_place() -> None:
    result = program(node("Relu", "x", "a"), node("Softmax", "a", "y"))
    assert {name for names in attributed(result) for name in names} == {"Relu#0", "Softmax#1"}


def test_equal_branches_are_told_apart_where_their_operands_differ() -> None:
    result = program(
        node("MaxPool", "x", "p", name="pool", kernel_shape=[2, 2]),
        node("Conv", "x w", "a", name="left"),
        node("Conv", "p w", "b", name="right"),
        outputs="a b",
        w=W,
    )
    assert set(attributed(result)) == {("left",), ("pool",), ("right",)}


def test_a_node_that_becomes_several_operators_is_named_by_each() -> None:
    result = program(node("Softmax", "x", "y", name="softmax", axis=1))
    assert result.calls
    assert all(names == ("softmax",) for names in attributed(result))


def test_views_need_no_call() -> None:
    result = program(
        node("Relu", "x", "a", name="relu"),
        node("Reshape", "a shape", "b", name="reshape"),
        node("Unsqueeze", "b axes", "c", name="unsqueeze"),
        node("Neg", "c", "y", name="neg"),
        shape=np.array([1, -1]),
        axes=np.array([0]),
    )
    assert {name for names in attributed(result) for name in names} == {"relu", "neg"}


def test_every_call_is_attributed_in_a_network_of_many_kinds() -> None:
    result = program(
        node("Conv", "x w", "a", name="conv"),
        node("Sigmoid", "a", "s", name="sigmoid"),
        node("Mul", "a s", "m", name="mul"),
        node("GlobalAveragePool", "m", "g", name="pool"),
        node("Flatten", "g", "f", name="flatten"),
        node("Gemm", "f k", "l", name="gemm", transB=1),
        node("Softmax", "l", "y", name="softmax"),
        w=W,
        k=np.ones((2, 4), np.float32),
    )
    assert all(attributed(result))
    named = {name for names in attributed(result) for name in names}
    assert named == {"conv", "sigmoid", "mul", "pool", "gemm", "softmax"}
