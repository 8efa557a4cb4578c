"""Tensors as NPY files of a folder, for graphs that run as commands."""

from __future__ import annotations

import math
from pathlib import Path
from tokenize import TokenError
from typing import Any

import numpy as np

from wasmgraph.errors import InferenceError
from wasmgraph.metadata import MAX_TENSOR_NBYTES, NARROW_DTYPES
from wasmgraph.runtime.base import Array, TensorSpec

# A header is a Python literal, which numpy leaves to Python's parsers.
_UNREADABLE = (
    *(OSError, ValueError, TypeError, SyntaxError, TokenError, RecursionError, MemoryError),
)


def write_tensor(path: Path, array: Array, spec: TensorSpec) -> None:
    """Write an input as a graph reads it: in C order, little-endian."""
    dtype: np.dtype[Any] = np.dtype(spec.dtype).newbyteorder("<")
    # Not np.ascontiguousarray, which gives a scalar an axis.
    plain = np.asarray(array, dtype=dtype, order="C")
    with path.open("wb") as file:
        np.lib.format.write_array(file, plain.view(_npy_dtype(spec)), allow_pickle=False)


def read_tensor(path: Path, spec: TensorSpec) -> Array:
    """Read an output that a graph has written, whatever that is.

    Raises:
        InferenceError: it is not there, or not what the graph says it gives.
    """
    try:
        with path.open("rb") as file:
            shape = _check_header(file, spec)
            nbytes = math.prod(shape) * np.dtype(spec.dtype).itemsize
            data = file.read(nbytes + 1)
    except FileNotFoundError:
        raise InferenceError(f"the graph wrote no output {spec.name!r}") from None
    except _UNREADABLE as error:
        reason = str(error)[:200]
        raise InferenceError(f"the graph's output {spec.name!r} is not NPY: {reason}") from error
    if len(data) != nbytes:
        raise InferenceError(f"the graph's output {spec.name!r} does not have {nbytes} bytes")
    dtype: np.dtype[Any] = np.dtype(spec.dtype).newbyteorder("<")
    flat: Array = np.frombuffer(data, np.uint8).view(dtype)
    return flat.reshape(shape).astype(spec.dtype, order="C")


def _check_header(file: Any, spec: TensorSpec) -> tuple[int, ...]:
    """The shape in an NPY header, which fits the output.

    Raises:
        ValueError: there is no header.
        InferenceError: it is that of another array.
    """
    if np.lib.format.read_magic(file) != (1, 0):
        raise ValueError("another version than 1.0")
    shape, is_fortran, dtype = np.lib.format.read_array_header_1_0(file)
    # Extents without the zeros too, or numpy refuses the shape.
    is_small = math.prod(filter(None, shape)) <= MAX_TENSOR_NBYTES
    if dtype != _npy_dtype(spec) or is_fortran or not spec.fits(shape) or not is_small:
        raise InferenceError(f"the graph wrote {dtype}{list(shape)} as output {spec}")
    return tuple(shape)


def _npy_dtype(spec: TensorSpec) -> np.dtype[Any]:
    """What a tensor is in NPY, which has no names for the dtypes that numpy lacks."""
    dtype = np.dtype(spec.dtype)
    if spec.dtype in NARROW_DTYPES:
        return np.dtype(f"V{dtype.itemsize}")
    return dtype.newbyteorder("<")
