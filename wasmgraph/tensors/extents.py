"""Extents for open axes, to make up inputs of a graph whose shapes a run decides."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType

from wasmgraph.errors import InputError
from wasmgraph.runtime.base import TensorSpec

BATCH = 2
"""What a batch axis gets: more than one, so that a mix-up of axes shows."""

SIZES = (32, 64, 224, 512)
"""What the other axes get, in the order of trying: many models take only some sizes."""

RARER_SIZES = (28, 96, 112, 128, 160, 192, 256, 299, 320, 384, 416, 448, 480, 640)
"""What pictures that models take are large, besides."""

MOST_PROPOSALS = 200
MOST_ELEMENTS = 2**22
"""Of all inputs together, so that none of the proposals takes minutes; unless fixed axes have
more."""

_DEVIATION = 3
"""As many sizes later in the list comes a proposal in which an axis has an extent of its own."""


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
    return filled(specs, axes)


def proposals(
    specs: Sequence[TensorSpec],
    hints: Sequence[int] = (),
    bounds: Mapping[str, int] = MappingProxyType({}),
) -> Iterator[tuple[TensorSpec, ...]]:
    """The inputs with made up extents for the open axes: what suits most models comes first.

    At first all batch axes have `BATCH` and all others one size: of `SIZES`, `hints`,
    `RARER_SIZES`. Among the later ones are those where some axis differs: one that does not look
    like a batch but is one, a batch of 1, several sizes.

    Args:
        specs: As the graph has them.
        hints: Sizes that the model suggests.
        bounds: The largest extents of axes that have one; what would be more is that.
    """
    axes = _open_axes(specs)
    sizes = list(dict.fromkeys((*SIZES, *hints, *RARER_SIZES)))
    seen: set[tuple[int, ...]] = set()
    smallest = sum(map(_elements, filled(specs, dict.fromkeys(axes, 1))))
    most = max(MOST_ELEMENTS, smallest)
    for cost in range(len(sizes) + _DEVIATION * len(sizes)):
        for deviations in range(cost // _DEVIATION + 1):
            number = cost - _DEVIATION * deviations
            if number >= len(sizes):
                continue
            choices = [_choices(is_batch, sizes, number) for is_batch in axes.values()]
            for extents in _deviating(choices, deviations):
                given = {
                    axis: min(extent, bounds.get(axis, extent))
                    for axis, extent in zip(axes, extents, strict=True)
                }
                proposal, key = filled(specs, given), tuple(given.values())
                if key in seen or sum(map(_elements, proposal)) > most:
                    continue
                seen.add(key)
                yield proposal
                if len(seen) == MOST_PROPOSALS:
                    return


def _choices(is_batch: bool, sizes: Sequence[int], number: int) -> list[int]:
    """What an axis can have where the others have that size, the likeliest first."""
    if is_batch:
        return [BATCH, 1, sizes[number]]
    return list(dict.fromkeys((sizes[number], BATCH, 1, *sizes)))


def _deviating(choices: Sequence[Sequence[int]], deviations: int) -> Iterator[tuple[int, ...]]:
    """The ways to take an element of each whose numbers have that sum."""
    if not choices:
        if deviations == 0:
            yield ()
        return
    for number, choice in enumerate(choices[0][: deviations + 1]):
        for rest in _deviating(choices[1:], deviations - number):
            yield (choice, *rest)


def _elements(spec: TensorSpec) -> int:
    return math.prod(spec.extents)


def _open_axes(specs: Sequence[TensorSpec]) -> dict[str, bool]:
    """Every open axis, and whether it looks like a batch."""
    axes: dict[str, bool] = {}
    for spec in specs:
        for number, axis in enumerate(spec.shape):
            if isinstance(axis, str):
                axes[axis] = axes.get(axis, False) or _is_batch(spec, number, axis)
    return axes


def _is_batch(spec: TensorSpec, number: int, axis: str) -> bool:
    if "batch" in axis.lower() or axis in ("N", "n"):
        return True
    return number == 0 and len(spec.shape) > 1


def filled(specs: Sequence[TensorSpec], axes: Mapping[str, int]) -> tuple[TensorSpec, ...]:
    """The inputs with these extents for the axes that are named."""
    return tuple(
        replace(spec, shape=tuple(axes.get(d, d) if isinstance(d, str) else d for d in spec.shape))
        for spec in specs
    )
