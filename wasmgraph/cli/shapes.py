"""`--shape`, which fixes what a model leaves open, and `--dynamic`, which opens and bounds it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import click

F = TypeVar("F", bound=Callable[..., Any])


def parse_shapes(
    context: click.Context, option: click.Parameter, values: Sequence[str]
) -> dict[str, tuple[int, ...]]:
    """Every `NAME=1,3,224,224` by name; nothing after the "=" is a scalar's shape.

    ONNX names may hold "=" and ":" themselves, so the last "=" separates.
    """
    shapes: dict[str, tuple[int, ...]] = {}
    for value in values:
        name, _, text = value.rpartition("=")
        dims = text.split(",") if text else []
        if not name or not all(dim.strip().isdecimal() for dim in dims):
            raise click.BadParameter(
                f"{value!r} is not NAME=DIM,DIM,..., such as image=1,3,224,224", context, option
            )
        if name in shapes:
            raise click.BadParameter(f"the shape of {name!r} is given twice", context, option)
        shapes[name] = tuple(map(int, dims))
    return shapes


shapes_option: Callable[[F], F] = click.option(
    "--shape",
    "shapes",
    callback=parse_shapes,
    multiple=True,
    metavar="NAME=DIMS",
    help="Fix an input's shape, e.g. image=1,3,224,224; once per input.",
)


def parse_dynamic(
    context: click.Context, option: click.Parameter, values: Sequence[str]
) -> dict[str, int | None]:
    """Every `NAME` or `NAME=..MOST` by name, with the upper bound or None."""
    names: dict[str, int | None] = {}
    for value in values:
        name, mark, text = value.rpartition("=..")
        if mark and not text.isdecimal():
            raise click.BadParameter(
                f"{value!r} is not NAME or NAME=..MOST, such as batch=..8", context, option
            )
        name = name if mark else value
        if name in names:
            raise click.BadParameter(f"{name!r} is given twice", context, option)
        names[name] = int(text) if mark else None
    return names


dynamic_option: Callable[[F], F] = click.option(
    "--dynamic",
    callback=parse_dynamic,
    multiple=True,
    metavar="NAME[=..MOST]",
    help="Leave an axis open, or all axes of an input; once per name. Where all open axes have an "
    "upper bound, as in batch=..8, so has the memory.  [default: the axes that the model leaves "
    "open and --shape does not fix]",
)
