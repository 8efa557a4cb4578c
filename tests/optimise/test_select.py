"""Layouts, fusion and kernels: what becomes of small graphs, and that they compute the same."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray

from tests.onnx_models import make_model, node, run_as_wasm
from tests.optimise.relax_modules import imported
from wasmgraph.kernels.contraction import Contraction
from wasmgraph.kernels.depthwise import Depthwise
from wasmgraph.kernels.thin import ThinContraction
from wasmgraph.kernels.winograd import Winograd
from wasmgraph.optimise import Options, optimise
from wasmgraph.optimise.program import Program, TirKernel

RNG = np.random.default_rng(7)
Nodes = Sequence[onnx.NodeProto]


def weight(*shape: int) -> NDArray[np.float32]:
    return (RNG.standard_normal(shape) / np.sqrt(np.prod(shape[1:]) or 1)).astype(np.float32)


def program(
    nodes: Nodes, shape: Sequence[int], weights: dict[str, Any], *, winograd: bool = True
) -> Program:
    model = imported(nodes, {"x": shape}, "y", weights)
    return optimise(model, options=Options(winograd=winograd))


def descriptions(result: Program) -> list[str]:
    return [call.description for call in result.calls]


def kernels(result: Program) -> list[type]:
    return [type(call.kernel) for call in result.calls]


def agrees_with_onnxruntime(
    nodes: Nodes, shape: Sequence[int], weights: dict[str, Any], outputs: str = "y"
) -> None:
    onnxruntime = pytest.importorskip("onnxruntime", reason="the reference is onnxruntime")
    model = make_model(nodes, {"x": shape}, outputs, weights)
    x = np.random.default_rng(1).standard_normal(shape).astype(np.float32)
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    expected = session.run(outputs.split(), {"x": x})
    found = run_as_wasm(model, {"x": x})
    for name, value in zip(outputs.split(), expected, strict=True):
        # Sums of a few hundred products of order 1 in another order.
        np.testing.assert_allclose(found[name], value, rtol=1e-4, atol=1e-4)


class TestFusion:
    def test_bias_residual_and_activation_join_the_convolution(self) -> None:
        nodes = [
            node("Conv", "x w b", "c"),
            node("Add", "c x", "s"),
            node("Relu", "s", "y"),
        ]
        weights = {"w": weight(8, 8, 1, 1), "b": weight(8)}
        result = program(nodes, (1, 8, 5, 5), weights)
        assert "conv2d + bias + add + relu" in descriptions(result)
        agrees_with_onnxruntime(nodes, (1, 8, 5, 5), weights)

    @pytest.mark.parametrize("mode", ["SAME_UPPER", "SAME_LOWER"])
    @pytest.mark.parametrize(("taps", "stride"), [(3, 1), (2, 1), (4, 3), (1, 2)])
    def test_named_padding_is_part_of_the_convolution(
        self, mode: str, taps: int, stride: int
    ) -> None:
        nodes = [node("Conv", "x w", "y", auto_pad=mode, strides=[stride, stride])]
        weights = {"w": weight(8, 3, taps, taps)}
        result = program(nodes, (1, 3, 9, 8), weights)
        assert not any(isinstance(call.kernel, TirKernel) for call in result.calls)
        agrees_with_onnxruntime(nodes, (1, 3, 9, 8), weights)

    def test_padding_with_a_constant_keeps_the_layout(self) -> None:
        nodes = [
            node("Conv", "x w", "c"),
            node("Pad", "c widths value", "p"),
            node("Conv", "p w", "y"),
        ]
        weights = {
            "w": weight(8, 8, 3, 3),
            "widths": np.array([0, 0, 1, 2, 0, 0, 0, 3]),
            "value": np.float32(-1.5),
        }
        result = program(nodes, (1, 8, 6, 6), weights)
        assert not any(isinstance(call.kernel, TirKernel) for call in result.calls)
        assert descriptions(result).count("copy") == 2
        agrees_with_onnxruntime(nodes, (1, 8, 6, 6), weights)

    @pytest.mark.parametrize("slopes", [(8, 1, 1), (1,), (1, 8, 1, 1), (1, 5, 1), (5,)])
    def test_prelu_joins_the_convolution(self, slopes: tuple[int, ...]) -> None:
        nodes = [node("Conv", "x w b", "c"), node("PRelu", "c s", "y")]
        weights = {"w": weight(8, 8, 1, 1), "b": weight(8), "s": abs(weight(1, *slopes)[0])}
        result = program(nodes, (1, 8, 5, 5), weights)
        assert not any(isinstance(call.kernel, TirKernel) for call in result.calls)
        if slopes[0] == 8:
            assert "conv2d + bias + prelu" in descriptions(result)
        agrees_with_onnxruntime(nodes, (1, 8, 5, 5), weights)

    def test_a_value_read_twice_ends_the_group_unless_its_readers_meet_again(self) -> None:
        silu = [
            node("Relu", "x", "a"),
            node("Sigmoid", "a", "s"),
            node("Mul", "a s", "y"),
        ]
        assert descriptions(program(silu, (1, 8), {})) == ["relu + sigmoid + multiply"]
        apart = [
            node("Relu", "x", "a"),
            node("Sigmoid", "a", "s"),
            node("Softmax", "a", "t"),
            node("Mul", "s t", "y"),
        ]
        assert descriptions(program(apart, (1, 8), {}))[0] == "relu"
        agrees_with_onnxruntime(apart, (2, 8), {})

    def test_every_call_names_its_nodes_also_the_copy_into_the_hosts_order(self) -> None:
        nodes = [node("Conv", "x w", "c", name="conv"), node("Relu", "c", "y", name="relu")]
        result = program(nodes, (1, 4, 6, 6), {"w": weight(4, 4, 1, 1)})
        assert result.calls[-1].description == "copy"
        assert result.calls[-1].nodes == ("relu",)
        assert all(call.nodes for call in result.calls)

    def test_a_graph_output_in_the_middle_is_written(self) -> None:
        nodes = [node("Conv", "x w", "c"), node("Relu", "c", "y")]
        agrees_with_onnxruntime(nodes, (1, 4, 6, 6), {"w": weight(4, 4, 1, 1)}, outputs="c y")

    def test_operands_that_rows_cannot_address_are_applied_afterwards(self) -> None:
        """A factor per image and row of pixels is not evenly spaced over rows of the product."""
        nodes = [node("Conv", "x w", "c"), node("Mul", "c f", "y")]
        weights = {"w": weight(8, 8, 1, 1), "f": weight(2, 1, 5, 1)}
        agrees_with_onnxruntime(nodes, (2, 8, 5, 5), weights)


class TestConvolutions:
    @pytest.mark.parametrize(
        ("attributes", "channels", "filters"),
        [
            ({"pads": [1, 1, 1, 1]}, 8, (16, 8, 3, 3)),
            ({"pads": [0, 1, 2, 0], "strides": [2, 1]}, 8, (12, 8, 3, 3)),
            ({"dilations": [2, 3]}, 4, (6, 4, 3, 2)),
            ({"group": 2, "pads": [1, 1, 1, 1]}, 8, (12, 4, 3, 3)),
            ({"group": 8, "pads": [1, 1, 1, 1], "strides": [2, 2]}, 8, (8, 1, 3, 3)),
            ({"group": 8}, 8, (16, 1, 3, 3)),
            ({}, 3, (5, 3, 1, 1)),
            ({"pads": [2, 2, 2, 2]}, 8, (1, 8, 5, 5)),
            ({"auto_pad": "SAME_UPPER", "strides": [2, 2]}, 8, (8, 8, 3, 3)),
        ],
    )
    @pytest.mark.parametrize("batch", [1, 2])
    def test_agrees(
        self, attributes: dict[str, Any], channels: int, filters: tuple[int, ...], batch: int
    ) -> None:
        nodes = [node("Conv", "x w b", "c", **attributes), node("LeakyRelu", "c", "y", alpha=0.1)]
        weights = {"w": weight(*filters), "b": weight(filters[0])}
        agrees_with_onnxruntime(nodes, (batch, channels, 13, 18), weights)

    @pytest.mark.parametrize(
        ("shape", "filters", "kernel"),
        [
            ((1, 8, 16, 16), (16, 8, 3, 3), Winograd),
            ((1, 8, 6, 6), (16, 8, 3, 3), Contraction),  # too few tiles
            ((1, 8, 16, 16), (20, 8, 3, 3), Contraction),  # unequal blocks of columns
            ((1, 8, 16, 16), (1, 8, 3, 3), ThinContraction),
        ],
    )
    def test_the_kernel_follows_from_the_shape(
        self, shape: tuple[int, ...], filters: tuple[int, ...], kernel: type
    ) -> None:
        nodes = [node("Conv", "x w", "y")]
        assert kernel in kernels(program(nodes, shape, {"w": weight(*filters)}))

    def test_winograd_can_be_turned_off(self) -> None:
        nodes = [node("Conv", "x w", "y")]
        result = program(nodes, (1, 8, 16, 16), {"w": weight(16, 8, 3, 3)}, winograd=False)
        assert Winograd not in kernels(result)

    def test_one_filter_per_channel_is_depthwise(self) -> None:
        nodes = [node("Conv", "x w", "y", group=8)]
        assert Depthwise in kernels(program(nodes, (1, 8, 9, 9), {"w": weight(8, 1, 3, 3)}))

    @pytest.mark.parametrize(
        ("shape", "filters"), [((1, 4, 20), (6, 4, 3)), ((1, 4, 6, 7, 8), (6, 4, 3, 3, 3))]
    )
    def test_one_and_three_dimensions(
        self, shape: tuple[int, ...], filters: tuple[int, ...]
    ) -> None:
        rank = len(shape) - 2
        nodes = [node("Conv", "x w", "y", pads=[1] * 2 * rank)]
        agrees_with_onnxruntime(nodes, shape, {"w": weight(*filters)})

    @pytest.mark.parametrize("kernel", [2, 3])
    def test_transposed(self, kernel: int) -> None:
        nodes = [
            node("ConvTranspose", "x w b", "t", strides=[2, 2]),
            node("Relu", "t", "y"),
        ]
        weights = {"w": weight(6, 4, kernel, kernel), "b": weight(4)}
        agrees_with_onnxruntime(nodes, (1, 6, 5, 7), weights)


class TestProducts:
    def test_attention_moves_only_the_keys(self) -> None:
        """softmax(Q K^T) V by heads: only K's transpose needs its elements moved."""
        heads = [
            node("MatMul", "x wq", "q0"),
            node("Reshape", "q0 split", "q1"),
            node("Transpose", "q1", "q", perm=[0, 2, 1, 3]),
            node("MatMul", "x wk", "k0"),
            node("Reshape", "k0 split", "k1"),
            node("Transpose", "k1", "k", perm=[0, 2, 3, 1]),
            node("MatMul", "x wv", "v0"),
            node("Reshape", "v0 split", "v1"),
            node("Transpose", "v1", "v", perm=[0, 2, 1, 3]),
            node("MatMul", "q k", "s"),
            node("Softmax", "s", "p"),
            node("MatMul", "p v", "o"),
            node("Transpose", "o", "o1", perm=[0, 2, 1, 3]),
            node("Reshape", "o1 join", "y"),
        ]
        weights = {name: weight(16, 16) for name in ("wq", "wk", "wv")}
        weights["split"] = np.array([1, 6, 4, 4])
        weights["join"] = np.array([1, 6, 16])
        result = program(heads, (1, 6, 16), weights)
        assert descriptions(result).count("copy") == 1
        agrees_with_onnxruntime(heads, (1, 6, 16), weights)

    @pytest.mark.parametrize(
        ("shape", "other"),
        [
            ((5, 7), (7, 9)),
            ((2, 3, 5, 7), (7, 9)),
            ((2, 3, 5, 7), (3, 7, 9)),
            ((1, 1, 5, 7), (2, 3, 7, 9)),
            ((5, 7), (2, 7, 1)),
        ],
    )
    def test_broadcast_batches(self, shape: tuple[int, ...], other: tuple[int, ...]) -> None:
        nodes = [node("MatMul", "x w", "m"), node("Relu", "m", "y")]
        agrees_with_onnxruntime(nodes, shape, {"w": weight(*other)})

    def test_both_operands_computed(self) -> None:
        nodes = [
            node("Transpose", "x", "t", perm=[0, 2, 1]),
            node("MatMul", "x t", "y"),
        ]
        agrees_with_onnxruntime(nodes, (2, 5, 7), {})

    def test_gemm_with_transposed_weights_and_bias(self) -> None:
        nodes = [node("Gemm", "x w b", "y", transB=1)]
        weights = {"w": weight(9, 12), "b": weight(9)}
        assert descriptions(program(nodes, (1, 12), weights)) == ["matmul + bias"]
        agrees_with_onnxruntime(nodes, (3, 12), weights)


