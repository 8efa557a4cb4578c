"""Calls of the operator library: operators written in Rust, in toolchain/executor/src/operators."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from wasmgraph.importer.opaque import opaque_call


def library_call(
    name: str,
    inputs: Sequence[Any],
    outputs: Sequence[tuple[str, Sequence[int]]],
    words: Iterable[int | float],
) -> Any:
    """A call of the library's operator `wgo_NAME`.

    Args:
        name: The operator with the dtype it is compiled for, e.g. "scatter_nd_f32".
        inputs: Tensor expressions, as many as the operator takes; it gets each dense in C order.
        outputs: (dtype, shape) of every output.
        words: The operator's parameters, as its Rust source lists them. A float is passed as the
            bits of a float32, everything else as an int32.
    """
    return opaque_call(name, {"words": [_word(word) for word in words]}, inputs, outputs)


def _word(value: int | float) -> int:
    if isinstance(value, float):
        return int(struct.unpack("<i", struct.pack("<f", value))[0])
    return int(value)


def counted(values: Iterable[int]) -> list[int]:
    """A list as words: its length, then its elements."""
    listed = [int(value) for value in values]
    return [len(listed), *listed]


LIBRARY_DTYPES = {
    "float32": "f32",
    "float64": "f64",
    "int8": "i8",
    "int16": "i16",
    "int32": "i32",
    "int64": "i64",
    "uint8": "u8",
    "uint16": "u16",
    "uint32": "u32",
    "uint64": "u64",
}
"""Rust's names of the dtypes, as they end the names of operators."""


def suffix(dtype: str) -> str:
    """How an operator's name ends where it is compiled for this dtype.

    Raises:
        NotImplementedError: the library has no such operators.
    """
    if dtype not in LIBRARY_DTYPES:
        raise NotImplementedError(f"elements of {dtype} are not supported")
    return LIBRARY_DTYPES[dtype]


def suffix_of_moved(dtype: str) -> str:
    """The same for operators that only move elements: they are compiled once per size."""
    return f"u{8 * np.dtype(dtype).itemsize}"
