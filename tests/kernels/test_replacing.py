"""Kernels whose output replaces an operand of their chain: the same bits, whole and by shares."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.kernels.runner import PAGE, Instance
from tests.kernels.shares import COUNTS, ODD, RESIDUAL, SEEDS
from wasmgraph.kernels.chain import Chain, Step
from wasmgraph.kernels.contraction import BatchAxis, Contraction
from wasmgraph.kernels.depthwise import Depthwise
from wasmgraph.kernels.elementwise import Elementwise
from wasmgraph.kernels.operands import PixelOperand, RowOperand
from wasmgraph.kernels.packing import packed_columns
from wasmgraph.kernels.winograd import Winograd, padded_extent

PRODUCT = Chain(2, (Step("multiply", (0, 1)), Step("sigmoid", (2,))))


def check(kernel: Any, inputs: Sequence[int], out: int, count: int, seed: int) -> None:
    """Compare the kernel with its shares where the output lies upon the last operand.

    Args:
        inputs: float32 elements of each input; the last one is what the output replaces.
        out: Elements of the output.
    """
    assert kernel.replaceable
    shares = [s for s in kernel.shares(count) if s.kernel.replaceable]
    if len(shares) != len(kernel.shares(count)):
        # Some share needs its operand twice: the planner leaves these apart.
        return
    rng = np.random.default_rng(seed)
    sizes = [4 * n for n in (*inputs, out)]
    if getattr(kernel, "scratch_nbytes", 0):
        ends = [s.kernel.scratch_nbytes + s.offsets[-1] for s in shares]  # type: ignore[attr-defined]
        sizes.append(max(*ends, kernel.scratch_nbytes))
    starts = [64 + sum(-(-s // 64) * 64 + 64 for s in sizes[:i]) for i in range(len(sizes))]
    functions = [kernel.assemble("whole")]
    names: dict[Any, str] = {}
    for share in shares:
        if share.kernel not in names:
            names[share.kernel] = f"share{len(names)}"
            functions.append(share.kernel.assemble(names[share.kernel]))
    instance = Instance(functions, -(-(starts[-1] + sizes[-1] + 64) // PAGE))
    memory = instance.memory
    for size, start in zip(sizes[: len(inputs)], starts, strict=False):
        values = rng.standard_normal(size // 4).astype(np.float32)
        memory[start : start + size] = values.view(np.uint8)
    target, last = starts[len(inputs)], starts[len(inputs) - 1]
    # Gaps between the output's elements stay what they were.
    memory[target : target + 4 * out] = memory[last : last + 4 * out]
    instance.call("whole", *starts)
    expected = memory[target : target + 4 * out].tobytes()
    upon = [*starts[: len(inputs)], last, *starts[len(inputs) + 1 :]]
    for index in rng.permutation(len(shares)):
        places = [a + b for a, b in zip(upon, shares[index].offsets, strict=True)]
        instance.call(names[shares[index].kernel], *places)
    assert memory[last : last + 4 * out].tobytes() == expected


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.integers(1, 9), min_size=1, max_size=3),
    st.integers(0, 3),
    st.booleans(),
    COUNTS,
    SEEDS,
)
def test_elementwise(extents: list[int], gap: int, bias: bool, count: int, seed: int) -> None:
    strides = [1]
    for extent in extents[:0:-1]:
        strides.insert(0, strides[0] * extent + gap)
    size = 1 + sum((n - 1) * s for n, s in zip(extents, strides, strict=True))
    other = (*(0 for _ in extents[1:]), 1) if bias else tuple(strides)
    kernel = Elementwise(tuple(extents), tuple(strides), (other, tuple(strides)), PRODUCT)
    check(kernel, [extents[-1] if bias else size, size], size, count, seed)


@settings(max_examples=30, deadline=None)
@given(
    st.integers(1, 3),
    st.integers(1, 60),
    st.integers(1, 7),
    st.integers(1, 40),
    st.integers(0, 3),
    COUNTS,
    SEEDS,
)
def test_contraction(
    batch: int, rows: int, depth: int, columns: int, gap: int, count: int, seed: int
) -> None:
    pitch, step = columns + gap, rows * (columns + gap)
    packed = packed_columns(columns) * depth
    kernel = Contraction(
        batch=(BatchAxis(batch, rows * depth, packed, step),),
        rows=((rows, depth),),
        out_row=pitch,
        reduce=((depth, 1),),
        columns=columns,
        chain=ODD,
        operands=(RowOperand((0,), 0, 1), RowOperand((step,), pitch, 1)),
    )
    sizes = [batch * rows * depth, batch * packed, columns, batch * step]
    check(kernel, sizes, batch * step, count, seed)


@settings(max_examples=30, deadline=None)
@given(
    st.integers(1, 2),
    st.integers(1, 9),
    st.integers(1, 9),
    st.integers(1, 21),
    st.sampled_from([1, 3, 5]),
    st.integers(0, 3),
    COUNTS,
    SEEDS,
)
def test_depthwise(
    batch: int, height: int, width: int, channels: int, taps: int, gap: int, count: int, seed: int
) -> None:
    pitch = channels + gap
    image = height * width * pitch
    kernel = Depthwise(
        batch=batch,
        in_h=height,
        in_w=width,
        channels=channels,
        in_batch=height * width * channels,
        in_row=width * channels,
        in_col=channels,
        out_h=height,
        out_w=width,
        out_batch=image,
        out_row=width * pitch,
        out_col=pitch,
        kernel_h=taps,
        kernel_w=taps,
        stride_h=1,
        stride_w=1,
        dilation_h=1,
        dilation_w=1,
        pad_top=taps // 2,
        pad_left=taps // 2,
        has_bias=False,
        chain=RESIDUAL,
        operands=(PixelOperand(image, width * pitch, pitch, 1),),
    )
    weights = -(-channels // 4) * 4 * taps * taps
    sizes = [batch * height * width * channels, weights, batch * image]
    check(kernel, sizes, batch * image, count, seed)


@pytest.mark.parametrize("count", [2, 8])
@pytest.mark.parametrize(
    ("height", "width", "channels", "columns"), [(9, 14, 8, 16), (48, 41, 128, 48), (30, 16, 64, 8)]
)
def test_winograd(height: int, width: int, channels: int, columns: int, count: int) -> None:
    pitch = columns + 4
    kernel = Winograd(
        batch=1,
        height=height,
        width=width,
        channels=channels,
        columns=columns,
        chain=RESIDUAL,
        operands=(PixelOperand(0, width * pitch, pitch, 1),),
        pitch=pitch,
    )
    source = padded_extent(height) * padded_extent(width) * channels
    size = height * width * pitch
    check(kernel, [source, 9 * channels * columns, size], size, count, 0)


def test_winograd_replaces_nothing_where_its_last_chunk_overlaps_the_one_before() -> None:
    kernel = Winograd(1, 40, 41, 128, 48, chain=RESIDUAL, operands=(PixelOperand(0, 1, 1, 1),))
    assert kernel.chunks * kernel.chunk_rows > kernel.tiles[0]
    assert not kernel.replaceable
