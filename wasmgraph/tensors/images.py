"""A picture as a graph's input: orient, resize, scale, normalise, lay out. Needs Pillow.

Which of the shape's axes are channels, height and width follows from the shape, unless an option
says it. This does not crop or keep the aspect ratio: what a model was trained with is its own.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, get_args

import numpy as np

from wasmgraph.errors import InputError, ToolchainError
from wasmgraph.runtime.base import Array, TensorSpec
from wasmgraph.runtime.dtypes import kind, limits

if TYPE_CHECKING:
    from PIL.Image import Image

Layout = Literal["nchw", "nhwc"]
Range = Literal["0-1", "0-255", "-1-1"]
LAYOUTS: tuple[Layout, ...] = get_args(Layout)
RANGES: tuple[Range, ...] = get_args(Range)

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".pgm")
# Named, so that no picture reaches a decoder that runs other programs (EPS does).
_FORMATS = ("PNG", "JPEG", "BMP", "GIF", "WEBP", "TIFF", "PPM")

MAX_PIXELS = 64_000_000
"""A picture that claims more is refused before it is decoded: a small file may hold a huge one."""

_CHANNEL_MODES = {1: "L", 3: "RGB", 4: "RGBA"}
_SCALES: dict[Range, tuple[float, float]] = {
    "0-1": (1 / 255, 0.0),
    "0-255": (1.0, 0.0),
    "-1-1": (2 / 255, -1.0),
}


@dataclass(frozen=True)
class ImageOptions:
    """How pixels become numbers.

    Attributes:
        size: Width and height in pixels; None takes them from the input's shape.
        mean, std: Subtracted and divided by, after scaling to `range`; one, or one per channel.
        layout: Channels first or last; None takes it from the input's shape.
        range: What 0 and 255 become; None is "0-1" for floats and "0-255" for integers.
    """

    size: tuple[int, int] | None = None
    mean: tuple[float, ...] = (0.0,)
    std: tuple[float, ...] = (1.0,)
    layout: Layout | None = None
    range: Range | None = None


@dataclass(frozen=True)
class _Canvas:
    """What an input's shape says of a picture."""

    channels: int
    height: int
    width: int
    channels_first: bool


def read_image(path: Path, spec: TensorSpec, options: ImageOptions) -> Array:
    """A picture as the array that `spec` asks for.

    The picture is turned upright (EXIF), converted to gray, RGB or RGBA by the number of channels,
    resized bilinearly, scaled to `options.range`, then `(value - mean) / std` per channel. For an
    integer input the result is rounded and must lie in its range.

    Raises:
        InputError: the file is no picture, or the input is none, or the options do not fit it.
        ToolchainError: Pillow is missing.
    """
    canvas = _canvas(spec, options.layout)
    width, height = options.size or (canvas.width, canvas.height)
    if (height, width) != (canvas.height, canvas.width):
        raise InputError(
            f"input {spec} takes a picture of {canvas.width}x{canvas.height}, "
            f"an image size of {width}x{height} was asked for",
            hint="leave the image size out to use the input's own",
        )
    pixels = _pixels(path, _CHANNEL_MODES[canvas.channels], (width, height))
    values = _normalise(pixels.reshape(height, width, canvas.channels), spec, options)
    if canvas.channels_first:
        values = values.transpose(2, 0, 1)
    return np.ascontiguousarray(values.reshape(spec.extents))


def _canvas(spec: TensorSpec, layout: Layout | None) -> _Canvas:
    """Find height, width and channels in a shape of rank 2 (gray), 3 or 4 (a batch of one)."""
    shape = spec.extents
    reason = "a picture needs 2 axes, 3 with channels or 4 with a batch"
    if len(shape) == 4 and shape[0] != 1:
        reason = "a picture fills a batch of one only"
    elif len(shape) == 2:
        return _Canvas(1, shape[0], shape[1], channels_first=False)
    elif len(shape) in (3, 4):
        axes = shape[-3:]
        for first in (True, False) if layout is None else (layout == "nchw",):
            channels, height, width = axes if first else (axes[2], axes[0], axes[1])
            if channels in _CHANNEL_MODES and height > 0 and width > 0:
                return _Canvas(channels, height, width, channels_first=first)
        reason = "no axis of 1, 3 or 4 channels where the layout has them"
    raise InputError(f"input {spec} cannot take a picture: {reason}")


def _pixels(path: Path, mode: str, size: tuple[int, int]) -> Array:
    """Decoded, upright, converted and resized pixels, uint8 (height, width[, channels])."""
    try:
        from PIL import Image, ImageOps
    except ImportError as error:
        raise ToolchainError(
            "reading pictures needs Pillow, which is not installed",
            hint="pip install 'wasmgraph[images]'",
        ) from error
    try:
        with Image.open(path, formats=_FORMATS) as picture:
            if math.prod(picture.size) > MAX_PIXELS:
                raise InputError(
                    f"{path} is a picture of {picture.width}x{picture.height}, "
                    f"more than {MAX_PIXELS} pixels",
                    hint="make it smaller first",
                )
            upright = ImageOps.exif_transpose(_eight_bits(picture))
            resized = upright.convert(mode).resize(size, Image.Resampling.BILINEAR)
            return np.asarray(resized)
    except (OSError, ValueError, SyntaxError, EOFError, Image.DecompressionBombError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise InputError(f"the picture {path} cannot be read: {reason}") from error


def _eight_bits(picture: Image) -> Image:
    """A picture of 16-bit gray, scaled: Pillow's `convert` would cut off what is above 255."""
    if not picture.mode.startswith("I"):
        return picture
    from PIL import Image

    values = np.asarray(picture, np.float64) / 257.0
    return Image.fromarray(np.clip(np.rint(values), 0, 255).astype(np.uint8))


def _normalise(pixels: Array, spec: TensorSpec, options: ImageOptions) -> Array:
    dtype = np.dtype(spec.dtype)
    if kind(dtype) not in "iuf":
        raise InputError(f"input {spec} cannot take a picture: its dtype is {dtype}")
    scale, offset = _SCALES[options.range or ("0-1" if kind(dtype) == "f" else "0-255")]
    channels = pixels.shape[2]
    mean = _per_channel("mean", options.mean, channels)
    std = _per_channel("std", options.std, channels)
    if not np.all(std > 0):
        raise InputError(f"std must be positive, found {list(options.std)}")
    values = (pixels * scale + offset - mean) / std
    if kind(dtype) == "f":
        return np.asarray(values.astype(dtype))
    least, largest = limits(dtype)
    if values.min(initial=0) < least or values.max(initial=0) > largest:
        raise InputError(
            f"the picture's values, {values.min():g} to {values.max():g}, "
            f"do not fit into input {spec}"
        )
    return np.asarray(np.rint(values).astype(dtype))


def _per_channel(name: str, values: Sequence[float], channels: int) -> Array:
    if len(values) not in (1, channels):
        raise InputError(
            f"{name} needs 1 value or one for each of {channels} channels, found {len(values)}"
        )
    return np.asarray(values, np.float64)