class TestLayouts:
    def test_a_chain_of_images_is_rearranged_once(self) -> None:
        """NCHW comes in and goes out; between them everything is channel-last."""
        nodes = [
            node("Conv", "x w1", "a", pads=[1, 1, 1, 1]),
            node("MaxPool", "a", "p", kernel_shape=[2, 2], strides=[2, 2]),
            node("Conv", "p w2", "b"),
            node("Concat", "b p", "c", axis=1),
            node("Conv", "c w3", "d"),
            node("GlobalAveragePool", "d", "y"),
        ]
        weights = {"w1": weight(8, 3, 3, 3), "w2": weight(8, 8, 1, 1), "w3": weight(4, 16, 1, 1)}
        result = program(nodes, (1, 3, 12, 12), weights)
        # One for the input, one for what the second convolution reads, too.
        assert descriptions(result).count("copy") == 2
        assert not any(isinstance(call.kernel, TirKernel) for call in result.calls)
        agrees_with_onnxruntime(nodes, (1, 3, 12, 12), weights)

    def test_a_channel_shuffle_moves_once(self) -> None:
        nodes = [
            node("Conv", "x w", "a"),
            node("Reshape", "a apart", "b"),
            node("Transpose", "b", "c", perm=[0, 2, 1, 3, 4]),
            node("Reshape", "c joined", "d"),
            node("Conv", "d w", "y"),
        ]
        weights = {
            "w": weight(8, 8, 1, 1),
            "apart": np.array([1, 2, 4, 5, 5]),
            "joined": np.array([1, 8, 5, 5]),
        }
        agrees_with_onnxruntime(nodes, (1, 8, 5, 5), weights)

    @pytest.mark.parametrize("axis", [0, 1, 2, 3])
    def test_concat_split_and_softmax_along_any_axis(self, axis: int) -> None:
        nodes = [
            node("Conv", "x w", "a"),
            node("Concat", "a a", "b", axis=axis),
            node("Split", "b", "c d", axis=axis, num_outputs=2),
            node("Sub", "c x", "e"),
            node("Softmax", "e", "f", axis=axis),
            node("Add", "f d", "y"),
        ]
        agrees_with_onnxruntime(nodes, (2, 4, 5, 6), {"w": weight(4, 4, 1, 1)})

    @pytest.mark.parametrize("axes", [[1], [2], [2, 3], [1, 3], [0, 2], [0, 1, 2, 3]])
    @pytest.mark.parametrize("keepdims", [0, 1])
    def test_reductions_over_any_axes(self, axes: list[int], keepdims: int) -> None:
        nodes = [
            node("Conv", "x w", "a"),
            node("ReduceMean", "a axes", "m", keepdims=keepdims),
            node("ReduceMax", "x axes", "n", keepdims=keepdims),
            node("Add", "m n", "y"),
        ]
        weights = {"w": weight(4, 4, 1, 1), "axes": np.array(axes)}
        agrees_with_onnxruntime(nodes, (2, 4, 5, 6), weights)

    def test_layer_normalisation_after_a_transpose(self) -> None:
        nodes = [
            node("Transpose", "x", "t", perm=[0, 2, 1]),
            node("LayerNormalization", "t s b", "y", axis=-1),
        ]
        weights = {"s": weight(6), "b": weight(6)}
        agrees_with_onnxruntime(nodes, (2, 6, 5), weights)

    @pytest.mark.parametrize("mode", ["nearest", "linear"])
    def test_resize_between_convolutions(self, mode: str) -> None:
        nodes = [
            node("Conv", "x w", "a"),
            node("Resize", "a  scales".replace("  ", " roi "), "b", mode=mode),
            node("Conv", "b w", "y"),
        ]
        weights = {
            "w": weight(4, 4, 1, 1),
            "roi": np.zeros(0, np.float32),
            "scales": np.array([1, 1, 2, 2], np.float32),
        }
        agrees_with_onnxruntime(nodes, (1, 4, 5, 6), weights)
