"""Any JSON and any bytes from a host: an answer, a documented error, or a `HostFailure`."""

from __future__ import annotations

import json
from contextlib import suppress

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from wasmgraph.errors import WasmgraphError
from wasmgraph.runtime.base import TensorSpec
from wasmgraph.runtime.hosted import _tensors
from wasmgraph.runtime.protocol import (
    HostFailure,
    decode_header,
    encode,
    header_nbytes,
    milliseconds,
    read_answer,
    read_hello,
)

SPECS = (TensorSpec("y", "float32", ("rows", 2)), TensorSpec("z", "bool", ()))
KEYS = st.sampled_from(
    [
        *("ok", "error", "payload", "kind", "message", "hint", "ms", "protocol", "host"),
        *("version", "capabilities", "dtype", "shape", "x"),
    ]
)
VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text()
    | st.sampled_from(["LoadError", "float32", "bool", 1, 2]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=4),
    max_leaves=12,
)
HEADERS = st.dictionaries(KEYS, VALUES, max_size=5)


@given(st.binary(max_size=64))
def test_any_bytes_as_a_header(data: bytes) -> None:
    with suppress(HostFailure):
        header, nbytes = decode_header(data, 100)
        assert isinstance(header, dict)
        assert 0 <= nbytes <= 100


@given(st.binary(min_size=4, max_size=4))
def test_any_four_bytes_as_a_length(data: bytes) -> None:
    with suppress(HostFailure):
        assert header_nbytes(data) <= 1 << 24


@given(HEADERS)
def test_any_json_as_an_answer(header: dict[str, object]) -> None:
    with suppress(HostFailure, WasmgraphError):
        done = read_answer(header)
        assert milliseconds(done, "ms") >= 0


@given(HEADERS)
def test_any_json_as_a_greeting(header: dict[str, object]) -> None:
    with suppress(HostFailure):
        assert isinstance(read_hello(header).host, str)


SHAPES = st.lists(st.integers(-1, 3) | st.integers(), max_size=3)
ENTRY = st.fixed_dictionaries({"dtype": st.sampled_from(["float32", "bool"]), "shape": SHAPES})


@given(VALUES | st.lists(ENTRY | VALUES, min_size=2, max_size=2), st.binary(max_size=40))
def test_any_json_and_any_bytes_as_tensors(said: object, data: bytes) -> None:
    with suppress(HostFailure):
        y, z = _tensors(SPECS, said, memoryview(data))
        assert y.nbytes + z.nbytes == len(data)
        assert all(spec.fits(array.shape) for spec, array in zip(SPECS, (y, z), strict=True))


@given(st.integers(0, 3))
def test_tensors_as_they_should_be(rows: int) -> None:
    y = np.random.default_rng(0).random((rows, 2), np.float32)
    said = [{"dtype": "float32", "shape": [rows, 2]}, {"dtype": "bool", "shape": []}]
    found, flag = _tensors(SPECS, said, memoryview(y.tobytes() + b"\1"))
    np.testing.assert_array_equal(found, y)
    assert flag


@given(HEADERS.map(lambda header: {k: v for k, v in header.items() if k != "payload"}))
def test_a_frame_is_read_as_it_was_written(header: dict[str, object]) -> None:
    head, payload = encode(header, [memoryview(b"abc")])
    data = bytes(head)
    assert header_nbytes(data[:4]) == len(data) - 4
    read, nbytes = decode_header(data[4:], 3)
    # As text: a NaN is not equal to itself.
    assert json.dumps(read) == json.dumps({**header, "payload": 3})
    assert (nbytes, bytes(payload)) == (3, b"abc")
