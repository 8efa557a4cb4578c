"""`--shape`, which fixes what a model leaves open."""

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
