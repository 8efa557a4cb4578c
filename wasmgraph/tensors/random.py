"""Seeded inputs to run and verify a graph with, when there is no real one at hand.

The values are such that most models do what they do with real data: see `random_input`. They cannot
replace it: a model's own preprocessing decides what it expects.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterable

import numpy as np

from wasmgraph.metadata import NARROW_DTYPES
from wasmgraph.runtime.base import Array, TensorSpec
from wasmgraph.runtime.dtypes import kind, limits

_FLAGS = re.compile(r"mask|token_type|segment_ids", re.IGNORECASE)
"""Integer inputs that hold 0 or 1 in every framework's export of a language model."""


UNIT_RANGE = (0.0, 1.0)


def random_input(
    spec: TensorSpec, seed: int, float_range: tuple[float, float] = UNIT_RANGE
) -> Array:
    """An array for one input; the same seed, name, dtype and shape always give the same values.

    * floats: uniform in `float_range`, by default [0, 1), as a scaled picture has; those
      narrower than float16 may be rounded up to its end;
    * uint8, int8 and narrower: the whole range, as pixels, bytes and quantised values have;
    * other integers: 0 to 9, valid indices into any embedding; 0 or 1 where the input's name says
      mask, token_type or segment_ids;
    * bool: false or true, equally often.

    Args:
        spec: The input.
        seed: Not negative. Inputs of one graph differ by their names.
        float_range: Lower and upper bound of floats, for models that expect other values.
    """
    low, high = float_range
    rng = np.random.default_rng([seed, zlib.crc32(spec.name.encode())])
    dtype = np.dtype(spec.dtype)
    if kind(dtype) == "f" and dtype.name in NARROW_DTYPES:
        return np.asarray(low + rng.random(spec.extents, np.float32) * (high - low)).astype(dtype)
    if dtype.kind == "f":
        # float16 has no generator of its own; rounding must not reach 1.
        values = rng.random(spec.extents, np.float64 if dtype.itemsize == 8 else np.float32)
        below_one = np.nextafter(np.ones((), dtype), np.zeros((), dtype))
        unit = np.minimum(values, below_one)
        return np.asarray(unit if float_range == UNIT_RANGE else low + unit * (high - low)).astype(
            dtype
        )
    if dtype.kind == "b":
        return np.asarray(rng.integers(0, 2, spec.extents)).astype(dtype)
    if kind(dtype) not in "iu":
        raise TypeError(f"there are no random values of dtype {dtype} (input {spec.name!r})")
    if dtype.itemsize == 1:
        least, largest = limits(dtype)
        drawn = dtype if dtype.name not in NARROW_DTYPES else np.dtype(np.int8)
        values = rng.integers(least, largest, spec.extents, drawn.name, endpoint=True)
        return np.asarray(values).astype(dtype)
    bound = 2 if _FLAGS.search(spec.name) else 10
    return np.asarray(rng.integers(0, bound, spec.extents)).astype(dtype)


def random_inputs(
    specs: Iterable[TensorSpec], seed: int = 0, float_range: tuple[float, float] = UNIT_RANGE
) -> dict[str, Array]:
    """One array per input, by name; see `random_input`."""
    return {spec.name: random_input(spec, seed, float_range) for spec in specs}
