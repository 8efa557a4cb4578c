"""QuantizeLinear and DequantizeLinear of constants, in every opset.

onnx's reference evaluator has them from opset 19 on only.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from wasmgraph.importer.network import attributes
from wasmgraph.kernels.block_scaled import BlockScaled

Array = NDArray[Any]


def quantised_value(node: onnx.NodeProto, values: Mapping[str, Array]) -> dict[str, Array] | None:
    """The result of either operator, by name; None for types that have no numbers in numpy.

    Args:
        node: A QuantizeLinear or a DequantizeLinear.
        values: Its operands, by name.
    """
    operands = [values[name] for name in node.input if name]
    x, scale = operands[:2]
    attrs = attributes(node)
    spread = _Spread(x, scale, attrs)
    factor = spread(scale.astype(np.float32))
    start = spread(operands[2].astype(np.float32)) if len(operands) > 2 else np.float32(0)
    if node.op_type == "DequantizeLinear":
        result = np.asarray((x.astype(np.float32) - start) * factor, np.float32)
        return {node.output[0]: result}
    dtype = operands[2].dtype if len(operands) > 2 else _output_dtype(attrs)
    if dtype.kind not in "iu":
        return None
    info = np.iinfo(dtype)
    ratio = np.rint(x.astype(np.float32) / factor)
    return {node.output[0]: np.clip(ratio + start, info.min, info.max).astype(dtype)}


def block_scaled(node: onnx.NodeProto, values: Mapping[str, Array]) -> list[BlockScaled]:
    """What a DequantizeLinear of a matrix is as a factor of products; empty where it is none.

    Columns are the axis along which scales differ, or, where blocks of an axis share one, the other
    axis. One scale for all fits either.
    """
    x, scale, *zeros = (values[name] for name in node.input if name)
    if x.ndim != 2 or x.dtype.kind not in "iu" or x.dtype.itemsize > 1 or not x.size:
        return []
    attrs = attributes(node)
    block, axis = int(attrs.get("block_size", 0)), int(attrs.get("axis", 1)) % 2
    zero = zeros[0] if zeros else np.zeros_like(scale, np.int32)
    if block:
        turns = [axis == 1]
    elif scale.size > 1:
        scale, zero = (np.expand_dims(each.reshape(-1), 1 - axis) for each in (scale, zero))
        turns = [axis == 0]
    else:
        turns = [False, True]
    found = []
    for turned in turns:
        codes, factors, points = (a.T if turned else a for a in (x, scale, zero))
        shape = (factors.shape[0] if block else 1, codes.shape[1])
        found.append(
            _from_zero(
                codes,
                np.broadcast_to(factors, shape).astype(np.float32),
                np.broadcast_to(points, shape).astype(np.float32),
                block or codes.shape[0],
            )
        )
    return found


def _from_zero(codes: Array, scales: Array, zeros: Array, block: int) -> BlockScaled:
    """With codes that begin at 0, in as few bits as hold them."""
    low = int(codes.min())
    span = int(codes.max()) - low
    shifted = (codes.astype(np.int16) - low).astype(np.uint8)
    bits = next(bits for bits in (2, 4, 8) if span < 1 << bits)
    return BlockScaled(np.ascontiguousarray(shifted), scales, zeros - np.float32(low), block, bits)


def _output_dtype(attrs: Mapping[str, Any]) -> np.dtype[Any]:
    code = attrs.get("output_dtype", 0) or onnx.TensorProto.UINT8
    dtype: np.dtype[Any] = np.dtype(onnx.helper.tensor_dtype_to_np_dtype(code))
    return dtype


class _Spread:
    """Gives scales and zero points an element for every element of a tensor."""

    def __init__(self, x: Array, scale: Array, attrs: Mapping[str, Any]) -> None:
        self.shape = x.shape
        self.is_one = scale.ndim == 0 or (scale.ndim == 1 and scale.size == 1)
        self.axis = int(attrs.get("axis", 1)) % max(1, x.ndim)
        self.block = int(attrs.get("block_size", 0))

    def __call__(self, values: Array) -> Array:
        if self.is_one and not self.block:
            return values.reshape(())
        if self.block:
            wide = np.repeat(values, self.block, self.axis)
            return np.take(wide, np.arange(self.shape[self.axis]), self.axis)
        return values.reshape([-1 if a == self.axis else 1 for a in range(len(self.shape))])
