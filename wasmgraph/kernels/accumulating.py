"""Sums and other folds of many float32 values, accurate and by vectors.

Sums are blocked: a block of values is summed in registers from zero, then added to the total. With
several accumulators the error bound is (values per accumulator of a block + blocks) * 2**-24
relative to the sum of absolute values, and not (all values) * 2**-24.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from wasmgraph.assembler.function import (
    V128,
    Expr,
    Function,
    Local,
    binary,
    f32x4,
    load_lanes,
    shuffle,
    ternary,
    v128,
)
from wasmgraph.kernels.loops import LANES, advance, nest, sweep

Axis = tuple[int, int]
"""(extent, elements between neighbours)"""

Combine = Callable[[Expr, Expr], Expr]


def sum_of(a: Expr, b: Expr) -> Expr:
    """a + b"""
    return a + b


def blocked(
    f: Function,
    axes: Sequence[Axis],
    pointer: Local,
    limit: int,
    block: Callable[[Sequence[Axis]], None],
) -> None:
    """Cut the elements of a strided tensor into blocks of at most `limit`.

    Args:
        axes: Outermost first.
        block: Called to emit the code for one block; moves the pointer over the block's first axis.
    """
    size, inner = 1, len(axes)
    while inner and size * axes[inner - 1][0] <= limit:
        inner -= 1
        size *= axes[inner][0]
    if inner == 0:
        block(axes)
        return
    extent, stride = axes[inner - 1]
    chunk = block_size(extent, max(1, limit // size))
    outside = axes[: inner - 1]
    steps = [[4 * s for _, s in outside]]
    with nest(f, [e for e, _ in outside], [pointer], steps, [4 * extent * stride]):
        with f.repeat(extent // chunk):
            block([(chunk, stride), *axes[inner:]])
        if extent % chunk:
            block([(extent % chunk, stride), *axes[inner:]])


def block_size(extent: int, limit: int) -> int:
    """A divisor of the extent near the limit where there is one: the rest costs code."""
    if extent <= limit:
        return extent
    for candidate in range(limit, limit // 4, -1):
        if extent % candidate == 0:
            return candidate
    return limit


def in_blocks(f: Function, extent: int, limit: int, block: Callable[[int], None]) -> None:
    """Emit a loop over equal blocks, and one block for the rest."""
    size = block_size(extent, limit)
    with f.repeat(extent // size):
        block(size)
    if extent % size:
        block(extent % size)


def fold_row(
    f: Function,
    axes: Sequence[Axis],
    pointer: Local,
    identity: float,
    combine: Combine,
    transform: Callable[[Expr], Expr] = lambda x: x,
) -> Local:
    """Fold elements whose innermost axis is contiguous into one vector of partial results.

    Args:
        pointer: Moved over the first axis.
        identity: What the lanes of partial vectors hold that are not there, after `transform`.

    Returns:
        A local whose four lanes still have to be combined by `across`.
    """
    *outer, (length, stride) = axes
    assert stride == 1 or length == 1
    count = min(8, -(-length // LANES))
    sums = f.locals(V128, count)
    for item in sums:
        f.set(item, f32x4(identity))

    def add(index: int, offset: int, lanes: int) -> None:
        value = transform(load_lanes(pointer, offset, lanes))
        total = sums[index % count]
        f.set(total, combine(total, keep_lanes(value, lanes, identity)))

    moved = [0]
    with nest(f, [e for e, _ in outer], [pointer], [[4 * s for _, s in outer]], moved):
        moved[0] = sweep(f, length, count, [pointer], add)
    if not outer:
        advance(f, [pointer], [4 * length - moved[0]])
    fold(f, sums, combine)
    f.release(*sums[1:])
    return sums[0]


def keep_lanes(value: Expr, lanes: int, other: float) -> Expr:
    """The first `lanes` of a vector, `other` in the remaining ones."""
    if lanes == LANES:
        return value
    mask = v128(tuple(0xFFFFFFFF if i < lanes else 0 for i in range(LANES)))  # type: ignore[arg-type]
    if other == 0.0:
        return binary("v128.and", value, mask)
    return ternary("v128.bitselect", value, f32x4(other), mask)


def fold(f: Function, values: Sequence[Local], combine: Combine) -> None:
    """Combine locals pairwise into the first."""
    count = len(values)
    while count > 1:
        half = -(-count // 2)
        for index in range(count - half):
            f.set(values[index], combine(values[index], values[index + half]))
        count = half


def across(f: Function, value: Local, combine: Combine) -> None:
    """Combine the four lanes; all lanes hold the result."""
    f.set(value, combine(value, shuffle(value, value, (2, 3, 0, 1))))
    f.set(value, combine(value, shuffle(value, value, (1, 0, 3, 2))))
