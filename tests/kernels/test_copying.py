"""Strided copies: any strides and item sizes, against numpy."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tests.kernels.runner import FILL, run_kernel
from tests.kernels.strided import extents, size_of, spaced, view_of
from wasmgraph.kernels.copying import MEMORY_COPY_BYTES, StridedCopy

DTYPES = {1: np.uint8, 2: np.int16, 4: np.int32, 8: np.int64}


@st.composite
def specs(draw: st.DrawFn) -> StridedCopy:
    shape = draw(extents())
    item = draw(st.sampled_from([1, 2, 4, 8]))
    axes = draw(st.permutations(range(len(shape))))
    # The source's axes lie in another order: strides of the permuted shape, put back in place.
    permuted = draw(spaced([shape[a] for a in axes], draw(st.sampled_from([1, 1, 2]))))
    source = [0] * len(shape)
    for axis, stride in zip(axes, permuted, strict=True):
        source[axis] = stride if draw(st.integers(0, 4)) else 0
    return StridedCopy(shape, tuple(source), draw(spaced(shape)), item)


def check(spec: StridedCopy) -> None:
    dtype = DTYPES[spec.item_nbytes]
    source_size = size_of(spec.shape, spec.source)
    source = np.random.default_rng(0).integers(0, 127, source_size).astype(dtype)
    out = np.full(size_of(spec.shape, spec.out) * spec.item_nbytes, FILL, np.uint8)
    want = out.view(dtype)
    view_of(want, spec.shape, spec.out)[...] = view_of(source, spec.shape, spec.source)
    np.testing.assert_array_equal(run_kernel(spec, [source], out.nbytes, dtype), want)


@settings(max_examples=60, deadline=None)
@given(specs())
@example(StridedCopy((), (), (), 8))
@example(StridedCopy((5, MEMORY_COPY_BYTES), (MEMORY_COPY_BYTES + 1, 1), (MEMORY_COPY_BYTES, 1), 1))
@example(StridedCopy((3, 2000), (0, 1), (2000, 1), 2))
@example(StridedCopy((3, 777), (1, 0), (777, 1), 2))
def test_copies_equal_numpy_and_gaps_stay_untouched(spec: StridedCopy) -> None:
    check(spec)


@pytest.mark.parametrize("item", DTYPES)
def test_runs_of_every_length_are_whole(item: int) -> None:
    for length in [*range(1, 20), 31, 33, 63, 64, 65, 127, 129, 200]:
        for rows in (1, 2, 9):
            check(StridedCopy((rows, length), (length + 1, 1), (length + 2, 1), item))
            check(StridedCopy((rows, length), (1, 0), (length, 1), item))


@pytest.mark.parametrize("perm", list(itertools.permutations(range(3))))
@pytest.mark.parametrize("shape", [(3, 5, 7), (8, 4, 12), (1, 6, 3), (64, 3, 2), (2, 33, 65)])
def test_transposes_equal_numpy(shape: tuple[int, ...], perm: tuple[int, ...]) -> None:
    source = np.arange(np.prod(shape), dtype=np.float32).reshape(shape)
    target = source.transpose(perm)
    dense = np.ascontiguousarray(target)
    strides = [tuple(s // 4 for s in a.strides) for a in (target, dense)]
    got = run_kernel(StridedCopy(target.shape, *strides), [source], source.nbytes)
    np.testing.assert_array_equal(got, dense.reshape(-1))


@pytest.mark.parametrize("item", DTYPES)
@pytest.mark.parametrize("shape", [(6,), (3, 5), (2, 9, 4)])
def test_an_axis_may_be_reversed(shape: tuple[int, ...], item: int) -> None:
    source = np.arange(np.prod(shape), dtype=DTYPES[item]).reshape(shape)
    for axis in range(len(shape)):
        strides = [s // item for s in source.strides]
        first = (shape[axis] - 1) * strides[axis]
        strides[axis] = -strides[axis]
        dense = tuple(s // item for s in source.strides)
        function = StridedCopy(shape, tuple(strides), dense, item)
        got = run_kernel(_from(function, first), [source], source.nbytes, source.dtype)
        np.testing.assert_array_equal(got, np.flip(source, axis).reshape(-1))


def _from(spec: StridedCopy, first: int):  # type: ignore[no-untyped-def]
    """The kernel, given the start of the buffer instead of the first item."""
    from wasmgraph.kernels.copying import _Assembly

    assembly = _Assembly(spec, "kernel")
    f = assembly.f
    f.set(f.params[0], f.params[0] + first * spec.item_nbytes)
    return assembly.run()


def test_a_kernel_is_small() -> None:
    spec = StridedCopy((1, 56, 56, 64), (200704, 56, 1, 3136), (200704, 3584, 64, 1))
    assert len(spec.assemble("kernel").body()) < 1200
    assert len(StridedCopy((9, 9, 999), (9990, 1110, 1), (8991, 999, 1)).assemble("k").body()) < 500
