"""Attributes and constant operands that an operator cannot have with inputs of these shapes.

ONNX's shape inference looks at most of them, but not at all, and some it cuts to 32 bits before it
looks. TVM takes them as they come, or says what only its authors understand.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

import numpy as np
import onnx

from wasmgraph.errors import ModelError
from wasmgraph.importer.network import Network, attributes

Shape: TypeAlias = tuple[int, ...]


def check_operands(network: Network) -> None:
    """Check every node of ai.onnx, as far as the shapes of its inputs are known.

    Raises:
        ModelError: the first node that is invalid: its name, what it has and what it could have.
    """
    for node in network.nodes:
        if node.domain:
            continue
        seen = _Node(node, network)
        for rule in (_check_axis, *_RULES.get(node.op_type, ())):
            rule(seen)


class _Node:
    """A node with what is known of its operands."""

    def __init__(self, node: onnx.NodeProto, network: Network) -> None:
        self.op: str = node.op_type
        self.inputs = len(node.input)
        self.attrs: Mapping[str, Any] = attributes(node)
        self._node = node
        self._network = network

    def shape(self, index: int) -> Shape | None:
        """An input's shape, or None where it is not known or left out."""
        weight = self.constant(index)
        if weight is not None:
            shape: Shape = weight.shape
            return shape
        known = self._network.types.get(self._name(index))
        return None if known is None else known.shape

    def constant(self, index: int) -> np.ndarray[Any, Any] | None:
        """An input's value, or None where it is computed or left out."""
        return self._network.weights.get(self._name(index))

    def refuse(self, reason: str) -> None:
        """The node is invalid."""
        raise ModelError(f"{self._network.name}: {self._node.name} ({self.op}): {reason}")

    def require(self, holds: bool, reason: str) -> None:
        """Refuse the node unless it `holds`."""
        if not holds:
            self.refuse(reason)

    def _name(self, index: int) -> str:
        names = self._node.input
        return names[index] if index < len(names) else ""


_AXIS_BEYOND = frozenset(["Flatten", "OneHot"])
"""Their axis may also lie behind the last one."""

_NO_AXIS_OF_INPUT = frozenset(
    ["QuantizeLinear", "DequantizeLinear", "ConcatFromSequence", "SplitToSequence", "Optional"]
)
"""Their axis may be one that the input does not have: it counts only for some scales."""


def _check_axis(node: _Node) -> None:
    axis, shape = node.attrs.get("axis"), node.shape(0)
    if not isinstance(axis, int) or shape is None or node.op in _NO_AXIS_OF_INPUT:
        return
    # Softmax and LayerNormalization take a scalar in their stride.
    last = max(len(shape), 1) - (0 if node.op in _AXIS_BEYOND else 1)
    first = -len(shape) - (1 if node.op == "OneHot" else 0)
    node.require(
        min(first, -1) <= axis <= last,
        f"axis {axis} is outside its input of shape {list(shape)}",
    )


def _check_axes(node: _Node) -> None:
    """The axes of a reduction: there, and each once."""
    shape, axes = node.shape(0), node.constant(1)
    if shape is None or axes is None:
        return
    rank = max(len(shape), 1)
    found = [int(axis) for axis in axes.ravel()]
    for axis in found:
        node.require(
            -rank <= axis < rank, f"axis {axis} is outside its input of shape {list(shape)}"
        )
    node.require(len({axis % rank for axis in found}) == len(found), f"axes {found} name one twice")


def _check_convolution(node: _Node) -> None:
    data, weight, bias = node.shape(0), node.shape(1), node.shape(2)
    group = node.attrs.get("group", 1)
    node.require(group >= 1, f"group is {group}, it must be at least 1")
    if data is None or weight is None:
        return
    node.require(
        len(data) == len(weight) >= 3,
        f"its input of shape {list(data)} and its weights of shape {list(weight)} do not fit",
    )
    transposed = node.op == "ConvTranspose"
    expected = weight[0] if transposed else weight[1] * group
    node.require(
        data[1] == expected,
        f"its input has {data[1]} channels, its weights of shape {list(weight)} in {group} groups "
        f"take {expected}",
    )
    node.require(
        weight[0] % group == 0,
        f"its weights of shape {list(weight)} cannot be divided into {group} groups",
    )
    channels = weight[1] * group if transposed else weight[0]
    if bias is not None:
        node.require(
            bias == (channels,), f"its bias has the shape {list(bias)}, it needs [{channels}]"
        )
    kernel = node.attrs.get("kernel_shape")
    if kernel is not None:
        node.require(
            tuple(kernel) == weight[2:],
            f"kernel_shape is {list(kernel)}, its weights have the shape {list(weight)}",
        )


def _check_auto_pad(node: _Node) -> None:
    value = node.attrs.get("auto_pad", b"NOTSET").decode(errors="replace")
    known = ("NOTSET", "SAME_UPPER", "SAME_LOWER", "VALID")
    node.require(value in known, f"auto_pad is {value!r}, not one of {', '.join(known)}")


