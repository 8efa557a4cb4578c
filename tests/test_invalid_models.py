"""Models that parse and are wrong inside: each is refused with a message that names what is wrong.

`test_bad_models` has what is no model, what is not supported, and the shapes; here are functions,
operator sets, names and stored tensors; `test_invalid_operands` has what single nodes are given.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from tests.onnx_models import CUSTOM_DOMAIN, make_model, node, run_as_wasm
from tests.refusals import Refusal
from wasmgraph.compiler import make_bundle
from wasmgraph.errors import ModelError, UnsupportedModelError
from wasmgraph.importer import load_model

X = {"x": (2, 3)}
OPSETS = [helper.make_opsetid("", 18), helper.make_opsetid(CUSTOM_DOMAIN, 1)]
FAR = 2**40
"""More than a 32-bit memory has, and less than 64 bits hold."""


def relu_model() -> onnx.ModelProto:
    return make_model([node("Relu", "x", "y")], X, "y")


def function(name: str, *nodes: onnx.NodeProto, attributes: Sequence[str] = ()) -> Any:
    """A function of "a" that gives "b"."""
    return helper.make_function(
        CUSTOM_DOMAIN, name, ["a"], ["b"], list(nodes), OPSETS, attributes=list(attributes)
    )


def call(name: str, inputs: str, outputs: str) -> onnx.NodeProto:
    return node(name, inputs, outputs, domain=CUSTOM_DOMAIN, name=f"call of {name}")


def called(*functions: onnx.FunctionProto, inputs: str = "x", outputs: str = "y") -> Any:
    """A model that calls the last of its functions."""
    return make_model(
        [call(functions[-1].name, inputs, outputs)], X, "y", functions=list(functions)
    )


def doubling(levels: int) -> list[onnx.FunctionProto]:
    """Functions of which each calls the one before it twice."""
    functions = [function("F0", node("Relu", "a", "b"))]
    for level in range(1, levels + 1):
        below = f"F{level - 1}"
        functions.append(function(f"F{level}", call(below, "a", "m"), call(below, "m", "b")))
    return functions


def branch(*nodes: onnx.NodeProto) -> onnx.GraphProto:
    """A subgraph that gives "t"."""
    output = helper.make_tensor_value_info("t", TensorProto.FLOAT, (2, 3))
    return helper.make_graph(list(nodes), "branch", [], [output])


def nested(levels: int) -> onnx.GraphProto:
    """An If in an If in an If."""
    graph = branch(node("Relu", "x", "t"))
    for _ in range(levels):
        other = branch(node("Neg", "x", "t"))
        graph = branch(node("If", "flag", "t", then_branch=graph, else_branch=other))
    return graph


class TestFunctions:
    def test_that_call_themselves(self, refuse: Refusal) -> None:
        refuse(called(function("F", call("F", "a", "b"))), ModelError, "F -> F")

    def test_that_call_each_other(self, refuse: Refusal) -> None:
        functions = function("F", call("G", "a", "b")), function("G", call("F", "a", "b"))
        refuse(called(*functions), ModelError, "circle", "F -> G -> F")

    def test_that_call_themselves_in_a_subgraph(self, refuse: Refusal) -> None:
        recursive = function(
            "F",
            node("Constant", "", "c", value=numpy_helper.from_array(np.array(True))),
            node(
                "If",
                "c",
                "b",
                then_branch=branch(call("F", "a", "t")),
                else_branch=branch(node("Relu", "a", "t")),
            ),
        )
        refuse(called(recursive), ModelError, "F -> F")

    def test_that_call_themselves_beside_an_unknown_operator(self, refuse: Refusal) -> None:
        # ONNX's checker stops at the unknown operator and never comes to the functions.
        model = called(function("F", call("F", "a", "b")))
        model.graph.node.insert(0, node("Frobnicate", "x", "z"))
        refuse(model, ModelError, "F -> F")

    def test_that_double_thirty_times(self, refuse: Refusal) -> None:
        # 2^30 nodes, if they were written out; onnx's inliner would try.
        refuse(called(*doubling(30)), UnsupportedModelError, str(2**30), "functions")

    def test_that_double_a_few_times_compile(self) -> None:
        assert make_bundle(called(*doubling(4))).graph.source.operators == {
            f"{CUSTOM_DOMAIN}.F4": 1
        }

    def test_a_chain_of_two_thousand(self, refuse: Refusal) -> None:
        functions = [function("F0", node("Relu", "a", "b"))]
        functions += [function(f"F{i}", call(f"F{i - 1}", "a", "b")) for i in range(1, 2000)]
        refuse(called(*functions), ModelError, "depth")

    def test_called_with_too_much(self, refuse: Refusal) -> None:
        relu = function("F", node("Relu", "a", "b"))
        refuse(called(relu, inputs="x x"), ModelError, "call of F", "2 inputs, it has 1")
        refuse(called(relu, outputs="y z"), ModelError, "call of F", "2 outputs, it has 1")

    def test_defined_twice(self, refuse: Refusal) -> None:
        twice = function("F", node("Relu", "a", "b")), function("F", node("Neg", "a", "b"))
        refuse(called(*twice), ModelError, "F", "multiple")

    def test_whose_output_nothing_computes(self, refuse: Refusal) -> None:
        refuse(called(function("F", node("Relu", "a", "c"))), ModelError, "'y'")

    def test_without_an_operator_set(self, refuse: Refusal) -> None:
        model = called(function("F", node("Relu", "a", "b")))
        del model.functions[0].opset_import[:]
        refuse(model, ModelError)

    def test_an_attribute_of_no_function(self, refuse: Refusal) -> None:
        leaky = node("LeakyRelu", "x", "y", name="leaky")
        leaky.attribute.add(name="alpha", ref_attr_name="slope", type=onnx.AttributeProto.FLOAT)
        refuse(make_model([leaky], X, "y"), ModelError, "leaky", "alpha", "'slope'")


class TestNesting:
    def test_as_deep_as_a_file_can_hold_it(self, refuse: Refusal) -> None:
        other = branch(node("Neg", "x", "t"))
        choice = node("If", "flag", "y", then_branch=nested(20), else_branch=other)
        model = make_model([choice], {**X, "flag": ("bool", ())}, "y")
        make_or_refuse(refuse, model)

    def test_deeper_than_protobuf_reads(self, refuse: Refusal) -> None:
        # graph.node.attribute.g.node...: the fields' tags and lengths by hand, a thousand deep.
        inner = b""
        for _ in range(1000):
            for tag in (0x32, 0x2A, 0x0A):  # AttributeProto.g, NodeProto.attribute, GraphProto.node
                inner = bytes([tag]) + varint(len(inner)) + inner
        refuse(b"\x08\x08\x3a" + varint(len(inner)) + inner, ModelError, "do not parse")


def make_or_refuse(refuse: Refusal, model: onnx.ModelProto) -> None:
    """Either is right; what is not is a crash."""
    try:
        make_bundle(model)
    except UnsupportedModelError:
        refuse(model, UnsupportedModelError, "If")


def varint(number: int) -> bytes:
    """As protobuf writes a length."""
    groups = []
    while number > 127:
        groups.append(number & 127 | 128)
        number >>= 7
    return bytes([*groups, number])


class TestOperatorSets:
    @pytest.mark.parametrize("version", [0, -1, -(2**63), 2**62])
    def test_one_that_cannot_be(self, refuse: Refusal, version: int) -> None:
        model = relu_model()
        model.opset_import[0].version = version
        refuse(model, ModelError, f"opset {version}")

    def test_one_from_the_future(self, refuse: Refusal) -> None:
        model = relu_model()
        model.opset_import[0].version = 10**9
        refuse(model, UnsupportedModelError, "opset 1000000000", "older opset")

    def test_none_for_the_operators_that_are_used(self, refuse: Refusal) -> None:
        model = relu_model()
        del model.opset_import[0]
        refuse(model, ModelError, "opset_import lacks", "ai.onnx", "Relu#0")

    def test_one_domain_twice(self, refuse: Refusal) -> None:
        model = relu_model()
        model.opset_import.append(helper.make_opsetid("ai.onnx", 9))
        refuse(model, ModelError, "2 versions of the domain ai.onnx")

    def test_one_version_twice_is_no_contradiction(self) -> None:
        """skl2onnx writes so."""
        model = relu_model()
        version = model.opset_import[0].version
        model.opset_import.append(helper.make_opsetid("", version))
        assert load_model(model).proto.opset_import[0].version == version

    def test_an_unknown_domain(self, refuse: Refusal) -> None:
        model = make_model([node("Relu", "x", "y", domain="nowhere")], X, "y")
        refuse(model, UnsupportedModelError, "nowhere.Relu")
        model.opset_import.append(helper.make_opsetid("nowhere", 2**40))
        refuse(model, ModelError, "nowhere", str(2**40))

    @pytest.mark.parametrize("version", [-1, 10**9])
    def test_a_format_version_that_cannot_be(self, refuse: Refusal, version: int) -> None:
        model = relu_model()
        model.ir_version = version
        refuse(model, ModelError, "version")


class TestNames:
    def test_of_two_initializers(self, refuse: Refusal) -> None:
        model = make_model([node("Add", "x w", "y")], X, "y", {"w": np.ones(3, np.float32)})
        model.graph.initializer.append(model.graph.initializer[0])
        refuse(model, ModelError, "w initializer name is not unique")

    def test_of_two_inputs(self, refuse: Refusal) -> None:
        model = relu_model()
        model.graph.input.append(model.graph.input[0])
        refuse(model, ModelError, "'x'", "multiple times")

    @pytest.mark.parametrize("written", ["x", "w"])
    def test_of_an_output_and_what_is_there_before(self, refuse: Refusal, written: str) -> None:
        model = make_model([node("Relu", "x", written)], X, written, {"w": np.ones((2, 3))})
        refuse(model, ModelError, f"'{written}'", "multiple times")

    def test_two_nodes_may_share_theirs(self) -> None:
        # Exporters do it; only tensors' names tie a graph together.
        nodes = [node("Exp", "x", "a", name="same"), node("MatMul", "a w", "y", name="same")]
        model = make_model(nodes, X, "y", {"w": np.eye(3, dtype=np.float32)})
        assert {name for step in make_bundle(model).graph.steps for name in step.nodes} == {"same"}

    def test_that_are_missing(self, refuse: Refusal) -> None:
        for take in (
            lambda graph: graph.input[0],
            lambda graph: graph.output[0],
            lambda graph: graph.initializer[0],
        ):
            model = make_model([node("Add", "x w", "y")], X, "y", {"w": np.ones(3, np.float32)})
            take(model.graph).name = ""
            refuse(model, ModelError, "name", "non-empty")

    def test_that_are_no_text(self, refuse: Refusal) -> None:
        data = make_model([node("Relu", "x", "y", name="named")], X, "y").SerializeToString()
        refuse(data.replace(b"Relu", b"R\xff\xfeu"), ModelError, "UTF-8", "operator")
        refuse(data.replace(b"named", b"na\xffed"), ModelError, "UTF-8", "node")


class TestGraphs:
    def test_an_empty_one(self, refuse: Refusal) -> None:
        refuse(make_model([], {}, {}), ModelError, "no outputs")

    def test_an_output_that_nothing_computes(self, refuse: Refusal) -> None:
        refuse(make_model([], X, "q"), ModelError, "'q'")

    def test_what_is_unusual_and_right_compiles(self) -> None:
        weight = np.array([1, -2, 3], np.float32)
        model = make_model(
            [node("Clip", ["w", "", ""], "c"), node("Add", "x c", "y")],
            {"x": (3,), "unused": ("int64", (4,))},
            "y w",
            {"w": weight},
        )
        inputs = {"x": np.ones(3, np.float32), "unused": np.zeros(4, np.int64)}
        results = run_as_wasm(model, inputs)
        np.testing.assert_array_equal(results["w"], weight)
        np.testing.assert_array_equal(results["y"], weight + 1)

    def test_an_operand_that_is_needed_and_left_out(self, refuse: Refusal) -> None:
        for inputs in (["x", ""], ["", "x"]):
            model = make_model([node("Add", inputs, "y", name="sum of two")], X, "y")
            refuse(model, ModelError, "sum of two", "empty")

    @pytest.mark.parametrize("op", ["Concat", "Sum", "Max"])
    def test_one_of_a_list_of_operands_left_out(self, refuse: Refusal, op: str) -> None:
        # TVM's Concat crashes the process on it.
        axis = {"axis": 0} if op == "Concat" else {}
        model = make_model([node(op, ["x", ""], "y", name="list", **axis)], X, "y")
        refuse(model, ModelError, "list", "input 1")

    def test_an_initializer_that_is_another_as_an_input(self, refuse: Refusal) -> None:
        weights = {"w": np.ones((2, 3), np.float32)}
        nodes = [node("Add", "x w", "y")]
        refuse(make_model(nodes, {**X, "w": (5, 3)}, "y", weights), ModelError, "'w'", "[5, 3]")
        other = {**X, "w": ("int64", (2, 3))}
        refuse(make_model(nodes, other, "y", weights), ModelError, "'w'", "int64", "float")
        make_bundle(make_model(nodes, {**X, "w": ("n", 3)}, "y", weights))


class TestStoredTensors:
    def with_constant(self, tensor: onnx.TensorProto) -> onnx.ModelProto:
        nodes = [node("Constant", "", "c", value=tensor), node("Add", "x c", "y")]
        return make_model(nodes, {"x": (3,)}, "y")

    @pytest.mark.parametrize(
        ("dims", "text"), [([4], "[4]"), ([], "[]"), ([FAR], str(FAR)), ([-3], "negative")]
    )
    def test_a_constant_of_another_size(self, refuse: Refusal, dims: list[int], text: str) -> None:
        for raw in (True, False):
            tensor = helper.make_tensor("t", TensorProto.FLOAT, [3], [1.0, 2.0, 3.0])
            if raw:
                tensor = numpy_helper.from_array(numpy_helper.to_array(tensor), "t")
            tensor.dims[:] = dims
            refuse(self.with_constant(tensor), ModelError, "'t'", text)

    def test_sizes_whose_product_overflows(self, refuse: Refusal) -> None:
        for dims in ([2**32, 2**32], [2**62, 0], [2**63 - 1, 2**63 - 1]):
            model = make_model([node("Add", "x w", "y")], X, "y", {"w": np.ones(6, np.float32)})
            model.graph.initializer[0].dims[:] = dims
            refuse(model, ModelError, "'w'", str(dims[0]))

    def test_more_axes_than_numpy_has(self, refuse: Refusal) -> None:
        model = make_model([node("Add", "x w", "y")], X, "y", {"w": np.ones((2, 3), np.float32)})
        model.graph.initializer[0].dims[:] = [1] * 70 + [2, 3]
        refuse(model, ModelError, "'w'", "72")

    def test_a_sparse_constant(self, refuse: Refusal) -> None:
        sparse = helper.make_sparse_tensor(
            helper.make_tensor("v", TensorProto.FLOAT, (1,), [1.0]),
            helper.make_tensor("i", TensorProto.INT64, (1,), [2]),
            (FAR,),
        )
        constant = node("Constant", "", "c", name="thin")
        constant.attribute.add(
            name="sparse_value", type=onnx.AttributeProto.SPARSE_TENSOR
        ).sparse_tensor.CopyFrom(sparse)
        model = make_model([constant, node("Add", "x c", "y")], {"x": (3,)}, "y")
        refuse(model, UnsupportedModelError, "thin", "sparse")

    def test_text_where_numbers_belong(self, refuse: Refusal) -> None:
        words = helper.make_tensor("w", TensorProto.STRING, (3,), ["1", "2", "3"])
        model = make_model([node("Add", "x w", "y")], {"x": (3,)}, "y")
        model.graph.initializer.append(words)
        refuse(model, ModelError, "string")
