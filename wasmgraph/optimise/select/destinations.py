"""Where a tensor that a concatenation reads can be written at once: into its part of the result.

The part is a strided view. Between the tensor and the concatenation there may be reshapes and
transposes, as in a detector's heads; they are undone to find where the tensor itself lies.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from wasmgraph.optimise.opgraph import Op, OpGraph
from wasmgraph.optimise.view import View

RESHAPES = frozenset(["reshape", "squeeze", "expand_dims", "flatten"])


@dataclass(frozen=True)
class Move:
    """A reshape or a transpose: the shape before it and after it, or the axes."""

    before: tuple[int, ...]
    after: tuple[int, ...]
    axes: tuple[int, ...] | None

    def forward(self, view: View) -> View | None:
        """The view after the move; None where elements would have to be copied."""
        return view.permuted(self.axes) if self.axes is not None else view.reshaped(self.after)

    def back(self, view: View) -> View | None:
        """The view whose move is this one."""
        if self.axes is None:
            return view.reshaped(self.before)
        return view.permuted([self.axes.index(axis) for axis in range(len(self.axes))])


@dataclass(frozen=True)
class Destination:
    """A part of a concatenation's result.

    Attributes:
        whole: The result.
        axis, begin, count: Which part of it.
        moves: From the tensor that is to lie there to the part, in order.
    """

    whole: int
    axis: int
    begin: int
    count: int
    moves: tuple[Move, ...]

    def part(self, whole: View) -> View | None:
        """Where the tensor lies in the result, or None where it cannot be seen as a view of it."""
        view: View | None = whole.sliced(self.axis, self.begin, self.count)
        for move in reversed(self.moves):
            view = move.back(view) if view is not None else None
        return view

    def order(self, tensor: View) -> tuple[int, ...] | None:
        """The order of axes that the result takes if the tensor lies like this one."""
        view: View | None = tensor
        for move in self.moves:
            view = move.forward(view) if view is not None else None
        return None if view is None else view.order()


def find_destinations(graph: OpGraph) -> dict[int, Destination]:
    """Tensors that nothing but one concatenation reads, by way of moves at most."""
    readers = graph.readers()
    made_by = {tensor: op for op in graph.ops for tensor in op.outputs}
    kept = {*graph.inputs, *graph.outputs}
    found: dict[int, Destination] = {}
    for op in graph.ops:
        if op.kind != "concat":
            continue
        shape = graph.tensors[op.outputs[0]].shape
        axis = int(op.attrs.axis) % len(shape)
        begin = 0
        for part in op.inputs:
            count = graph.tensors[part].shape[axis]
            moves: tuple[Move, ...] = ()
            tensor, maker = part, made_by.get(part)
            while maker is not None and tensor not in kept and _read_once(tensor, readers, graph):
                move = _move(graph, maker)
                if move is None:
                    found[tensor] = Destination(op.outputs[0], axis, begin, count, moves)
                    break
                moves = (move, *moves)
                tensor = maker.inputs[0]
                maker = made_by.get(tensor)
            begin += count
    return found


def _read_once(tensor: int, readers: Mapping[int, Sequence[int]], graph: OpGraph) -> bool:
    ops = readers[tensor]
    return len(ops) == 1 and graph.ops[ops[0]].inputs.count(tensor) == 1


def _move(graph: OpGraph, op: Op) -> Move | None:
    if op.kind not in RESHAPES and op.kind != "permute_dims":
        return None
    before, after = (graph.tensors[t].shape for t in (op.inputs[0], op.outputs[0]))
    axes = permutation(op, len(before)) if op.kind == "permute_dims" else None
    return Move(before, after, axes)


def permutation(op: Op, rank: int) -> tuple[int, ...]:
    """The axes of a permute_dims; without any it reverses them."""
    axes: Sequence[int] | None = op.attrs.axes
    if axes is None:
        return tuple(reversed(range(rank)))
    return tuple(int(axis) % rank for axis in axes)
