"""FLOPs of models whose work can be counted on fingers."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from wasmgraph.errors import ModelError
from wasmgraph.measure.flops import count_flops


def model(
    nodes: list[onnx.NodeProto],
    inputs: dict[str, list[int | str]],
    weights: dict[str, np.ndarray] | None = None,
) -> onnx.ModelProto:
    """A float32 model; its output is the last node's."""

    def value(name: str, shape: list[int | str] | None) -> onnx.ValueInfoProto:
        return helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, shape)

    graph = helper.make_graph(
        nodes,
        "tiny",
        [value(name, shape) for name, shape in inputs.items()],
        [value(nodes[-1].output[0], None)],
        [numpy_helper.from_array(array, name) for name, array in (weights or {}).items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])


def conv(weight: tuple[int, ...], **attributes: object) -> onnx.ModelProto:
    """A convolution of a 1x4x8x8 input."""
    node = helper.make_node("Conv", ["x", "w"], ["y"], **attributes)
    return model([node], {"x": [1, 4, 8, 8]}, {"w": np.zeros(weight, np.float32)})


def test_a_convolution_multiplies_and_adds_each_weight_for_each_output_pixel() -> None:
    out_pixels, weights = 6 * 6, 16 * 4 * 3 * 3
    assert count_flops(conv((16, 4, 3, 3))) == 2 * out_pixels * weights


def test_stride_and_padding_count_through_the_output_shape() -> None:
    strided = conv((16, 4, 3, 3), strides=[2, 2], pads=[1, 1, 1, 1])
    assert count_flops(strided) == 2 * (4 * 4) * (16 * 4 * 3 * 3)


def test_a_depthwise_convolution_has_one_input_channel_per_output() -> None:
    assert count_flops(conv((4, 1, 3, 3), group=4)) == 2 * (6 * 6) * (4 * 3 * 3)


def test_a_transposed_convolution_counts_each_weight_for_each_input_pixel() -> None:
    node = helper.make_node("ConvTranspose", ["x", "w"], ["y"], strides=[2, 2])
    weights = {"w": np.zeros((4, 6, 2, 2), np.float32)}
    assert count_flops(model([node], {"x": [1, 4, 8, 8]}, weights)) == 2 * (8 * 8) * (4 * 6 * 2 * 2)


def test_a_matrix_product_with_batches() -> None:
    node = helper.make_node("MatMul", ["a", "b"], ["y"])
    assert count_flops(model([node], {"a": [3, 5, 7], "b": [3, 7, 11]})) == 2 * 3 * 5 * 7 * 11


@pytest.mark.parametrize(("transposed", "shape"), [(0, [5, 7]), (1, [7, 5])])
def test_gemm_either_way_round(transposed: int, shape: list[int | str]) -> None:
    node = helper.make_node("Gemm", ["a", "w"], ["y"], transA=transposed)
    weights = {"w": np.zeros((7, 11), np.float32)}
    assert count_flops(model([node], {"a": shape}, weights)) == 2 * 5 * 7 * 11


@pytest.mark.parametrize(("op", "gates"), [("LSTM", 4), ("GRU", 3), ("RNN", 1)])
def test_a_recurrent_layer_meets_all_its_weights_in_every_step(op: str, gates: int) -> None:
    """Also where its first output is left out."""
    nodes = [helper.make_node(op, ["x", "w", "r"], ["", "y"], direction="bidirectional")]
    weights = {
        "w": np.zeros((2, gates * 5, 3), np.float32),
        "r": np.zeros((2, gates * 5, 5), np.float32),
    }
    layer = model(nodes, {"x": [7, 4, 3]}, weights)
    del layer.graph.output[:]
    layer.graph.output.append(helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, None))
    assert count_flops(layer) == 2 * (7 * 4) * (2 * gates * 5) * (3 + 5)


def test_nodes_add_up_and_elementwise_ones_count_nothing() -> None:
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["h"]),
        helper.make_node("Relu", ["h"], ["r"]),
        helper.make_node("MatMul", ["r", "w"], ["y"]),
    ]
    weights = {"w": np.zeros((3, 3), np.float32)}
    assert count_flops(model(nodes, {"x": [2, 3]}, weights)) == 2 * (2 * 2 * 3 * 3)


def test_an_open_axis_takes_its_extent_from_the_shapes_given() -> None:
    node = helper.make_node("MatMul", ["x", "w"], ["y"])
    dynamic = model([node], {"x": ["batch", 3]}, {"w": np.zeros((3, 5), np.float32)})
    assert count_flops(dynamic) is None
    assert count_flops(dynamic, {"x": (4, 3)}) == 2 * 4 * 3 * 5


def test_the_model_is_left_as_it_was() -> None:
    node = helper.make_node("MatMul", ["x", "w"], ["y"])
    dynamic = model([node], {"x": ["batch", 3]}, {"w": np.zeros((3, 5), np.float32)})
    before = dynamic.SerializeToString(deterministic=True)
    count_flops(dynamic, {"x": (4, 3)})
    assert dynamic.SerializeToString(deterministic=True) == before


def test_work_that_is_not_counted_means_no_count() -> None:
    nodes = [
        helper.make_node("Einsum", ["x", "x"], ["e"], equation="ij,kj->ik"),
        helper.make_node("MatMul", ["e", "x"], ["y"]),
    ]
    assert count_flops(model(nodes, {"x": [3, 3]})) is None


def test_a_shape_of_another_rank_is_an_error_that_names_the_input() -> None:
    with pytest.raises(ModelError, match="'x'"):
        count_flops(conv((4, 4, 1, 1)), {"x": (4, 8, 8)})
