"""What a DequantizeLinear of constants is, as numbers and as a factor of products."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import helper

from wasmgraph.importer.normalise.quantised_values import block_scaled, quantised_value

SPANS = {"int8": (-128, 128), "uint8": (0, 256)}


@settings(max_examples=150, deadline=None)
@given(
    st.sampled_from(["int8", "uint8"]),
    st.sampled_from(["all", "columns", "blocks"]),
    st.integers(0, 1),
    st.tuples(st.integers(1, 20), st.integers(1, 20)),
    st.integers(1, 24),
    st.sampled_from([2, 4, 8]),
    st.booleans(),
    st.integers(0, 2**32 - 1),
)
def test_factors_of_products_mean_the_same_numbers(
    dtype, kind, axis, shape, block, bits, has_zeros, seed
):
    """Bit by bit, with the axis of columns last, in as few bits as the codes span."""
    rng = np.random.default_rng(seed)
    low, high = SPANS[dtype]
    start = rng.integers(low, high - (1 << bits) + 1)
    codes = rng.integers(start, start + (1 << bits), shape).astype(dtype)
    extents: tuple[int, ...] = ()
    attributes = {} if kind == "all" else {"axis": axis}
    if kind == "columns":
        extents = (shape[axis],)
    elif kind == "blocks":
        attributes["block_size"] = block
        extents = tuple(-(-n // block) if a == axis else n for a, n in enumerate(shape))
    values = {
        "q": codes,
        "s": rng.normal(size=extents).astype(np.float32),
        "z": rng.integers(low, high, extents).astype(dtype),
    }
    names = ["q", "s", "z"][: 2 + has_zeros]
    node = helper.make_node("DequantizeLinear", names, ["w"], **attributes)
    expected = quantised_value(node, values)
    assert expected is not None
    found = block_scaled(node, values)
    matrices = [expected["w"], expected["w"].T]
    if kind != "all":
        # Columns have a scale of their own; blocks are along the other axis.
        along_rows = axis == 0 if kind == "blocks" else axis == 1
        assert len(found) == (1 if values["s"].size > 1 or kind == "blocks" else 2)
        matrices = matrices if len(found) == 2 else [matrices[0 if along_rows else 1]]
    for factor, matrix in zip(found, matrices, strict=True):
        assert factor.bits <= bits
        assert factor.codes.shape == matrix.shape
        assert factor.decoded().tobytes() == np.ascontiguousarray(matrix).tobytes()


def test_what_is_no_matrix_of_bytes_is_no_factor():
    values = {
        "q": np.zeros((2, 3, 4), np.int8),
        "s": np.float32(1),
        "w": np.zeros((3, 4), np.int32),
    }
    for name in ("q", "w"):
        node = helper.make_node("DequantizeLinear", [name, "s"], ["y"])
        assert block_scaled(node, values) == []


def test_a_scale_for_all_columns_of_a_block_is_one_for_each():
    """And a block may be as long as it likes to say."""
    values = {
        "q": np.arange(12, dtype=np.uint8).reshape(4, 3),
        "s": np.full((1, 1), 2, np.float32),
    }
    node = helper.make_node("DequantizeLinear", ["q", "s"], ["w"], axis=0, block_size=1 << 40)
    (found,) = block_scaled(node, values)
    assert found.scales.shape == found.zeros.shape == (1, 3)
    assert (found.decoded() == 2.0 * values["q"]).all()
