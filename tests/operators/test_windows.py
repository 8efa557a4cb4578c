"""Windows of images, against onnx's reference evaluator or plain numpy.

Tolerances are a few units in the last place of the float32 to which the library's double precision
is rounded; what only moves or compares elements must be equal.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tests.onnx_models import Array, make_model, node, run_as_wasm
from tests.operators.node_cases import Case, check, fixed, run_cases
from wasmgraph.errors import InferenceError

RNG = np.random.default_rng(0)
# Whole numbers that occur more than once, so that it matters which of equals is found.
IMAGE = RNG.integers(0, 9, (2, 3, 7, 8)).astype(np.float32)
SMOOTH = RNG.normal(size=(2, 4, 6, 7)).astype(np.float32)
REGIONS = np.array([[0, 0, 5, 4], [1.3, 0.2, 6.1, 5.7], [-3, 2, 20, 3], [4, 4, 2, 2]], np.float32)
OF_IMAGES = np.array([0, 1, 1, 0])


def max_pool(x: Array, kernel: int, stride: int, pad: int, dilation: int) -> tuple[Array, Array]:
    """The definition, with square windows."""
    n, c, height, width = x.shape
    reach = (kernel - 1) * dilation + 1
    rows, columns = ((extent + 2 * pad - reach) // stride + 1 for extent in (height, width))
    values = np.zeros((n, c, rows, columns), x.dtype)
    indices = np.zeros(values.shape, np.int64)
    for place in np.ndindex(values.shape):
        best = None
        for tap in np.ndindex(kernel, kernel):
            row, column = (place[2 + k] * stride - pad + tap[k] * dilation for k in (0, 1))
            if not (0 <= row < height and 0 <= column < width):
                continue
            at = (*place[:2], row, column)
            if best is None or x[at] > x[best]:
                best = at
        values[place] = x[best]
        indices[place] = np.ravel_multi_index(best, x.shape)
    return values, indices


def pool_case(x: Array, kernel: int, stride: int = 1, pad: int = 0, dilation: int = 1) -> Case:
    attributes = {
        "kernel_shape": [kernel] * 2,
        "strides": [stride] * 2,
        "pads": [pad] * 4,
        "dilations": [dilation] * 2,
    }
    expected = max_pool(x, kernel, stride, pad, dilation)
    what = f"{x.dtype} {kernel} {stride} {pad} {dilation}"
    return Case(what, "MaxPool", (x,), attributes, expected, outputs=2)


def deform_conv(groups: int, offset_groups: int, **attributes: Any) -> Case:
    """Against numpy's interpolation by hand; the reference evaluator's takes minutes."""
    stride, pad, dilation = (
        attributes.get(name, default)[0]
        for name, default in (("strides", [1]), ("pads", [0]), ("dilations", [1]))
    )
    n, channels, height, width = SMOOTH.shape
    rows = (height + 2 * pad - (2 - 1) * dilation - 1) // stride + 1
    columns = (width + 2 * pad - (3 - 1) * dilation - 1) // stride + 1
    weights = RNG.normal(size=(4, channels // groups, 2, 3)).astype(np.float32)
    offsets = RNG.normal(size=(n, offset_groups * 12, rows, columns)).astype(np.float32)
    mask = RNG.uniform(size=(n, offset_groups * 6, rows, columns)).astype(np.float32)
    bias = RNG.normal(size=4).astype(np.float32)
    y = np.zeros((n, 4, rows, columns))
    for b, o, r, c in np.ndindex(y.shape):
        y[b, o, r, c] = bias[o]
        for i, kr, kc in np.ndindex(channels // groups, 2, 3):
            channel = o // (4 // groups) * (channels // groups) + i
            tap = channel // (channels // offset_groups) * 6 + kr * 3 + kc
            row = r * stride - pad + kr * dilation + offsets[b, 2 * tap, r, c]
            column = c * stride - pad + kc * dilation + offsets[b, 2 * tap + 1, r, c]
            value = interpolated(SMOOTH[b, channel].astype(np.float64), row, column)
            y[b, o, r, c] += value * mask[b, tap, r, c] * weights[o, i, kr, kc]
    attributes.update(group=groups, offset_group=offset_groups)
    operands = (SMOOTH, weights, offsets, bias, mask)
    what = f"{attributes}"
    return Case(what, "DeformConv", operands, attributes, (y.astype(np.float32),))


def interpolated(image: Array, row: float, column: float) -> float:
    padded = np.pad(image, 1)
    top, left = int(np.floor(row)), int(np.floor(column))
    if not (-1 <= top < image.shape[0] and -1 <= left < image.shape[1]):
        return 0.0
    corners = padded[top + 1 : top + 3, left + 1 : left + 3]
    by_row = np.array([top + 1 - row, row - top])
    return float(by_row @ corners @ np.array([left + 1 - column, column - left]))


def roi_align(mode: str, coordinates: str, sampling: int) -> Case:
    attributes = {
        "mode": mode,
        "coordinate_transformation_mode": coordinates,
        "sampling_ratio": sampling,
        "output_height": 2,
        "output_width": 3,
        "spatial_scale": 0.7,
    }
    regions = REGIONS if sampling else REGIONS[:3]
    operands = (SMOOTH, regions, OF_IMAGES[: len(regions)])
    return Case(f"{mode} {coordinates} {sampling}", "RoiAlign", operands, attributes)


def columns_of(image: Array, block: tuple[int, int]) -> Array:
    """im2col, whose sums Col2Im undoes."""
    windows = np.lib.stride_tricks.sliding_window_view(image, block, (2, 3))
    moved = np.moveaxis(windows, (2, 3), (4, 5))
    return np.ascontiguousarray(moved.reshape(image.shape[0], image.shape[1] * 6, -1))


EQUAL = [
    pool_case(IMAGE, 2, 2),
    pool_case(IMAGE, 3, 2, pad=1),
    pool_case(IMAGE, 3, 1, pad=1, dilation=2),
    pool_case(IMAGE.astype(np.float64), 3),
    pool_case(IMAGE.astype(np.uint8), 2, 3),
    pool_case(-IMAGE.astype(np.int8), 2, 2, pad=1),
    Case("columns", "Col2Im", (columns_of(IMAGE, (2, 3)), fixed([7, 8]), fixed([2, 3]))),
    Case(
        "strides, dilations and pads",
        "Col2Im",
        (RNG.integers(0, 9, (2, 12, 15)).astype(np.float32), fixed([5, 8]), fixed([2, 2])),
        {"strides": [2, 1], "dilations": [1, 3], "pads": [1, 0, 1, 0]},
    ),
    Case(
        "three axes",
        "Col2Im",
        (RNG.integers(0, 9, (1, 8, 16)).astype(np.float32), fixed([2, 3, 7]), fixed([1, 2, 4])),
        {"strides": [1, 1, 1]},
    ),
]
CLOSE = [
    deform_conv(1, 1),
    deform_conv(2, 2, strides=[2, 2], pads=[1, 1, 1, 1]),
    deform_conv(1, 2, dilations=[2, 2], pads=[1, 1, 1, 1]),
    *(
        roi_align(mode, coordinates, sampling)
        for mode in ("avg", "max")
        for coordinates in ("half_pixel", "output_half_pixel")
        for sampling in (0, 2)
    ),
]


@pytest.fixture(scope="module")
def results() -> dict[str, list[Array]]:
    return run_cases([*EQUAL, *CLOSE])


@pytest.mark.parametrize("case", EQUAL, ids=str)
def test_gives_exactly_what_the_reference_gives(
    case: Case, results: dict[str, list[Array]]
) -> None:
    check(case, results[str(case)])


@pytest.mark.parametrize("case", CLOSE, ids=str)
def test_gives_what_the_reference_gives(case: Case, results: dict[str, list[Array]]) -> None:
    check(case, results[str(case)], rtol=3e-6, atol=3e-6)


def test_indices_by_columns_and_windows_beyond_the_edge() -> None:
    x = np.arange(12, dtype=np.float32).reshape(1, 1, 3, 4)
    nodes = [
        node("MaxPool", "x", "v i", kernel_shape=[2, 2], storage_order=1),
        node("MaxPool", "x", "v2 i2", kernel_shape=[2, 3], strides=[2, 3], ceil_mode=1),
        node("MaxPool", "x", "v3 i3", kernel_shape=[3, 3], strides=[2, 2], auto_pad="SAME_UPPER"),
    ]
    outputs = dict.fromkeys(("i", "i2", "i3"), ("int64", None))
    found = run_as_wasm(make_model(nodes, {"x": x.shape}, outputs), {"x": x})
    assert found["i"].tolist() == [[[[4, 7, 10], [5, 8, 11]]]]
    assert found["i2"].tolist() == [[[[6, 7], [10, 11]]]]
    assert found["i3"].tolist() == [[[[6, 7], [10, 11]]]]


def test_unpooling_puts_maxima_back() -> None:
    x = np.array([1, 2, 3, 4], np.float32).reshape(1, 1, 2, 2)
    indices = np.array([5, 7, 13, 15]).reshape(1, 1, 2, 2)
    window = {"kernel_shape": [2, 2], "strides": [2, 2]}
    nodes = [
        node("MaxUnpool", "x i", "y", **window),
        node("MaxUnpool", "x i shape", "larger", **window),
    ]
    model = make_model(
        nodes,
        {"x": x.shape, "i": ("int64", x.shape)},
        "y larger",
        {"shape": np.array([1, 1, 5, 5])},
    )
    found = run_as_wasm(model, {"x": x, "i": indices})
    expected = np.zeros(16, np.float32)
    expected[indices.reshape(-1)] = x.reshape(-1)
    np.testing.assert_array_equal(found["y"], expected.reshape(1, 1, 4, 4))
    larger = np.pad(found["y"], ((0, 0), (0, 0), (0, 1), (0, 1)))
    np.testing.assert_array_equal(found["larger"], larger)
    with pytest.raises(InferenceError, match="MaxUnpool"):
        run_as_wasm(model, {"x": x, "i": indices + 1})
