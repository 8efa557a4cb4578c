"""The passes on the ONNX level, each on a graph of a few nodes."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from tests.onnx_models import CUSTOM_DOMAIN, make_network, node, operators
from wasmgraph.errors import ModelError
from wasmgraph.importer.network import Network, attributes
from wasmgraph.importer.normalise import normalise
from wasmgraph.importer.normalise.fold import fold_constants, infer_shapes
from wasmgraph.importer.normalise.inline import inline_local_functions, inline_schema_functions
from wasmgraph.importer.normalise.simplify import (
    drop_empty_operands,
    remove_dead_nodes,
    remove_no_ops,
)
from wasmgraph.importer.normalise.upgrade import TARGET_OPSET, upgrade_opset

X = {"x": (2, 3)}


class TestUpgrade:
    def test_turns_old_attributes_into_inputs(self) -> None:
        network = make_network(
            [node("Clip", "x", "c", min=0.0, max=6.0), node("Squeeze", "c", "y", axes=[0])],
            {"x": (1, 3)},
            "y",
            opset=6,
        )
        upgrade_opset(network)
        assert network.opset == network.opsets[""] == TARGET_OPSET
        clip = next(item for item in network.nodes if item.op_type == "Clip")
        assert not clip.attribute
        assert len(clip.input) == 3

    def test_keeps_the_names_of_nodes_and_of_unnamed_ones(self) -> None:
        network = make_network(
            [node("Relu", "x", "a", name="mine"), node("Neg", "a", "y")], X, "y", opset=7
        )
        upgrade_opset(network)
        assert [item.name for item in network.nodes] == ["mine", "Neg#1"]

    def test_names_what_it_inserts_after_the_node_it_serves(self) -> None:
        network = make_network(
            [node("Upsample", "x scales", "y", name="up", mode="nearest")],
            {"x": (1, 1, 2, 2)},
            "y",
            {"scales": np.array([1, 1, 2, 2], np.float32)},
            opset=9,
        )
        upgrade_opset(network)
        assert "Resize" in operators(network)
        assert "Upsample" not in operators(network)
        assert all("up" in item.name for item in network.nodes)

    def test_leaves_newer_models_as_they_are(self) -> None:
        network = make_network([node("Relu", "x", "y")], X, "y", opset=TARGET_OPSET + 2)
        upgrade_opset(network)
        assert network.opset == TARGET_OPSET + 2

    def test_keeps_weights_that_the_converter_never_sees(self) -> None:
        weight = np.arange(4096, dtype=np.float32).reshape(2, 2048)
        network = make_network([node("MatMul", "x w", "y")], X, "y", {"w": weight.T}, opset=7)
        upgrade_opset(network)
        np.testing.assert_array_equal(network.weights["w"], weight.T)
        assert network.input_names == ["x"]

    def test_says_what_it_cannot_upgrade(self) -> None:
        """Batch normalisation with statistics per element went with opset 9."""
        statistics = {name: np.ones(3, np.float32) for name in "abcd"}
        network = make_network(
            [node("BatchNormalization", "x a b c d", "y", spatial=0)],
            {"x": (1, 3, 2, 2)},
            "y",
            statistics,
            opset=7,
        )
        with pytest.raises(ModelError, match=f"7 to {TARGET_OPSET}: Attribute spatial") as caught:
            upgrade_opset(network)
        assert "newer opset" in str(caught.value.hint)


def scaled_relu() -> onnx.FunctionProto:
    """example.org.ScaledRelu(v; factor): Relu(v) times a Constant."""
    constant = node("Constant", "", "k", name="k")
    reference = onnx.AttributeProto(
        name="value_float", ref_attr_name="factor", type=onnx.AttributeProto.FLOAT
    )
    constant.attribute.append(reference)
    body = [constant, node("Relu", "v", "r"), node("Mul", "r k", "out")]
    return helper.make_function(
        CUSTOM_DOMAIN, "ScaledRelu", ["v"], ["out"], body, [helper.make_opsetid("", 18)], ["factor"]
    )


class TestInline:
    def test_replaces_calls_of_the_model_s_own_functions(self) -> None:
        network = make_network(
            [
                node("ScaledRelu", "x", "a", domain=CUSTOM_DOMAIN, factor=2.0),
                node("ScaledRelu", "a", "y", domain=CUSTOM_DOMAIN, factor=3.0),
            ],
            X,
            "y",
            functions=[scaled_relu()],
        )
        inline_local_functions(network)
        assert operators(network) == ["Constant", "Relu", "Mul"] * 2
        assert network.functions == []
        names = [item.name for item in network.nodes]
        assert all(names)
        assert len(set(names)) == len(names)

    def test_replaces_operators_that_onnx_defines_by_others(self) -> None:
        network = make_network([node("Swish", "x", "y", name="s", alpha=2.0)], X, "y", opset=24)
        inline_schema_functions(network)
        assert "Swish" not in operators(network)
        assert "Sigmoid" in operators(network)
        assert network.output_names == ["y"]

    def test_keeps_operators_that_have_a_converter(self) -> None:
        network = make_network(
            [node("Softmax", "x", "a"), node("Gelu", "a", "y")], X, "y", opset=20
        )
        inline_schema_functions(network)
        assert operators(network) == ["Softmax", "Gelu"]

    def test_passes_on_attributes_that_are_left_at_their_defaults(self) -> None:
        network = make_network([node("HannWindow", "n", "y")], {}, "y", {"n": np.array(8)})
        inline_schema_functions(network)
        casts = [attributes(item) for item in network.nodes if item.op_type == "Cast"]
        assert casts
        assert all("to" in cast for cast in casts)


class TestFold:
    def folded(self, *nodes: onnx.NodeProto, outputs: object = "y", **weights: object) -> Network:
        network = make_network(nodes, {"x": (2, 3, 4)}, outputs, weights)
        fold_constants(network)
        return network

    def test_computes_shapes_of_static_tensors(self) -> None:
        """As exporters write `x.view(x.size(0), -1)`."""
        network = self.folded(
            node("Shape", "x", "s"),
            node("Gather", "s zero", "n", axis=0),
            node("Unsqueeze", "n axes", "n1"),
            node("Concat", "n1 rest", "shape", axis=0),
            node("Reshape", "x shape", "y"),
            zero=np.array(0),
            axes=np.array([0]),
            rest=np.array([-1]),
        )
        assert operators(network) == ["Reshape"]
        np.testing.assert_array_equal(network.weights["shape"], [2, -1])
        assert network.types["y"].shape == (2, 12)

    def test_goes_on_behind_a_shape_that_was_just_computed(self) -> None:
        """The second Shape is known only once the first Reshape is."""
        network = self.folded(
            node("Shape", "x", "s", start=1),
            node("ReduceProd", "s", "p", keepdims=1),
            node("Concat", "p minus", "shape", axis=0),
            node("Reshape", "x shape", "a"),
            node("Shape", "a", "s2"),
            node("Cast", "s2", "y", to=TensorProto.FLOAT),
            minus=np.array([-1]),
        )
        assert operators(network) == ["Reshape"]
        np.testing.assert_array_equal(network.weights["y"], [12, 2])

    @pytest.mark.parametrize(
        ("window", "expected"),
        [
            ({}, [2, 3, 4]),
            ({"start": 1}, [3, 4]),
            ({"start": -2, "end": -1}, [3]),
            ({"end": 9}, [2, 3, 4]),
        ],
        ids=str,
    )
    def test_honours_the_window_of_shape(self, window: dict[str, int], expected: list[int]) -> None:
        network = self.folded(
            node("Shape", "x", "s", **window),
            node("Size", "x", "n"),
            outputs={"s": ("int64", None), "n": ("int64", None)},
        )
        assert network.nodes == []
        np.testing.assert_array_equal(network.weights["s"], expected)
        assert network.weights["n"] == 24

    def test_takes_constants_of_every_spelling(self) -> None:
        tensor = numpy_helper.from_array(np.ones(2, np.float32))
        spellings = {
            "value": tensor,
            "value_float": 1.5,
            "value_int": 3,
            "value_floats": [1.0, 2.0],
            "value_ints": [1, 2],
        }
        nodes = [node("Constant", "", key, **{key: value}) for key, value in spellings.items()]
        dtypes = {name: "int64" if "int" in name else "float32" for name in spellings}
        network = self.folded(*nodes, outputs={name: (t, None) for name, t in dtypes.items()})
        assert network.nodes == []
        assert {name: network.weights[name].dtype.name for name in spellings} == dtypes
        np.testing.assert_array_equal(network.weights["value_ints"], [1, 2])
        assert network.weights["value_float"] == 1.5

    def test_does_not_store_what_is_much_larger_than_its_operands(self) -> None:
        network = self.folded(
            node("Expand", "one large", "a"),
            node("Expand", "one small", "b"),
            outputs="a b",
            one=np.ones(1, np.float32),
            large=np.array([1 << 19]),
            small=np.array([7]),
        )
        assert operators(network) == ["Expand"]
        assert network.weights["b"].shape == (7,)
        assert network.types["a"].shape == (1 << 19,)

    def test_does_not_fold_random_numbers(self) -> None:
        network = self.folded(node("RandomNormal", "", "y", shape=[3]))
        assert operators(network) == ["RandomNormal"]

    def test_does_not_fold_what_an_input_reaches(self) -> None:
        network = self.folded(node("Neg", "x", "a"), node("Add", "a w", "y"), w=np.float32(1))
        assert operators(network) == ["Neg", "Add"]

    def test_leaves_to_the_compiler_what_the_evaluator_cannot_do(self) -> None:
        """Its GatherElements fails on a single row."""
        network = self.folded(
            node("GatherElements", "d i", "y", axis=1),
            d=np.array([[1, 2]], np.float32),
            i=np.array([[1, 0]]),
        )
        assert operators(network) in (["GatherElements"], [])

    def test_names_the_node_whose_shapes_contradict(self) -> None:
        network = make_network(
            [node("Add", "x w", "y", name="sum")], X, "y", {"w": np.ones(4, "f")}
        )
        with pytest.raises(ModelError, match=r"sum.*Incompatible dimensions") as caught:
            infer_shapes(network)
        assert "InferenceError" not in caught.value.message

    def test_forgets_what_the_file_claims_of_its_outputs(self) -> None:
        network = make_network([node("Relu", "x", "y")], {"x": (5, 3)}, {"y": (2, 3)})
        infer_shapes(network)
        assert network.types["y"].shape == (5, 3)


class TestRemoveNoOps:
    def simplified(
        self, *nodes: onnx.NodeProto, outputs: object = "y", **weights: object
    ) -> Network:
        network = make_network(nodes, X, outputs, weights, opset=18)
        infer_shapes(network)
        remove_no_ops(network)
        return network

    def test_readers_read_the_source_of_an_identity(self) -> None:
        network = self.simplified(
            node("Identity", "x", "a"), node("Identity", "a", "b"), node("Relu", "b", "y")
        )
        assert [(n.op_type, list(n.input)) for n in network.nodes] == [("Relu", ["x"])]

    def test_an_identity_keeps_the_name_of_an_output(self) -> None:
        network = self.simplified(
            node("Relu", "x", "a"), node("Identity", "a", "y"), node("Neg", "y", "z"), outputs="y z"
        )
        assert operators(network) == ["Relu", "Identity", "Neg"]

    def test_dropout_goes_with_and_without_its_ratio(self) -> None:
        network = self.simplified(
            node("Dropout", "x", "a"),
            node("Dropout", "a ratio", "b"),
            node("Dropout", "b ratio training", "c unread"),
            node("Relu", "c", "y"),
            ratio=np.float32(0.5),
            training=np.array(False),
        )
        assert [(n.op_type, list(n.input)) for n in network.nodes] == [("Relu", ["x"])]

    def test_dropout_stays_while_training_or_while_its_mask_is_read(self) -> None:
        training = self.simplified(
            node("Dropout", "x ratio training", "a"),
            node("Relu", "a", "y"),
            ratio=np.float32(0.5),
            training=np.array(True),
        )
        assert operators(training) == ["Dropout", "Relu"]
        mask = self.simplified(
            node("Dropout", "x", "a mask"),
            node("Relu", "a", "y"),
            outputs={"y": ("float32", None), "mask": ("bool", None)},
        )
        assert operators(mask) == ["Dropout", "Relu"]

    def test_a_cast_to_its_own_type_goes(self) -> None:
        network = self.simplified(
            node("Cast", "x", "a", to=TensorProto.FLOAT),
            node("Cast", "a", "b", to=TensorProto.FLOAT16),
            node("Cast", "b", "y", to=TensorProto.FLOAT),
        )
        assert [(n.op_type, list(n.input)) for n in network.nodes] == [
            ("Cast", ["x"]),
            ("Cast", ["b"]),
        ]

    def test_subgraphs_read_the_source_too(self) -> None:
        branch = helper.make_graph(
            [node("Neg", "a", "n")],
            "branch",
            [],
            [helper.make_tensor_value_info("n", TensorProto.FLOAT, None)],
        )
        network = make_network(
            [
                node("Identity", "x", "a"),
                node("If", "c", "y", then_branch=branch, else_branch=branch),
            ],
            {"x": (2, 3), "c": ("bool", ())},
            "y",
        )
        remove_no_ops(network)
        (choice,) = network.nodes
        assert [g.node[0].input[0] for g in attributes(choice).values()] == ["x", "x"]


class TestDropEmptyOperands:
    def test_of_resize(self) -> None:
        network = make_network(
            [node("Resize", "x roi scales sizes", "y")],
            {"x": (1, 1, 2, 2)},
            "y",
            {
                "roi": np.zeros(0, np.float32),
                "scales": np.zeros(0, np.float32),
                "sizes": np.array([1, 1, 4, 4]),
            },
        )
        drop_empty_operands(network)
        assert list(network.nodes[0].input) == ["x", "", "", "sizes"]

    def test_of_nothing_else(self) -> None:
        network = make_network(
            [node("Concat", "x e", "y", axis=0)], X, "y", {"e": np.zeros((0, 3), np.float32)}
        )
        drop_empty_operands(network)
        assert list(network.nodes[0].input) == ["x", "e"]


class TestRemoveDeadNodes:
    def test_with_their_weights(self) -> None:
        network = make_network(
            [
                node("Add", "x w", "a"),
                node("Neg", "a", "b"),
                node("Mul", "x k", "y"),
            ],
            X,
            "y",
            {"w": np.float32(1), "k": np.float32(2)},
        )
        remove_dead_nodes(network)
        assert operators(network) == ["Mul"]
        assert set(network.weights) == {"k"}

    def test_but_not_those_of_which_one_output_is_read(self) -> None:
        network = make_network([node("TopK", "x k", "v i")], X, "v", {"k": np.array([2])})
        remove_dead_nodes(network)
        assert operators(network) == ["TopK"]

    def test_nor_what_only_a_subgraph_reads(self) -> None:
        branch = helper.make_graph(
            [node("Neg", "a", "n")],
            "branch",
            [],
            [helper.make_tensor_value_info("n", TensorProto.FLOAT, None)],
        )
        network = make_network(
            [node("Relu", "x", "a"), node("If", "c", "y", then_branch=branch, else_branch=branch)],
            {"x": (2, 3), "c": ("bool", ())},
            "y",
        )
        remove_dead_nodes(network)
        assert operators(network) == ["Relu", "If"]


def test_all_passes_leave_what_depends_on_the_input_alone() -> None:
    network = make_network(
        [
            node("Dropout", "x", "a"),
            node("Shape", "a", "s"),
            node("Identity", "a", "b"),
            node("Reshape", "b s", "c"),
            node("ReduceMean", "c", "d", axes=[1], keepdims=1),
            node("Neg", "x", "unread"),
            node("Identity", "d", "y"),
        ],
        X,
        "y",
        opset=11,
    )
    normalise(network)
    assert operators(network) == ["Reshape", "ReduceMean", "Identity"]
    assert network.types["y"].shape == (2, 1)
