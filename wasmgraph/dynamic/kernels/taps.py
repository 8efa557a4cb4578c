"""Depthwise convolutions of extents that are known at run time only.

One channel at a time, along the width: an output row is the sum of some input rows, each times one
weight. Input rows are padded, and where the window moves by several elements those of every phase
lie beside each other, so that all rows are read evenly
(toolchain/executor/src/dynamic/fast/image.rs).
"""

from __future__ import annotations

from collections.abc import Sequence

from wasmgraph.assembler.function import (
    I32,
    V128,
    Function,
    Local,
    binary,
    i32,
    load,
    load_f32,
    load_i32,
    splat,
)

LANES = 4
_VECTORS = (6, 4, 2, 1)
"""Vectors of the output that share the reading of a weight. With 8, which are loaded at once, the
engine spills a sum for want of registers, and waits for it in every round."""


def taps() -> Function:
    """out[row, i] = start + sum over tap of weights[tap] * source[row, offsets[tap] + i]

    Parameters (addresses and distances in bytes): source, distance of its rows, out, distance of
    its rows, rows, columns (at least 4; where they are no whole vectors, the last one lies upon the
    one before), how many taps (at least 1), offsets (32-bit numbers, in bytes), weights, start.
    """
    f = Function("wgk_taps", 10)
    source, source_row, out, out_row, rows, columns, count, offsets, weights, start = f.params
    first = f.new(splat(load_f32(start)))
    ends = f.new(offsets + binary("i32.shl", count, i32(2)))
    with f.when(rows), f.repeat_until(rows, -1, i32(0)):
        with f.scratch(I32, 5) as (left, place, target, back, rounds):
            f.set(left, columns)
            f.set(place, source)
            f.set(target, out)
            for vectors in _VECTORS:
                width = vectors * LANES
                f.set(rounds, binary("i32.div_u", left, i32(width)))
                with f.when(rounds), f.repeat_until(rounds, -1, i32(0)):
                    _part(f, vectors, place, target, first, offsets, ends, weights)
                    f.set(place, place + 4 * width)
                    f.set(target, target + 4 * width)
                f.set(left, binary("i32.rem_u", left, i32(width)))
            with f.when(left):
                f.set(back, binary("i32.shl", i32(LANES) - left, i32(2)))
                f.set(place, place - back)
                f.set(target, target - back)
                _part(f, 1, place, target, first, offsets, ends, weights)
        f.set(source, source + source_row)
        f.set(out, out + out_row)
    return f


def _part(
    f: Function,
    vectors: int,
    place: Local,
    target: Local,
    first: Local,
    offsets: Local,
    ends: Local,
    weights: Local,
) -> None:
    """Some vectors of one row."""
    with (
        f.scratch(V128, vectors) as sums,
        f.scratch(V128, 1) as (weight,),
        f.scratch(I32, 3) as (offset, factor, at),
    ):
        for total in sums:
            f.set(total, first)
        f.set(offset, offsets)
        f.set(factor, weights)
        with f.repeat_until(offset, 4, ends):
            f.set(at, place + load_i32(offset))
            f.set(weight, splat(load_f32(factor)))
            _add_products(f, sums, weight, at)
            f.set(factor, factor + 4)
        for j, total in enumerate(sums):
            f.store(target, total, 16 * j)


def _add_products(f: Function, sums: Sequence[Local], weight: Local, at: Local) -> None:
    for j, total in enumerate(sums):
        f.set(total, total + weight * load(at, 16 * j))
