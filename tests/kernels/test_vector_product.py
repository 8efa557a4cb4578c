"""One row times packed columns agrees with numpy."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.kernels.runner import run_kernel
from wasmgraph.assembler.function import Function
from wasmgraph.kernels.packing import pack_columns
from wasmgraph.kernels.vector_product import emit_vector_product


@given(
    depth=st.integers(1, 70),
    columns=st.integers(1, 150),
    has_start=st.booleans(),
    seed=st.integers(0, 2**16),
)
@settings(max_examples=60, deadline=None)
def test_agrees_with_numpy(depth: int, columns: int, has_start: bool, seed: int) -> None:
    """Twice in a row, since the pointers must be where they were."""
    rng = np.random.default_rng(seed)
    row, start = (rng.standard_normal(n).astype(np.float32) for n in (depth, columns))
    weights = rng.standard_normal((depth, columns)).astype(np.float32)
    f = Function("product", 3 + has_start)
    a, b, *rest, out = f.params
    for _ in range(2):
        emit_vector_product(f, depth, columns, a, b, out, rest[0] if rest else None)
    inputs = [row, pack_columns(weights), *([start] if has_start else [])]
    found = run_kernel(f, inputs, 4 * columns)
    expected = row.astype(np.float64) @ weights + (start if has_start else 0)
    # 70 products of order 1 are rounded to 2**-24 each.
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-4)
