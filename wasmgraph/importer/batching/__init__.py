"""Shows that a model treats every sample of a batch alone, so that a graph for one sample serves
batches of any size: it runs once per sample.

What is shown, by induction over the nodes: for a batch of any size every tensor is the
concatenation, on one axis, of the tensors that its samples would have alone (`Spread`), or it does
not depend on the batch at all (`Same`). What depends on the batch's size alone, such as shapes, has
to do so affinely (`Lengths`); then it is known for all sizes from its values for two of them. The
model is therefore normalised for one sample and for `MANY`.

An operator without a rule, or one whose rule does not apply, is taken to mix samples.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import onnx

from wasmgraph.bundle import Batch, Share
from wasmgraph.errors import WasmgraphError
from wasmgraph.importer.batching.estimators import with_known_shapes
from wasmgraph.importer.batching.rules import states_of
from wasmgraph.importer.batching.states import (
    MANY,
    SAME,
    Known,
    Mixed,
    NodeView,
    Spread,
    State,
)
from wasmgraph.importer.batching.work import is_little_work
from wasmgraph.importer.network import Network, tensor_type, value_info
from wasmgraph.importer.normalise import form
from wasmgraph.importer.normalise.fold import fold_constants

__all__ = ["Mixed", "batch_axis", "for_batch", "is_little_work", "separate"]


def batch_axis(network: Network) -> str | None:
    """The name of the only open axis of a network's inputs, which each has once or not at all;
    None where it is otherwise."""
    shapes = [_dims(value) for value in network.inputs]
    names = {d for shape in shapes for d in shape if isinstance(d, str)}
    if len(names) != 1:
        return None
    [name] = names
    return None if any(shape.count(name) > 1 for shape in shapes) else name


def for_batch(network: Network, axis: str, extent: int) -> None:
    """Give an open axis its extent."""
    fixed = []
    for value in network.inputs:
        known = tensor_type(value)
        assert known is not None  # `fix_shapes` has seen to it
        shape = tuple(extent if d == axis else d for d in _dims(value))
        fixed.append(value_info(value.name, known.dtype, shape))
    network.inputs = fixed


def separate(fresh: Callable[[], Network], axis: str) -> Batch:
    """Show that samples are alone, and which part of every input and output one has.

    Args:
        fresh: Gives the network with its open axis.
        axis: The name of that axis.

    Raises:
        Mixed: they are not, or it cannot be shown: why.
    """
    inputs = [
        Spread(shape.index(axis)) if axis in shape else SAME for shape in map(_dims, fresh().inputs)
    ]
    try:
        one, many = _formed(fresh(), axis, 1), _formed(fresh(), axis, MANY)
        _check_alike(one, many)
        known = [_known(one), _known(many)]
    except WasmgraphError as error:
        raise Mixed(f"it is not for batches of all sizes: {error.message}") from error
    states: dict[str, State] = dict.fromkeys(one.weights, SAME)
    states.update(zip(one.input_names, inputs, strict=True))
    for node in one.nodes:
        given = tuple(states[name] if name else None for name in node.input)
        view = NodeView(node, given, known[0], known[1], one.opsets.get(node.domain, 1))
        try:
            found = states_of(view)
        except Mixed as reason:
            raise Mixed(f"node {node.name!r} ({node.op_type}): {reason}") from None
        states.update(zip([name for name in node.output if name], found, strict=False))
    outputs = [_share(name, states[name], known[0]) for name in one.output_names]
    return Batch(
        axis,
        tuple(Share(s.axis, 1) if isinstance(s, Spread) else None for s in inputs),
        tuple(outputs),
    )


def _formed(network: Network, axis: str, extent: int) -> Network:
    for_batch(network, axis, extent)
    form(network)
    return network


def _check_alike(one: Network, many: Network) -> None:
    """Whether both are the same nodes over the same constants."""
    if [node.SerializeToString() for node in one.nodes] != [
        node.SerializeToString() for node in many.nodes
    ]:
        raise Mixed("other nodes are needed for another size of the batch")
    if one.weights.keys() != many.weights.keys() or not all(
        array.dtype == many.weights[name].dtype
        and array.shape == many.weights[name].shape
        and array.tobytes() == many.weights[name].tobytes()
        for name, array in one.weights.items()
    ):
        raise Mixed("constants depend on the size of the batch")


def _known(network: Network) -> Known:
    """All that folding tells; the network stays as it is."""
    folded = replace(network, nodes=list(network.nodes), weights=dict(network.weights))
    with_known_shapes(folded)
    fold_constants(folded)
    return Known(folded.types, folded.weights)


def _share(name: str, state: State, known: Known) -> Share | None:
    if state == SAME:
        return None
    shape = known.shape(name)
    if not isinstance(state, Spread) or shape is None:
        raise Mixed(f"output {name!r} depends on the size of the batch")
    return Share(state.axis, shape[state.axis])


def _dims(value: onnx.ValueInfoProto) -> list[int | str]:
    return [
        dim.dim_value if dim.HasField("dim_value") else dim.dim_param
        for dim in value.type.tensor_type.shape.dim
    ]
