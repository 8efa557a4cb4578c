"""The graph of operators between Relax and kernels: plain data that layout and fusion work on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tvm import relax
from tvm.ir import GenericConst

from wasmgraph.importer.opaque import read_opaque
from wasmgraph.importer.provenance import marked_node
from wasmgraph.importer.relax_graph import RelaxGraph, data_address
from wasmgraph.kernels.block_scaled import KnownBlocks


@dataclass(frozen=True)
class TensorInfo:
    """A tensor's type, and its value where it is a weight.

    Attributes:
        wide_nbytes: What it would take as float32, where it is stored narrower.
    """

    shape: tuple[int, ...]
    dtype: str
    constant: NDArray[Any] | None = None
    name: str = ""
    wide_nbytes: int | None = None


@dataclass(frozen=True)
class Op:
    """One operator.

    Attributes:
        kind: Relax's name without its prefix, e.g. "nn.conv2d", or "opaque".
        inputs: Tensors it reads, tuples flattened.
        outputs: Tensors it computes.
        attrs: Relax's attributes object, or None; an `OpaqueCall` of an opaque one.
        nodes: Indices of the ONNX nodes it comes from.
        call: The Relax call, from which a kernel can be made where we have none of our own.
    """

    kind: str
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    attrs: Any
    nodes: frozenset[int]
    call: Any

    @property
    def name(self) -> str:
        """What it computes: its kind, or an opaque one's own name."""
        return str(self.attrs.name) if self.kind == "opaque" else self.kind


@dataclass
class OpGraph:
    """Operators in topological order over numbered tensors."""

    tensors: list[TensorInfo] = field(default_factory=list)
    ops: list[Op] = field(default_factory=list)
    inputs: list[int] = field(default_factory=list)
    outputs: list[int] = field(default_factory=list)
    functions: Mapping[str, Any] = field(default_factory=dict)
    known_blocks: KnownBlocks = field(default_factory=KnownBlocks)

    def readers(self) -> dict[int, list[int]]:
        """For every tensor the indices of the ops that read it."""
        found: dict[int, list[int]] = {}
        for index, op in enumerate(self.ops):
            for tensor in dict.fromkeys(op.inputs):
                found.setdefault(tensor, []).append(index)
        return found


def extract(module: Any, graph: RelaxGraph) -> OpGraph:
    """Read the operators off a Relax module with one function `main`."""
    return _Extraction(module, graph).run()


class _Extraction:
    def __init__(self, module: Any, graph: RelaxGraph) -> None:
        self.main = module["main"]
        self.names = graph.weight_names
        self.wide_nbytes = graph.wide_nbytes
        self.result = OpGraph(
            functions={gv.name_hint: f for gv, f in module.functions.items()},
            known_blocks=KnownBlocks(graph.block_scaled),
        )
        self.where: dict[Any, tuple[int, ...]] = {}
        self.constants: dict[int, int] = {}

    def run(self) -> OpGraph:
        for param in self.main.params:
            self.where[param] = self._new(param.ty)
            self.result.inputs += self.where[param]
        bindings = [binding for block in self.main.body.blocks for binding in block.bindings]
        nodes = _nodes_of_variables(bindings)
        for binding in bindings:
            self._bind(binding.var, binding.value, nodes.get(binding.var, frozenset()))
        self.result.outputs = list(self._refer(self.main.body.body))
        return self.result

    def _new(self, ty: Any) -> tuple[int, ...]:
        """Tensors for a type: one, or one per field of a tuple."""
        if isinstance(ty, relax.TupleType):
            return tuple(tensor for each in ty.fields for tensor in self._new(each))
        shape = tuple(int(extent) for extent in ty.shape.values)
        dtype = str(getattr(ty.dtype, "dtype", ty.dtype))
        self.result.tensors.append(TensorInfo(shape, dtype))
        return (len(self.result.tensors) - 1,)

    def _constant(self, expr: Any) -> int:
        address = data_address(expr)
        if address not in self.constants:
            array = expr.value.numpy()
            name = self.names.get(address, "")
            self.constants[address] = len(self.result.tensors)
            wide = self.wide_nbytes.get(name)
            self.result.tensors.append(TensorInfo(array.shape, array.dtype.name, array, name, wide))
        return self.constants[address]

    def _aligned(self, slope: int, rank: int, attrs: Any) -> int:
        """A constant slope per element of one axis, shaped so that it broadcasts along the others.

        TVM's own kernel sees the same bytes.
        """
        info = self.result.tensors[slope]
        if info.constant is None:
            return slope
        column = info.constant.reshape(-1, *[1] * (rank - 1 - int(attrs.axis) % rank))
        self.result.tensors.append(TensorInfo(column.shape, info.dtype, column, info.name))
        return len(self.result.tensors) - 1

    def _refer(self, expr: Any) -> tuple[int, ...]:
        if isinstance(expr, GenericConst):
            return (self._constant(expr),)
        if isinstance(expr, relax.Tuple):
            return tuple(tensor for each in expr.fields for tensor in self._refer(each))
        if isinstance(expr, relax.TupleGetItem):
            return (self._refer(expr.tuple_value)[expr.index],)
        return self.where[expr]

    def _bind(self, var: Any, value: Any, nodes: frozenset[int]) -> None:
        if not isinstance(value, relax.Call):
            self.where[var] = self._refer(value)
            return
        kind = value.op.name.removeprefix("relax.")
        arguments = value.args[1:] if kind == "call_tir" else value.args
        inputs = tuple(
            tensor
            for argument in arguments
            if is_tensor_argument(argument)
            for tensor in self._refer(argument)
        )
        if kind == "nn.prelu":
            inputs = (inputs[0], self._aligned(inputs[1], len(value.args[0].ty.shape), value.attrs))
        self.where[var] = self._new(value.ty)
        opaque = read_opaque(value)
        if opaque is not None:
            kind = "opaque"
        attrs = opaque or value.attrs
        self.result.ops.append(Op(kind, inputs, self.where[var], attrs, nodes, value))


def is_tensor_argument(argument: Any) -> bool:
    """Whether a call's argument is a tensor or a tuple of tensors, not a shape or a number."""
    if isinstance(argument, relax.Tuple):
        return all(is_tensor_argument(each) for each in argument.fields)
    return isinstance(getattr(argument, "ty", None), relax.TensorType | relax.TupleType)


def _nodes_of_variables(bindings: Sequence[Any]) -> dict[Any, frozenset[int]]:
    """The ONNX nodes of every variable; an unmarked one belongs to its next marked reader."""
    nodes: dict[Any, frozenset[int]] = {}
    for binding in reversed(bindings):
        own = marked_node(binding.var.name)
        if own is not None:
            nodes[binding.var] = frozenset([own])
        if binding.var in nodes:
            for used in relax.analysis.free_vars(binding.value):
                nodes.setdefault(used, nodes[binding.var])
    return nodes


def scalar_constant(tensor: TensorInfo) -> float | None:
    """The number, if a tensor is a float32 constant of one element (or all elements equal)."""
    array = tensor.constant
    if array is None or tensor.dtype != "float32" or array.size != 1:
        return None
    return float(np.asarray(array).reshape(()))
