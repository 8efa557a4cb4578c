"""Integer products and convolutions equal numpy's bit by bit, and touch nothing but their own."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from tests.kernels import shares
from tests.kernels.runner import FILL, run_kernel
from tests.kernels.test_contraction import span, view
from wasmgraph.assembler.scalar import scalarise
from wasmgraph.kernels.chain import IDENTITY, Chain, Step
from wasmgraph.kernels.contraction import BatchAxis, column_blocks
from wasmgraph.kernels.integer_contraction import (
    WIDEN_FROM,
    WIDEN_UP_TO,
    IntegerContraction,
    TypedOperand,
)
from wasmgraph.kernels.integer_packing import pack_integer_columns, packed_depth, per_column
from wasmgraph.kernels.operands import RowOperand
from wasmgraph.kernels.rows import count
from wasmgraph.kernels.typed import numbers_apart

BYTES = ("int8", "uint8")


def quantise(dtype: str, scale: float = 1.0, zero: int = 0, argument: int = 0) -> Step:
    info = np.iinfo(dtype)
    return Step("quantise", (argument,), (scale, zero, info.min - zero, info.max - zero))


def quantised(values: NDArray[Any], step: Step, dtype: str) -> NDArray[Any]:
    """What ONNX says of QuantizeLinear, on float32 like the kernel."""
    scale, zero, low, high = step.numbers
    ratio = values / np.float32(scale)
    return (np.rint(np.clip(ratio, low, high)) + zero).astype(dtype)


def random(rng: np.random.Generator, dtype: str, shape: Any) -> NDArray[Any]:
    """Any numbers of a dtype; of int16 what uint8 less a zero point can be."""
    low, high = (-255, 255) if dtype == "int16" else (np.iinfo(dtype).min, np.iinfo(dtype).max)
    return rng.integers(low, high + 1, shape).astype(dtype)


def check(made: IntegerContraction, rng: np.random.Generator, scalar: bool = False) -> None:
    """Run a specification on random operands that end where their last element does.

    Args:
        made: With the numbers still in its chain.
    """
    spec, numbers = split(made)
    batch = [axis.extent for axis in spec.batch]
    depth = count(spec.reduce)
    a_axes = [(x.extent, x.a) for x in spec.batch] + [*spec.rows, *spec.reduce]
    a = random(rng, spec.a, span(a_axes))
    shared = [x.extent if x.b else 1 for x in spec.batch]
    b = random(rng, spec.b, (*shared, depth, spec.columns))
    inputs = [a, pack_integer_columns(b, spec.reduce)]
    wide = view(a.astype(np.int64), a_axes).reshape(*batch, spec.row_count, depth)
    expected = (wide @ b.astype(np.int64)).astype(np.int32)
    if spec.has_bias:
        biased = [x.extent if x.bias else 1 for x in spec.batch]
        bias = rng.integers(-(10**5), 10**5, (*biased, spec.columns)).astype(np.int32)
        inputs.append(per_column(bias, spec.columns))
        expected = expected + bias[..., None, :]
    if spec.is_scaled:
        biased = [x.extent if x.bias and not spec.one_scale else 1 for x in spec.batch]
        multiplier = (rng.random((*biased, spec.columns)) * 1e-2).astype(np.float32)
        inputs.append(per_column(multiplier, spec.columns))
        expected = expected.astype(np.float32) * multiplier[..., None, :]
    if numbers.size:
        inputs.append(numbers)
    for operand in spec.operands:
        place = operand.place
        axes = [*zip(batch, place.batch, strict=True), (spec.row_count, place.row)]
        axes.append((spec.columns, place.column))
        if operand.dtype == "float32":
            inputs.append(rng.standard_normal(span(axes)).astype(np.float32))
        else:
            inputs.append(random(rng, operand.dtype, span(axes)))
        expected = expected + view(inputs[-1], axes).astype(np.float32)
    if made.chain.steps and made.chain.steps[-1].op == "quantise":
        expected = quantised(expected, made.chain.steps[-1], spec.out)
    assert expected.dtype == spec.out
    out_axes = [(x.extent, x.out) for x in spec.batch]
    out_axes += [(spec.row_count, spec.out_row), (spec.columns, 1)]
    kernel = spec.assemble("kernel")
    nbytes = np.dtype(spec.out).itemsize * span(out_axes)
    out = run_kernel(
        scalarise(kernel) if scalar else kernel,
        inputs,
        nbytes,
        spec.out,
        scratch_nbytes=spec.scratch_nbytes,
    )
    np.testing.assert_array_equal(view(out, out_axes), expected)
    filler = np.full(nbytes, FILL, np.uint8)
    view(out, out_axes)[...] = np.frombuffer(filler, spec.out)[0]
    assert (out.view(np.uint8) == FILL).all(), "the kernel wrote between its rows"


def split(spec: IntegerContraction) -> tuple[IntegerContraction, NDArray[Any]]:
    """A specification whose chain reads its numbers, and these."""
    chain, numbers = numbers_apart(spec.chain, spec.out)
    return replace(spec, chain=chain), numbers


def dense(rows: int, depth: int, columns: int, **others: Any) -> IntegerContraction:
    """A plain matrix product of int8 with int8 into int32."""
    settings: dict[str, Any] = {"a": "int8", "b": "int8", "out": "int32"} | others
    return IntegerContraction((), ((rows, depth),), columns, ((depth, 1),), columns, **settings)


@settings(max_examples=60, deadline=None)
@given(
    st.integers(1, 30),
    st.integers(1, 50),
    st.integers(1, 40),
    st.sampled_from(["int8", "uint8", "int16"]),
    st.sampled_from(["int8", "int16"]),
    st.booleans(),
    st.booleans(),
    st.integers(0, 2**32 - 1),
)
def test_matrix_products_of_all_shapes(rows, depth, columns, a, b, has_bias, scalar, seed):
    spec = dense(rows, depth, columns, a=a, b=b, has_bias=has_bias)
    check(spec, np.random.default_rng(seed), scalar)


@pytest.mark.parametrize("columns", range(1, 35))
@pytest.mark.parametrize("scalar", [False, True])
def test_all_numbers_of_columns(columns, scalar):
    out = BYTES[columns % 2]
    chain = Chain(1, (quantise(out, zero=3),))
    spec = dense(7, 19, columns, a="uint8", has_bias=True, out=out, chain=chain)
    check(spec, np.random.default_rng(columns), scalar)


@pytest.mark.parametrize("depth", range(1, 26))
@pytest.mark.parametrize("a", ["int8", "uint8", "int16"])
def test_all_depths(depth, a):
    check(dense(5, depth, 9, a=a), np.random.default_rng(depth))


def test_products_of_the_largest_numbers_do_not_overflow():
    spec = dense(1, 64, 4, a="uint8")
    a, b = np.full((1, 64), 255, np.uint8), np.full((64, 4), -128, np.int8)
    out = run_kernel(spec, [a, pack_integer_columns(b, spec.reduce)], 16, np.int32)
    np.testing.assert_array_equal(out, np.full(4, -128 * 255 * 64))


def test_more_rows_than_fit_the_cache():
    check(dense(607, 700, 20, has_bias=True), np.random.default_rng(0))


@pytest.mark.parametrize("rows", [WIDEN_FROM - 1, WIDEN_FROM])
@pytest.mark.parametrize("depth", [21, WIDEN_UP_TO // 32, WIDEN_UP_TO // 32 + 1])
def test_blocks_of_columns_are_widened_where_that_pays(rows, depth):
    spec = dense(rows, depth, 16)
    assert (spec.scratch_nbytes > 0) == (rows >= WIDEN_FROM and 32 * depth <= WIDEN_UP_TO)
    check(spec, np.random.default_rng(depth))


def test_ties_go_to_the_even_number_and_everything_else_saturates():
    sums = np.array([-1000, -257, -5, -3, -1, 0, 1, 3, 5, 253, 257, 2**30], np.int32)
    for dtype, zero in [("int8", 0), ("int8", -7), ("uint8", 0), ("uint8", 129)]:
        chain = Chain(1, (quantise(dtype, zero=zero),))
        spec, numbers = split(dense(1, 1, sums.size, out=dtype, has_bias=True, chain=chain))
        inputs = [
            np.zeros(1, np.int8),
            pack_integer_columns(np.zeros((1, sums.size), np.int8), spec.reduce),
            per_column(sums, sums.size),
            per_column(np.full(sums.size, 0.5, np.float32), sums.size),
            numbers,
        ]
        out = run_kernel(spec, inputs, sums.size, dtype)
        info = np.iinfo(dtype)
        expected = np.clip(np.rint(sums * 0.5) + zero, info.min, info.max)
        np.testing.assert_array_equal(out, expected.astype(dtype))


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_strides_batches_and_operands(data):
    """Rows, reduction and batches with any strides; fused operands of any type."""
    axes = st.lists(st.tuples(st.integers(1, 5), st.integers(0, 9)), max_size=2).map(tuple)
    rows = (*data.draw(axes), (data.draw(st.integers(1, 9)), data.draw(st.integers(0, 9))))
    reduce = (*data.draw(axes), (data.draw(st.integers(1, 19)), 1))
    columns = data.draw(st.integers(1, 34))
    out_row = columns + data.draw(st.integers(0, 5))
    padded = 4 * sum(column_blocks(columns))
    extents = data.draw(st.lists(st.integers(1, 3), max_size=2))
    b_step, bias_step = packed_depth(reduce) * padded, padded
    out_step = count(rows) * out_row
    batch: list[BatchAxis] = []
    for n in reversed(extents):
        has_b = data.draw(st.booleans())
        a_step = data.draw(st.integers(0, 20))
        axis = BatchAxis(n, a_step, b_step * has_b, out_step, bias_step * has_b)
        batch.insert(0, axis)
        b_step *= n if has_b else 1
        bias_step *= n if has_b else 1
        out_step *= n
    out = data.draw(st.sampled_from(["int32", "float32", *BYTES]))
    operands: tuple[TypedOperand, ...] = ()
    if out != "int32" and data.draw(st.booleans()):
        place = RowOperand(
            tuple(data.draw(st.integers(0, 7)) for _ in extents),
            data.draw(st.integers(0, 40)),
            data.draw(st.integers(0, 1)),
        )
        dtype = data.draw(st.sampled_from(["float32", "int32", *BYTES]))
        operands = (TypedOperand(place, dtype),)
    steps = [Step("add", (0, 1))] if operands else []
    if out in BYTES:
        steps.append(quantise(out, 1.5, data.draw(st.integers(0, 100)), 2 if operands else 0))
    spec = IntegerContraction(
        tuple(batch),
        rows,
        out_row,
        reduce,
        columns,
        data.draw(st.sampled_from(["int8", "uint8", "int16"])),
        data.draw(st.sampled_from(["int8", "int16"])),
        out,
        data.draw(st.booleans()),
        data.draw(st.booleans()),
        Chain(1 + len(operands), tuple(steps)) if steps else IDENTITY,
        operands,
    )
    rng = np.random.default_rng(data.draw(st.integers(0, 1000)))
    check(spec, rng, data.draw(st.booleans()))


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 60), st.integers(1, 40), st.integers(1, 90), shares.COUNTS, shares.SEEDS)
def test_shares_write_what_the_whole_writes(rows, depth, columns, parts, seed):
    chain = Chain(1, (quantise("int8"),))
    spec, numbers = split(dense(rows, depth, columns, has_bias=True, out="int8", chain=chain))
    rng = np.random.default_rng(seed)
    inputs = [
        random(rng, "int8", (rows, depth)),
        pack_integer_columns(random(rng, "int8", (depth, columns)), spec.reduce),
        per_column(rng.integers(-1000, 1000, columns).astype(np.int32), columns),
        per_column((rng.random(columns) * 1e-2).astype(np.float32), columns),
        numbers,
    ]
    shares.check_on(spec, parts, inputs, rows * columns, seed)
