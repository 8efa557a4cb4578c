"""Programs: what is freed when, what cannot be compiled, and the way through JSON."""

from __future__ import annotations

import json
from dataclasses import asdict, replace

import numpy as np
import onnx
import pytest
from onnx import parser

from tests.onnx_models import make_model, node
from wasmgraph.bundle import Bundle, dump_graph, load_graph
from wasmgraph.compiler import make_bundle
from wasmgraph.dynamic.liveness import with_liveness
from wasmgraph.dynamic.program import Body, DynamicProgram, Node, all_nodes, program_from_json
from wasmgraph.errors import InputError, ModelError, UnsupportedModelError
from wasmgraph.link.consistency import check_description
from wasmgraph.optimise import Options

LOOP = """
<ir_version: 8, opset_import: ["": 18]>
g (int64 n, float[N] x, float[N] step) => (float[N] last, float[M, N] all) {
    yes = Constant <value = bool {1}> ()
    last, all = Loop (n, yes, x) <body = b (int64 i, bool c, float[N] state)
        => (bool c2, float[N] next, float[N] seen) {
        c2 = Identity (c)
        next = Add (state, step)
        seen = Mul (next, next)
    }>
}
"""


def bundle_of(model: onnx.ModelProto) -> Bundle:
    return make_bundle(model, options=Options(by_sample=False))


def program_of(model: onnx.ModelProto) -> DynamicProgram:
    program = bundle_of(model).graph.dynamic
    assert program is not None
    return program


def call(outputs: tuple[int, ...], inputs: tuple[int, ...], *bodies: Body) -> Node:
    return Node("wgd_x", (), inputs, outputs, (), bodies, "x")


def test_a_slot_is_freed_after_its_last_reader() -> None:
    body = Body((call((1,), (0,)), call((2,), (0, 1)), call((3,), (2,))), (0,), (3,))
    freed = [node.freed for node in with_liveness(body, frozenset()).nodes]
    assert freed == [(), (0, 1), (2,)]


def test_constants_and_outputs_are_not_freed() -> None:
    body = Body((call((1,), (0, 9)), call((2,), (1, 9))), (0,), (1, 2))
    assert [node.freed for node in with_liveness(body, frozenset({9})).nodes] == [(0,), ()]


def test_a_node_nobody_reads_goes() -> None:
    body = Body((call((1,), (0,)), call((2,), (0,))), (0,), (1,))
    kept = with_liveness(body, frozenset())
    assert [node.outputs for node in kept.nodes] == [(1,)]


def test_an_output_nobody_reads_is_no_slot() -> None:
    body = Body((call((1, 2), (0,)),), (0,), (2,))
    assert with_liveness(body, frozenset()).nodes[0].outputs == (None, 2)


def test_what_a_body_reads_from_outside_lives_until_the_loop_is_done() -> None:
    inner = Body((call((5,), (1, 4)), call((6,), (5,))), (4,), (6,))
    nodes = (call((1,), (0,)), call((2,), (0,), inner))
    outer = with_liveness(Body(nodes, (0,), (2,)), frozenset())
    loop = outer.nodes[1]
    assert loop.freed == (0, 1)
    assert [node.freed for node in loop.bodies[0].nodes] == [(4,), (5,)]


def test_a_program_comes_back_from_json() -> None:
    bundle = bundle_of(parser.parse_model(LOOP))
    assert load_graph(dump_graph(bundle.graph), "graph.json") == bundle.graph


@pytest.mark.parametrize(
    ("key", "value"), [("inputs", [99]), ("outputs", [-1]), ("words", [2**31]), ("freed", ["x"])]
)
def test_a_program_that_names_what_is_not_there_is_refused(key: str, value: object) -> None:
    data = json.loads(json.dumps(asdict(program_of(parser.parse_model(LOOP)))))
    data["body"]["nodes"][0][key] = value
    with pytest.raises(ValueError, match=r"no slot|32-bit"):
        program_from_json(data)


