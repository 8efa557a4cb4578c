"""Which module handles which operator, and the walk over the graph."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from wasmgraph.errors import Obstacle, UnsupportedModelError
from wasmgraph.importer.relax_graph import RelaxGraph
from wasmgraph.optimise.fuse import Group, group_ops
from wasmgraph.optimise.opgraph import Op, OpGraph
from wasmgraph.optimise.options import DEFAULT, Options
from wasmgraph.optimise.program import Program
from wasmgraph.optimise.select import images, movers, reductions
from wasmgraph.optimise.select.builder import Builder
from wasmgraph.optimise.select.channel_norm import select_channel_norm
from wasmgraph.optimise.select.convolution import select_convolution
from wasmgraph.optimise.select.elementwise import emit_chain, select_elementwise
from wasmgraph.optimise.select.fallback import select_fallback
from wasmgraph.optimise.select.integer_conv import select_integer_conv
from wasmgraph.optimise.select.integer_matmul import (
    select_integer_matmul,
    select_integer_matmul_of_two,
)
from wasmgraph.optimise.select.library import select_library
from wasmgraph.optimise.select.matmul import select_matmul
from wasmgraph.optimise.select.recurrent import select_recurrent
from wasmgraph.optimise.select.transposed import select_transposed
from wasmgraph.optimise.select.typed import is_typed, select_typed

# Each returns False where it cannot handle the operator as it stands.
_SELECTORS: dict[str, Callable[[Builder, Op], bool]] = {
    "reshape": movers.reshape,
    "squeeze": movers.reshape,
    "expand_dims": movers.reshape,
    "flatten": movers.reshape,
    "permute_dims": movers.permute,
    "broadcast_to": movers.broadcast,
    "strided_slice": movers.slice_,
    "split": movers.split,
    "take": movers.take,
    "concat": movers.concat,
    "nn.pad": movers.pad,
    "sum": reductions.reduce,
    "mean": reductions.reduce,
    "max": reductions.reduce,
    "min": reductions.reduce,
    "prod": reductions.reduce,
    "nn.softmax": reductions.softmax,
    "nn.log_softmax": reductions.softmax,
    "nn.layer_norm": reductions.layer_norm,
    "nn.max_pool2d": images.pool,
    "nn.avg_pool2d": images.pool,
    "image.resize2d": images.resize,
}

# Of opaque calls by the operator's name; what is not here is in the operator library.
_OPAQUE: dict[str, Callable[[Builder, Op], None]] = {
    "bit_cast": movers.bit_cast,
    "gru": select_recurrent,
    "lstm": select_recurrent,
    "rnn": select_recurrent,
}

# Each returns False where there is no kernel for this form of it.
_ANCHORED: dict[str, Callable[[Builder, Group], bool]] = {
    "integer_conv": select_integer_conv,
    "integer_matmul": select_integer_matmul,
    "integer_matmul_of_two": select_integer_matmul_of_two,
    "matmul": select_matmul,
    "channel_norm": select_channel_norm,
    "nn.conv1d": select_convolution,
    "nn.conv2d": select_convolution,
    "nn.conv3d": select_convolution,
    "nn.conv1d_transpose": select_transposed,
    "nn.conv2d_transpose": select_transposed,
    "nn.conv3d_transpose": select_transposed,
}


def select_kernels(
    graph: OpGraph, source: RelaxGraph, model: str, options: Options = DEFAULT
) -> Program:
    """Turn every operator into views and kernel calls.

    Raises:
        UnsupportedModelError: operators without any kernel; every one of them is listed.
    """
    builder = Builder(graph, source.nodes, options)
    obstacles: list[Obstacle] = []
    for item in group_ops(graph):
        if isinstance(item, Group):
            found = _select_group(builder, item)
        else:
            found = _select_op(builder, item[1])
        if found is not None:
            obstacles.append(found)
            builder.stand_in([item.output] if isinstance(item, Group) else item[1].outputs)
    if obstacles:
        raise UnsupportedModelError(
            f"{model} cannot be compiled, operators have no kernel:", obstacles=obstacles
        )
    return builder.finish(source.inputs, source.outputs)


def _select_op(builder: Builder, op: Op) -> Obstacle | None:
    if op.kind == "opaque":
        _OPAQUE.get(op.attrs.name, select_library)(builder, op)
        return None
    selector = _SELECTORS.get(op.kind)
    if selector is not None and selector(builder, op):
        return None
    obstacle = select_fallback(builder, op)
    return obstacle and replace(obstacle, node=builder.label(op.nodes))


def _select_group(builder: Builder, group: Group) -> Obstacle | None:
    if group.anchor is None:
        select = select_typed if is_typed(builder, group) else select_elementwise
        select(builder, group)
        return None
    if _ANCHORED[group.anchor.name](builder, group):
        return None
    obstacle = _select_op(builder, group.anchor)
    if obstacle is None and group.chain.steps:
        views = [builder.view(t) for t in (group.anchor.outputs[0], *group.operands)]
        emit_chain(builder, group.chain, views, group.output, group.nodes)
    return obstacle
