"""One row times packed columns agrees with `Contraction` and with numpy."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.kernels.runner import run_kernel
from wasmgraph.assembler.function import Function
from wasmgraph.kernels.chain import IDENTITY, Chain, Step
from wasmgraph.kernels.contraction import Contraction
from wasmgraph.kernels.operands import RowOperand
from wasmgraph.kernels.packing import pack_columns
from wasmgraph.kernels.vector_product import emit_vector_product


@given(
    depth=st.integers(1, 70),
    columns=st.integers(1, 150),
    has_bias=st.booleans(),
    has_added=st.booleans(),
    seed=st.integers(0, 2**16),
)
@settings(max_examples=60, deadline=None)
def test_gives_what_contraction_gives(
    depth: int, columns: int, has_bias: bool, has_added: bool, seed: int
) -> None:
    """Bit by bit, and twice in a row, since the pointers must be where they were."""
    rng = np.random.default_rng(seed)
    row, bias, added = (
        rng.standard_normal(n).astype(np.float32) for n in (depth, columns, columns)
    )
    weights = rng.standard_normal((depth, columns)).astype(np.float32)
    f = Function("product", 3 + has_bias + has_added)
    a, b, *rest, out = f.params
    for _ in range(2):
        emit_vector_product(
            f,
            depth,
            columns,
            a,
            b,
            out,
            rest[0] if has_bias else None,
            rest[-1] if has_added else None,
        )
    given_bias, given_added = [bias] * has_bias, [added] * has_added
    inputs = [row, pack_columns(weights), *given_bias, *given_added]
    found = run_kernel(f, inputs, 4 * columns)
    whole = Contraction(
        batch=(),
        rows=((1, depth),),
        out_row=columns,
        reduce=((depth, 1),),
        columns=columns,
        has_bias=has_bias,
        chain=Chain(2, (Step("add", (0, 1)),)) if has_added else IDENTITY,
        operands=(RowOperand((), 0, 1),) if has_added else (),
    )
    np.testing.assert_array_equal(found, run_kernel(whole, inputs, 4 * columns))
    expected = row.astype(np.float64) @ weights + sum([*given_bias, *given_added])
    # 70 products of order 1 are rounded to 2**-24 each.
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-4)
