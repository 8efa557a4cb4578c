"""Join what exporters take group normalisation apart into.

PyTorch writes it as a reshape to [batch, groups, all else], an instance normalisation, a reshape
back, and a multiplication and an addition per channel.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wasmgraph.importer.opaque import OpaqueCall
from wasmgraph.optimise.opgraph import Op, OpGraph, TensorInfo

Array = NDArray[Any]


@dataclass
class _Norm:
    """A normalisation with constant scale and shift, as it grows.

    Attributes:
        op: The normalisation itself.
        source, result: What it reads and computes.
        group: Channels that share a mean and variance.
        members: All ops that it takes the place of, by index.
    """

    op: Op
    source: int
    result: int
    group: int
    scale: Array
    shift: Array
    members: list[int]


def join_channel_norms(graph: OpGraph) -> None:
    """Replace the operators around instance normalisations where they make up a group's."""
    readers = graph.readers()
    makers = {tensor: index for index, op in enumerate(graph.ops) for tensor in op.outputs}
    joined: list[_Norm] = []
    for index, op in enumerate(graph.ops):
        if op.name != "channel_norm":
            continue
        scale, shift = (graph.tensors[tensor].constant for tensor in op.inputs[1:])
        if scale is None or shift is None:
            continue
        group = int(op.attrs.parameters["group"])
        norm = _Norm(op, op.inputs[0], op.outputs[0], group, scale, shift, [index])
        if group == 1:
            _take_reshapes(norm, graph, readers, makers)
        while _take_affine(norm, graph, readers):
            pass
        if len(norm.members) > 1:
            joined.append(norm)
    replaced = {norm.members[-1]: _joined(norm, graph) for norm in joined}
    dropped = {member for norm in joined for member in norm.members}
    graph.ops[:] = [
        replaced.get(index, op)
        for index, op in enumerate(graph.ops)
        if index in replaced or index not in dropped
    ]


def _only_reader(tensor: int, graph: OpGraph, readers: dict[int, list[int]]) -> int | None:
    """The one op that reads a tensor, and reads it once."""
    found = readers.get(tensor, [])
    if len(found) != 1 or tensor in graph.outputs or graph.ops[found[0]].inputs.count(tensor) > 1:
        return None
    return found[0]


def _take_reshapes(
    norm: _Norm, graph: OpGraph, readers: dict[int, list[int]], makers: dict[int, int]
) -> None:
    """The reshape before and the one after, if they only gather the channels of groups."""
    before = makers.get(norm.source)
    after = _only_reader(norm.result, graph, readers)
    if before is None or after is None:
        return
    if _only_reader(norm.source, graph, readers) is None:
        return
    first, last = graph.ops[before], graph.ops[after]
    if first.kind != "reshape" or last.kind != "reshape":
        return
    outside, inside = (graph.tensors[t].shape for t in (first.inputs[0], norm.source))
    if graph.tensors[last.outputs[0]].shape != outside or len(outside) < 2:
        return
    if inside[0] != outside[0] or outside[1] % inside[1]:
        return
    norm.source, norm.result = first.inputs[0], last.outputs[0]
    norm.group = outside[1] // inside[1]
    norm.scale, norm.shift = (np.repeat(v, norm.group) for v in (norm.scale, norm.shift))
    norm.members = [before, *norm.members, after]


def _take_affine(norm: _Norm, graph: OpGraph, readers: dict[int, list[int]]) -> bool:
    """A multiplication or addition of constants per channel that follows."""
    index = _only_reader(norm.result, graph, readers)
    if index is None:
        return False
    op = graph.ops[index]
    shape = graph.tensors[norm.result].shape
    if op.kind not in ("multiply", "add") or graph.tensors[op.outputs[0]].shape != shape:
        return False
    other = op.inputs[1] if op.inputs[0] == norm.result else op.inputs[0]
    vector = per_channel(graph.tensors[other].constant, shape, 1)
    if vector is None:
        return False
    if op.kind == "multiply":
        norm.scale, norm.shift = norm.scale * vector, norm.shift * vector
    else:
        norm.shift = norm.shift + vector
    norm.result = op.outputs[0]
    norm.members.append(index)
    return True


def per_channel(array: Array | None, shape: tuple[int, ...], axis: int) -> Array | None:
    """A constant that broadcasts to `shape` with one element per index of an axis, as a vector.

    Returns:
        float32 [extent of the axis], or None where it is no constant or varies along other axes.
    """
    if array is None or array.ndim > len(shape):
        return None
    full = array.reshape((1,) * (len(shape) - array.ndim) + array.shape)
    if full.size != full.shape[axis] or full.shape[axis] not in (1, shape[axis]):
        return None
    return np.ascontiguousarray(np.broadcast_to(full.reshape(-1), (shape[axis],)), np.float32)


def _joined(norm: _Norm, graph: OpGraph) -> Op:
    vectors = []
    for vector in (norm.scale, norm.shift):
        graph.tensors.append(TensorInfo(vector.shape, "float32", vector.astype(np.float32)))
        vectors.append(len(graph.tensors) - 1)
    parameters = {**norm.op.attrs.parameters, "group": norm.group}
    return replace(
        norm.op,
        inputs=(norm.source, *vectors),
        outputs=(norm.result,),
        attrs=OpaqueCall("channel_norm", parameters),
        nodes=frozenset().union(*(graph.ops[member].nodes for member in norm.members)),
    )
