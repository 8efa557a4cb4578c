"""Channel-last images with gaps between their pixels, rows and images, for tests of kernels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from hypothesis import strategies as st
from numpy.typing import NDArray

from tests.kernels.runner import FILL, UNTOUCHED


@dataclass(frozen=True)
class Layout:
    """Images of a shape [batch, height, width, channels] and their strides in elements."""

    shape: tuple[int, int, int, int]
    batch: int
    row: int
    col: int

    @property
    def size(self) -> int:
        """Elements from the first to the last; nothing follows the last channel."""
        n, h, w, c = self.shape
        return (n - 1) * self.batch + (h - 1) * self.row + (w - 1) * self.col + c

    def view(self, buffer: NDArray[Any]) -> NDArray[Any]:
        """The images in a buffer."""
        strides = [4 * s for s in (self.batch, self.row, self.col, 1)]
        return np.lib.stride_tricks.as_strided(buffer, self.shape, strides)

    def random(self, rng: np.random.Generator) -> tuple[NDArray[Any], NDArray[Any]]:
        """A buffer (NaN in its gaps, which no kernel may read) and the images in it."""
        buffer = np.full(self.size, np.nan, np.float32)
        images = self.view(buffer)
        images[...] = rng.standard_normal(self.shape)
        return buffer, images

    def written(self, buffer: NDArray[Any]) -> NDArray[Any]:
        """The images that a kernel wrote; checks that it left the gaps alone."""
        images = self.view(buffer).copy()
        rest = buffer.copy()
        self.view(rest)[...] = UNTOUCHED
        assert (rest.view(np.uint8) == FILL).all(), "the kernel wrote between the images' pixels"
        return images


def layout_of(shape: tuple[int, int, int, int], gaps: tuple[int, int, int] = (0, 0, 0)) -> Layout:
    """A layout with so many unused elements after each pixel, row and image."""
    _, h, w, c = shape
    col = c + gaps[0]
    row = col * w + gaps[1]
    return Layout(shape, row * h + gaps[2], row, col)


GAPS = st.one_of(
    st.just((0, 0, 0)), st.tuples(st.integers(0, 5), st.integers(0, 5), st.integers(0, 5))
)


@dataclass(frozen=True)
class Window:
    """One axis of a sliding window."""

    size: int
    kernel: int
    stride: int
    dilation: int
    before: int
    after: int

    @property
    def reach(self) -> int:
        """Elements from the first to the last tap."""
        return (self.kernel - 1) * self.dilation + 1

    @property
    def outputs(self) -> int:
        """Windows that fit the padded axis."""
        return (self.size + self.before + self.after - self.reach) // self.stride + 1


@st.composite
def windows(draw: st.DrawFn, largest_kernel: int = 5) -> Window:
    """A window of which at least one fits; some of its windows may lie in the padding only."""
    kernel = draw(st.integers(1, largest_kernel))
    window = Window(
        draw(st.integers(1, 13)),
        kernel,
        draw(st.integers(1, 3)),
        draw(st.sampled_from([1, 1, 1, 2, 3])),
        draw(st.integers(0, kernel)),
        draw(st.integers(0, kernel)),
    )
    missing = max(0, window.reach - window.size - window.before - window.after)
    return Window(
        window.size + missing,
        window.kernel,
        window.stride,
        window.dilation,
        window.before,
        window.after,
    )


def taps(images: NDArray[Any], rows: Window, columns: Window, fill: float) -> NDArray[Any]:
    """What lies under the windows: [kernel rows, kernel columns, batch, out rows, out cols, c].

    Outside the image it is `fill`.
    """
    sides = [(0, 0), (rows.before, rows.after), (columns.before, columns.after), (0, 0)]
    padded = np.pad(images, sides, constant_values=fill)
    n, h, w, c = padded.strides
    shape = (rows.kernel, columns.kernel, images.shape[0], rows.outputs, columns.outputs)
    strides = (
        h * rows.dilation,
        w * columns.dilation,
        n,
        h * rows.stride,
        w * columns.stride,
        c,
    )
    return np.lib.stride_tricks.as_strided(padded, (*shape, images.shape[3]), strides)
