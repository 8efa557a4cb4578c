"""Operators with a definition, called with inputs left out in the middle.

The tolerance is that of softmax and products in float32 by another order of operations.
"""

from __future__ import annotations

import numpy as np
import onnx
import pytest

from tests.operators.node_cases import Case, check, run_cases

RNG = np.random.default_rng(0)

pytestmark = pytest.mark.skipif(
    onnx.defs.onnx_opset_version() < 23, reason="this onnx has no Attention"
)


def test_attention_with_a_past_and_without_a_mask() -> None:
    query, key, value = (RNG.normal(size=(1, 2, 3, 4)).astype(np.float32) for _ in range(3))
    past_key, past_value = (RNG.normal(size=(1, 2, 5, 4)).astype(np.float32) for _ in range(2))
    operands = (query, key, value, None, past_key, past_value)
    cases = [
        Case("plain", "Attention", operands, outputs=3),
        Case("causal", "Attention", operands, {"is_causal": 1}, outputs=3),
    ]
    results = run_cases(cases, opset=23)
    for case in cases:
        check(case, results[str(case)], rtol=1e-5, atol=1e-5)
