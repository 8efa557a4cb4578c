"""The element-wise kernel: every way of broadcasting and striding, against numpy."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tests.kernels.runner import FILL, Instance, run_kernel
from tests.kernels.strided import extents, size_of, spaced, view_of
from wasmgraph.kernels.chain import Chain, Step
from wasmgraph.kernels.elementwise import Elementwise, merge

# Rounded the same way by numpy, so results are compared bit by bit.
CHAINS = {
    1: Chain(1, (Step("multiply_number", (0,), (0.3,)), Step("relu", (1,)))),
    2: Chain(2, (Step("add", (0, 1)), Step("square", (2,)))),
    3: Chain(3, (Step("multiply", (0, 1)), Step("subtract", (3, 2)), Step("add", (4, 0)))),
}


def expected(values: list[np.ndarray]) -> np.ndarray:
    if len(values) == 1:
        return np.maximum(values[0] * np.float32(0.3), 0)
    if len(values) == 2:
        return np.square(values[0] + values[1])
    return (values[0] * values[1] - values[2]) + values[0]


@st.composite
def specs(draw: st.DrawFn) -> Elementwise:
    shape = draw(extents())
    operands = []
    for _ in range(draw(st.integers(1, 3))):
        strides = draw(spaced(shape))
        broadcast = draw(st.lists(st.booleans(), min_size=len(shape), max_size=len(shape)))
        operands.append(tuple(0 if b else s for b, s in zip(broadcast, strides, strict=True)))
    return Elementwise(shape, draw(spaced(shape)), tuple(operands), CHAINS[len(operands)])


def check(spec: Elementwise) -> None:
    rng = np.random.default_rng(0)
    buffers = [
        rng.standard_normal(size_of(spec.shape, strides)).astype(np.float32)
        for strides in spec.operands
    ]
    size = size_of(spec.shape, spec.out)
    want = np.full(4 * size, FILL, np.uint8).view(np.float32)
    values = [view_of(b, spec.shape, s) for b, s in zip(buffers, spec.operands, strict=True)]
    view_of(want, spec.shape, spec.out)[...] = expected(values)
    # What lies between the output's elements must stay as it was.
    assert run_kernel(spec, buffers, 4 * size).tobytes() == want.tobytes()


@settings(max_examples=60, deadline=None)
@given(specs())
@example(Elementwise((), (), ((),), CHAINS[1]))
@example(Elementwise((9, 3), (3, 1), ((3, 1), (0, 1)), CHAINS[2]))
@example(Elementwise((9, 3), (3, 1), ((1, 0), (0, 1), (0, 0)), CHAINS[3]))
@example(Elementwise((2, 7, 2), (14, 2, 1), ((14, 2, 1), (0, 0, 1), (9, 1, 0)), CHAINS[3]))
@example(Elementwise((11, 1), (5, 1), ((1, 0), (3, 0)), CHAINS[2]))
@example(Elementwise((3, 11, 1), (40, 3, 1), ((11, 1, 1), (0, 0, 0)), CHAINS[2]))
@example(Elementwise((9, 3), (4, 1), ((3, 1), (0, 1)), CHAINS[2]))
def test_results_equal_numpy_and_gaps_stay_untouched(spec: Elementwise) -> None:
    check(spec)


@pytest.mark.parametrize("innermost", [0, 2, 5, -1, -3])
@pytest.mark.parametrize("extent", [1, 4, 7])
def test_operands_may_be_spread_or_reversed_along_the_innermost_axis(
    innermost: int, extent: int
) -> None:
    shape = (3, extent)
    source = np.arange(1, 200, dtype=np.float32)
    start = max(0, -innermost) * (extent - 1)
    spec = Elementwise(shape, (extent, 1), ((40, innermost),), CHAINS[1])
    if innermost >= 0:
        source = source[: size_of(shape, (40, innermost))]
        got = run_kernel(spec, [source], 4 * 3 * extent)
        want = expected([view_of(source, shape, (40, innermost))])
        np.testing.assert_array_equal(got.reshape(shape), want)
        return
    # The pointer is the first element's, which is the highest address of its row.
    shifted = _with_start(spec, start)
    got = run_kernel(shifted, [source], 4 * 3 * extent)
    want = expected([view_of(source, shape, (40, innermost), start)])
    np.testing.assert_array_equal(got.reshape(shape), want)


def _with_start(spec: Elementwise, elements: int):  # type: ignore[no-untyped-def]
    """The kernel, given the start of the buffer instead of the first element."""
    from wasmgraph.kernels.elementwise import _Assembly

    assembly = _Assembly(spec, "kernel")
    assert not assembly.spread
    body = assembly.f
    body.set(body.params[0], body.params[0] + 4 * elements)
    return assembly.run()


def test_the_output_may_be_one_of_the_operands() -> None:
    for shape in [(1000,), (50, 3), (7, 13)]:
        a = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
        strides = tuple(s // 4 for s in a.strides)
        function = Elementwise(shape, strides, (strides,), CHAINS[1]).assemble("kernel")
        instance = Instance([function], 2)
        instance.memory[64 : 64 + a.nbytes] = a.view(np.uint8).reshape(-1)
        instance.call("kernel", 64, 64)
        got = instance.memory[64 : 64 + a.nbytes].view(np.float32).reshape(shape)
        np.testing.assert_array_equal(got, expected([a]))


@given(extents(5, 4), st.data())
def test_merging_axes_keeps_every_address(shape: tuple[int, ...], data: st.DataObject) -> None:
    strides = [data.draw(spaced(shape)), tuple(0 for _ in shape), data.draw(spaced(shape))]
    merged, steps = merge(shape, *strides)
    assert 1 not in merged
    for before, after in zip(strides, steps, strict=True):
        assert _addresses(shape, before) == _addresses(merged, after)


def _addresses(shape: tuple[int, ...], strides: tuple[int, ...]) -> list[int]:
    grid = np.zeros(shape, int)
    for axis, (extent, stride) in enumerate(zip(shape, strides, strict=True)):
        index = np.arange(extent) * stride
        grid += index.reshape([-1 if i == axis else 1 for i in range(len(shape))])
    return list(grid.reshape(-1))


def test_dense_tensors_merge_into_one_axis() -> None:
    assert merge((2, 1, 3, 4), (12, 12, 4, 1), (12, 0, 4, 1)) == ((24,), ((1,), (1,)))
    assert merge((2, 3, 4), (12, 4, 1), (0, 4, 1)) == ((2, 12), ((12, 1), (0, 1)))
    assert merge((1, 1), (1, 1)) == ((), ((),))


def test_a_kernel_is_small() -> None:
    spec = Elementwise((64, 56, 56), (3136, 56, 1), ((3136, 56, 1), (1, 0, 0)), CHAINS[2])
    assert len(spec.assemble("kernel").body()) < 600
