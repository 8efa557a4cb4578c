"""How a kernel is cut into shares: smaller kernels that together write what it writes.

Outputs are cut, never a reduction, so every element is computed as before, bit by bit. Shares are
equal specifications as far as possible, because each distinct one costs code.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Protocol, runtime_checkable

from wasmgraph.assembler import Function

LINE_FLOATS = 16
"""Float32 elements of a cache line. Contiguous rows are cut at multiples: two threads that write to
one line take it from each other all the time."""

EVEN = 0.9
"""A cut is good enough from this balance on; below, other ways to cut are tried."""

UNEVEN = 1.05
"""Pieces of one length and a rest may take two threads so many times as long as they should; else
pieces have two lengths, which as kernels are more code: 7 equal pieces are 4 and 3."""

Piece = tuple[int, int]
"""(first, how many) along an axis."""

Axis = tuple[int, int]
"""(extent, multiple of which a cut must be) of an axis that may be cut."""


@runtime_checkable
class Shareable(Protocol):
    """A kernel's specification that can be cut."""

    def assemble(self, name: str) -> Function:
        """The kernel's function."""

    def shares(self, count: int) -> tuple[Share, ...]:
        """At most `count` kernels that do this one's work, itself where it is not worth cutting."""


@dataclass(frozen=True)
class Share:
    """One of several kernels that replace another and may run at the same time.

    Attributes:
        kernel: Its specification.
        offsets: Bytes from each parameter of the other kernel to the share's, in the order of the
            parameters.
    """

    kernel: Shareable
    offsets: tuple[int, ...]


def whole(kernel: Shareable, parameters: int) -> tuple[Share, ...]:
    """A kernel that is not cut."""
    return (Share(kernel, (0,) * parameters),)


def pieces(extent: int, count: int, step: int = 1) -> tuple[Piece, ...]:
    """Cut an axis into at most `count` pieces of one or two lengths, multiples of `step`.

    The longer ones come first; the last piece may be shorter than all others.
    """
    units = -(-extent // step)
    if not units:
        return ()
    count = min(count, units)
    long = -(-units // count)
    whole, rest = divmod(units, long)
    lengths = [long] * whole + [rest] * bool(rest)
    if on_two_threads(lengths) > UNEVEN * units / 2:
        short, longer = divmod(units, count)
        lengths = [short + 1] * longer + [short] * (count - longer)
    firsts = [step * sum(lengths[:i]) for i in range(len(lengths))]
    return tuple(
        (first, min(step * length, extent - first))
        for first, length in zip(firsts, lengths, strict=True)
    )


def on_two_threads(times: Iterable[float]) -> float:
    """How long two threads take, each of which takes the next piece when it is done with one."""
    first = second = 0.0
    for time in times:
        first, second = sorted((first + time, second))
    return second


def balance(cut: Sequence[Piece], count: int) -> float:
    """How well a cut suits two threads and `count` of them: 1 for `count` equal pieces."""
    lengths = [length for _, length in cut]
    total = sum(lengths)
    return (total / (2 * on_two_threads(lengths)) + total / (count * max(lengths))) / 2


def choose(cuts: Sequence[Sequence[Piece]], count: int) -> int:
    """The first cut that is even enough, else the most even one."""
    balances = [balance(cut, count) for cut in cuts]
    for index, value in enumerate(balances):
        if value >= EVEN:
            return index
    return balances.index(max(balances))


def cut_axis(axes: Sequence[Axis], count: int) -> tuple[int, tuple[Piece, ...]] | None:
    """Cut one of several axes, an outer one if that is even enough.

    Args:
        axes: Outermost first.

    Returns:
        The axis and its pieces, or None if no axis can be cut.
    """
    cuts = [pieces(extent, count, step) for extent, step in axes if extent]
    if count < 2 or len(cuts) < max(1, len(axes)):
        return None
    axis = choose(cuts, count)
    return (axis, cuts[axis]) if len(cuts[axis]) > 1 else None


Strided = tuple[int, int, int]
"""(extent, stride in the input, stride in the output)"""


class Outer(Shareable, Protocol):
    """A kernel of float32 that does the same for every index of some outer axes."""

    @property
    def outer(self) -> tuple[Strided, ...]:
        """They, outermost first; strides in elements."""


def outer_shares(
    kernel: Outer, axis: int, parts: Iterable[Piece], vectors: int = 0
) -> tuple[Share, ...]:
    """The shares for parts of one of the outer axes.

    Args:
        vectors: How many of the parameters, between input and output, every share reads whole.
    """
    before, (_, source, out), after = (
        kernel.outer[:axis],
        kernel.outer[axis],
        kernel.outer[axis + 1 :],
    )
    return tuple(
        Share(
            replace(kernel, outer=(*before, (length, source, out), *after)),  # type: ignore[type-var]
            (4 * first * source, *(0,) * vectors, 4 * first * out),
        )
        for first, length in parts
    )


def replaced(values: Sequence[int], axis: int, value: int) -> tuple[int, ...]:
    """The values with another one for an axis."""
    return (*values[:axis], value, *values[axis + 1 :])
