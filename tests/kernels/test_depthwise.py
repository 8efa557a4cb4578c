"""Depthwise convolution agrees with numpy, and touches nothing but its own elements."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.kernels.images import GAPS, Window, layout_of, taps, windows
from tests.kernels.runner import GUARD, PAGE, Instance, run_kernel
from wasmgraph.assembler import Function
from wasmgraph.kernels.chain import IDENTITY, Chain, Step
from wasmgraph.kernels.depthwise import Depthwise, pack_depthwise
from wasmgraph.kernels.operands import PixelOperand

RELU = Chain(1, (Step("relu", (0,)),))
RESIDUAL = Chain(2, (Step("add", (0, 1)), Step("relu", (2,))))


def check(
    batch: int,
    rows: Window,
    columns: Window,
    channels: int,
    gaps: tuple[tuple[int, int, int], ...] = ((0, 0, 0),) * 3,
    has_bias: bool = True,
    chain: Chain = IDENTITY,
    operand: str = "",
) -> None:
    rng = np.random.default_rng(batch + 7 * channels + 100 * rows.size + columns.size)
    source = layout_of((batch, rows.size, columns.size, channels), gaps[0])
    out = layout_of((batch, rows.outputs, columns.outputs, channels), gaps[1])
    buffer, images = source.random(rng)
    weights = rng.standard_normal((channels, 1, rows.kernel, columns.kernel)).astype(np.float32)
    bias = rng.standard_normal(channels).astype(np.float32)
    inputs = [buffer, pack_depthwise(weights), *([bias] if has_bias else [])]
    operands: tuple[PixelOperand, ...] = ()
    added = np.zeros(1, np.float32)
    if operand == "image":
        other = layout_of(out.shape, gaps[2])
        other_buffer, added = other.random(rng)
        operands = (PixelOperand(other.batch, other.row, other.col, 1),)
        inputs.append(other_buffer)
    elif operand:
        # The same value for all pixels ("channels") or for everything ("number").
        added = rng.standard_normal(channels if operand == "channels" else 1).astype(np.float32)
        operands = (PixelOperand(0, 0, 0, int(operand == "channels")),)
        inputs.append(added)
    spec = Depthwise(
        batch, rows.size, columns.size, channels, source.batch, source.row, source.col,
        rows.outputs, columns.outputs, out.batch, out.row, out.col,
        rows.kernel, columns.kernel, rows.stride, columns.stride, rows.dilation, columns.dilation,
        rows.before, columns.before, has_bias, RESIDUAL if operand else chain, operands,
    )  # fmt: skip
    actual = out.written(run_kernel(spec, inputs, 4 * out.size))

    under = taps(images.astype(np.float64), rows, columns, 0.0)
    filters = weights[:, 0].transpose(1, 2, 0).astype(np.float64)
    expected = np.einsum("ijnyxc,ijc->nyxc", under, filters) + (bias if has_bias else 0)
    magnitude = np.einsum("ijnyxc,ijc->nyxc", abs(under), abs(filters)) + abs(bias)
    if operand:
        expected, magnitude = np.maximum(expected + added, 0), magnitude + abs(added)
    elif chain == RELU:
        expected = np.maximum(expected, 0)
    # Every product and every addition rounds once: 2**-24 of at most the sum of magnitudes each.
    roundings = rows.kernel * columns.kernel + 3
    assert (abs(actual - expected) <= roundings * 2.0**-24 * magnitude).all()


@settings(max_examples=60, deadline=None)
@given(
    st.integers(1, 2),
    windows(),
    windows(),
    st.integers(1, 40),
    st.tuples(GAPS, GAPS, GAPS),
    st.booleans(),
    st.sampled_from([IDENTITY, RELU]),
    st.sampled_from(["", "", "image", "channels", "number"]),
)
def test_agrees_with_numpy(batch, rows, columns, channels, gaps, has_bias, chain, operand):
    check(batch, rows, columns, channels, gaps, has_bias, chain, operand)


SAME3 = Window(14, 3, 1, 1, 1, 1)


@pytest.mark.parametrize("channels", [1, 2, 3, 4, 5, 7, 8, 13, 16, 17, 31, 32, 33, 64, 100])
@pytest.mark.parametrize("kernel", [3, 5])
@pytest.mark.parametrize("stride", [1, 2])
def test_common_filters_with_all_numbers_of_channels(channels, kernel, stride):
    window = Window(15, kernel, stride, 1, kernel // 2, kernel // 2)
    check(1, window, window, channels)


@pytest.mark.parametrize("size", range(1, 12))
def test_all_widths_around_the_tile(size):
    check(1, Window(3, 3, 1, 1, 1, 1), Window(size, 3, 1, 1, 1, 1), 8)
    check(1, Window(3, 3, 2, 1, 1, 1), Window(size, 3, 2, 1, 1, 1), 8)


@pytest.mark.parametrize(
    ("rows", "columns"),
    [
        (Window(1, 1, 1, 1, 0, 0), Window(40, 11, 1, 1, 5, 5)),
        (Window(40, 31, 1, 1, 15, 15), Window(1, 1, 1, 1, 0, 0)),
        (Window(14, 13, 1, 1, 6, 6), Window(14, 13, 1, 1, 6, 6)),
        (Window(9, 1, 2, 1, 0, 0), Window(30, 12, 3, 2, 7, 3)),
        (Window(33, 3, 1, 12, 12, 12), Window(33, 3, 1, 12, 12, 12)),
        (Window(7, 7, 1, 1, 0, 0), Window(7, 7, 1, 1, 0, 0)),
    ],
    ids=["wide", "high", "large", "wide with strides", "dilated", "global"],
)
def test_unusual_filters(rows, columns):
    check(1, rows, columns, 20)
    check(2, rows, columns, 3, operand="image")


def test_windows_in_the_padding_give_the_bias():
    check(1, Window(2, 2, 1, 1, 4, 4), Window(2, 2, 1, 1, 4, 4), 6)


def run_in_place(function: Function, inputs: list, residual: np.ndarray) -> np.ndarray:
    """Run a kernel whose last operand is its output."""
    total = sum(a.nbytes + GUARD for a in [*inputs, residual])
    instance = Instance([function], -(-total // PAGE))
    pointers, end = [], 0
    for array in [*inputs, residual]:
        pointers.append(end)
        instance.memory[end : end + array.nbytes] = array.view(np.uint8).reshape(-1)
        end += array.nbytes + GUARD
    instance.call(function.name, *pointers, pointers[-1])
    return instance.memory[pointers[-1] :][: residual.nbytes].copy().view(np.float32)


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 30), windows(3), windows(3))
def test_the_output_may_be_an_operand(channels, rows, columns):
    """A residual added in place: every element is read before it is written, and only once."""
    rng = np.random.default_rng(channels)
    source = layout_of((1, rows.size, columns.size, channels))
    out = layout_of((1, rows.outputs, columns.outputs, channels))
    buffer, _ = source.random(rng)
    residual, _ = out.random(rng)
    weights = rng.standard_normal((channels, 1, rows.kernel, columns.kernel)).astype(np.float32)
    spec = Depthwise(
        1, rows.size, columns.size, channels, source.batch, source.row, source.col,
        rows.outputs, columns.outputs, out.batch, out.row, out.col,
        rows.kernel, columns.kernel, rows.stride, columns.stride, rows.dilation, columns.dilation,
        rows.before, columns.before, False, RESIDUAL,
        (PixelOperand(out.batch, out.row, out.col, 1),),
    )  # fmt: skip
    apart = run_kernel(spec, [buffer, pack_depthwise(weights), residual], 4 * out.size)
    function = spec.assemble("kernel")
    in_place = run_in_place(function, [buffer, pack_depthwise(weights)], residual)
    assert in_place.tobytes() == apart.tobytes()


def test_packing_keeps_the_weights_of_four_channels_together():
    weights = np.arange(8 * 6, dtype=np.float32).reshape(8, 1, 2, 3)
    packed = pack_depthwise(weights)
    assert packed.shape == (2, 2, 3, 4)
    assert packed[1, 0, 2].tolist() == weights[4:, 0, 0, 2].tolist()


def test_packing_lets_the_second_vector_begin_inside_the_first():
    weights = np.arange(7, dtype=np.float32).reshape(7, 1, 1, 1)
    assert pack_depthwise(weights).reshape(-1, 4).tolist() == [[0, 1, 2, 3], [3, 4, 5, 6]]
    assert pack_depthwise(weights[:3]).reshape(-1, 4).tolist() == [[0, 1, 2, 0]]


def test_code_stays_small():
    window = Window(56, 3, 1, 1, 1, 1)
    layout = layout_of((1, 56, 56, 144))
    spec = Depthwise(
        1, 56, 56, 144, layout.batch, layout.row, layout.col,
        window.outputs, 56, layout.batch, layout.row, layout.col,
        3, 3, 1, 1, 1, 1, 1, 1, True, RELU,
    )  # fmt: skip
    assert len(spec.assemble("kernel").body()) < 3000
