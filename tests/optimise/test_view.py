"""Views do what numpy's strided arrays do, and say when elements would have to move."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from wasmgraph.optimise.view import View, channel_last, dense_strides, merged_axes

SHAPES = st.lists(st.integers(1, 4), min_size=1, max_size=4).map(tuple)


def values_of(view: View, memory: NDArray[np.int64]) -> NDArray[np.int64]:
    return np.lib.stride_tricks.as_strided(
        memory[view.offset :], view.shape, [8 * s for s in view.strides]
    )


def dense(shape: tuple[int, ...], order: tuple[int, ...] | None = None) -> View:
    return View(0, 0, shape, dense_strides(shape, order), "float32")


@given(shape=SHAPES, data=st.data())
def test_permuting_slicing_and_broadcasting_are_numpys(
    shape: tuple[int, ...], data: st.DataObject
) -> None:
    array = np.arange(int(np.prod(shape)))
    view, expected = dense(shape), array.reshape(shape)
    axes = data.draw(st.permutations(range(len(shape))))
    view, expected = view.permuted(axes), expected.transpose(axes)
    axis = data.draw(st.integers(0, len(shape) - 1))
    extent = view.shape[axis]
    begin = data.draw(st.integers(0, extent - 1))
    step = data.draw(st.integers(1, 3))
    count = len(range(begin, extent, step))
    index = [slice(None)] * len(shape)
    index[axis] = slice(begin, None, step)
    view, expected = view.sliced(axis, begin, count, step), expected[tuple(index)]
    wide = (2, *(n if n > 1 else 3 for n in view.shape))
    view, expected = view.broadcast(wide), np.broadcast_to(expected, wide)
    np.testing.assert_array_equal(values_of(view, array), expected)


@given(shape=SHAPES, data=st.data())
@settings(max_examples=200)
def test_a_reshape_is_a_view_or_refused(shape: tuple[int, ...], data: st.DataObject) -> None:
    array = np.arange(int(np.prod(shape)))
    axes = data.draw(st.permutations(range(len(shape))))
    view = dense(shape).permuted(axes)
    expected = array.reshape(shape).transpose(axes)
    divisors = [n for n in range(1, view.size + 1) if view.size % n == 0]
    first = data.draw(st.sampled_from(divisors))
    result = view.reshaped((first, view.size // first))
    if result is None:
        assert not view.is_dense()
    else:
        np.testing.assert_array_equal(values_of(result, array), expected.reshape(first, -1))


def test_a_channel_last_image_flattens_only_where_nothing_moves() -> None:
    image = dense((1, 3, 4, 5), channel_last(4))
    assert image.order() == (0, 2, 3, 1)
    assert image.is_dense(channel_last(4))
    assert not image.is_dense()
    assert image.reshaped((1, 60)) is None
    pixels = image.permuted((0, 2, 3, 1)).reshaped((1, 20, 3))
    assert pixels is not None
    assert pixels.is_dense()


def test_axes_of_extent_one_do_not_matter_for_density() -> None:
    assert dense((1, 8, 1, 1), channel_last(4)).is_dense()


@given(shape=SHAPES, data=st.data())
def test_merged_axes_traverse_the_same_elements(
    shape: tuple[int, ...], data: st.DataObject
) -> None:
    views = [
        dense(shape).permuted(range(len(shape))),
        dense(shape, tuple(data.draw(st.permutations(range(len(shape)))))),
    ]
    merged, strides = merged_axes(shape, *(v.strides for v in views))
    assert int(np.prod(merged)) == int(np.prod(shape))
    for view, steps in zip(views, strides, strict=True):
        memory = np.arange(view.size)
        flat = View(0, 0, merged, steps, "float32")
        np.testing.assert_array_equal(
            values_of(flat, memory).reshape(-1), values_of(view, memory).reshape(-1)
        )


def test_reach_counts_to_the_end_of_the_last_element() -> None:
    assert dense((2, 3)).reach == 24
    assert dense((2, 3)).sliced(1, 0, 2).reach == 20
    assert dense((2, 0)).reach == 0
