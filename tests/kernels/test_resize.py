"""Resizing agrees with ONNX's own definition, and touches nothing but its own elements."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper
from onnx.reference.ops.op_resize import _interpolate_nd, _linear_coeffs, _nearest_coeffs

from tests.kernels.images import GAPS, layout_of
from tests.kernels.runner import run_kernel
from wasmgraph.kernels.resize import (
    COORDINATE_TRANSFORMS,
    NEAREST_MODES,
    AxisTable,
    Resize,
    axis_table,
)

TRANSFORMS = sorted(COORDINATE_TRANSFORMS)
MODES = sorted(NEAREST_MODES)

BY_OUT_EXTENT = ("align_corners", "pytorch_half_pixel")
"""Where the scaled extent has a fraction, ONNX's code counts it here and onnxruntime does not; we
follow the latter."""


def onnx_reference(signal, out_extent, scale, kind, transform, mode):
    """One axis, by the code that ONNX ships as its definition."""

    def coefficients(ratio, scale):
        if kind == "linear":
            return _linear_coeffs(ratio, scale)
        return _nearest_coeffs(ratio, mode=mode)

    return _interpolate_nd(
        np.asarray(signal, np.float64),
        coefficients,
        scale_factors=[scale] if scale is not None else None,
        output_size=None if scale is not None else [out_extent],
        coordinate_transformation_mode=transform,
    )


def by_table(signal, table: AxisTable):
    low = np.asarray(signal)[list(table.index0)]
    if not table.weight1:
        return low
    return low + (np.asarray(signal)[list(table.index1)] - low) * np.array(table.weight1)


@settings(max_examples=150, deadline=None)
@given(
    st.integers(1, 24),
    st.one_of(st.integers(1, 60), st.sampled_from([0.5, 0.75, 1.0, 1.5, 2.0, 2.6, 3.0, 4.0])),
    st.sampled_from(TRANSFORMS),
)
def test_linear_tables_are_those_of_onnx(in_extent, target, transform):
    scale = target if isinstance(target, float) else None
    out_extent = target if scale is None else int(in_extent * scale)
    assume(out_extent > 0)
    assume(scale is None or out_extent == in_extent * scale or transform not in BY_OUT_EXTENT)
    signal = np.random.default_rng(in_extent).standard_normal(in_extent)
    expected = onnx_reference(signal, out_extent, scale, "linear", transform, "")
    table = axis_table(in_extent, out_extent, scale, "linear", transform)
    actual = by_table(signal, table)
    # Positions are float32: up to 60 with an error of a few 2**-24 of that, times a slope below 8.
    assert actual.shape == expected.shape
    # Where a position is an integer but for rounding, ONNX's code takes a ratio for one pair of
    # neighbours and the elements of another. The comparison with onnxruntime covers those.
    share = np.array(table.weight1)
    certain = (share > 1e-5) & (share < 1 - 1e-5)
    assert (abs(actual - expected)[certain] < 1e-4).all()


@settings(max_examples=60, deadline=None)
@given(
    st.integers(1, 24),
    st.one_of(st.integers(1, 60), st.sampled_from([0.5, 0.75, 1.5, 2.0, 2.6, 3.0, 4.0])),
    st.sampled_from(TRANSFORMS),
    st.sampled_from(["linear", "nearest"]),
    st.sampled_from(MODES),
)
def test_tables_are_those_of_onnxruntime(in_extent, target, transform, kind, mode):
    scale = target if isinstance(target, float) else None
    out_extent = target if scale is None else int(in_extent * np.float32(scale))
    # A Resize that keeps the shape is a copy there, whatever the positions are.
    assume(out_extent not in (0, in_extent))
    signal = np.random.default_rng(in_extent).standard_normal(in_extent).astype(np.float32)
    table = axis_table(in_extent, out_extent, scale, kind, transform, mode)
    expected = by_onnxruntime(signal, out_extent, scale, kind, transform, mode)
    agrees = abs(by_table(signal, table) - expected) < 1e-4
    if kind == "nearest":
        # A position within rounding of where the mode switches may go either way.
        nearby = [by_table(signal, shifted(table, step, in_extent)) == expected for step in (-1, 1)]
        close = near_switch(in_extent, out_extent, scale, transform, mode)
        agrees |= close & (nearby[0] | nearby[1])
    assert agrees.all()


def shifted(table: AxisTable, step: int, in_extent: int) -> AxisTable:
    return AxisTable(tuple(min(max(i + step, 0), in_extent - 1) for i in table.index0))


def near_switch(in_extent, out_extent, scale, transform, mode):
    """Whether a position is within 1e-5 of a place where the nearest element changes."""
    table = axis_table(in_extent, out_extent, scale, "linear", transform)
    position = np.array(table.index0) + np.array(table.weight1)
    place = position if mode in ("floor", "ceil") else position + 0.5
    return abs(place - np.round(place)) < 1e-5


def by_onnxruntime(signal, out_extent, scale, kind, transform, mode):
    """One axis of a Resize, run by the engine that models are verified against."""
    onnxruntime = pytest.importorskip("onnxruntime")
    extents = [1, 1, signal.size, 1]
    constants, names = [], ["x", ""]
    if scale is None:
        constants.append(helper.make_tensor("to", TensorProto.INT64, [4], [1, 1, out_extent, 1]))
        names += ["", "to"]
    else:
        constants.append(helper.make_tensor("to", TensorProto.FLOAT, [4], [1, 1, scale, 1]))
        names.append("to")
    node = helper.make_node(
        "Resize",
        names,
        ["y"],
        mode=kind,
        coordinate_transformation_mode=transform,
        nearest_mode=mode,
    )
    graph = helper.make_graph(
        [node],
        "resize",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, extents)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        constants,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 19)], ir_version=9)
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    return session.run(None, {"x": signal.reshape(extents)})[0].reshape(-1)


@settings(max_examples=150, deadline=None)
@given(
    st.integers(1, 24),
    st.sampled_from([0.25, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 8.0]),
    st.sampled_from(TRANSFORMS),
    st.sampled_from(MODES),
)
def test_nearest_tables_are_those_of_onnx(in_extent, scale, transform, mode):
    """With scales whose positions float32 represents, or where rounding does not decide."""
    out_extent = int(in_extent * scale)
    assume(out_extent > 0)
    assume(out_extent == in_extent * scale or transform not in BY_OUT_EXTENT)
    exact = scale in (0.25, 0.5, 1.0, 2.0, 4.0, 8.0) and transform != "align_corners"
    if transform == "half_pixel_symmetric" and out_extent != in_extent * scale:
        exact = False
    signal = np.arange(in_extent)
    expected = onnx_reference(signal, out_extent, scale, "nearest", transform, mode)
    actual = by_table(signal, axis_table(in_extent, out_extent, scale, "nearest", transform, mode))
    assert actual.shape == expected.shape
    assert abs(actual - expected).max() <= (0 if exact else 1)


def test_ties_go_where_the_mode_says():
    def table(mode):
        # Twice as few outputs, half_pixel: 0.5, 2.5, 4.5.
        return axis_table(6, 3, 0.5, "nearest", "half_pixel", mode).index0

    assert table("round_prefer_floor") == (0, 2, 4)
    assert table("round_prefer_ceil") == (1, 3, 5)
    assert table("floor") == (0, 2, 4)
    assert table("ceil") == (1, 3, 5)


@settings(max_examples=60, deadline=None)
@given(
    st.sampled_from(["nearest", "linear"]),
    st.tuples(st.integers(1, 2), st.integers(1, 9), st.integers(1, 9), st.integers(1, 40)),
    st.tuples(st.integers(1, 20), st.integers(1, 20)),
    st.tuples(GAPS, GAPS),
    st.sampled_from(TRANSFORMS),
    st.sampled_from(MODES),
)
def test_agrees_with_numpy(kind, shape, target, gaps, transform, mode):
    check(kind, shape, target, gaps, transform, mode)


@pytest.mark.parametrize("kind", ["nearest", "linear"])
@pytest.mark.parametrize("channels", [1, 2, 3, 4, 5, 8, 15, 16, 17, 30, 96])
def test_doubling_with_all_numbers_of_channels(kind, channels):
    check(kind, (1, 5, 7, channels), (10, 14), ((0, 0, 0),) * 2, "half_pixel", "floor")
    check(kind, (1, 5, 7, channels), (10, 14), ((0, 0, 0),) * 2, "asymmetric", "floor")


def check(kind, shape, target, gaps, transform, mode):
    source = layout_of(shape, gaps[0])
    out = layout_of((shape[0], *target, shape[3]), gaps[1])
    buffer, images = source.random(np.random.default_rng(sum(shape)))
    rows = axis_table(shape[1], target[0], None, kind, transform, mode)
    columns = axis_table(shape[2], target[1], None, kind, transform, mode)
    spec = Resize(
        shape[0], shape[3], shape[1], shape[2], source.batch, source.row, source.col,
        *target, out.batch, out.row, out.col, kind, rows, columns,
    )  # fmt: skip
    actual = out.written(run_kernel(spec, [buffer, *spec.tables()], 4 * out.size))

    high = interpolate(images.astype(np.float64), rows, 1)
    expected = interpolate(high, columns, 2)
    if kind == "nearest":
        assert (actual == expected).all()
        return
    # Each of three interpolations rounds three times, relative to the largest value involved.
    assert abs(actual - expected).max() <= 9 * 2.0**-23 * abs(images).max()


def interpolate(images, table: AxisTable, axis: int):
    low = images.take(table.index0, axis)
    if not table.weight1:
        return low
    shape = [1] * images.ndim
    shape[axis] = -1
    return low + (images.take(table.index1, axis) - low) * np.reshape(table.weight1, shape)


def test_equal_resizes_share_a_kernel():
    def spec():
        axis = axis_table(4, 8, 2.0, "linear")
        return Resize(1, 3, 4, 4, 48, 12, 3, 8, 8, 192, 24, 3, "linear", axis, axis)

    assert spec() == spec()
    assert hash(spec()) == hash(spec())
