"""The options that give a command its input tensors, and what they mean together."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from wasmgraph.errors import InputError

if TYPE_CHECKING:
    from wasmgraph.runtime.base import Array, TensorSpec
    from wasmgraph.tensors.images import ImageOptions

F = TypeVar("F", bound=Callable[..., Any])
T = TypeVar("T")


def parsed_by(parse: Callable[[str], T]) -> Callable[..., T | None]:
    """A click callback that reads an option's text; a ValueError becomes a usage error."""

    def callback(ctx: click.Context, param: click.Parameter, value: str | None) -> T | None:
        try:
            return None if value is None else parse(value)
        except ValueError as error:
            raise click.BadParameter(str(error), ctx, param) from error

    return callback


def memory_limit(text: str) -> int:
    """Bytes."""
    from wasmgraph.runtime.limits import parse_size

    return parse_size(text)


def time_limit(text: str) -> float:
    """Seconds."""
    from wasmgraph.runtime.limits import parse_duration

    return parse_duration(text)


def pixel_size(text: str) -> tuple[int, int]:
    """Width and height of a picture from 320x240."""
    parts = text.lower().split("x")
    if len(parts) != 2 or not all(part.isdecimal() and int(part) > 0 for part in parts):
        raise ValueError(f"expected WIDTHxHEIGHT such as 320x240, found {text!r}")
    return int(parts[0]), int(parts[1])


def numbers(text: str) -> tuple[float, ...]:
    """One number, or several with commas between them."""
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError:
        raise ValueError(
            f"expected numbers such as 0.5 or 0.485,0.456,0.406, found {text!r}"
        ) from None


def lower_and_upper(text: str) -> tuple[float, float]:
    """Two numbers in ascending order."""
    bounds = numbers(text)
    if len(bounds) != 2 or not bounds[0] < bounds[1]:
        raise ValueError(f"expected LOW,HIGH such as 0,255, found {text!r}")
    return bounds[0], bounds[1]


@dataclass(frozen=True)
class InputOptions:
    """The values of the options of `input_options`, by their parameter names."""

    inputs: tuple[str, ...]
    image_size: tuple[int, int] | None
    mean: tuple[float, ...]
    std: tuple[float, ...]
    layout: str | None
    range: str | None

    def image(self) -> ImageOptions:
        """How pictures become numbers."""
        from wasmgraph.tensors.images import ImageOptions

        return ImageOptions(self.image_size, self.mean, self.std, self.layout, self.range)  # type: ignore[arg-type]

    def read(self, specs: Sequence[TensorSpec]) -> dict[str, Array]:
        """Read every input named by `-i`.

        Raises:
            InputError: a name that is none of the graph's, one given twice, or a file that does not
                fit. Whether all are there is for the run to say.
        """
        from wasmgraph.tensors.reading import read_input

        by_name = {spec.name: spec for spec in specs}
        arrays: dict[str, Array] = {}
        for text in self.inputs:
            name, source = split_input(text, list(by_name))
            if name in arrays:
                raise InputError(f"input {name!r} is given twice")
            arrays[name] = read_input(source, by_name[name], self.image())
        return arrays

    def complete(
        self,
        specs: Sequence[TensorSpec],
        shapes: Mapping[str, Sequence[int]],
        seed: int,
        float_range: tuple[float, float] = (0.0, 1.0),
    ) -> dict[str, Array]:
        """Every input: those named by `-i`, and random ones for the others.

        Args:
            specs: The graph's inputs.
            shapes: Of inputs with open axes; those of given inputs count too.
            seed, float_range: Of the random inputs.

        Raises:
            InputError: as `read` does, or axes are left open.
        """
        from wasmgraph.tensors.extents import with_shapes
        from wasmgraph.tensors.random import random_inputs

        given = self.read(specs)
        known = {s.name: given[s.name].shape for s in specs if s.name in given}
        fitting = {
            s.name: known[s.name] for s in specs if s.name in known and s.fits(known[s.name])
        }
        ready = with_shapes(specs, {**shapes, **fitting})
        return {
            **random_inputs((s for s in ready if s.name not in given), seed, float_range),
            **given,
        }


threads_option: Callable[[F], F] = click.option(
    "--threads",
    type=click.IntRange(min=1),
    default=1,
    show_default="1",
    metavar="N",
    help="Threads to run on; more than one takes a graph compiled with --threads.",
)

kind_option: Callable[[F], F] = click.option(
    "--kind",
    # As in wasmgraph.link.KINDS, whose import takes too long for --help.
    type=click.Choice(["module", "component"]),
    default="module",
    show_default=True,
    help="What to write: a module of WASI preview 1, or a component of wasmgraph:inference.",
)


