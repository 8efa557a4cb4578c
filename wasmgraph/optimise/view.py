"""Strided views of storage: how most transposes, reshapes, slices and splits cost nothing."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from wasmgraph.kernels.loops import merge


@dataclass(frozen=True)
class View:
    """A tensor as it lies in storage.

    Attributes:
        storage: Index of the storage.
        offset: Elements before the first one.
        shape: Extent of every logical axis.
        strides: Elements between neighbours along every axis; 0 where an axis is broadcast.
        dtype: A numpy dtype name.
    """

    storage: int
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    dtype: str

    @property
    def size(self) -> int:
        """How many elements it has."""
        return element_count(self.shape)

    @property
    def itemsize(self) -> int:
        """Bytes of an element."""
        return np.dtype(self.dtype).itemsize

    @property
    def reach(self) -> int:
        """Bytes from its first element to the end of its last one."""
        if self.size == 0:
            return 0
        last = sum((n - 1) * s for n, s in zip(self.shape, self.strides, strict=True))
        return (last + 1) * self.itemsize

    def order(self) -> tuple[int, ...]:
        """The logical axes from the outermost in memory to the innermost.

        Axes of extent 1 and broadcast axes lie where they would in C order.
        """
        moving = [a for a, n in enumerate(self.shape) if n > 1 and self.strides[a] > 0]
        ranked = iter(sorted(moving, key=lambda axis: (-self.strides[axis], axis)))
        return tuple(next(ranked) if a in moving else a for a in range(len(self.shape)))

    def is_dense(self, order: Sequence[int] | None = None) -> bool:
        """Whether its elements fill memory without gaps, the axes in this order (C by default)."""
        wanted = dense_strides(self.shape, order)
        return all(
            n <= 1 or s == w for n, s, w in zip(self.shape, self.strides, wanted, strict=True)
        )

    def lies_like(self, other: View) -> bool:
        """Whether its elements are as far from its first one as another's of the same shape."""
        return (self.shape, self.dtype) == (other.shape, other.dtype) and all(
            n <= 1 or a == b
            for n, a, b in zip(self.shape, self.strides, other.strides, strict=True)
        )

    def permuted(self, axes: Sequence[int]) -> View:
        """With its axes in another order."""
        return replace(
            self,
            shape=tuple(self.shape[a] for a in axes),
            strides=tuple(self.strides[a] for a in axes),
        )

    def sliced(self, axis: int, begin: int, count: int, step: int = 1) -> View:
        """`count` elements of one axis, from `begin` on."""
        shape, strides = list(self.shape), list(self.strides)
        offset = self.offset + (begin * strides[axis] if count else 0)
        shape[axis], strides[axis] = count, strides[axis] * step
        return replace(self, offset=offset, shape=tuple(shape), strides=tuple(strides))

    def broadcast(self, shape: Sequence[int]) -> View:
        """Repeated along axes of extent 1 and new leading axes, by numpy's rules."""
        missing = len(shape) - len(self.shape)
        old = (1,) * missing + self.shape
        strides = (0,) * missing + self.strides
        return replace(
            self,
            shape=tuple(shape),
            strides=tuple(
                0 if was == 1 and now != 1 else stride
                for was, now, stride in zip(old, shape, strides, strict=True)
            ),
        )

    def reshaped(self, shape: Sequence[int]) -> View | None:
        """The same elements in another shape, or None where they must move first."""
        shape = tuple(shape)
        if self.size == 0:
            return replace(self, shape=shape, strides=dense_strides(shape))
        # numpy knows the rule; the array is a description, its memory is never touched.
        item = np.empty(1, np.int8)
        description = np.lib.stride_tricks.as_strided(item, self.shape, self.strides)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", DeprecationWarning)
                description.shape = shape
        except (AttributeError, ValueError):
            return None
        return replace(self, shape=shape, strides=tuple(description.strides))


def element_count(shape: Sequence[int]) -> int:
    """The product of the extents."""
    count = 1
    for extent in shape:
        count *= extent
    return count


def dense_strides(shape: Sequence[int], order: Sequence[int] | None = None) -> tuple[int, ...]:
    """Strides without gaps, the axes from outermost to innermost in `order` (C by default)."""
    strides = [0] * len(shape)
    step = 1
    for axis in reversed(range(len(shape)) if order is None else order):
        strides[axis] = step
        step *= shape[axis]
    return tuple(strides)


def channel_last(rank: int) -> tuple[int, ...]:
    """The order of an image [batch, channel, space...] whose channels are adjacent in memory."""
    return (0, *range(2, rank), 1)


def order_for_reshape(view: View, shape: Sequence[int]) -> tuple[int, ...]:
    """An order of a view's axes in which a dense copy can be reshaped, the innermost kept so.

    Axes that the reshape joins or cuts become neighbours; channels that are shuffled stay last.
    """
    groups = _reshaped_groups(view.shape, shape)

    def step(group: Sequence[int]) -> int:
        return min((view.strides[a] for a in group if view.shape[a] > 1), default=0)

    ranked = sorted(groups, key=lambda group: -step(group))
    return tuple(axis for group in ranked for axis in group)


def _reshaped_groups(before: Sequence[int], after: Sequence[int]) -> list[list[int]]:
    """The axes before a reshape, cut where both shapes have counted as many elements."""
    counted = {1}
    total = 1
    for extent in after:
        total *= extent
        counted.add(total)
    groups: list[list[int]] = [[]]
    total = 1
    for axis, extent in enumerate(before):
        groups[-1].append(axis)
        total *= extent
        if total in counted:
            groups.append([])
    return [group for group in groups if group]


def merged_axes(
    shape: Sequence[int], *strides: Sequence[int]
) -> tuple[tuple[int, ...], tuple[tuple[int, ...], ...]]:
    """Join neighbouring axes that all tensors traverse with one stride; one axis is left."""
    merged, steps = merge(tuple(shape), *map(tuple, strides))
    return (merged, steps) if merged else ((1,), tuple((0,) for _ in strides))
