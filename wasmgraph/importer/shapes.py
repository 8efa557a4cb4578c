"""Fix the extents of the graph inputs: what the model says, and what `--shape` says on top."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence

import onnx

from wasmgraph.errors import InputError, Obstacle, UnsupportedModelError
from wasmgraph.importer.network import Network, TensorType, tensor_type, value_info
from wasmgraph.importer.support import unsupported, why_impossible
from wasmgraph.metadata import DTYPE_NBYTES


def fix_shapes(network: Network, shapes: Mapping[str, Sequence[int]]) -> None:
    """Give every graph input a static shape.

    An extent given for a named axis holds for every input that has an axis of that name. A shape
    given for a fixed axis replaces it.

    Raises:
        InputError: a name that is not an input, a wrong rank, an extent below 0, or two extents
            for one named axis.
        UnsupportedModelError: axes stay open; each is named. Or an input is larger than 32-bit
            memory, or no tensor of numbers.
    """
    _check_names(network, shapes)
    axes: dict[str, int] = {}
    for value in network.inputs:
        if value.name in shapes:
            _bind(value, tuple(shapes[value.name]), axes)
    obstacles, suggestions, fixed = [], [], []
    for value in network.inputs:
        known = tensor_type(value)
        if known is None:
            obstacle = Obstacle(value.name, "", "this input is not a tensor of numbers")
            raise unsupported(network, [obstacle])
        if not value.type.tensor_type.HasField("shape") and value.name not in shapes:
            obstacles.append(Obstacle(value.name, "", "its rank and shape are not known"))
            suggestions.append(f"--shape {value.name}=1,...")
            continue
        dims = _resolve(value, shapes.get(value.name), axes)
        if any(isinstance(d, str) for d in dims):
            named = ", ".join(f"axis {i} ({d})" for i, d in enumerate(dims) if isinstance(d, str))
            obstacles.append(Obstacle(value.name, "", f"{named} has no extent"))
            suggestions.append(_suggest(value.name, dims))
            continue
        shape = tuple(int(d) for d in dims)
        reason = why_impossible(TensorType(known.dtype, shape), DTYPE_NBYTES)
        if reason is not None:
            raise UnsupportedModelError(
                f"{network.name} cannot be compiled for this input:",
                hint=f"give a smaller one with --shape {value.name}=...",
                obstacles=[Obstacle(value.name, "", reason)],
            )
        fixed.append(value_info(value.name, known.dtype, shape))
    if obstacles:
        raise UnsupportedModelError(
            f"{network.name} has dynamic axes that are left open:",
            hint="give their extents, e.g. " + " ".join(suggestions),
            obstacles=obstacles,
        )
    network.inputs = fixed


def _check_names(network: Network, shapes: Mapping[str, Sequence[int]]) -> None:
    for name in shapes:
        if name not in network.input_names:
            near = difflib.get_close_matches(name, network.input_names, 1)
            raise InputError(
                f"{network.name} has no input {name!r}; its inputs are "
                + ", ".join(repr(n) for n in network.input_names),
                hint=f"did you mean {near[0]!r}?" if near else None,
            )


def _dims(value: onnx.ValueInfoProto) -> list[int | str]:
    """Extents, or the axis' name ("?" where it has none) for a dynamic axis."""
    dims: list[int | str] = []
    for dim in value.type.tensor_type.shape.dim:
        if dim.HasField("dim_value") and dim.dim_value >= 0:
            dims.append(dim.dim_value)
        else:
            dims.append(dim.dim_param or "?")
    return dims


def _bind(value: onnx.ValueInfoProto, shape: tuple[int, ...], axes: dict[str, int]) -> None:
    has_rank = value.type.tensor_type.HasField("shape")
    dims = _dims(value) if has_rank else list(shape)
    if len(dims) != len(shape):
        raise InputError(
            f"input {value.name!r} has {len(dims)} axes {dims}, the given shape {list(shape)} "
            f"has {len(shape)}"
        )
    for axis, (dim, extent) in enumerate(zip(dims, shape, strict=True)):
        if extent < 0:
            raise InputError(f"input {value.name!r}: axis {axis} cannot have {extent} elements")
        if isinstance(dim, str) and dim != "?" and axes.setdefault(dim, extent) != extent:
            raise InputError(
                f"axis {dim!r} is given as {axes[dim]} and as {extent} (input {value.name!r})"
            )


def _resolve(
    value: onnx.ValueInfoProto, given: Sequence[int] | None, axes: Mapping[str, int]
) -> list[int | str]:
    if given is not None:
        return list(given)
    return [axes.get(d, d) if isinstance(d, str) else d for d in _dims(value)]


def _suggest(name: str, dims: Sequence[int | str]) -> str:
    """A `--shape` to copy: batch axes as 1, the others as their names in capitals."""
    parts = []
    for axis, dim in enumerate(dims):
        if not isinstance(dim, str):
            parts.append(str(dim))
        elif "batch" in dim.lower() or (axis == 0 and (dim == "?" or len(dims) > 2)):
            parts.append("1")
        else:
            parts.append(dim.upper() if dim.isidentifier() else f"AXIS{axis}")
    return f"--shape {name}={','.join(parts)}"