def runtime_name(text: str) -> str:
    """An engine's name."""
    from wasmgraph.runtime.registry import RUNTIMES

    if text not in RUNTIMES:
        raise ValueError(f"{text!r} is none of {', '.join(RUNTIMES)}")
    return text


def runtime_name_or_all(text: str) -> str:
    """An engine's name, or "all"."""
    return text if text == "all" else runtime_name(text)


def runtime_names_or_all(text: str) -> tuple[str, ...] | None:
    """Engines' names with commas between them, each once; None for "all"."""
    if text == "all":
        return None
    return tuple(dict.fromkeys(runtime_name(part.strip()) for part in text.split(",")))


def runtime_option(parse: Callable[[str], object], more: str = "") -> Callable[[F], F]:
    """`--runtime NAME`, as `parse` reads it; `more` is said of what else it takes."""
    return click.option(
        "--runtime",
        callback=parsed_by(parse),
        default="wasmtime",
        show_default=True,
        metavar="NAME",
        help="Engine to run on: wasmtime, node, browser, wazero, wasmtime-cli, wasmer or wasmedge"
        f"{more} ('wasmgraph doctor' says which are here).",
    )


seed_option: Callable[[F], F] = click.option(
    "--seed",
    type=click.IntRange(min=0),
    default=0,
    show_default="0",
    metavar="N",
    help="Of the random inputs, for those that are not given.",
)


def tolerance_options(command: F) -> F:
    """`--rtol` and `--atol` of the comparison with onnxruntime."""
    for name, default, shown, what in (
        ("--atol", 1e-4, "0.0001", "Absolute"),
        ("--rtol", 1e-3, "0.001", "Relative"),
    ):
        command = click.option(
            name,
            type=click.FloatRange(min=0),
            default=default,
            show_default=shown,
            metavar="F",
            help=f"{what} tolerance of the comparison with onnxruntime.",
        )(command)
    return command


def input_range_option(command: F) -> F:
    """`--input-range LOW,HIGH` for random inputs."""
    return click.option(
        "--input-range",
        callback=parsed_by(lower_and_upper),
        default="0,1",
        show_default=True,
        metavar="LOW,HIGH",
        help="In which random floats lie: what the model expects, e.g. 0,255.",
    )(command)


def input_options(command: F) -> F:
    """Give a command `-i` and the options for pictures; `InputOptions` takes their values."""
    options = [
        click.option(
            "-i",
            "--input",
            "inputs",
            multiple=True,
            metavar="[NAME=]FILE",
            help=".npy, .npz, .json, .pb (TensorProto), a picture, or random:SEED. Repeatable. "
            "NAME may be left out where there is one input.",
        ),
        click.option(
            "--image-size",
            metavar="WxH",
            callback=parsed_by(pixel_size),
            help="Size a picture is brought to (default: the input's own).",
        ),
        click.option(
            "--mean",
            metavar="F[,F...]",
            callback=parsed_by(numbers),
            default="0",
            help="Subtracted from a picture's values, once in --range; one, or one per channel.",
        ),
        click.option(
            "--std",
            metavar="F[,F...]",
            callback=parsed_by(numbers),
            default="1",
            help="Divides a picture's values after --mean; one, or one per channel.",
        ),
        click.option(
            "--layout",
            type=click.Choice(["nchw", "nhwc"]),
            help="Where a picture's channels go (default: as the input's shape says).",
        ),
        click.option(
            "--range",
            type=click.Choice(["0-1", "0-255", "-1-1"]),
            help="What a picture's 0 and 255 become (default: 0-1, for integers 0-255).",
        ),
    ]
    for option in reversed(options):
        command = option(command)
    return command


def split_input(text: str, names: Sequence[str]) -> tuple[str, str]:
    """The input's name and its source from one `-i`.

    The first `=` with an input's name before it divides, since both names and files may hold more.

    Raises:
        InputError: no input is meant, or it is not clear which.
    """
    from wasmgraph.runtime.inputs import did_you_mean

    position = text.find("=")
    while position >= 0:
        if text[:position] in names:
            return text[:position], text[position + 1 :]
        position = text.find("=", position + 1)
    listed = ", ".join(map(repr, names))
    name, equals, _ = text.partition("=")
    if len(names) == 1 and (not equals or Path(text).exists()):
        return names[0], text
    if equals:
        raise InputError(
            f"there is no input named {name!r}{did_you_mean(name, names)}",
            hint=f"the graph's inputs are {listed}" if names else "the graph takes no inputs",
        )
    if not names:
        raise InputError(f"{text!r} is given, the graph takes no inputs")
    raise InputError(
        f"{text!r} does not say which input it is for",
        hint=f"write -i NAME={text}; the graph's inputs are {listed}",
    )