def _check_gemm(node: _Node) -> None:
    """The third operand spreads over the product, not the other way round."""
    left, right, added = node.shape(0), node.shape(1), node.shape(2)
    if left is None or right is None or added is None or len(left) != 2 or len(right) != 2:
        return
    rows = left[1 if node.attrs.get("transA") else 0]
    columns = right[0 if node.attrs.get("transB") else 1]
    _require_spreads(node, added, (rows, columns), "C")


def _require_spreads(node: _Node, shape: Shape, target: Shape, what: str) -> None:
    padded = (1,) * (len(target) - len(shape)) + shape
    node.require(
        len(padded) == len(target)
        and all(extent in (1, whole) for extent, whole in zip(padded, target, strict=True)),
        f"{what} of shape {list(shape)} does not spread to {list(target)}",
    )


def _check_channel_norm(node: _Node) -> None:
    """InstanceNormalization and GroupNormalization: one scale and shift per channel (or group)."""
    data = node.shape(0)
    groups = node.attrs.get("num_groups", 1)
    node.require(groups >= 1, f"num_groups is {groups}, it must be at least 1")
    if data is None:
        return
    needed = 3 if node.op == "InstanceNormalization" else 2
    node.require(
        len(data) >= needed, f"its input of shape {list(data)} has fewer than {needed} axes"
    )
    channels = data[1]
    node.require(
        channels % groups == 0, f"{channels} channels cannot be divided into {groups} groups"
    )
    # Up to opset 20 GroupNormalization has them per group.
    counts = {channels} if node.op == "InstanceNormalization" else {channels, groups}
    for index, what in ((1, "scale"), (2, "bias")):
        shape = node.shape(index)
        if shape is not None:
            node.require(
                len(shape) == 1 and shape[0] in counts,
                f"its {what} has the shape {list(shape)}, it needs [{channels}]",
            )


def _check_local_response(node: _Node) -> None:
    size = node.attrs.get("size", 1)
    node.require(size >= 1, f"size is {size}, it must be at least 1")


def _check_blocks(node: _Node) -> None:
    block, data = node.attrs.get("blocksize", 1), node.shape(0)
    node.require(block >= 1, f"blocksize is {block}, it must be at least 1")
    if data is None or len(data) != 4:
        return
    if node.op == "DepthToSpace":
        fits = data[1] % (block * block) == 0
    else:
        fits = data[2] % block == 0 and data[3] % block == 0
    node.require(fits, f"its input of shape {list(data)} has no blocks of {block}")


def _check_recurrent(node: _Node) -> None:
    size, hidden = node.attrs.get("hidden_size"), node.shape(2)
    if size is not None:
        node.require(size >= 1, f"hidden_size is {size}, it must be at least 1")
        if hidden is not None and len(hidden) == 3:
            node.require(
                hidden[2] == size,
                f"hidden_size is {size}, its recurrence weights have the shape {list(hidden)}",
            )
    direction = node.attrs.get("direction", b"forward").decode(errors="replace")
    known = ("forward", "reverse", "bidirectional")
    node.require(direction in known, f"direction is {direction!r}, not one of {', '.join(known)}")


def _check_resize(node: _Node) -> None:
    scales, sizes = node.constant(2), node.constant(3)
    for scale in () if scales is None else scales.ravel().tolist():
        node.require(0 < scale < 2**31, f"it cannot be scaled by {scale}")
    for size in () if sizes is None else sizes.ravel().tolist():
        node.require(size >= 0, f"its output cannot have {size} elements along an axis")


def _check_counts(index: int, what: str) -> Callable[[_Node], None]:
    """A rule: the constant input `index` holds no negative number."""

    def rule(node: _Node) -> None:
        counts = node.constant(index)
        for count in () if counts is None else counts.ravel().tolist():
            node.require(count >= 0, f"{what} is {count}, it cannot be negative")

    return rule


def _check_element_indices(node: _Node) -> None:
    """GatherElements, ScatterElements: indices along one axis."""
    data, indices = node.shape(0), node.constant(1)
    if data is None or indices is None or not data:
        return
    extent = data[node.attrs.get("axis", 0)]
    _require_within(node, indices, extent, data)


def _check_tuple_indices(node: _Node) -> None:
    """GatherND, ScatterND: the last axis of the indices runs over axes of the data."""
    data, indices = node.shape(0), node.constant(1)
    if data is None or indices is None or not indices.ndim:
        return
    first = node.attrs.get("batch_dims", 0)
    for place, extent in enumerate(data[first : first + indices.shape[-1]]):
        _require_within(node, indices[..., place], extent, data)


def _check_batch_indices(node: _Node) -> None:
    """RoiAlign: which image each region lies in."""
    data, indices = node.shape(0), node.constant(2)
    if data is not None and indices is not None and data:
        node.require(bool((indices >= 0).all()), "an index of an image is negative")
        _require_within(node, indices, data[0], data)


