"""How products are cut into shares: by batches, by rows, or by blocks of columns."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from math import gcd, lcm
from typing import TYPE_CHECKING

from wasmgraph.kernels.rows import count
from wasmgraph.kernels.sharing import LINE_FLOATS, Piece, Share, choose, pieces, whole
from wasmgraph.kernels.tiles import LANES, column_blocks

if TYPE_CHECKING:
    from wasmgraph.kernels.contraction import Contraction

WIDE = 4
"""From so many columns per row on, shares are of columns: the weights are so much larger than the
rows' input that every thread should read a part of them only."""

_LINE_NBYTES = 4 * LINE_FLOATS


def product_shares(spec: Contraction, most: int) -> tuple[Share, ...]:
    """At most `most` products that do the work of one."""
    by_rows = (_row_pieces(spec, most), partial(_rows_share, spec))
    by_columns = (_column_pieces(spec, most), partial(_columns_share, spec))
    cuts: list[tuple[Sequence[Piece], Callable[[int, int], _Part]]] = [
        (pieces(axis.extent, most), partial(_batch_share, spec, index))
        for index, axis in enumerate(spec.batch)
    ]
    # Weights that have to be decoded are so once if every share has columns of its own.
    if spec.columns >= WIDE * spec.row_count or spec.stored != "float32":
        cuts += [by_columns, by_rows]
    else:
        cuts += [by_rows, by_columns]
    parts, share = cuts[choose([parts for parts, _ in cuts], most)]
    if len(parts) == 1:
        given = spec.has_scales + spec.has_bias + bool(spec.scratch_nbytes)
        return whole(spec, 3 + given + len(spec.operands))
    return _with_scratch(spec, [share(first, length) for first, length in parts])


_Part = tuple["Contraction", tuple[int, ...]]
"""A share and the bytes from each parameter to its, without the scratch memory."""


def _with_scratch(spec: Contraction, parts: Sequence[_Part]) -> tuple[Share, ...]:
    """Scratch memory for every share, where the whole has any."""
    if not spec.scratch_nbytes:
        return tuple(Share(kernel, offsets) for kernel, offsets in parts)
    largest = max(kernel.scratch_nbytes for kernel, _ in parts)
    step = -(-largest // _LINE_NBYTES) * _LINE_NBYTES
    return tuple(
        Share(kernel, (*offsets, index * step)) for index, (kernel, offsets) in enumerate(parts)
    )


def _row_pieces(spec: Contraction, most: int) -> tuple[Piece, ...]:
    """Pieces of the outermost axis of rows, of whole tiles."""
    tile = lcm(*map(spec.tiles.rows, column_blocks(spec.columns, spec.tiles)))
    inner = count(spec.rows[1:])
    return pieces(spec.rows[0][0], most, tile // gcd(tile, inner))


def _column_pieces(spec: Contraction, most: int) -> tuple[Piece, ...]:
    """Pieces of columns; of packed ones, those whose blocks are blocks of the whole, too."""
    if spec.b_row:
        return pieces(spec.columns, most, LINE_FLOATS)
    blocks = column_blocks(spec.columns, spec.tiles)
    cut, first = [], 0
    for start, length in pieces(len(blocks), most):
        part = blocks[start : start + length]
        columns = min(sum(part) * LANES, spec.columns - first)
        if column_blocks(columns, spec.tiles) != part:
            return ((0, spec.columns),)
        cut.append((first, columns))
        first += columns
    return tuple(cut)


def _batch_share(spec: Contraction, axis: int, first: int, length: int) -> _Part:
    step = spec.batch[axis]
    batch = (*spec.batch[:axis], replace(step, extent=length), *spec.batch[axis + 1 :])
    operands = [operand.batch[axis] for operand in spec.operands]
    kernel = replace(spec, batch=batch)
    b = kernel.b_nbytes * step.b
    return _part(kernel, first, step.a, b, 0, step.bias, operands, step.out)


def _rows_share(spec: Contraction, first: int, length: int) -> _Part:
    inner, stride = count(spec.rows[1:]), spec.rows[0][1]
    operands = [inner * operand.row for operand in spec.operands]
    kernel = replace(spec, rows=((length, stride), *spec.rows[1:]))
    return _part(kernel, first, stride, 0, 0, 0, operands, inner * spec.out_row)


def _columns_share(spec: Contraction, first: int, length: int) -> _Part:
    operands = [operand.column for operand in spec.operands]
    kernel = replace(spec, columns=length)
    return _part(kernel, first, 0, spec.b_column_nbytes, 1, 1, operands, 1)


def _part(
    kernel: Contraction,
    first: int,
    a: int,
    b: int,
    scale: int,
    bias: int,
    operands: Sequence[int],
    out: int,
) -> _Part:
    """A share from what lies between neighbours along the cut axis: bytes of b, else elements."""
    steps = [4 * a, b]
    if kernel.has_scales:
        steps.append(4 * scale)
    if kernel.has_bias:
        steps.append(4 * bias)
    steps += [4 * operand for operand in operands]
    return kernel, tuple(first * step for step in (*steps, 4 * out))
