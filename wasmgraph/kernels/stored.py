"""Weights of products that are stored in fewer bytes than float32, and how kernels decode them.

Products compute in float32. A block of columns is decoded into scratch memory once per block of
rows (`CACHE_BYTES` of `contraction`), and the tiles read it there as they read float32 weights; for
so few rows that one tile holds them all, the tile decodes what it loads itself.

* float16 is IEEE's half precision. Its bits, moved to where float32 has them, are the number times
  2**-112, since exponents keep their bias. A multiplication mends that exactly, for subnormal
  numbers too. Infinities and NaNs would become numbers: weights that have any are not stored so.
* int8 has a float32 scale per column: the weight is their product, rounded to float32 once.

Time over float32, whole models, halves and int8 (CPU time of a run, minima of alternating runs, one
Zen 4 core with much other work beside it, Wasmtime 50, 2026-11-20): resnet50 0.99 to 1.03 and 1.01
to 1.06, mobilenet_v2 0.99 to 1.01 and 0.98 to 1.01, minilm (128 tokens) 1.00 and 0.98, vit_tiny
1.01 and 1.00. One row times 4096x4096, which waits for memory: 0.66 and 0.73; four rows: 0.82 and
0.68. To decode all of resnet50's 25.5 million weights when a graph is loaded would take 58 or 46 ms
and 102 MB of memory; to decode them once into memory that is there already takes 7 ms.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from wasmgraph.assembler.function import (
    V128,
    Expr,
    Function,
    Local,
    binary,
    f32x4,
    i32,
    i32x4,
    load,
    load_halves,
    load_lanes,
    load_widened,
    unary,
)
from wasmgraph.kernels.rows import advance
from wasmgraph.kernels.tiles import LANES

Stored = Literal["float32", "float16", "int8"]
"""As what weights are stored: a numpy dtype name."""

NBYTES: Mapping[Stored, int] = {"float32": 4, "float16": 2, "int8": 1}

_UNROLL = 8
"""Vectors per round of a decoding loop."""

_HALF_BITS = 0x8FFFE000
"""Of a float32 that has a half's exponent and mantissa: sign, five bits and ten."""


def load_stored(stored: Stored, pointer: Local, element: int, scales: Expr | None = None) -> Expr:
    """Four neighbouring weights.

    Args:
        pointer: To the first element of all.
        element: Which one comes first.
        scales: Of the four columns, with int8.
    """
    offset = NBYTES[stored] * element
    if stored == "float32":
        return load(pointer, offset)
    if stored == "float16":
        return _from_halves(load_halves(pointer, offset))
    assert scales is not None
    bytes_ = load_lanes(pointer, offset, 1)
    return _scaled(_extended(unary("i16x8.extend_low_i8x16_s", bytes_), "low"), scales)


def emit_decoding(
    f: Function,
    stored: Stored,
    source: Local,
    target: Local,
    depth: int,
    vectors: int,
    scales: Local | None = None,
) -> None:
    """target[k, column] = the weight at source[k, column], for one block of packed columns.

    Args:
        source: The stored weights.
        target: Gets float32; has room for them all.
        depth: How many k.
        vectors: Of columns, in the block.
        scales: Of the columns, with int8.
    """
    count = depth * vectors
    # A round begins with a row's first column, so that scales stay in registers.
    together = max(1, _UNROLL // vectors) * vectors if stored == "int8" else _UNROLL
    rounds, rest = divmod(count, together)
    source, target = f.new(source), f.new(target)
    with f.scratch(V128, vectors if scales is not None else 0) as factors:
        for j, factor in enumerate(factors):
            assert scales is not None
            f.set(factor, load(scales, 16 * j))
        with f.repeat(rounds):
            _decode_run(f, stored, source, target, together, factors)
            advance(f, [source], [together * LANES], NBYTES[stored])
            advance(f, [target], [together * LANES])
        _decode_run(f, stored, source, target, rest, factors)
    f.release(source, target)


def _decode_run(
    f: Function, stored: Stored, source: Local, target: Local, count: int, factors: list[Local]
) -> None:
    """`count` neighbouring vectors, the first of which is the first of a row."""
    if stored != "int8":
        for n in range(count):
            f.store(target, load_stored(stored, source, n * LANES), 16 * n)
        return
    with f.scratch(V128, 1) as (eight,):
        for n in range(0, count - 1, 2):
            f.set(eight, load_widened(source, n * LANES, is_signed=True))
            for side, half in enumerate(("low", "high")):
                value = _scaled(_extended(eight, half), factors[(n + side) % len(factors)])
                f.store(target, value, 16 * (n + side))
    if count % 2:
        factor = factors[(count - 1) % len(factors)]
        f.store(target, load_stored(stored, source, (count - 1) * LANES, factor), 16 * (count - 1))


def _from_halves(bits: Expr) -> Expr:
    """From four halves, each extended by its sign to 32 bits."""
    moved = binary("v128.and", binary("i32x4.shl", bits, i32(13)), i32x4(_HALF_BITS))
    return binary("f32x4.mul", moved, f32x4(2.0**112))


def _extended(eight: Expr, half: str) -> Expr:
    return unary(f"i32x4.extend_{half}_i16x8_s", eight)


def _scaled(numbers: Expr, scales: Expr) -> Expr:
    return binary("f32x4.mul", unary("f32x4.convert_i32x4_s", numbers), scales)
