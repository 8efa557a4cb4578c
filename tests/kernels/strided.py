"""Draws strided tensors, and reads and writes their buffers, for tests of kernels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from hypothesis import strategies as st
from numpy.typing import NDArray


def extents(most: int = 4, longest: int = 9) -> st.SearchStrategy[tuple[int, ...]]:
    """Shapes of up to `most` axes, whose innermost axis may be long."""
    outer = st.lists(st.integers(1, longest), min_size=0, max_size=most - 1)
    inner = st.one_of(st.integers(1, longest), st.integers(10, 90))
    return st.tuples(outer, inner).map(lambda pair: (*pair[0], pair[1]))


@st.composite
def spaced(draw: st.DrawFn, shape: Sequence[int], innermost: int = 1) -> tuple[int, ...]:
    """Strides that leave gaps between the elements of a tensor, without overlaps."""
    strides, step = [], innermost
    for extent in reversed(shape):
        strides.append(step)
        step = step * extent + draw(st.sampled_from([0, 0, 1, 3]))
    return tuple(reversed(strides))


def size_of(shape: Sequence[int], strides: Sequence[int]) -> int:
    """How many elements a buffer needs (strides may be negative)."""
    return 1 + sum((n - 1) * abs(s) for n, s in zip(shape, strides, strict=True))


def view_of(
    buffer: NDArray[Any], shape: Sequence[int], strides: Sequence[int], start: int = 0
) -> NDArray[Any]:
    """The tensor in a buffer; strides in elements."""
    nbytes = [s * buffer.itemsize for s in strides]
    return np.lib.stride_tricks.as_strided(buffer[start:], tuple(shape), tuple(nbytes))
