"""The flat form after fusion: kernel calls in order, over values with static sizes.

No Relax survives this module; what follows (memory plan, kernels, code) reads `Program`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from tvm import relax, tirx
from tvm.ir import GenericConst

from wasmgraph.errors import Obstacle, UnsupportedModelError
from wasmgraph.importer.relax_graph import RelaxGraph, data_address


@dataclass(frozen=True)
class Value:
    """A tensor that some call reads or writes. Views share one value.

    Attributes:
        kind: Who fills it: the host, the compiler, or a call.
        nbytes: Its length.
    """

    kind: Literal["input", "constant", "computed"]
    nbytes: int


@dataclass(frozen=True)
class Call:
    """One kernel call; `reads` and `writes` are indices into `Program.values`."""

    function: str
    reads: tuple[int, ...]
    writes: tuple[int, ...]
    nodes: tuple[str, ...]


@dataclass(frozen=True)
class Port:
    """A graph input or output and the value that holds it."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    value: int


@dataclass(frozen=True)
class Weight:
    """A constant value with its bytes; `name` is the ONNX name where it is still known."""

    name: str
    array: NDArray[Any]


@dataclass(frozen=True)
class Program:
    """A whole model as kernel calls.

    Attributes:
        functions: PrimFuncs by name; parameters are the read buffers, then the written ones.
        values: All tensors.
        weights: The constants among them, by value index.
        inputs, outputs: In the model's order.
        calls: In execution order.
    """

    functions: Mapping[str, Any]
    values: tuple[Value, ...]
    weights: Mapping[int, Weight]
    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]
    calls: tuple[Call, ...]


def nbytes(shape: tuple[int, ...], dtype: str) -> int:
    """Length in bytes of a dense tensor."""
    count = 1
    for extent in shape:
        count *= extent
    return count * np.dtype(dtype).itemsize


def flatten(
    module: Any, groups: Sequence[frozenset[int]], graph: RelaxGraph, model: str
) -> Program:
    """Read the calls off a module whose `main` consists of fused kernels and views.

    Args:
        module: After FuseTIR.
        groups: ONNX node indices of every binding of `main`.
        graph: What the importer made: names, types, weights.
        model: The model's name, for messages.

    Raises:
        UnsupportedModelError: an operator was left that has no kernel.
    """
    return _Flattener(module, groups, graph, model).run()


class _Flattener:
    def __init__(
        self, module: Any, groups: Sequence[frozenset[int]], graph: RelaxGraph, model: str
    ) -> None:
        self.module = module
        self.groups = groups
        self.graph = graph
        self.model = model
        self.values: list[Value] = []
        self.weights: dict[int, Weight] = {}
        self.constants: dict[Any, int] = {}
        self.where: dict[Any, tuple[int, ...]] = {}  # variable -> its value, or one per field
        self.calls: list[Call] = []
        self.obstacles: list[Obstacle] = []

    def run(self) -> Program:
        main = self.module["main"]
        for param in main.params:
            self.where[param] = (self._new("input", param),)
        bindings = [binding for block in main.body.blocks for binding in block.bindings]
        for binding, group in zip(bindings, self.groups, strict=True):
            names = tuple(self.graph.nodes[index] for index in sorted(group))
            self._bind(binding.var, binding.value, names)
        if self.obstacles:
            raise UnsupportedModelError(
                f"{self.model} cannot be compiled, these operators have no kernel:",
                obstacles=self.obstacles,
            )
        outputs = self._refer(main.body.body)
        return Program(
            functions={
                gv.name_hint: f
                for gv, f in self.module.functions.items()
                if isinstance(f, tirx.PrimFunc)
            },
            values=tuple(self.values),
            weights=self.weights,
            inputs=tuple(
                Port(*spec, self.where[param][0])
                for spec, param in zip(self.graph.inputs, main.params, strict=True)
            ),
            outputs=tuple(
                Port(*spec, value)
                for spec, value in zip(self.graph.outputs, outputs, strict=True)
            ),
            calls=tuple(self.calls),
        )

    def _new(self, kind: Literal["input", "constant", "computed"], expr: Any) -> int:
        return self._new_value(kind, expr.ty)

    def _new_value(self, kind: Literal["input", "constant", "computed"], ty: Any) -> int:
        shape = tuple(int(extent) for extent in ty.shape.values)
        dtype = str(getattr(ty.dtype, "dtype", ty.dtype))
        self.values.append(Value(kind, nbytes(shape, dtype)))
        return len(self.values) - 1

    def _constant(self, expr: Any) -> int:
        array = expr.value.numpy()
        key = (array.dtype.str, array.shape, array.tobytes())
        if key not in self.constants:
            index = self._new("constant", expr)
            name = self.graph.weight_names.get(data_address(expr), f"constant{len(self.weights)}")
            self.weights[index] = Weight(name, array)
            self.constants[key] = index
        return self.constants[key]

    def _refer(self, expr: Any) -> tuple[int, ...]:
        """The values an expression stands for: one, or one per field of a tuple."""
        if isinstance(expr, GenericConst):
            return (self._constant(expr),)
        if isinstance(expr, relax.Tuple):
            return tuple(value for field in expr.fields for value in self._refer(field))
        if isinstance(expr, relax.TupleGetItem):
            return (self._refer(expr.tuple_value)[expr.index],)
        return self.where[expr]

    def _bind(self, var: Any, value: Any, nodes: tuple[str, ...]) -> None:
        name = getattr(getattr(value, "op", None), "name", "")
        if name == "relax.call_tir":
            self.where[var] = self._call(value, nodes)
        elif name == "relax.reshape":
            self.where[var] = self._refer(value.args[0])
        elif isinstance(value, (GenericConst, relax.Tuple, relax.TupleGetItem, relax.Var)):
            self.where[var] = self._refer(value)
        else:
            label = nodes[0] if nodes else var.name
            self.obstacles.append(Obstacle(label, name or type(value).__name__, "no kernel for it"))
            fields = value.ty.fields if isinstance(value.ty, relax.TupleType) else [value.ty]
            self.where[var] = tuple(self._new_value("computed", field) for field in fields)

    def _call(self, call: Any, nodes: tuple[str, ...]) -> tuple[int, ...]:
        function, arguments = call.args[0].name_hint, call.args[1]
        reads = self._refer(arguments)
        results = call.ty_args[0]
        fields = results.fields if isinstance(results, relax.TupleType) else [results]
        writes = tuple(self._new_value("computed", field) for field in fields)
        self.calls.append(Call(function, reads, writes, nodes))
        return writes
