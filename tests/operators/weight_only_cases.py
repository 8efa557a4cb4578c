"""Nodes of com.microsoft.MatMulNBits, as onnxruntime's quantiser writes them."""

from __future__ import annotations

from typing import Any

import numpy as np

from tests.onnx_models import Array
from tests.operators.foreign_cases import Foreign
from tests.operators.node_cases import Fixed

RNG = np.random.default_rng(11)


def nbits(
    what: str,
    depth: int = 64,
    columns: int = 24,
    block: int = 32,
    bits: int = 4,
    rows: tuple[int, ...] = (3,),
    zeros: str = "",
    groups: Array | None = None,
    has_bias: bool = False,
    **attributes: Any,
) -> Foreign:
    """A node with random weights.

    Args:
        zeros: "packed" like the weights, or "floats".
        groups: The block of every k.
    """
    blocks = -(-depth // block)
    weights = RNG.integers(0, 256, (columns, blocks, block * bits // 8)).astype(np.uint8)
    scales = RNG.normal(size=(columns, blocks), scale=2.0**-bits).astype(np.float32)
    points: Array | None = None
    if zeros == "packed":
        points = RNG.integers(0, 256, (columns, -(-blocks * bits // 8))).astype(np.uint8)
    elif zeros == "floats":
        points = RNG.uniform(0, 2**bits - 1, (columns, blocks)).astype(np.float32)
    bias = RNG.normal(size=columns).astype(np.float32) if has_bias else None
    more = [points, groups, bias]
    while more and more[-1] is None:
        more.pop()
    operands = [Fixed(array) if array is not None else None for array in (weights, scales, *more)]
    x = RNG.normal(size=(*rows, depth)).astype(np.float32)
    attrs = {"K": depth, "N": columns, "block_size": block, "bits": bits, **attributes}
    return Foreign(what, "MatMulNBits", (x, *operands), attrs)


CASES = [
    nbits("4 bits"),
    nbits("4 bits, zero points", zeros="packed"),
    nbits("4 bits, zero points of floats", zeros="floats"),
    nbits("4 bits, bias", zeros="packed", has_bias=True),
    nbits("4 bits, an odd number of blocks", depth=96, zeros="packed"),
    nbits("4 bits, the last block is short", depth=100, columns=7, zeros="packed"),
    nbits("4 bits, blocks of 16", depth=40, columns=9, block=16),
    nbits("4 bits, one block of 256", depth=70, block=256, zeros="packed"),
    nbits("4 bits, groups in order", groups=(np.arange(64) // 32).astype(np.int32)),
    nbits("4 bits, batch and sequence", rows=(2, 5), zeros="packed", has_bias=True),
    nbits("4 bits, more weights", depth=160, columns=100, rows=(9,), zeros="packed"),
    nbits("4 bits, more weights, one row", depth=160, columns=100, rows=(1,), zeros="packed"),
    nbits("8 bits", bits=8),
    nbits("8 bits, zero points", bits=8, zeros="packed", depth=96, has_bias=True),
    nbits("8 bits, more weights", bits=8, depth=160, columns=100, rows=(9,), zeros="packed"),
    nbits("2 bits", bits=2),
    nbits("2 bits, zero points", bits=2, zeros="packed", depth=160, has_bias=True),
]
