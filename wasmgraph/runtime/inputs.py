"""Check what a caller feeds a graph against what the graph takes, all problems in one message.

Nothing is cast silently: an array of another dtype is an error that says what to cast to. Plain
Python numbers and nested lists have no dtype, so they are converted where the value survives.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Mapping, Sequence
from types import MappingProxyType

import numpy as np

from wasmgraph.errors import InputError
from wasmgraph.runtime.base import Array, TensorSpec
from wasmgraph.runtime.dtypes import kind, limits


class _Mismatch(Exception):  # noqa: N818 - never leaves this module
    """Why one value does not fit, and the way out."""

    def __init__(self, problem: str, hint: str | None = None) -> None:
        super().__init__(problem)
        self.problem = problem
        self.hint = hint


def check_inputs(
    specs: Sequence[TensorSpec],
    given: Mapping[str, object],
    bounds: Mapping[str, int] = MappingProxyType({}),
) -> list[Array]:
    """The arrays of `given` in the order of `specs`.

    Args:
        specs: The graph's inputs.
        given: An array (any strides or byte order), number or nested list per input name.
        bounds: The largest extents of open axes that have one, by the axis' name.

    Raises:
        InputError: inputs are missing, extra, misnamed, or of the wrong dtype or shape; the message
            lists every problem.
    """
    problems: list[str] = []
    hints: list[str] = []
    arrays: list[Array] = []
    known = {spec.name for spec in specs}
    missing = [spec.name for spec in specs if spec.name not in given]
    for name in given:
        if name not in known:
            nearest = did_you_mean(str(name), missing or sorted(known))
            problems.append(f"there is no input named {name!r}{nearest}")
    for spec in specs:
        if spec.name not in given:
            problems.append(f"input {spec} is missing")
            continue
        try:
            arrays.append(_fit(given[spec.name], spec))
        except _Mismatch as mismatch:
            problems.append(f"input {spec.name!r}: {mismatch.problem}")
            if mismatch.hint:
                hints.append(mismatch.hint)
    if not problems:
        problems = [*_contradictions(specs, arrays), *_excesses(specs, arrays, bounds)]
    if problems:
        if len(hints) < len(problems):
            takes = ", ".join(map(str, specs)) or "no inputs"
            hints.append(f"the graph takes {takes}")
        raise InputError("\n".join(problems), hint="; ".join(dict.fromkeys(hints)))
    return arrays


def did_you_mean(name: str, candidates: Sequence[str]) -> str:
    """The end of a sentence that suggests the nearest candidate, or "" where none is near."""
    by_folded = {candidate.casefold(): candidate for candidate in candidates}
    close = difflib.get_close_matches(name.casefold(), by_folded, n=1, cutoff=0.5)
    return f"; did you mean {by_folded[close[0]]!r}?" if close else ""


def _fit(value: object, spec: TensorSpec) -> Array:
    expected = np.dtype(spec.dtype)
    if isinstance(value, (np.ndarray, np.generic)):
        array = np.asarray(value)
        if array.dtype.newbyteorder("=") != expected:
            raise _Mismatch(
                f"expected dtype {expected}, found {array.dtype}",
                f'cast {spec.name!r} with .astype("{expected}")',
            )
    else:
        array = _from_python(value, expected)
    if not spec.fits(array.shape):
        hint = None
        if spec.is_fixed and array.size == math.prod(spec.extents):
            hint = f"if the order of the elements is right, {spec.name!r}.reshape({spec.shape})"
        expected_shape = ", ".join(map(str, spec.shape))
        raise _Mismatch(f"expected shape [{expected_shape}], found {list(array.shape)}", hint)
    return array


def _contradictions(specs: Sequence[TensorSpec], arrays: Sequence[Array]) -> list[str]:
    """Axes to which inputs give different extents."""
    problems = []
    given: dict[str, tuple[int, str]] = {}
    for spec, array in zip(specs, arrays, strict=True):
        for name, extent in zip(spec.shape, array.shape, strict=True):
            if not isinstance(name, str):
                continue
            first, owner = given.setdefault(name, (extent, spec.name))
            if first != extent:
                problems.append(
                    f"axis {name!r} is {first} in input {owner!r} and {extent} in input "
                    f"{spec.name!r}"
                )
    return problems


def _excesses(
    specs: Sequence[TensorSpec], arrays: Sequence[Array], bounds: Mapping[str, int]
) -> list[str]:
    """Axes that are larger than the graph was compiled for."""
    return [
        f"axis {axis!r} is {extent} in input {spec.name!r}, and at most {bounds[axis]}"
        for spec, array in zip(specs, arrays, strict=True)
        for axis, extent in zip(spec.shape, array.shape, strict=True)
        if isinstance(axis, str) and extent > bounds.get(axis, extent)
    ]


def _from_python(value: object, expected: np.dtype[np.generic]) -> Array:
    """A Python number or nested list as `expected`, if that keeps the value.

    Integers must be exact; floats are rounded to the nearest, as every decimal literal is, but may
    not overflow; a float never becomes an integer, nor a number a bool.
    """
    try:
        array = np.asarray(value)
    except (ValueError, OverflowError, TypeError) as error:
        raise _Mismatch(f"expected an array of {expected}: {error}") from error
    if array.size == 0:  # an empty list has no dtype at all
        return array.astype(expected)
    found, wanted = array.dtype.kind, kind(expected)
    allowed = {"b": "b", "i": "iu", "u": "iu", "f": "iuf"}.get(wanted, wanted)
    if found not in allowed:
        what = "Python objects" if found == "O" else f"values of kind {array.dtype}"
        raise _Mismatch(
            f"expected {expected}, found {what} (a {type(value).__name__})",
            f"pass a numpy array of {expected}",
        )
    if found == "b":
        return array
    with np.errstate(over="ignore", invalid="ignore"):
        converted = array.astype(expected)
        back = converted.astype(array.dtype)
    if found == "f":
        kept = bool(np.all(np.isfinite(converted) | ~np.isfinite(array)))
    elif wanted == "f":
        kept = bool(np.all(np.isfinite(converted))) and bool(np.all(back == array))
    else:
        least, largest = limits(expected)
        kept = bool(np.all((array >= least) & (array <= largest)))
    if not kept:
        raise _Mismatch(f"a value does not fit into {expected}")
    return converted