def _require_within(node: _Node, indices: np.ndarray[Any, Any], extent: int, data: Shape) -> None:
    if not indices.size:
        return
    low, high = int(indices.min()), int(indices.max())
    outside = low if low < -extent else high
    node.require(
        low >= -extent and high < extent,
        f"index {outside} is outside an axis of {extent} elements of its input of shape "
        f"{list(data)}",
    )


_TERM = re.compile(r"[A-Za-z]*(\.\.\.)?[A-Za-z]*")


def _check_equation(node: _Node) -> None:
    """Einsum: terms of letters. TVM reads some others for ever."""
    equation = node.attrs.get("equation", b"").decode(errors="replace")
    left, arrow, right = equation.replace(" ", "").partition("->")
    terms = left.split(",")
    node.require(
        bool(left or arrow) and all(_TERM.fullmatch(term) for term in (*terms, right)),
        f"{equation!r} is no equation",
    )
    node.require(
        len(terms) == node.inputs,
        f"the equation {equation!r} has {len(terms)} terms, there are {node.inputs} inputs",
    )
    letters = right.replace(".", "")
    node.require(
        len(set(letters)) == len(letters) and set(letters) <= set(left),
        f"the equation {equation!r} gives an axis twice, or one that no term has",
    )


def _check_scale(node: _Node) -> None:
    """QuantizeLinear, DequantizeLinear: one scale, one per position of an axis, or blocks."""
    data, scale, zero = node.shape(0), node.shape(1), node.shape(2)
    if data is None or scale is None:
        return
    if zero is not None:
        node.require(
            math.prod(zero) == math.prod(scale),
            f"its scale has the shape {list(scale)}, its zero point {list(zero)}",
        )
    if math.prod(scale) == 1:
        return
    axis, block = node.attrs.get("axis", 1), node.attrs.get("block_size", 0)
    node.require(
        -len(data) <= axis < len(data),
        f"axis {axis} is outside its input of shape {list(data)}",
    )
    expected: Shape = (data[axis],)
    if block > 0:
        blocks = -(-data[axis] // block)
        expected = tuple(
            blocks if place == axis % len(data) else extent for place, extent in enumerate(data)
        )
    node.require(
        scale == expected, f"its scale has the shape {list(scale)}, it needs {list(expected)}"
    )


def _check_permutation(node: _Node) -> None:
    shape, order = node.shape(0), node.attrs.get("perm")
    if shape is not None and order is not None:
        node.require(
            sorted(order) == list(range(len(shape))),
            f"perm {list(order)} is no order of the axes of its input of shape {list(shape)}",
        )


def _check_reshape(node: _Node) -> None:
    """The target holds as many elements, as far as it does not leave one to be inferred."""
    shape, target = node.shape(0), node.constant(1)
    if shape is None or target is None or target.ndim != 1:
        return
    kept = node.attrs.get("allowzero", 0) == 0
    extents = [
        shape[axis] if kept and extent == 0 and axis < len(shape) else int(extent)
        for axis, extent in enumerate(target)
    ]
    known = math.prod(extent for extent in extents if extent != -1)
    count = math.prod(shape)
    fits = count % known == 0 if -1 in extents and known else count == known
    node.require(fits, f"its input of shape {list(shape)} cannot become {target.tolist()}")


Rule: TypeAlias = Callable[[_Node], None]

_RULES: Mapping[str, tuple[Rule, ...]] = {
    "Conv": (_check_auto_pad, _check_convolution),
    "ConvTranspose": (_check_auto_pad, _check_convolution),
    "MaxPool": (_check_auto_pad,),
    "AveragePool": (_check_auto_pad,),
    "LpPool": (_check_auto_pad,),
    "CumSum": (_check_axes,),
    **dict.fromkeys(
        (
            *("ReduceL1", "ReduceL2", "ReduceLogSum", "ReduceLogSumExp", "ReduceMax"),
            *("ReduceMean", "ReduceMin", "ReduceProd", "ReduceSum", "ReduceSumSquare"),
        ),
        (_check_axes,),
    ),
    "Einsum": (_check_equation,),
    "Gemm": (_check_gemm,),
    "InstanceNormalization": (_check_channel_norm,),
    "GroupNormalization": (_check_channel_norm,),
    "LRN": (_check_local_response,),
    "DepthToSpace": (_check_blocks,),
    "SpaceToDepth": (_check_blocks,),
    **dict.fromkeys(("LSTM", "GRU", "RNN"), (_check_recurrent,)),
    "QuantizeLinear": (_check_scale,),
    "DequantizeLinear": (_check_scale,),
    "Reshape": (_check_reshape,),
    "Resize": (_check_resize,),
    "Split": (_check_counts(1, "the length of a part"),),
    "Transpose": (_check_permutation,),
    "TopK": (_check_counts(1, "k"),),
    "Tile": (_check_counts(1, "a number of repeats"),),
    "GatherElements": (_check_element_indices,),
    "ScatterElements": (_check_element_indices,),
    "GatherND": (_check_tuple_indices,),
    "ScatterND": (_check_tuple_indices,),
    "RoiAlign": (_check_batch_indices,),
}
"""What is asked of an operator besides its axis."""
