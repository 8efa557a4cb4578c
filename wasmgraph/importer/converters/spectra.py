"""Fourier transforms, which the operator library computes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import prod
from typing import Any

import numpy as np

from wasmgraph.importer.converters.library import library_call, suffix
from wasmgraph.importer.converters.static import (
    as_dtype,
    axis_within,
    constant,
    dtype_of,
    operand,
    require_shape,
    required_constant,
    shape_of,
)


def dft(_bb: Any, inputs: Sequence[Any], attrs: Mapping[str, Any]) -> Any:
    """DFT. The axis is an attribute before opset 20, and an input from then on."""
    x, shape, dtype = inputs[0], shape_of(inputs[0]), dtype_of(inputs[0])
    axis = int(attrs.get("axis", -2))
    if operand(inputs, 2) is not None:
        axis = int(required_constant(inputs[2], "the axis").item())
    axis = axis_within(axis, len(shape))
    inverse, onesided = bool(attrs.get("inverse", 0)), bool(attrs.get("onesided", 0))
    half = inverse and onesided  # the spectrum of something real
    length = 2 * (shape[axis] - 1) if half else shape[axis]
    if operand(inputs, 1) is not None:
        length = int(required_constant(inputs[1], "the length").item())
    if length < 1:
        raise ValueError(f"the length of the transform is {length}")
    wanted = length // 2 + 1 if onesided and not inverse else length
    words = [
        prod(shape[:axis]),
        shape[axis],
        prod(shape[axis + 1 : -1]),
        int(shape[-1] == 2),
        length,
        wanted,
        int(inverse),
        int(half),
    ]
    found = (*shape[:axis], wanted, *shape[axis + 1 : -1], 1 if half else 2)
    return library_call(f"fourier_{suffix(dtype)}", [x], [(dtype, found)], words)


def stft(bb: Any, inputs: Sequence[Any], attrs: Mapping[str, Any]) -> Any:
    """STFT; without a window all elements of a frame count alike."""
    signal, window, given = inputs[0], operand(inputs, 2), operand(inputs, 3)
    shape, dtype = shape_of(signal), dtype_of(signal)
    step = int(required_constant(inputs[1], "the step").item())
    if given is not None:
        length = int(required_constant(given, "the length").item())
    else:
        length = shape[1] if window is None else shape_of(window)[0]
    if window is None:
        window = constant(np.ones(length), dtype)
    require_shape(window, [length], "the window")
    if step < 1 or not 1 <= length <= shape[1]:
        raise ValueError(f"frames of {length} by steps of {step} in {shape[1]} elements")
    frames = 1 + (shape[1] - length) // step
    wanted = length // 2 + 1 if attrs.get("onesided", 1) else length
    is_complex = int(len(shape) == 3 and shape[2] == 2)
    words = [shape[0], shape[1], is_complex, step, length, frames, wanted]
    found = (shape[0], frames, wanted, 2)
    operands = [signal, as_dtype(bb, window, dtype)]
    return library_call(f"short_time_fourier_{suffix(dtype)}", operands, [(dtype, found)], words)
