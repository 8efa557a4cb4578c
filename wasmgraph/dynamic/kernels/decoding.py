"""Decodes codes of a few bits, for products of extents that are known at run time only.

The executor walks through the records of a panel (toolchain/executor/src/dynamic/fast/blocks.rs);
`wasmgraph.kernels.block_stored` says what they are.

Time over float32, twelve products with 2048x2048 of 4 bits in blocks of 32 with zero points (CPU
time, minima of alternating runs, one Zen 4 core with much other work beside it, Wasmtime 50,
2026-11-20): one row 1.03, two 1.25, four 0.96. Written in Rust, which is built for size, it took
1.1 to 1.4 times as long as so.
"""

from __future__ import annotations

from wasmgraph.assembler.function import V128, Function, i32, load
from wasmgraph.kernels.block_stored import BlockFormat, emit_words_decoding
from wasmgraph.kernels.tiles import LANES

BITS = (2, 4, 8)


def decoding(bits: int, width: int) -> Function:
    """to[k, column] = (code - zero point) * scale for all codes of some rows of words.

    Parameters: addresses of the scales and the zero points of `width` columns, float32, of the
    words and of `to`; how many rows of words there are.
    """
    f = Function(f"wgk_decode_{bits}_{width}", 5)
    scales, zeros, codes, target, left = f.params
    form = BlockFormat(bits, 1, "floats")
    vectors = width // LANES
    with f.scratch(V128, 2 * vectors) as factors:
        for j in range(vectors):
            f.set(factors[2 * j], load(scales, 16 * j))
            f.set(factors[2 * j + 1], load(zeros, 16 * j))
        pairs = list(zip(factors[::2], factors[1::2], strict=True))
        with f.when(left), f.repeat_until(left, -1, i32(0)):
            emit_words_decoding(f, form, codes, target, form.codes, pairs)
            f.set(codes, codes + 16 * vectors)
            f.set(target, target + 16 * vectors * form.codes)
    return f
