"""How two outputs compare: largest differences, distances in representable values, a verdict."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from wasmgraph.metadata import NARROW_DTYPES
from wasmgraph.runtime.base import Array
from wasmgraph.runtime.dtypes import kind, plain, step
from wasmgraph.tensors.summary import json_number

RTOL = 1e-3
ATOL = 1e-4

_ULP_INTEGERS: dict[int, type[np.signedinteger[Any]]] = {2: np.int16, 4: np.int32, 8: np.int64}


@dataclass(frozen=True)
class OutputAgreement:
    """How one output of the graph compares with onnxruntime's.

    Attributes:
        name: The ONNX name.
        dtype, shape: Of onnxruntime's output.
        agrees: Whether every element is within the tolerance.
        max_abs: Largest |a - b|.
        max_rel: Largest |a - b| / |b| where b is not zero.
        max_ulp: Largest distance in representable values between a and b; 0 for integers and bools
            means equal, otherwise it is their difference.
        index: The element whose difference is the largest multiple of its tolerance; () for a
            scalar, None for an output without elements or of another dtype or shape.
        value, expected: The graph's and onnxruntime's element there.
        non_finite: How many of onnxruntime's elements are NaN or infinite.
        problem: A difference that numbers cannot tell (another dtype or shape), or None.
        slack: The absolute difference that is allowed in any case, see `quantisation_slack`.
        largest: The largest finite |b|.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    agrees: bool
    max_abs: float
    max_rel: float
    max_ulp: int
    index: tuple[int, ...] | None
    value: float | int | bool | None
    expected: float | int | bool | None
    non_finite: int
    problem: str | None = None
    slack: float = 0.0
    largest: float = 0.0

    def to_json(self) -> dict[str, Any]:
        """For `json.dumps`; what JSON has no number for is text."""
        fields = asdict(self)
        for name in ("max_abs", "max_rel", "value", "expected"):
            fields[name] = json_number(fields[name])
        return fields

    def __str__(self) -> str:
        if self.problem:
            return f"output {self.name!r}: {self.problem}"
        where = f"[{', '.join(map(str, self.index))}]" if self.index else ""
        return (
            f"output {self.name!r}{where} is {self.value}, onnxruntime has {self.expected}; "
            f"over the whole output at most {self.max_abs:.3g} absolute, "
            f"{self.max_rel:.3g} relative, {self.max_ulp} ULP"
            + (f"; quantisation allows {self.slack:.3g}" if self.slack else "")
        )


def compare(
    name: str,
    found: Array,
    expected: Array,
    *,
    rtol: float = RTOL,
    atol: float = ATOL,
    slack: float = 0.0,
) -> OutputAgreement:
    """Compare one output with its reference; see `verification.verify` for what agrees.

    Args:
        found: The graph's output.
        expected: The reference's, of any shape; dtype float, integer or bool.
        slack: The absolute difference that is allowed in any case.
    """
    head = (name, expected.dtype.name, expected.shape)
    is_float = kind(expected.dtype) == "f"
    non_finite = int(np.count_nonzero(~np.isfinite(plain(expected)))) if is_float else 0
    if (found.dtype, found.shape) != (expected.dtype, expected.shape):
        problem = (
            f"is {found.dtype}{list(found.shape)}, onnxruntime has "
            f"{expected.dtype}{list(expected.shape)}"
        )
        return OutputAgreement(*head, False, 0.0, 0.0, 0, None, None, None, non_finite, problem)
    if expected.size == 0:
        return OutputAgreement(*head, True, 0.0, 0.0, 0, None, None, None, non_finite)
    if expected.dtype.name in NARROW_DTYPES:
        rtol = max(rtol, step(expected.dtype))
        found, expected = plain(found), plain(expected)
    difference, relative = _differences(found, expected)
    tolerance = np.zeros(expected.shape)
    if is_float:
        tolerance = atol + rtol * np.abs(expected.astype(np.float64))
        # An infinite or missing expectation must not buy an infinite tolerance.
        tolerance = np.where(np.isfinite(tolerance), tolerance, 0.0)
    tolerance = np.maximum(tolerance, slack)
    with np.errstate(divide="ignore", invalid="ignore"):
        share = np.where(difference == 0, 0.0, difference / tolerance)
    worst = int(np.argmax(share))
    return OutputAgreement(
        *head,
        bool(np.all(difference <= tolerance)),
        float(difference.max()),
        float(relative.max()),
        int(ulp_distance(found, expected).max()),
        tuple(int(i) for i in np.unravel_index(worst, expected.shape)),
        found.reshape(-1)[worst].item(),
        expected.reshape(-1)[worst].item(),
        non_finite,
        slack=slack,
        largest=_largest(expected),
    )


def _largest(values: Array) -> float:
    size = np.abs(values.astype(np.float64))
    return float(size.max(initial=0.0, where=np.isfinite(size)))


def _differences(found: Array, expected: Array) -> tuple[Array, Array]:
    """Absolute and relative difference as float64; infinite where only one is NaN or infinite."""
    scale = np.abs(expected.astype(np.float64))
    if expected.dtype.kind != "f":
        difference = ulp_distance(found, expected).astype(np.float64)
    else:
        with np.errstate(invalid="ignore"):
            difference = np.abs(found.astype(np.float64) - expected.astype(np.float64))
        same = (found == expected) | (np.isnan(found) & np.isnan(expected))
        difference = np.where(same, 0.0, np.where(np.isnan(difference), np.inf, difference))
    with np.errstate(invalid="ignore", divide="ignore"):
        relative = np.where((scale > 0) & (difference > 0), difference / scale, 0.0)
    # inf / inf, where the reference is infinite and the graph is not
    return difference, np.where(np.isnan(relative), np.inf, relative)


def ulp_distance(a: Array, b: Array) -> npt.NDArray[np.uint64]:
    """How many representable values lie between a and b, element by element.

    For IEEE floats of 16, 32 or 64 bits the bit patterns, read as sign and magnitude, are in the
    order of the values (B. Dawson, "Comparing floating point numbers", 2012); zeros of either sign
    are the same value, and so are NaNs. A NaN against a number is further than any two numbers. For
    integers and bools it is the difference.

    Args:
        a, b: Arrays of one dtype and shape.
    """
    if a.dtype.kind == "f":
        distance = _distance(_ordered(a), _ordered(b))
        distance[np.isnan(a) != np.isnan(b)] = 2 ** (8 * a.dtype.itemsize) - 1
        distance[np.isnan(a) & np.isnan(b)] = 0
        return distance
    if a.dtype.kind in "ub":
        a, b = a.astype(np.uint64), b.astype(np.uint64)
    return _distance(a, b)


def _ordered(values: Array) -> Array:
    """Signed integers in the order of the floats, one apart for neighbours."""
    dtype = _ULP_INTEGERS[values.dtype.itemsize]
    bits = np.atleast_1d(np.ascontiguousarray(values)).view(dtype).reshape(values.shape)
    return np.where(bits < 0, np.iinfo(dtype).min - bits, bits)


def _distance(a: Array, b: Array) -> npt.NDArray[np.uint64]:
    """|a - b| of 64-bit or narrower integers, exact in uint64, which wraps."""
    unsigned_a, unsigned_b = (np.asarray(x).astype(np.uint64) for x in (a, b))
    return np.asarray(np.where(a >= b, unsigned_a - unsigned_b, unsigned_b - unsigned_a))
