"""Resize in the forms that TVM lacks or has wrong: one axis after the other, by tables.

Interpolation is separable, so that an axis is resized by a table of indices and weights per element
of the new axis. TVM computes with the ratio of the extents where the given scale counts, and it
knows neither antialiasing, nor axes, nor an aspect ratio to keep.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import floor, prod
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tvm import relax

from wasmgraph.importer.converters.library import library_call, suffix
from wasmgraph.importer.converters.static import (
    as_dtype,
    constant,
    dtype_of,
    operand,
    required_constant,
    shape_of,
)

Array = NDArray[Any]


@dataclass(frozen=True)
class AxisResize:
    """What happens to one axis.

    Attributes:
        axis: Which.
        extent, wanted: Its old and new extent.
        scale: By which coordinates are mapped; `wanted` is about scale * extent.
        region: The part that tf_crop_and_resize takes, from 0 to 1.
    """

    axis: int
    extent: int
    wanted: int
    scale: float
    region: tuple[float, float] = (0.0, 1.0)

    @property
    def is_identity(self) -> bool:
        """Whether nothing happens."""
        return self.extent == self.wanted and self.scale == 1 and self.region == (0.0, 1.0)


def resize(bb: Any, inputs: Sequence[Any], attrs: Mapping[str, Any]) -> Any:
    """Resize; None for what TVM has right, whose kernel may be one of ours."""
    x = inputs[0]
    resizes = _axis_resizes(inputs, attrs)
    if _is_plain(x, resizes, attrs):
        return None
    mode = attrs.get("mode", b"nearest").decode()
    dtype = dtype_of(x)
    if mode != "nearest" and np.dtype(dtype).kind != "f":
        x = as_dtype(bb, x, "float32")
    for each in resizes:
        if each.is_identity:
            continue
        indices, weights, fill = resize_table(each, attrs)
        if mode == "nearest" and not fill.any():
            x = bb.normalize(relax.op.take(x, constant(indices[:, 0]), each.axis, mode="fast"))
        else:
            x = _resampled(bb, x, each, indices, weights, fill)
    return x if dtype_of(x) == dtype else _rounded(bb, x, dtype)


def _resampled(
    bb: Any, x: Any, each: AxisResize, indices: Array, weights: Array, fill: Array
) -> Any:
    shape, dtype = shape_of(x), dtype_of(x)
    new_shape = (*shape[: each.axis], each.wanted, *shape[each.axis + 1 :])
    words = [
        prod(shape[: each.axis]),
        each.extent,
        prod(shape[each.axis + 1 :]),
        each.wanted,
        indices.shape[1],
    ]
    tables = [constant(indices, "int32"), constant(weights, dtype), constant(fill, dtype)]
    name = f"resample_{suffix(dtype)}"
    return bb.normalize(library_call(name, [x, *tables], [(dtype, new_shape)], words))


def _rounded(bb: Any, x: Any, dtype: str) -> Any:
    """Floats as integers: to the nearest one within bounds."""
    bounds = np.iinfo(dtype)
    rounded = bb.normalize(relax.op.round(x))
    clipped = bb.normalize(relax.op.clip(rounded, float(bounds.min), float(bounds.max)))
    return as_dtype(bb, clipped, dtype)


def _is_plain(x: Any, resizes: Sequence[AxisResize], attrs: Mapping[str, Any]) -> bool:
    """Whether TVM's Resize computes the same."""
    coordinates = attrs.get("coordinate_transformation_mode", b"half_pixel")
    return (
        len(shape_of(x)) in (3, 4, 5)
        and not any(attrs.get(name) for name in ("antialias", "axes", "exclude_outside"))
        and coordinates not in (b"tf_crop_and_resize", b"half_pixel_symmetric")
        and attrs.get("keep_aspect_ratio_policy", b"stretch") == b"stretch"
        and all(each.is_identity for each in resizes if each.axis < 2)
        # An almost whole product is a ratio of extents that was rounded to float32.
        and all(abs(each.scale * each.extent - each.wanted) < 1e-4 for each in resizes)
        and (attrs.get("mode", b"nearest") == b"nearest" or dtype_of(x) == "float32")
    )


def _axis_resizes(inputs: Sequence[Any], attrs: Mapping[str, Any]) -> list[AxisResize]:
    shape = shape_of(inputs[0])
    axes = [int(axis) % len(shape) for axis in attrs.get("axes", range(len(shape)))]
    extents = [shape[axis] for axis in axes]
    scales, wanted = _scales_and_extents(inputs, attrs, extents)
    regions = [(0.0, 1.0)] * len(axes)
    if attrs.get("coordinate_transformation_mode") == b"tf_crop_and_resize":
        roi = required_constant(inputs[1], "the region of interest").astype(np.float64).tolist()
        regions = list(zip(roi[: len(axes)], roi[len(axes) :], strict=True))
    return [AxisResize(*each) for each in zip(axes, extents, wanted, scales, regions, strict=True)]


