"""Nodes with attributes or constant operands that they cannot have: each refused by its name.

Every node here is called "wrong", so that its name is looked for in the message.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto

from tests.onnx_models import make_model, node
from tests.refusals import Refusal
from wasmgraph.errors import ModelError, UnsupportedModelError

X = {"x": (2, 3)}
IMAGE = {"x": (1, 4, 8, 8)}
FAR = 2**40
"""More than a 32-bit memory has, and less than 64 bits hold."""

KERNEL = {"w": np.ones((4, 4, 3, 3), np.float32)}


def one(
    op: str,
    inputs: Mapping[str, tuple[int, ...]] = X,
    operands: Mapping[str, Any] | None = None,
    *,
    outputs: str = "y",
    **attributes: Any,
) -> onnx.ModelProto:
    """A model of one node, named "wrong"; the inputs, then the operands in their order."""
    operands = operands or {}
    wrong = node(op, [*inputs, *operands], outputs, name="wrong", **attributes)
    return make_model([wrong], inputs, outputs, operands)


def windows(**attributes: Any) -> list[onnx.ModelProto]:
    """The operators that slide over an image, with the same wrong attributes."""
    shape = {} if "kernel_shape" in attributes else {"kernel_shape": [3, 3]}
    return [
        one("MaxPool", IMAGE, **shape, **attributes),
        one("AveragePool", IMAGE, **shape, **attributes),
        one("LpPool", IMAGE, **shape, **attributes),
        one("Conv", IMAGE, KERNEL, **attributes),
        one("ConvTranspose", IMAGE, KERNEL, **attributes),
    ]


class TestWindows:
    @pytest.mark.parametrize(
        ("attributes", "text"),
        [
            ({"kernel_shape": [0, 0]}, "positive"),
            ({"kernel_shape": [-3, -3]}, "positive"),
            ({"kernel_shape": [3]}, "size"),
            ({"strides": [0, 0]}, "positive"),
            ({"strides": [-1, 1]}, "positive"),
            ({"strides": [1, 1, 1]}, "size"),
            ({"strides": "ab"}, "type"),
            ({"strides": [1.5, 2.0]}, "type"),
            ({"dilations": [0, 1]}, "positive"),
            ({"pads": [1, 1, 1]}, "size"),
        ],
    )
    def test_attributes_that_cannot_be(
        self, refuse: Refusal, attributes: dict[str, Any], text: str
    ) -> None:
        models = windows(**attributes)
        if "dilations" in attributes:
            del models[1]  # AveragePool has none in this opset
        for model in models:
            refuse(model, ModelError, next(iter(attributes)), text)

    @pytest.mark.parametrize("extent", [2**31, 2**62])
    def test_enormous_windows(self, refuse: Refusal, extent: int) -> None:
        for op in ("MaxPool", "AveragePool", "LpPool"):
            refuse(one(op, IMAGE, kernel_shape=[extent] * 2), ModelError, "wrong", "too small")
        for op in ("Conv", "ConvTranspose"):
            model = one(op, IMAGE, KERNEL, kernel_shape=[extent] * 2)
            refuse(model, ModelError, "wrong", "kernel_shape", str(extent))

    def test_enormous_strides(self, refuse: Refusal) -> None:
        for model in windows(strides=[FAR, FAR])[:4]:
            refuse(model, UnsupportedModelError, "wrong", f"strides {FAR}", "32 bits")

    def test_enormous_padding(self, refuse: Refusal) -> None:
        for model in windows(pads=[FAR] * 4)[:4]:
            refuse(model, UnsupportedModelError, "wrong", "32-bit memory")

    def test_unknown_automatic_padding(self, refuse: Refusal) -> None:
        for model in windows(auto_pad="ROUND"):
            refuse(model, ModelError, "wrong", "auto_pad", "'ROUND'")

    @pytest.mark.parametrize("op", ["Conv", "ConvTranspose"])
    @pytest.mark.parametrize("group", [0, -1, 3, FAR, 2**63 - 1])
    def test_groups_that_do_not_divide(self, refuse: Refusal, op: str, group: int) -> None:
        refuse(one(op, IMAGE, KERNEL, group=group), ModelError, "wrong", "group", str(group))

    @pytest.mark.parametrize("op", ["Conv", "ConvTranspose"])
    def test_weights_and_bias_that_do_not_fit(self, refuse: Refusal, op: str) -> None:
        ones = np.ones
        few = {"w": ones((3, 3, 3, 3), np.float32)}
        refuse(one(op, IMAGE, few), ModelError, "wrong", "channels", "[3, 3, 3, 3]")
        flat = {"w": ones((4, 4), np.float32)}
        refuse(one(op, IMAGE, flat), ModelError, "wrong")
        for shape in ((7,), (4, 1), ()):
            bias = {**KERNEL, "b": ones(shape, np.float32)}
            refuse(one(op, IMAGE, bias), ModelError, "wrong", "bias", "[4]")

    def test_a_quantised_convolution_s_groups(self, refuse: Refusal) -> None:
        scale = {"s": np.float32(0.1), "z": np.uint8(0)}
        weight = np.ones((4, 4, 3, 3), np.int8)
        nodes = [
            node("QuantizeLinear", "x s z", "q"),
            node("DequantizeLinear", "q s z", "d"),
            node("DequantizeLinear", "w s", "v"),
            node("Conv", "d v", "y", name="wrong", group=2),
        ]
        model = make_model(nodes, IMAGE, "y", {**scale, "w": weight})
        refuse(model, ModelError, "wrong", "2 groups")


class TestAxes:
    @pytest.mark.parametrize("axis", [7, -9, 2**31, FAR, -(2**63)])
    def test_outside_the_input(self, refuse: Refusal, axis: int) -> None:
        # ONNX and TVM cut the large ones to 32 bits: 2^40 would be the first axis.
        for op in ("Softmax", "ArgMax", "Concat", "Flatten", "LpNormalization"):
            refuse(one(op, axis=axis), ModelError, "wrong")
        refuse(one("Gather", X, {"i": [0]}, axis=axis), ModelError, "wrong")
        refuse(one("CumSum", X, {"a": axis}), ModelError, "wrong", str(axis))
        refuse(one("ReduceSum", X, {"a": [axis]}), ModelError, "wrong")

    def test_named_twice(self, refuse: Refusal) -> None:
        refuse(one("ReduceSum", X, {"a": [0, -2]}), ModelError, "wrong", "twice")
        refuse(one("Unsqueeze", X, {"a": [0, 0]}), ModelError, "wrong")

    @pytest.mark.parametrize("perm", [[0, 0], [0], [0, 1, 2], [0, 5], [0, -1], [FAR, 0]])
    def test_permutations_that_are_none(self, refuse: Refusal, perm: list[int]) -> None:
        refuse(one("Transpose", perm=perm), ModelError, "wrong", "perm")


class TestOperands:
    @pytest.mark.parametrize(
        ("op", "operand", "text"),
        [
            ("Reshape", [7], "cannot become [7]"),
            ("Reshape", [-1, -1], "-1"),
            ("Reshape", [-2, 3], "Invalid"),
            ("Expand", [5, 3], "Incompatible dimensions"),
            ("Tile", [-1, 1], "negative"),
            ("Tile", [1], "repeats"),
            ("Pad", [-9, 0, 0, 0], "too small"),
            ("TopK", [-1], "k is -1"),
            ("TopK", [9], "k"),
        ],
    )
    def test_shapes_and_counts(
        self, refuse: Refusal, op: str, operand: list[int], text: str
    ) -> None:
        model = one(op, X, {"s": operand}, outputs="y z" if op == "TopK" else "y")
        if op == "TopK":
            model.graph.output[1].type.tensor_type.elem_type = TensorProto.INT64
        refuse(model, ModelError, "wrong", text)

    def test_repeats_that_are_folded_are_still_checked(self, refuse: Refusal) -> None:
        """numpy, which folds the node, would add an axis."""
        nodes = [
            node("Shape", "x", "s", end=1),
            node("Tile", "w s", "t", name="wrong"),
            node("Add", "x t", "y"),
        ]
        model = make_model(nodes, X, "y", {"w": np.ones((1, 1), np.float32)})
        refuse(model, ModelError, "wrong", "repeats")

    @pytest.mark.parametrize("parts", [[1, 1], [4, -1], [2**62, 2**62]])
    def test_parts(self, refuse: Refusal, parts: list[int]) -> None:
        refuse(one("Split", X, {"s": parts}, outputs="y z", axis=1), ModelError, "wrong")

    @pytest.mark.parametrize("count", [0, -1, 3, FAR])
    def test_a_number_of_outputs(self, refuse: Refusal, count: int) -> None:
        # Shape inference would make a list of that length.
        refuse(one("Split", num_outputs=count), ModelError, "wrong", f"num_outputs is {count}")

    @pytest.mark.parametrize("scale", [0, -1, float("nan"), float("inf"), 1e30])
    def test_scales(self, refuse: Refusal, scale: float) -> None:
        scales = {"roi": np.float32([]), "s": np.float32([1, 1, scale, 1])}
        refuse(one("Resize", IMAGE, scales), ModelError, "wrong", "scaled by")

    def test_sizes(self, refuse: Refusal) -> None:
        model = make_model(
            [node("Resize", ["x", "", "", "s"], "y", name="wrong")],
            IMAGE,
            "y",
            {"s": [1, 4, -8, 8]},
        )
        refuse(model, ModelError, "wrong", "-8")

    @pytest.mark.parametrize("step", [0, -(2**63)])
    def test_steps(self, refuse: Refusal, step: int) -> None:
        if step == 0:
            slices = {"s": [0], "e": [2], "a": [0], "t": [step]}
            refuse(one("Slice", X, slices), ModelError, "wrong", "step")
        bounds = {"from": 0, "to": 5, "step": 0}
        refuse(one("Range", {}, bounds), ModelError, "wrong")

    def test_channels_of_normalisations(self, refuse: Refusal) -> None:
        nine = {"a": np.ones(9, np.float32), "b": np.ones(9, np.float32)}
        four = {"a": np.ones(4, np.float32), "b": np.ones(4, np.float32)}
        refuse(one("InstanceNormalization", IMAGE, nine), ModelError, "wrong", "[9]", "[4]")
        refuse(one("InstanceNormalization", {"x": (2, 4)}, four), ModelError, "wrong", "3 axes")
        for groups in (0, -1, 3, FAR):
            model = one("GroupNormalization", IMAGE, four, num_groups=groups)
            model.opset_import[0].version = 21
            refuse(model, ModelError, "wrong", f"{groups}")
        refuse(one("LRN", IMAGE, size=-1), ModelError, "wrong", "size is -1")
        refuse(one("LRN", IMAGE, size=0), ModelError, "wrong", "size is 0")

    @pytest.mark.parametrize("scales", [7, 2])
    def test_scales_of_quantised_tensors(self, refuse: Refusal, scales: int) -> None:
        operands = {"s": np.ones(scales, np.float32), "z": np.zeros(scales, np.int8)}
        model = one("QuantizeLinear", X, operands)
        model.graph.output[0].type.tensor_type.elem_type = TensorProto.INT8
        refuse(model, ModelError, "wrong", f"[{scales}]", "[3]")
        weight = {"q": np.zeros((2, 3), np.int8), **operands}
        refuse(one("DequantizeLinear", {}, weight), ModelError, "wrong", f"[{scales}]", "[3]")
        weight["z"] = np.zeros(3, np.int8)
        refuse(one("DequantizeLinear", {}, weight), ModelError, "wrong", "zero point [3]")

    @pytest.mark.parametrize("block", [0, -1, 3, FAR])
    def test_blocks(self, refuse: Refusal, block: int) -> None:
        for op in ("DepthToSpace", "SpaceToDepth"):
            refuse(one(op, IMAGE, blocksize=block), ModelError, "wrong")

    def test_matrices(self, refuse: Refusal) -> None:
        refuse(one("MatMul", {"x": (2, 3), "z": (2, 3)}), ModelError, "wrong")
        model = one("Gemm", {"x": (2, 3), "z": (3, 4), "c": (7,)})
        refuse(model, ModelError, "wrong", "[7]", "[2, 4]")

    @pytest.mark.parametrize(
        "equation", ["", "ij-", "ij,jk->ik", "ij->ii", "->->", "ij->z", "i....j", "é->é", "ij-k"]
    )
    def test_equations(self, refuse: Refusal, equation: str) -> None:
        # TVM reads "ij-" for ever.
        refuse(one("Einsum", equation=equation), ModelError, "wrong", "equation")

    def test_equations_with_other_ranks(self, refuse: Refusal) -> None:
        refuse(one("Einsum", equation="ijk->i"), ModelError, "wrong", "Rank")

    @pytest.mark.parametrize("target", [0, 99, FAR, 2**31])
    def test_casts_to_no_type(self, refuse: Refusal, target: int) -> None:
        refuse(one("Cast", to=target), ModelError, "wrong")

    @pytest.mark.parametrize(
        ("op", "indices", "more", "attributes"),
        [
            ("Gather", [2], [], {}),
            ("GatherElements", [[0, 9]], [], {"axis": 1}),
            ("GatherND", [[1, 3]], [], {}),
            ("GatherND", [[-3]], [], {}),
            ("ScatterElements", [[-4]], [[[1.0]]], {"axis": 1}),
            ("ScatterND", [[2]], [[[1.0, 2.0, 3.0]]], {}),
        ],
    )
    def test_indices_outside_their_axis(
        self, refuse: Refusal, op: str, indices: Any, more: list[Any], attributes: dict[str, Any]
    ) -> None:
        operands = {"i": np.array(indices)}
        if more:
            operands["u"] = np.array(more[0], np.float32)
        kind = UnsupportedModelError if op == "Gather" else ModelError
        refuse(one(op, X, operands, **attributes), kind, "wrong", "outside")


class TestRecurrentLayers:
    @pytest.mark.parametrize("size", [0, -1, 7, FAR])
    def test_a_size_that_the_weights_do_not_have(self, refuse: Refusal, size: int) -> None:
        refuse(self.layer(hidden_size=size), ModelError, "wrong", f"hidden_size is {size}")

    def test_an_unknown_direction(self, refuse: Refusal) -> None:
        refuse(self.layer(hidden_size=3, direction="up"), ModelError, "wrong", "'up'")

    def test_unknown_activations(self, refuse: Refusal) -> None:
        model = self.layer(hidden_size=3, activations=["Sigmoid", "Tanh", "Sine"])
        refuse(model, UnsupportedModelError, "wrong", "'sine'")

    def layer(self, **attributes: Any) -> onnx.ModelProto:
        weights = {"w": np.ones((1, 12, 5), np.float32), "r": np.ones((1, 12, 3), np.float32)}
        return one("LSTM", {"x": (4, 1, 5)}, weights, **attributes)
