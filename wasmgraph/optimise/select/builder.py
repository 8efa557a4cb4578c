"""What the selection of kernels builds up: storages, views of tensors, calls."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from wasmgraph.kernels.copying import StridedCopy
from wasmgraph.kernels.tiles import FUSED, SEPARATE
from wasmgraph.optimise.opgraph import OpGraph
from wasmgraph.optimise.options import Options
from wasmgraph.optimise.program import Call, Kernel, Place, Port, Program, Storage, Weight
from wasmgraph.optimise.select.destinations import find_destinations
from wasmgraph.optimise.view import View, dense_strides, element_count, merged_axes


class Builder:
    """A program under construction.

    Args:
        graph: The operators.
        nodes: Names of the ONNX nodes, by index.
        options: What the caller chose.
    """

    def __init__(self, graph: OpGraph, nodes: Sequence[str], options: Options) -> None:
        self.graph = graph
        self.options = options
        self.tiles = FUSED if options.fused else SEPARATE
        self._nodes = nodes
        self._storages: list[Storage] = []
        self._weights: dict[int, Weight] = {}
        self._known_weights: dict[Any, int] = {}
        self._views: dict[int, View] = {}
        self._calls: list[Call] = []
        self._copies: dict[tuple[View, tuple[int, ...]], View] = {}
        self._destinations = find_destinations(graph)
        for tensor in graph.inputs:
            info = graph.tensors[tensor]
            storage = self._new_storage("input", element_count(info.shape), info.dtype)
            self._views[tensor] = View(
                storage, 0, info.shape, dense_strides(info.shape), info.dtype
            )

    def _new_storage(
        self, kind: Literal["input", "constant", "computed"], elements: int, dtype: str
    ) -> int:
        self._storages.append(Storage(kind, elements * np.dtype(dtype).itemsize))
        return len(self._storages) - 1

    def view(self, tensor: int) -> View:
        """Where a tensor lies; a weight gets a place in C order on first use."""
        if tensor not in self._views:
            info = self.graph.tensors[tensor]
            assert info.constant is not None, info
            self._views[tensor] = self.weight(info.constant, info.name, info.wide_nbytes)
        return self._views[tensor]

    def is_placed(self, tensor: int) -> bool:
        """Whether it is known where a tensor lies."""
        return tensor in self._views

    def set(self, tensor: int, view: View) -> None:
        """A tensor was computed, or turned out to be a view of another."""
        self._views[tensor] = view

    def value(self, tensor: int) -> NDArray[Any] | None:
        """A weight's value, else None."""
        return self.graph.tensors[tensor].constant

    def weight(self, array: NDArray[Any], name: str = "", wide_nbytes: int | None = None) -> View:
        """A constant, stored once however often it is used.

        Args:
            wide_nbytes: What it would take as float32, where it is stored as something else.
        """
        array = np.ascontiguousarray(array).reshape(array.shape)
        key = (array.dtype.str, array.shape, array.tobytes())
        if key not in self._known_weights:
            storage = self._new_storage("constant", array.size, array.dtype.name)
            label = name or f"constant{len(self._weights)}"
            wide = array.nbytes if wide_nbytes is None else wide_nbytes
            self._weights[storage] = Weight(label, array, wide)
            self._known_weights[key] = storage
        storage = self._known_weights[key]
        return View(storage, 0, array.shape, dense_strides(array.shape), array.dtype.name)

    def label(self, nodes: frozenset[int]) -> str:
        """The names of ONNX nodes, for messages."""
        return ", ".join(self._nodes[index] for index in sorted(nodes)) or "an unnamed node"

    def allocate(
        self, shape: Sequence[int], dtype: str = "float32", order: Sequence[int] | None = None
    ) -> View:
        """Room for a tensor, dense in the given order of axes (C by default)."""
        shape = tuple(shape)
        storage = self._new_storage("computed", element_count(shape), dtype)
        return View(storage, 0, shape, dense_strides(shape, order), dtype)

    def place(
        self,
        tensor: int,
        order: Sequence[int] | None = None,
        suits: Callable[[View], bool] = lambda _: True,
    ) -> View:
        """Room for a tensor, its axes in the given order (C by default) in memory.

        Within the result of a concatenation where that is all that reads it; then there may be gaps
        between its elements, but they are adjacent along the innermost axis. To be called when
        nothing stands between it and the writing of the whole tensor.

        Args:
            suits: Whether the kernel can write to a view with gaps.
        """
        info = self.graph.tensors[tensor]
        destination = self._destinations.get(tensor)
        dense = View(-1, 0, info.shape, dense_strides(info.shape, order), info.dtype)
        wanted = destination.order(dense) if destination is not None else None
        if destination is not None and wanted is not None:
            if destination.whole not in self._views:
                self.set(destination.whole, self.place(destination.whole, wanted))
            view = destination.part(self._views[destination.whole])
            if view is not None and _adjacent(view, dense) and suits(view):
                return view
        return self.allocate(info.shape, info.dtype, order)

    def stand_in(self, tensors: Sequence[int]) -> None:
        """Room for tensors that nothing computes, so that what reads them is looked at, too."""
        for tensor in tensors:
            info = self.graph.tensors[tensor]
            self._views[tensor] = self.allocate(info.shape, info.dtype)

    def emit(
        self,
        kernel: Kernel,
        reads: Sequence[View],
        writes: Sequence[View],
        nodes: frozenset[int],
        description: str,
    ) -> None:
        """Add a kernel call; one that writes no element is left out."""
        if all(view.size == 0 for view in writes):
            return
        names = tuple(self._nodes[index] for index in sorted(nodes))
        self._calls.append(
            Call(
                kernel,
                tuple(map(_place, reads)),
                tuple(map(_place, writes)),
                names,
                description,
                _replaceable(kernel, reads, writes[0]),
            )
        )

    def dense(self, view: View, nodes: frozenset[int], order: Sequence[int] | None = None) -> View:
        """The view itself if it is dense in this order of axes (C by default), else a copy."""
        if view.is_dense(order):
            return view
        # What lies in a storage is written once, so a copy serves whoever wants it next, too.
        key = (view, tuple(range(len(view.shape)) if order is None else order))
        if key not in self._copies:
            self._copies[key] = self.allocate(view.shape, view.dtype, order)
            self.copy(view, self._copies[key], nodes)
        return self._copies[key]

    def copy(self, source: View, target: View, nodes: frozenset[int]) -> None:
        """Copy element by element; constants move at compile time where the target is a whole."""
        shape, (from_, to) = merged_axes(
            *_outermost_first(source.shape, target.order(), source.strides, target.strides)
        )
        kernel = StridedCopy(shape, from_, to, source.itemsize)
        self.emit(kernel, [source], [target], nodes, "copy")

    def finish(
        self,
        inputs: Sequence[tuple[str, str, tuple[int, ...]]],
        outputs: Sequence[tuple[str, str, tuple[int, ...]]],
    ) -> Program:
        """The program; outputs that are not dense in C order are copied."""
        made_by = {tensor: op.nodes for op in self.graph.ops for tensor in op.outputs}
        ports = []
        for spec, tensor in zip(outputs, self.graph.outputs, strict=True):
            view = self.dense(self.view(tensor), made_by.get(tensor, frozenset()))
            ports.append(Port(*spec, _place(view)))
        used = {place.storage for call in self._calls for place in (*call.reads, *call.writes)}
        used.update(port.place.storage for port in ports)
        return Program(
            storages=tuple(self._storages),
            weights={s: w for s, w in self._weights.items() if s in used},
            inputs=tuple(
                Port(*spec, _place(self.view(tensor)))
                for spec, tensor in zip(inputs, self.graph.inputs, strict=True)
            ),
            outputs=tuple(ports),
            stages=tuple((call,) for call in self._calls),
        )


def _outermost_first(
    shape: Sequence[int], order: Sequence[int], *strides: Sequence[int]
) -> tuple[tuple[int, ...], ...]:
    return tuple(tuple(values[axis] for axis in order) for values in (shape, *strides))


def _adjacent(view: View, dense: View) -> bool:
    """Whether a view has the order of axes of a dense one and its elements along the innermost."""
    order = dense.order()
    moving = [axis for axis in order if dense.shape[axis] > 1]
    return view.order() == order and (not moving or view.strides[moving[-1]] == 1)


def _replaceable(kernel: Kernel, reads: Sequence[View], out: View) -> tuple[int, ...]:
    """Operands of an element-wise chain that have the output's strides."""
    first = len(reads) - getattr(kernel, "replaceable", 0)
    return tuple(
        index
        for index in range(first, len(reads))
        if len(reads[index].shape) <= len(out.shape)
        and reads[index].broadcast(out.shape).lies_like(out)
    )


def _place(view: View) -> Place:
    return Place(view.storage, view.offset * view.itemsize, view.reach)