def test_a_description_without_all_constants_is_refused() -> None:
    graph = bundle_of(parser.parse_model(LOOP)).graph
    assert graph.dynamic is not None
    check_description(graph)
    wrong = replace(graph.dynamic, constants=graph.dynamic.constants[:-1])
    with pytest.raises(ModelError, match="constants"):
        check_description(replace(graph, dynamic=wrong))


def test_an_operator_is_a_symbol_of_the_executor_s() -> None:
    graph = bundle_of(parser.parse_model(LOOP)).graph
    assert graph.dynamic is not None
    nodes = tuple(replace(node, operator="system") for node in graph.dynamic.body.nodes)
    wrong = replace(graph.dynamic, body=replace(graph.dynamic.body, nodes=nodes))
    with pytest.raises(ModelError, match="no operator"):
        check_description(replace(graph, dynamic=wrong))


def test_a_model_of_fixed_shapes_is_not_dynamic() -> None:
    model = make_model([node("Relu", "x", "y")], {"x": [2, 3]}, "y")
    assert bundle_of(model).graph.dynamic is None


def test_open_axes_make_a_graph_dynamic_and_keep_their_names() -> None:
    model = make_model([node("Relu", "x", "y")], {"x": ["rows", 3]}, "y")
    graph = bundle_of(model).graph
    assert graph.dynamic is not None
    assert graph.inputs[0].shape == graph.outputs[0].shape == ("rows", 3)


def test_an_axis_without_a_name_is_called_after_its_input() -> None:
    model = make_model([node("Relu", "x", "y")], {"x": [None, 3]}, "y")
    assert bundle_of(model).graph.inputs[0].shape == ("x:0", 3)


def test_fixed_axes_can_be_opened() -> None:
    model = make_model([node("Relu", "x", "y")], {"x": [2, 3]}, "y")
    graph = make_bundle(model, dynamic=["x"]).graph
    assert graph.inputs[0].shape == ("x:0", "x:1")
    with pytest.raises(InputError, match="neither an axis nor an input 'z'"):
        make_bundle(model, dynamic=["z"])


def test_control_flow_makes_a_graph_dynamic_and_frees_what_it_carries() -> None:
    program = program_of(parser.parse_model(LOOP))
    [loop] = program.body.nodes
    assert loop.operator == "wgd_loop"
    assert [node.operator for node in loop.bodies[0].nodes][-2:] == ["wgd_fast_chain"] * 2
    assert len(list(all_nodes(program.body))) == 1 + len(loop.bodies[0].nodes)


def test_all_nodes_that_cannot_be_dynamic_are_listed_at_once() -> None:
    nodes = [
        node("GridSample", "x g", "a", name="first"),
        node("Relu", "a", "b"),
        node("MaxUnpool", "x i", "c", name="second", kernel_shape=[2, 2]),
    ]
    inputs = {"x": ["N", 1, 4, 4], "g": ["N", 4, 4, 2], "i": ("int64", ["N", 1, 4, 4])}
    with pytest.raises(UnsupportedModelError) as caught:
        bundle_of(make_model(nodes, inputs, "b c"))
    assert [item.node for item in caught.value.obstacles] == ["first", "second"]


def test_equal_constants_are_one() -> None:
    weights = {"a": np.ones(3, np.float32), "b": np.ones(3, np.float32)}
    nodes = [node("Add", "x a", "t"), node("Mul", "t b", "y")]
    graph = bundle_of(make_model(nodes, {"x": ["N", 3]}, "y", weights)).graph
    assert len(graph.constants) == 1


def test_an_output_that_is_a_sequence_is_refused() -> None:
    text = """
    <ir_version: 8, opset_import: ["": 18]>
    g (float[N] x) => (seq(float[N]) parts) { parts = SequenceConstruct (x, x) }
    """
    with pytest.raises(UnsupportedModelError, match="parts: this output is not a tensor"):
        bundle_of(parser.parse_model(text))
