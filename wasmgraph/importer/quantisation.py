"""How a tensor is quantised: what the passes on quantised networks ask of a DequantizeLinear."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from wasmgraph.importer.network import Network, attributes

DOMAIN = "wasmgraph"
"""Of the operators that only the importer's passes make."""


@dataclass(frozen=True)
class Quantised:
    """A tensor of int8 or uint8, what its numbers mean, and where they are floats.

    Attributes:
        name: The tensor of integers.
        dtype: Its numpy dtype.
        scale: float32; one element, or one per index along `axis`.
        zero: int32, of the same shape.
        axis: Along which scales differ; None where they do not.
        node: The DequantizeLinear.
    """

    name: str
    dtype: np.dtype[Any]
    scale: NDArray[Any]
    zero: NDArray[Any]
    axis: int | None
    node: onnx.NodeProto

    def is_like(self, scale: NDArray[Any], zero: NDArray[Any], dtype: np.dtype[Any]) -> bool:
        """Whether quantising with these gives the same integers again."""
        return (
            self.axis is None
            and self.dtype == dtype
            and scale.size == zero.size == 1
            and bool(scale.reshape(()) == self.scale)
            and bool(zero.reshape(()) == self.zero)
        )


def producers(network: Network) -> dict[str, onnx.NodeProto]:
    """The node that computes each tensor."""
    return {name: node for node in network.nodes for name in node.output if name}


def read_quantised(
    node: onnx.NodeProto | None, network: Network, dtypes: tuple[str, ...] = ("int8", "uint8")
) -> Quantised | None:
    """What a DequantizeLinear says of its input, where its parameters are known.

    Args:
        dtypes: Those that are of interest.
    """
    if node is None or node.domain or node.op_type != "DequantizeLinear":
        return None
    attrs: Mapping[str, Any] = attributes(node)
    known = network.types.get(node.input[0])
    scale = network.weights.get(node.input[1])
    if known is None or known.shape is None or scale is None or attrs.get("block_size", 0):
        return None
    if known.dtype.name not in dtypes:
        return None
    zero = parameter(node, 2, network)
    if zero is None:
        return None
    scale = np.asarray(scale, np.float32)
    if scale.size == 1:
        return Quantised(
            node.input[0], known.dtype, scale.reshape(()), zero.reshape(()), None, node
        )
    axis = int(attrs.get("axis", 1)) % len(known.shape)
    zero = np.broadcast_to(zero.reshape(-1), scale.shape)
    return Quantised(node.input[0], known.dtype, scale, zero, axis, node)


def parameter(node: onnx.NodeProto, index: int, network: Network) -> NDArray[Any] | None:
    """A zero point as int32, zero where it is left out; None where it is not known."""
    if len(node.input) <= index or not node.input[index]:
        return np.zeros((), np.int32)
    value = network.weights.get(node.input[index])
    return None if value is None else value.astype(np.int32)


def same_pads(
    mode: str,
    space: Sequence[int],
    kernel: Sequence[int],
    strides: Sequence[int],
    dilations: Sequence[int],
) -> list[int]:
    """A convolution's padding where auto_pad is SAME_UPPER or SAME_LOWER: begins, then ends."""
    begins, ends = [], []
    for extent, k, stride, dilation in zip(space, kernel, strides, dilations, strict=True):
        total = max(0, (-(-extent // stride) - 1) * stride + (k - 1) * dilation + 1 - extent)
        less, more = total // 2, total - total // 2
        begins.append(more if mode == "SAME_LOWER" else less)
        ends.append(less if mode == "SAME_LOWER" else more)
    return begins + ends
