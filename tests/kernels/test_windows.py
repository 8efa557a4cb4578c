"""Tiles cover every output once, with exactly the taps that lie inside the image."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.kernels.images import Window, windows
from wasmgraph.kernels.windows import Axis, block_vectors, plan_tiles


def axis_of(window: Window) -> Axis:
    return Axis(
        window.size,
        window.outputs,
        window.kernel,
        window.stride,
        window.dilation,
        window.before,
        window.after,
    )


def inside(axis: Axis, position: int) -> list[int]:
    """The taps of an output that lie inside the image, one by one."""
    places = [axis.start(position) + j * axis.dilation for j in range(axis.kernel)]
    return [j for j, place in enumerate(places) if 0 <= place < axis.size]


@settings(max_examples=200, deadline=None)
@given(windows(7))
def test_taps_are_those_inside_the_image(window):
    axis = axis_of(window)
    for position in range(axis.outputs):
        assert list(range(*axis.taps(position))) == inside(axis, position)


@settings(max_examples=200, deadline=None)
@given(windows(7), st.integers(1, 6), st.integers(0, 6))
def test_tiles_cover_every_output_with_its_taps(window, width, most_border_tiles):
    axis = axis_of(window)
    position = 0
    for tile in plan_tiles(axis, width, most_border_tiles):
        for repeat in range(tile.repeats):
            base = tile.base + repeat * len(tile.pixels) * axis.stride
            for pixel in tile.pixels:
                taps = inside(axis, position)
                position += 1
                if tile.is_generic:
                    continue
                assert list(range(pixel.first, pixel.end)) == taps
                if taps:
                    first = axis.start(position - 1) + taps[0] * axis.dilation
                    assert base + pixel.offset == first
                    assert pixel.offset >= 0
    assert position == axis.outputs


@settings(max_examples=100, deadline=None)
@given(windows(7), st.integers(0, 6))
def test_distinct_tiles_stay_few(window, most_border_tiles):
    """One per border, the repeated one, and the rest of the row; or what was allowed."""
    tiles = plan_tiles(axis_of(window), 4, most_border_tiles)
    assert len(tiles) <= max(most_border_tiles, 4)


def test_blocks_of_channels_waste_as_little_as_possible():
    assert block_vectors(64, 4) == 4
    assert block_vectors(21, 4) == 3
    assert block_vectors(3, 4) == 1
    assert block_vectors(20, 4) == 1
