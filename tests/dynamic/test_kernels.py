"""The kernels of dynamic graphs, executed as wasm with random extents, against numpy.

Tolerance: the float32 roundings of sums of up to 80 products of numbers below 4; 1e-6 for chains,
which round every step once or use `wasmgraph.kernels.vector_math`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from tests.kernels.runner import FILL, GUARD, Instance
from wasmgraph.assembler import Function
from wasmgraph.dynamic.kernels.decoding import BITS, decoding
from wasmgraph.dynamic.kernels.panels import WIDTHS, product
from wasmgraph.dynamic.kernels.strips import strip
from wasmgraph.dynamic.kernels.taps import taps
from wasmgraph.kernels.chain import Chain, Step

Array = NDArray[Any]

SLACK = 64
"""Bytes behind each tensor that may be read, as the executor allocates them."""

SILU = Chain(1, (Step("sigmoid", (0,)), Step("multiply", (0, 1))))
SCALED = Chain(3, (Step("multiply", (0, 1)), Step("add", (3, 2)), Step("relu", (4,))))
CHAINS = {
    "silu": (SILU, lambda x: x / (1 + np.exp(-x))),
    "scaled": (SCALED, lambda x, a, b: np.maximum(x * a + b, 0)),
    "copy": (Chain(1), lambda x: x),
}
INSTANCES = {
    "product": Instance([product(width) for width in WIDTHS], 16),
    "decoding": Instance([decoding(bits, width) for bits in BITS for width in WIDTHS], 16),
    "taps": Instance([taps()], 16),
    "strip": Instance([strip(name, chain) for name, (chain, _) in CHAINS.items()], 16),
}


class Memory:
    """Buffers one after the other, with guards between them."""

    def __init__(self, instance: Instance) -> None:
        self._instance = instance
        self._end = GUARD
        instance.memory[:] = FILL

    def place(self, array: Array) -> int:
        """Its address."""
        start = self._end
        data = np.ascontiguousarray(array).view(np.uint8).reshape(-1)
        self._instance.memory[start : start + data.size] = data
        self._end += -(-data.size // 16) * 16 + SLACK
        return start

    def read(self, start: int, shape: Sequence[int]) -> Array:
        """A float32 tensor; what follows it must be untouched."""
        end = start + 4 * int(np.prod(shape))
        assert (self._instance.memory[end : end + SLACK // 2] == FILL).all()
        return np.array(self._instance.memory[start:end]).view(np.float32).reshape(shape)


def numbers(seed: int, *shape: int) -> Array:
    return np.random.default_rng(seed).uniform(-4, 4, shape).astype(np.float32)


def empty(*shape: int) -> Array:
    return np.full(shape, np.frombuffer(bytes([FILL] * 4), np.float32)[0])


@settings(max_examples=60, deadline=None)
@given(
    st.sampled_from(WIDTHS),
    st.integers(1, 15),
    st.integers(1, 40),
    st.integers(0, 3),
    st.booleans(),
    st.integers(0, 99),
)
def test_product(width: int, rows: int, depth: int, gap: int, per_row: bool, seed: int) -> None:
    memory = Memory(INSTANCES["product"])
    a, b = numbers(seed, rows, depth + gap), numbers(seed + 1, depth, width)
    start = numbers(seed + 2, rows if per_row else width)
    spread = np.repeat(start[:, None], 4, 1) if per_row else start
    places = [memory.place(x) for x in (a, b, spread, empty(rows, width + 4 * gap))]
    steps = (16, 0) if per_row else (0, 16)
    a_row, out_row = 4 * (depth + gap), 4 * (width + 4 * gap)
    INSTANCES["product"].call(
        *(f"wgk_product_{width}", places[0], a_row, places[1], places[3], out_row),
        *(places[2], *steps, rows, depth),
    )
    found = memory.read(places[3], (rows, width + 4 * gap))
    expected = a[:, :depth] @ b + (start[:, None] if per_row else start)
    np.testing.assert_allclose(found[:, :width], expected, 1e-5, 1e-4)
    assert (found[:, width:].view(np.uint8) == FILL).all()


@pytest.mark.parametrize("width", WIDTHS)
def test_a_product_can_go_on_with_what_is_there(width: int) -> None:
    memory = Memory(INSTANCES["product"])
    a, b, out = numbers(0, 7, 9), numbers(1, 9, width), numbers(2, 7, width)
    places = [memory.place(x) for x in (a, b, out)]
    INSTANCES["product"].call(
        *(f"wgk_product_{width}", places[0], 36, places[1], places[2], 4 * width),
        *(places[2], 4 * width, 16, 7, 9),
    )
    np.testing.assert_allclose(memory.read(places[2], out.shape), out + a @ b, 1e-5, 1e-4)


@settings(max_examples=60, deadline=None)
@given(
    st.integers(1, 3), st.integers(4, 80), st.integers(1, 5), st.integers(1, 5), st.integers(0, 99)
)
def test_taps(rows: int, columns: int, high: int, wide: int, seed: int) -> None:
    memory = Memory(INSTANCES["taps"])
    source = numbers(seed, rows + high - 1, columns + wide - 1)
    weights, start = numbers(seed + 1, high, wide), numbers(seed + 2, 1)
    pitch = 4 * source.shape[1]
    offsets = [y * pitch + 4 * x for y in range(high) for x in range(wide)]
    out = empty(rows, columns)
    arrays = (source, out, np.array(offsets, np.int32), weights, start)
    places = [memory.place(x) for x in arrays]
    INSTANCES["taps"].call(
        *("wgk_taps", places[0], pitch, places[1], 4 * columns, rows, columns),
        *(len(offsets), places[2], places[3], places[4]),
    )
    windows = np.lib.stride_tricks.sliding_window_view(source, (high, wide))
    expected = start + (windows * weights).sum((2, 3))
    np.testing.assert_allclose(memory.read(places[1], out.shape), expected, 1e-5, 1e-4)


@settings(max_examples=60, deadline=None)
@given(
    st.sampled_from(sorted(CHAINS)),
    st.integers(0, 70),
    st.lists(st.booleans(), min_size=3, max_size=3),
    st.integers(0, 99),
)
def test_strip(name: str, count: int, same: list[bool], seed: int) -> None:
    memory = Memory(INSTANCES["strip"])
    chain, reference = CHAINS[name]
    operands = [
        np.repeat(numbers(seed + i, 1), 16) if same[i] else numbers(seed + i, count)
        for i in range(chain.operands)
    ]
    places = [memory.place(x) for x in operands]
    out = memory.place(empty(count))
    steps = [0 if same[i] else 64 for i in range(chain.operands)]
    table = [out, *(word for pair in zip(places, steps, strict=True) for word in pair)]
    INSTANCES["strip"].call(name, memory.place(np.array(table, np.int32)), count)
    given_ = [x[:1] if same[i] else x for i, x in enumerate(operands)]
    expected = np.broadcast_to(reference(*given_), count)
    np.testing.assert_allclose(memory.read(out, (count,)), expected, 1e-6, 1e-6)


@pytest.mark.parametrize("function", [*map(product, WIDTHS), taps()], ids=lambda f: f.name)
def test_a_kernel_is_small(function: Function) -> None:
    assert len(function.body()) < 3000


@settings(max_examples=60, deadline=None)
@given(
    st.sampled_from(BITS),
    st.sampled_from(WIDTHS),
    st.integers(0, 9),
    st.integers(0, 2**32 - 1),
)
def test_decoding_gives_the_numbers_that_codes_mean(bits, width, words, seed):
    """Bit by bit: a difference and a product, rounded once each."""
    rng = np.random.default_rng(seed)
    codes = rng.integers(0, 1 << bits, (words * 32 // bits, width)).astype(np.uint8)
    scales = rng.normal(size=width).astype(np.float32)
    zeros = rng.uniform(0, 1 << bits, width).astype(np.float32)
    shifts = np.arange(0, 32, bits, dtype=np.uint32).reshape(-1, 1)
    rows = codes.reshape(words, 32 // bits, width).astype(np.uint32) << shifts
    instance = INSTANCES["decoding"]
    memory = Memory(instance)
    places = [memory.place(a) for a in (scales, zeros, np.bitwise_or.reduce(rows, axis=1))]
    out = memory.place(empty(*codes.shape))
    instance.call(f"wgk_decode_{bits}_{width}", *places, out, words)
    expected = (codes.astype(np.float32) - zeros) * scales
    assert memory.read(out, codes.shape).tobytes() == expected.tobytes()
