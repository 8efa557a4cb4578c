"""Operators over windows of images that the operator library computes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

from wasmgraph.importer.converters.library import counted, library_call, suffix
from wasmgraph.importer.converters.static import (
    as_dtype,
    constant,
    dtype_of,
    operand,
    require_shape,
    required_constant,
    shape_of,
)


@dataclass(frozen=True)
class Windows:
    """How windows lie on an image, one number per axis.

    Attributes:
        kernel: Elements of a window.
        strides: Elements from one window to the next.
        dilations: Elements from one tap to the next.
        begin, end: Padding on either side.
    """

    kernel: tuple[int, ...]
    strides: tuple[int, ...]
    dilations: tuple[int, ...]
    begin: tuple[int, ...]
    end: tuple[int, ...]

    def count(self, image: Sequence[int], ceil_mode: bool = False) -> tuple[int, ...]:
        """How many windows fit; with `ceil_mode` the last may reach beyond the padding."""
        return tuple(self._along(axis, extent, ceil_mode) for axis, extent in enumerate(image))

    def _along(self, axis: int, extent: int, ceil_mode: bool) -> int:
        stride = self.strides[axis]
        reach = (self.kernel[axis] - 1) * self.dilations[axis] + 1
        room = extent + self.begin[axis] + self.end[axis] - reach
        if not ceil_mode:
            return room // stride + 1
        found = -(-room // stride) + 1
        # One that would begin in the padding at the end is left out.
        return found - ((found - 1) * stride >= extent + self.begin[axis])


def windows_of(attrs: Mapping[str, Any], kernel: Sequence[int], image: Sequence[int]) -> Windows:
    """The windows that a node's attributes describe; `auto_pad` becomes numbers."""
    rank = len(image)
    strides = tuple(int(n) for n in attrs.get("strides") or [1] * rank)
    dilations = tuple(int(n) for n in attrs.get("dilations") or [1] * rank)
    pads = [int(n) for n in attrs.get("pads") or [0] * 2 * rank]
    begin, end = pads[:rank], pads[rank:]
    auto = attrs.get("auto_pad", b"NOTSET")
    if auto == b"VALID":
        begin = end = [0] * rank
    elif auto != b"NOTSET":
        total = [
            max(0, (-(-n // s) - 1) * s + (k - 1) * d + 1 - n)
            for n, s, k, d in zip(image, strides, kernel, dilations, strict=True)
        ]
        less, more = [n // 2 for n in total], [n - n // 2 for n in total]
        begin, end = (less, more) if auto == b"SAME_UPPER" else (more, less)
    return Windows(tuple(kernel), strides, dilations, tuple(begin), tuple(end))


def max_pool_with_indices(_bb: Any, inputs: Sequence[Any], attrs: Mapping[str, Any]) -> Any:
    """MaxPool with its second output."""
    shape, dtype = shape_of(inputs[0]), dtype_of(inputs[0])
    image = shape[2:]
    windows = windows_of(attrs, attrs["kernel_shape"], image)
    out = windows.count(image, bool(attrs.get("ceil_mode", 0)))
    words = [
        prod(shape[:2]),
        int(attrs.get("storage_order", 0)),
        *counted(image),
        *out,
        *windows.kernel,
        *windows.strides,
        *windows.dilations,
        *windows.begin,
    ]
    found = (*shape[:2], *out)
    outputs = [(dtype, found), ("int64", found)]
    return library_call(f"max_pool_{suffix(dtype)}", inputs, outputs, words)


def max_unpool(_bb: Any, inputs: Sequence[Any], attrs: Mapping[str, Any]) -> Any:
    """MaxUnpool; indices count in the shape that would come out without `output_shape`."""
    x, indices, wanted = inputs[0], inputs[1], operand(inputs, 2)
    shape, dtype = shape_of(x), dtype_of(x)
    require_shape(indices, shape, "the indices")
    windows = windows_of(attrs, attrs["kernel_shape"], shape[2:])
    axes = zip(shape[2:], windows.kernel, windows.strides, windows.begin, windows.end, strict=True)
    natural = (*shape[:2], *((n - 1) * s + k - b - e for n, k, s, b, e in axes))
    found = natural
    if wanted is not None:
        found = tuple(required_constant(wanted, "the output's shape").tolist())
    if len(found) != len(natural):
        raise ValueError(f"the output's shape {list(found)} has not {len(natural)} axes")
    words = [prod(shape), *counted(natural), *found]
    return library_call(f"max_unpool_{suffix(dtype)}", [x, indices], [(dtype, found)], words)


def col2im(_bb: Any, inputs: Sequence[Any], attrs: Mapping[str, Any]) -> Any:
    """Col2Im."""
    x, dtype, (batch, rows, _) = inputs[0], dtype_of(inputs[0]), shape_of(inputs[0])
    image = required_constant(inputs[1], "the image's shape").tolist()
    block = required_constant(inputs[2], "the block's shape").tolist()
    windows = windows_of(attrs, block, image)
    channels = rows // prod(block)
    count = windows.count(image)
    require_shape(x, (batch, channels * prod(block), prod(count)), "what becomes an image")
    words = [
        batch * channels,
        *counted(image),
        *block,
        *count,
        *windows.strides,
        *windows.dilations,
        *windows.begin,
    ]
    found = (batch, channels, *image)
    return library_call(f"col2im_{suffix(dtype)}", [x], [(dtype, found)], words)


def deform_conv(_bb: Any, inputs: Sequence[Any], attrs: Mapping[str, Any]) -> Any:
    """DeformConv of images with two axes."""
    x, weights, offsets, bias, mask = (operand(inputs, index) for index in range(5))
    shape, weight_shape, dtype = shape_of(x), shape_of(weights), dtype_of(x)
    if len(shape) != 4:
        raise NotImplementedError(f"images of {len(shape) - 2} axes are not supported")
    windows = windows_of(attrs, weight_shape[2:], shape[2:])
    out = windows.count(shape[2:])
    groups, offset_groups = int(attrs.get("group", 1)), int(attrs.get("offset_group", 1))
    if shape[1] % groups or weight_shape[0] % groups or shape[1] % offset_groups:
        raise ValueError(f"{groups} groups and {offset_groups} of offsets do not divide channels")
    taps = offset_groups * prod(windows.kernel)
    require_shape(offsets, (shape[0], 2 * taps, *out), "the offsets")
    require_shape(weights, (weight_shape[0], shape[1] // groups, *windows.kernel), "the weights")
    if bias is None:
        bias = constant([0] * weight_shape[0], dtype)
    require_shape(bias, weight_shape[:1], "the bias")
    if mask is not None:
        require_shape(mask, (shape[0], taps, *out), "the mask")
    words = [
        *shape,
        weight_shape[0],
        groups,
        offset_groups,
        *windows.kernel,
        *out,
        *windows.strides,
        *windows.dilations,
        *windows.begin,
        int(mask is not None),
    ]
    operands = [x, weights, offsets, bias, bias if mask is None else mask]
    found = (shape[0], weight_shape[0], *out)
    return library_call(f"deform_conv_{suffix(dtype)}", operands, [(dtype, found)], words)


def roi_align(bb: Any, inputs: Sequence[Any], attrs: Mapping[str, Any]) -> Any:
    """RoiAlign; TVM shifts regions by half a pixel before it scales them."""
    x, regions, images = inputs
    shape, dtype, count = shape_of(x), dtype_of(x), shape_of(regions)[0]
    if 0 in shape[2:]:
        raise ValueError(f"images of shape {list(shape)} have no elements")
    require_shape(regions, (count, 4), "the regions")
    require_shape(images, [count], "the indices of images")
    out = (int(attrs.get("output_height", 1)), int(attrs.get("output_width", 1)))
    centred = attrs.get("coordinate_transformation_mode", b"half_pixel") == b"half_pixel"
    words = [
        count,
        *shape,
        *out,
        int(attrs.get("sampling_ratio", 0)),
        int(centred),
        int(attrs.get("mode", b"avg") == b"max"),
        float(attrs.get("spatial_scale", 1.0)),
    ]
    operands = [x, regions, as_dtype(bb, images, "int64")]
    found = (count, shape[1], *out)
    return library_call(f"roi_align_{suffix(dtype)}", operands, [(dtype, found)], words)
