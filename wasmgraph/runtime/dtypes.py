"""The dtypes that numpy lacks: bfloat16, floats of 8 and 4 bits, integers of 4 and 2 bits.

The package ml_dtypes adds them to numpy. Only graphs that take or give such tensors need it.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from wasmgraph.errors import LoadError
from wasmgraph.metadata import NARROW_DTYPES


def add_to_numpy(dtype: str, tensor: str) -> None:
    """Make `np.dtype(dtype)` known.

    Args:
        dtype: A dtype's name.
        tensor: Whose it is, for the message.

    Raises:
        LoadError: ml_dtypes is needed and not installed, or too old to have it.
    """
    if dtype not in NARROW_DTYPES:
        return
    try:
        import ml_dtypes  # noqa: F401 - numpy knows its names from then on

        np.dtype(dtype)
    except (ImportError, TypeError) as error:
        raise LoadError(
            f"tensor {tensor!r} is {dtype}, which numpy does not have",
            hint="pip install --upgrade ml_dtypes",
        ) from error


def kind(dtype: np.dtype[Any]) -> str:
    """numpy's letter for what a dtype's values are; numpy itself says "V" of most of ml_dtypes'."""
    if dtype.name not in NARROW_DTYPES:
        return dtype.kind
    return {"i": "i", "u": "u"}.get(dtype.name[0], "f")


def step(dtype: np.dtype[Any]) -> float:
    """How far neighbours of a narrow dtype lie apart, in relation to them; 0 of integers."""
    import ml_dtypes

    info = ml_dtypes.finfo(dtype) if kind(dtype) == "f" else None  # type: ignore[no-untyped-call]
    return 0.0 if info is None else float(info.eps)


def limits(dtype: np.dtype[Any]) -> tuple[int, int]:
    """The least and the largest integer of a dtype."""
    if dtype.name in NARROW_DTYPES:
        bits = int(dtype.name.lstrip("uint"))
        return (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if kind(dtype) == "i" else (0, 2**bits - 1)
    info = np.iinfo(dtype)
    return int(info.min), int(info.max)


def plain(array: np.ndarray[Any, np.dtype[Any]]) -> np.ndarray[Any, np.dtype[Any]]:
    """The same values in a dtype of numpy's own: float32 or int32 for what is narrower."""
    if array.dtype.name not in NARROW_DTYPES:
        return array
    return array.astype(np.float32 if kind(array.dtype) == "f" else np.int32)
