"""Which weights fit into fewer bytes than float32 without losing anything.

Rounding is not done here: `importer.normalise.round_weights` does it, on a whole model, if that is
asked for. What it rounded is recognised here like the weights of a model that had them so: those of
a half-precision one, or of one that quantises its weights per column and nothing else.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wasmgraph.kernels.stored import Stored

MIN_ELEMENTS = 4096
"""Smaller weights stay float32: they are nothing beside the code."""

_USUAL_STEPS = np.array([127, 128], np.float32)
_OTHER_STEPS = np.arange(126, 0, -1, dtype=np.float32)
"""How many steps of its scale the largest weight of a column is: those that quantisers make it,
and the others."""

_SAMPLE = 16
"""Rows on which a format is tried first; most weights are not of it."""


@dataclass(frozen=True)
class StoredWeights:
    """Weights as they are stored.

    Attributes:
        array: float32, float16 or int8, [batch..., k, column].
        scales: float32 [column], what the int8 are multiplied by; else None.
    """

    array: NDArray[Any]
    scales: NDArray[np.float32] | None = None

    @property
    def stored(self) -> Stored:
        """The dtype's name."""
        name: Stored = self.array.dtype.name  # type: ignore[assignment]
        return name


def store_exactly(weights: NDArray[Any]) -> StoredWeights:
    """The smallest form that holds the same numbers.

    Args:
        weights: float32 [batch..., k, column]. Scales are for columns of one batch alone.
    """
    weights = weights.astype(np.float32, copy=False)
    if weights.size >= MIN_ELEMENTS:
        if weights.ndim == 2:
            scales = _scales(weights)
            if scales is not None:
                return StoredWeights(_steps(weights, scales).astype(np.int8), scales)
        if _are_halves(weights[..., :_SAMPLE, :]) and _are_halves(weights):
            return StoredWeights(weights.astype(np.float16))
    return StoredWeights(weights)


def are_halves(array: NDArray[Any]) -> bool:
    """Whether float32 numbers are all of half precision, and finite."""
    return _are_halves(array.reshape(-1)[:MIN_ELEMENTS]) and _are_halves(array)


def _are_halves(array: NDArray[Any]) -> bool:
    with np.errstate(over="ignore"):
        halves = array.astype(np.float16)
    return bool(np.isfinite(halves).all() and (halves.astype(np.float32) == array).all())


def _scales(weights: NDArray[np.float32]) -> NDArray[np.float32] | None:
    """float32 [column] with which all weights are whole numbers of steps; None without such."""
    if not np.isfinite(weights).all():
        return None
    largest = np.abs(weights).max(axis=0)
    found = np.where(largest > 0, np.float32(0), np.float32(1))
    whole = np.full_like(largest, largest.max())
    for limit in (largest, whole):
        _find(weights, limit, _USUAL_STEPS, found)
    missing = np.flatnonzero(found == 0)
    if missing.size:
        # One column tells whether it is worth to try them all.
        first = missing[0]
        scales = np.concatenate(list(_candidates(largest[first], _OTHER_STEPS)))
        if not _fits(weights[:_SAMPLE, first, None], scales).any():
            return None
        for steps in _OTHER_STEPS:
            _find(weights, largest, np.array([steps], np.float32), found)
    return None if (found == 0).any() else found


def _find(
    weights: NDArray[np.float32],
    limit: NDArray[np.float32],
    steps: NDArray[np.float32],
    found: NDArray[np.float32],
) -> None:
    """Fill in what is 0 where a scale fits by which `limit` is one of `steps`."""
    for count in steps:
        for candidate in _candidates(limit, count):
            fits = (found == 0) & _fits(weights[:_SAMPLE], candidate)
            if fits.any():
                fits[fits] = _fits(weights[:, fits], candidate[fits])
                found[fits] = candidate[fits]


def _candidates(limit: Any, steps: Any) -> Iterator[NDArray[np.float32]]:
    """Scales by which `limit` is so many steps; it was rounded when it was multiplied out."""
    near = limit / steps
    yield from (near, np.nextafter(near, np.float32(0)), np.nextafter(near, limit))


def _steps(weights: NDArray[np.float32], scales: NDArray[np.float32]) -> NDArray[np.float32]:
    return np.asarray(np.rint(weights / scales))


def _fits(weights: NDArray[np.float32], scales: NDArray[np.float32]) -> NDArray[np.bool_]:
    """Per column, whether its weights are steps of its scale that int8 holds."""
    with np.errstate(divide="ignore", over="ignore", invalid="ignore"):
        steps = _steps(weights, scales)
    is_small = (steps >= -128) & (steps <= 127)
    return np.asarray((is_small & (steps * scales == weights)).all(axis=0))
