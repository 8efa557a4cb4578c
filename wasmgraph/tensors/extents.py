"""Extents for open axes, to make up inputs of a graph whose shapes a run decides."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from wasmgraph.errors import InputError
from wasmgraph.runtime.base import TensorSpec

BATCH = 2
"""What a batch axis gets: more than one, so that a mix-up of axes shows."""

SIZES = (32, 64, 224, 512)
"""What the other axes get, in the order of trying: many models take only some sizes."""


def with_shapes(
    specs: Sequence[TensorSpec], shapes: Mapping[str, Sequence[int]]
) -> tuple[TensorSpec, ...]:
    """The inputs with these shapes; what one says of a named axis holds for all that have it.

    Raises:
        InputError: a name that is none of theirs, a shape that does not fit, or two extents for an
            axis.
    """
    by_name = {spec.name: spec for spec in specs}
    axes: dict[str, int] = {}
    for name, shape in shapes.items():
        if name not in by_name:
            known = ", ".join(map(repr, by_name))
            raise InputError(f"there is no input {name!r}; the graph takes {known}")
        if not by_name[name].fits(shape):
            raise InputError(f"input {by_name[name]} cannot have the shape {list(shape)}")
        for axis, extent in zip(by_name[name].shape, shape, strict=True):
            if isinstance(axis, str) and axes.setdefault(axis, extent) != extent:
                raise InputError(f"axis {axis!r} is given as {axes[axis]} and as {extent}")
    return _filled(specs, axes)


def made_up(specs: Sequence[TensorSpec], size: int) -> tuple[TensorSpec, ...]:
    """The inputs with `BATCH` for every batch axis and `size` for the other open ones."""
    axes = {
        axis: BATCH if _is_batch(spec, number, axis) else size
        for spec in specs
        for number, axis in reversed(list(enumerate(spec.shape)))
        if isinstance(axis, str)
    }
    return _filled(specs, axes)


def _is_batch(spec: TensorSpec, number: int, axis: str) -> bool:
    if "batch" in axis.lower() or axis in ("N", "n"):
        return True
    return number == 0 and len(spec.shape) > 1


def _filled(specs: Sequence[TensorSpec], axes: Mapping[str, int]) -> tuple[TensorSpec, ...]:
    return tuple(
        replace(spec, shape=tuple(axes.get(d, d) if isinstance(d, str) else d for d in spec.shape))
        for spec in specs
    )
