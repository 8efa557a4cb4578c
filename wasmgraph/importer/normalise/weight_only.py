"""Write com.microsoft's products with weights of a few bits as products with constants.

Source of the operands' meaning: onnxruntime's ContribOperators.md; what it leaves open (the order
of codes within a byte, scales and zero points without axes) is what onnxruntime computes.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper

from wasmgraph.importer.network import TensorType
from wasmgraph.importer.normalise.writer import NodeWriter
from wasmgraph.kernels.block_scaled import BlockScaled

_BITS = (2, 4, 8)


def matmul_nbits(w: NodeWriter) -> None:
    """MatMulNBits: a, weights, scales, zero points, groups, bias.

    `accuracy_level` allows to compute with less than float32; that is not made use of.

    Raises:
        NotImplementedError: weights are not constants, or not cut into blocks in order.
        ValueError: operands do not fit the attributes.
    """
    depth, columns, block = (int(w.attribute(name)) for name in ("K", "N", "block_size"))
    bits = int(w.attribute("bits", 4))
    if bits not in _BITS:
        raise NotImplementedError(f"weights of {bits} bits are not supported")
    if w.attribute("weight_prepacked", 0):
        raise NotImplementedError("weights that are laid out for one kind of processor")
    if min(depth, columns, block) < 1:
        raise ValueError(f"K {depth}, N {columns}, block_size {block}")
    blocks = -(-depth // block)
    packed = w.value(w.input(1)).reshape(columns, blocks, -1)
    codes = _unpacked(packed.view(np.uint8), bits, block).reshape(columns, -1)[:, :depth]
    # Not before it is known that there are so many k.
    if w.input(4) and not _is_in_order(w.value(w.input(4)), depth, block):
        raise NotImplementedError("groups in another order than that of K (g_idx)")
    scales = w.value(w.input(2)).astype(np.float32).reshape(columns, blocks)
    zeros = np.full_like(scales, 1 << (bits - 1))
    if w.input(3):
        zeros = _zeros(w.value(w.input(3)), bits, columns, blocks)
    weights = BlockScaled(
        np.ascontiguousarray(codes.T), scales.T.copy(), zeros.T.copy(), block, bits
    )
    w.give(0, _product(w, weights))


def _product(w: NodeWriter, weights: BlockScaled) -> str:
    """a times the weights, plus the bias: in float32, whatever dtype these and the scales have."""
    dtype = w.value(w.input(2)).dtype
    is_single = dtype == np.float32
    array = weights.decoded()
    b = w.constant(array, np.float32)
    w.network.types[b] = TensorType(array.dtype, array.shape)
    w.network.block_scaled[b] = [weights]

    def wide(x: str) -> str:
        return x if is_single else w.add("Cast", [x], to=onnx.TensorProto.FLOAT)

    y = w.add("MatMul", [wide(w.input(0)), b])
    if w.input(5):
        y = w.add("Add", [y, wide(w.input(5))])
    return y if is_single else w.add("Cast", [y], to=helper.np_dtype_to_tensor_dtype(dtype))


def _unpacked(packed: NDArray[np.uint8], bits: int, count: int) -> NDArray[np.uint8]:
    """The first `count` codes along the last axis; the first one is in the lowest bits."""
    shifts = np.arange(0, 8, bits, dtype=np.uint8)
    codes = (packed[..., None] >> shifts) & np.uint8((1 << bits) - 1)
    codes = codes.reshape(*packed.shape[:-1], -1)
    if codes.shape[-1] < count:
        raise ValueError(f"{codes.shape[-1]} codes where {count} are expected")
    return codes[..., :count]


def _zeros(given: NDArray[Any], bits: int, columns: int, blocks: int) -> NDArray[np.float32]:
    """float32 [column, block] of floats, or of codes that are packed like the weights."""
    if given.dtype.kind == "f":
        return np.asarray(given, np.float32).reshape(columns, blocks)
    rows = given.reshape(columns, -1)
    return _unpacked(rows.view(np.uint8), bits, blocks).astype(np.float32)


def _is_in_order(groups: NDArray[Any], depth: int, block: int) -> bool:
    return bool(np.array_equal(groups.reshape(-1)[:depth], np.arange(depth) // block))
