"""Fix the extents of the graph inputs: what the model says, and what `--shape` says on top."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Mapping, Sequence

import onnx

from wasmgraph.errors import InputError, Obstacle, UnsupportedModelError
from wasmgraph.importer.network import Network, TensorType, tensor_type, value_info
from wasmgraph.importer.support import unsupported, why_impossible
from wasmgraph.metadata import DTYPE_NBYTES


def fix_shapes(
    network: Network, shapes: Mapping[str, Sequence[int]], dynamic: Collection[str] = ()
) -> bool:
    """Give every graph input the shape that is asked for; answer whether axes stay open.

    An extent given for a named axis holds for every input that has an axis of that name. A shape
    given for a fixed axis replaces it. An axis that stays open keeps its name; where it has none,
    it is called after the input and its number.

    Args:
        network: Its inputs are replaced.
        shapes: Extents by input name.
        dynamic: Names of axes that stay open, or of inputs whose axes all do; "x:1" is axis 1 of
            input x.

    Raises:
        InputError: a name that is not an input (or axis), a wrong rank, an extent below 0, or two
            extents for one named axis.
        UnsupportedModelError: the rank of an input is not known. Or it is larger than 32-bit
            memory, or no tensor of numbers.
    """
    _check_names(network, shapes)
    _check_dynamic(network, dynamic)
    axes: dict[str, int] = {}
    for value in network.inputs:
        if value.name in shapes:
            _bind(value, tuple(shapes[value.name]), axes)
    obstacles, suggestions, fixed = [], [], []
    is_open = False
    for value in network.inputs:
        known = tensor_type(value)
        if known is None:
            obstacle = Obstacle(value.name, "", "this input is not a tensor of numbers")
            raise unsupported(network, [obstacle])
        if not value.type.tensor_type.HasField("shape") and value.name not in shapes:
            obstacles.append(Obstacle(value.name, "", "its rank and shape are not known"))
            suggestions.append(f"--shape {value.name}=1,...")
            continue
        names = _dims(value) if value.type.tensor_type.HasField("shape") else []
        dims = _resolve(value, shapes.get(value.name), axes)
        shape = tuple(
            _axis_name(value, i, names[i] if i < len(names) else d)
            if isinstance(d, str)
            or not {value.name, _place(value, i), *names[i : i + 1]}.isdisjoint(dynamic)
            else d
            for i, d in enumerate(dims)
        )
        extents = tuple(d for d in shape if isinstance(d, int))
        is_open = is_open or len(extents) < len(shape)
        reason = why_impossible(TensorType(known.dtype, extents), DTYPE_NBYTES)
        if reason is not None:
            raise UnsupportedModelError(
                f"{network.name} cannot be compiled for this input:",
                hint=f"give a smaller one with --shape {value.name}=...",
                obstacles=[Obstacle(value.name, "", reason)],
            )
        fixed.append(value_info(value.name, known.dtype, shape))
    if obstacles:
        raise UnsupportedModelError(
            f"{network.name} has inputs of unknown rank:",
            hint="give their shapes, e.g. " + " ".join(suggestions),
            obstacles=obstacles,
        )
    network.inputs = fixed
    return is_open


def axis_bounds(
    network: Network, dynamic: Collection[str] | Mapping[str, int | None]
) -> dict[str, int]:
    """The largest extent of every open axis that has one.

    Args:
        network: After `fix_shapes`.
        dynamic: Upper bounds by the names of axes or inputs, if any; see `fix_shapes`.

    Raises:
        InputError: a bound is no extent of a tensor.
    """
    bounds: dict[str, int] = {}
    for name, bound in dynamic.items() if isinstance(dynamic, Mapping) else ():
        if bound is None:
            continue
        if not 1 <= bound < 2**31:
            raise InputError(f"{name!r} cannot have the upper bound {bound}")
        for value in network.inputs:
            for number, axis in enumerate(_dims(value)):
                if isinstance(axis, str) and name in (axis, value.name, _place(value, number)):
                    bounds[axis] = min(bound, bounds.get(axis, bound))
    return dict(sorted(bounds.items()))


def _check_dynamic(network: Network, dynamic: Collection[str]) -> None:
    axes = {d for value in network.inputs for d in _dims(value) if isinstance(d, str)} - {"?"}
    places = {_place(value, i) for value in network.inputs for i in range(len(_dims(value)))}
    for name in dynamic:
        if name not in axes and name not in network.input_names and name not in places:
            known = ", ".join(map(repr, [*network.input_names, *sorted(axes)]))
            raise InputError(
                f"{network.name} has neither an axis nor an input {name!r}",
                hint=f"it has {known}",
            )


def _axis_name(value: onnx.ValueInfoProto, axis: int, name: int | str) -> str:
    return name if isinstance(name, str) and name != "?" else _place(value, axis)


def _place(value: onnx.ValueInfoProto, axis: int) -> str:
    """What an axis without a name is called."""
    return f"{value.name}:{axis}"


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