def _scales_and_extents(
    inputs: Sequence[Any], attrs: Mapping[str, Any], extents: Sequence[int]
) -> tuple[list[float], list[int]]:
    scales, sizes = operand(inputs, 2), operand(inputs, 3)
    if scales is not None and shape_of(scales) != (0,):
        values = required_constant(scales, "the scales").astype(np.float64).tolist()
        return values, [floor(s * n) for s, n in zip(values, extents, strict=True)]
    wanted = required_constant(sizes, "the sizes").tolist()
    ratios = [new / old for new, old in zip(wanted, extents, strict=True)]
    policy = attrs.get("keep_aspect_ratio_policy", b"stretch")
    if policy == b"stretch":
        return ratios, wanted
    scale = min(ratios) if policy == b"not_larger" else max(ratios)
    return [scale] * len(ratios), [floor(scale * n + 0.5) for n in extents]


def resize_table(each: AxisResize, attrs: Mapping[str, Any]) -> tuple[Array, Array, Array]:
    """Of every element of the new axis: indices [wanted, taps], weights alike, fill [wanted].

    Source: the formulas of the ONNX operator specification for Resize.
    """
    x = _coordinates(each, attrs.get("coordinate_transformation_mode", b"half_pixel").decode())
    mode = attrs.get("mode", b"nearest").decode()
    if mode == "nearest":
        indices = _nearest(x, attrs.get("nearest_mode", b"round_prefer_floor").decode())[:, None]
        weights = np.ones(indices.shape)
    else:
        shrink = min(each.scale, 1.0) if attrs.get("antialias") else 1.0
        reach = {"linear": 1, "cubic": 2}[mode] / shrink
        first = floor(-reach) + 1
        indices = np.floor(x)[:, None] + np.arange(first, 2 - first)
        distances = np.abs(indices - x[:, None]) * shrink
        weights = (
            np.clip(1 - distances, 0, 1)
            if mode == "linear"
            else _cubic(distances, attrs.get("cubic_coeff_a", -0.75))
        )
        if attrs.get("exclude_outside"):
            weights = np.where((indices < 0) | (indices >= each.extent), 0, weights)
        weights = weights / weights.sum(1, keepdims=True)
    fill = np.zeros(each.wanted)
    if attrs.get("coordinate_transformation_mode") == b"tf_crop_and_resize":
        outside = (x < 0) | (x > each.extent - 1)
        weights = np.where(outside[:, None], 0, weights)
        fill[outside] = attrs.get("extrapolation_value", 0.0)
    return np.clip(indices, 0, each.extent - 1).astype(np.int32), weights, fill


def _coordinates(each: AxisResize, mode: str) -> Array:
    """Where on the old axis the elements of the new one lie."""
    new = np.arange(each.wanted, dtype=np.float64)
    length = each.scale * each.extent  # not always a whole number
    if mode == "align_corners":
        return new * (each.extent - 1) / (length - 1) if length != 1 else new * 0
    if mode == "asymmetric":
        return new / each.scale
    if mode == "tf_crop_and_resize":
        begin, end = each.region
        span = (end - begin) * (each.extent - 1)
        offset = new * span / (length - 1) if length != 1 else new * 0 + span / 2
        return offset + begin * (each.extent - 1)
    if mode == "pytorch_half_pixel" and length == 1:
        return new * 0 - 0.5
    shift = each.extent / 2 * (1 - each.wanted / length) if mode == "half_pixel_symmetric" else 0.0
    return shift + (new + 0.5) / each.scale - 0.5


def _nearest(x: Array, mode: str) -> Array:
    rounding = {
        "round_prefer_floor": lambda: np.ceil(x - 0.5),
        "round_prefer_ceil": lambda: np.floor(x + 0.5),
        "floor": lambda: np.floor(x),
        "ceil": lambda: np.ceil(x),
    }
    return np.asarray(rounding[mode]())


def _cubic(d: Array, a: float) -> Array:
    """Keys' kernel: R. Keys, "Cubic convolution interpolation for digital image processing"."""
    near = ((a + 2) * d - (a + 3)) * d**2 + 1
    far = ((a * d - 5 * a) * d + 8 * a) * d - 4 * a
    return np.where(d <= 1, near, np.where(d < 2, far, 0))
