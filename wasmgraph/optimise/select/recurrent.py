"""The opaque calls "lstm", "gru" and "rnn": a kernel that loops over time."""

from __future__ import annotations

import numpy as np

from wasmgraph.importer.opaque import OpaqueCall
from wasmgraph.kernels.activations import Activation
from wasmgraph.kernels.recurrence import Direction, Recurrence, pack_recurrent
from wasmgraph.optimise.opgraph import Op
from wasmgraph.optimise.select.builder import Builder
from wasmgraph.optimise.view import View

_Y_ORDER = (0, 2, 1, 3)
"""In memory the directions of a row are neighbours: what follows a layer with two directions wants
them so, and with one it makes no difference."""


def select_recurrent(builder: Builder, op: Op) -> None:
    """The layer behind its input's product."""
    call = op.attrs
    assert isinstance(call, OpaqueCall), op.kind
    x_tensor, r_tensor, *others = op.inputs
    x = builder.view(x_tensor)
    if not x.size:
        # Nothing computes it, so it has no place in memory; nor is it read.
        x = builder.weight(np.zeros(x.shape, np.float32))
    elif x.strides[-1] != 1:
        x = builder.dense(x, op.nodes)
    infos = [builder.graph.tensors[tensor] for tensor in op.outputs]
    steps, ways, batch, hidden = infos[0].shape
    y = builder.allocate(infos[0].shape, order=_Y_ORDER)
    states = [builder.allocate(info.shape) for info in infos[1:]]
    r, packed = _recurrent_weights(builder, call.name, r_tensor, op.nodes)
    parameters = call.parameters
    kernel = Recurrence(
        cell=call.name,
        steps=steps,
        batch=batch,
        hidden=hidden,
        directions=tuple(
            Direction(each["reverse"], tuple(Activation(*a) for a in each["activations"]))
            for each in parameters["directions"]
        ),
        x_step=x.strides[0],
        x_row=x.strides[1],
        y_step=batch * ways * hidden,
        y_row=ways * hidden,
        packed=packed,
        given=tuple(parameters["given"]),
        clip=parameters["clip"],
        coupled=parameters["coupled"],
        reset_after=parameters["reset_after"],
    )
    given = [builder.dense(builder.view(tensor), op.nodes) for tensor in others]
    scratch = builder.allocate((kernel.scratch_nbytes // 4,))
    writes = [y, *states, scratch]
    builder.emit(kernel, [x, r, *given], writes, op.nodes, call.name)
    for tensor, view in zip(op.outputs, writes[:-1], strict=True):
        builder.set(tensor, view)


def _recurrent_weights(
    builder: Builder, cell: str, tensor: int, nodes: frozenset[int]
) -> tuple[View, bool]:
    """R^T, and whether it is packed; it is not where it is computed."""
    value = builder.value(tensor)
    if value is None:
        return builder.dense(builder.view(tensor).permuted((0, 2, 1)), nodes), False
    packed = pack_recurrent(cell, np.ascontiguousarray(value.transpose(0, 2, 1)))
    return builder.weight(packed, builder.graph.tensors[tensor].name), True
