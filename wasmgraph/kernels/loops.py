"""Loops over the axes of tensors: merging axes, moving pointers, rows by vectors."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from wasmgraph.assembler.function import Expr, Function, Local

LANES = 4
Shape = tuple[int, ...]


def merge(shape: Shape, *strides: Shape) -> tuple[Shape, tuple[Shape, ...]]:
    """Join neighbouring axes that every tensor traverses with one stride; drop those of extent 1.

    Args:
        shape: Extents, outermost first.
        strides: Per tensor, elements between neighbours along each axis (0: broadcast).

    Returns:
        The merged shape and strides; no axes at all are left of a single element.
    """
    merged: list[tuple[int, list[int]]] = []
    for axis, extent in enumerate(shape):
        steps = [s[axis] for s in strides]
        if extent == 1:
            continue
        if merged and merged[-1][1] == [extent * step for step in steps]:
            merged[-1] = (merged[-1][0] * extent, steps)
        else:
            merged.append((extent, steps))
    extents = tuple(extent for extent, _ in merged)
    return extents, tuple(tuple(steps[t] for _, steps in merged) for t in range(len(strides)))


def advance(f: Function, pointers: Sequence[Local], nbytes: Sequence[int]) -> None:
    """Move pointers by numbers of bytes."""
    for pointer, count in zip(pointers, nbytes, strict=True):
        if count:
            f.set(pointer, pointer + count)


def at(pointer: Expr, offset: int) -> tuple[Expr, int]:
    """An address and a constant offset, which an access takes from 0 on only."""
    return (pointer, offset) if offset >= 0 else (pointer + offset, 0)


@contextmanager
def nest(
    f: Function,
    extents: Sequence[int],
    pointers: Sequence[Local],
    strides: Sequence[Sequence[int]],
    moved: Sequence[int] | None = None,
) -> Iterator[None]:
    """Loops around the block, outermost first, that move the pointers themselves.

    The pointers are left wherever the last step took them.

    Args:
        strides: Per pointer, bytes per axis.
        moved: Per pointer, how many bytes the block moves it (a list, read after the block).
    """
    with _nest_from(f, extents, pointers, strides, 0, moved):
        yield


@contextmanager
def _nest_from(
    f: Function,
    extents: Sequence[int],
    pointers: Sequence[Local],
    strides: Sequence[Sequence[int]],
    axis: int,
    moved: Sequence[int] | None,
) -> Iterator[None]:
    if axis == len(extents):
        yield
        return
    with f.repeat(extents[axis]):
        with _nest_from(f, extents, pointers, strides, axis + 1, moved):
            yield
        for index, pointer in enumerate(pointers):
            if axis + 1 < len(extents):
                inside = extents[axis + 1] * strides[index][axis + 1]
            else:
                inside = moved[index] if moved is not None else 0
            advance(f, [pointer], [strides[index][axis] - inside])


def sweep(
    f: Function,
    length: int,
    unroll: int,
    pointers: Sequence[Local],
    body: Callable[[int, int, int], None],
) -> int:
    """Work through a contiguous row of float32 by vectors.

    Args:
        unroll: How many vectors one round of the loop takes.
        pointers: Those that move along the row.
        body: Called with the number of the vector (modulo `unroll` in what the loop does), its
            offset in bytes from the pointers, and how many lanes it has (below 4 at the end).

    Returns:
        How many bytes the pointers were moved; less than the row's length.
    """
    vectors, rest = divmod(length, LANES)
    groups, single = divmod(vectors, unroll)
    if groups == 1:
        groups, single = 0, vectors
    step = 4 * LANES * unroll
    if groups:
        with f.repeat(groups):
            for index in range(unroll):
                body(index, 16 * index, LANES)
            advance(f, pointers, [step] * len(pointers))
    for index in range(single):
        body(index, 16 * index, LANES)
    if rest:
        body(single, 16 * single, rest)
    return groups * step
