"""The normal form between ONNX and Relax: a flat list of nodes with the weights beside it.

Weights are numpy arrays in a dictionary instead of initializers, so that ONNX's own C++ passes
(version converter, shape inference), which take and return serialised bytes, never see them.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from wasmgraph.errors import ModelError
from wasmgraph.kernels.block_scaled import BlockScaled

SMALL_BYTES = 4096
"""Weights up to this size go along to shape inference, since they may hold shapes and axes."""


@dataclass(frozen=True)
class TensorType:
    """What is known of a tensor: its numpy dtype and its shape, or None where that is unknown."""

    dtype: np.dtype[Any]
    shape: tuple[int, ...] | None

    @property
    def nbytes(self) -> int | None:
        """Length in bytes, or None where the shape is unknown. Exact, however large."""
        return None if self.shape is None else math.prod(self.shape) * self.dtype.itemsize


@dataclass
class Network:
    """A model on its way to Relax. The passes of `normalise/` change it in place.

    Attributes:
        name: For messages.
        opset: The ai.onnx opset that `nodes` are written in.
        opsets: All imported operator sets, by domain.
        nodes: In topological order.
        inputs: Graph inputs that are not weights, in the model's order.
        outputs: The names of the graph outputs, in order.
        weights: Constants by name.
        types: What shape inference knows, by tensor name.
        functions: Model-local functions, until they are inlined.
        declared: The dtypes of inputs and outputs that are stored as others, by name.
        wide_nbytes: What weights that are stored narrower would take as float32, by name.
        block_scaled: What float32 weights were decoded from, each as a factor of products has it.
    """

    name: str
    opset: int
    opsets: dict[str, int]
    ir_version: int
    nodes: list[onnx.NodeProto]
    inputs: list[onnx.ValueInfoProto]
    outputs: list[onnx.ValueInfoProto]
    weights: dict[str, NDArray[Any]]
    functions: list[onnx.FunctionProto] = field(default_factory=list)
    types: dict[str, TensorType] = field(default_factory=dict)
    declared: dict[str, str] = field(default_factory=dict)
    wide_nbytes: dict[str, int] = field(default_factory=dict)
    block_scaled: dict[str, list[BlockScaled]] = field(default_factory=dict)

    @property
    def output_names(self) -> list[str]:
        """Names of the graph outputs."""
        return [value.name for value in self.outputs]

    @property
    def input_names(self) -> list[str]:
        """Names of the graph inputs."""
        return [value.name for value in self.inputs]


def network_from_proto(proto: onnx.ModelProto, name: str) -> Network:
    """Take a checked model apart. `proto` is not changed.

    Raises:
        ModelError: an initializer's data do not fill its shape.
    """
    weights = {t.name: _array(t, name) for t in proto.graph.initializer}
    opsets = {("" if o.domain == "ai.onnx" else o.domain): o.version for o in proto.opset_import}
    opset = opsets.get("", 1)
    return Network(
        name=name,
        opset=opset,
        opsets=opsets,
        ir_version=proto.ir_version,
        nodes=_named_nodes(proto.graph.node),
        inputs=[value for value in proto.graph.input if value.name not in weights],
        outputs=list(proto.graph.output),
        weights=weights,
        functions=list(proto.functions),
    )


def _array(tensor: onnx.TensorProto, model: str) -> NDArray[Any]:
    try:
        return np.asarray(numpy_helper.to_array(tensor))
    except (ValueError, TypeError, KeyError) as error:
        # KeyError: a dtype that onnx does not know.
        reason = f"unknown data type {error}" if isinstance(error, KeyError) else error
        raise ModelError(
            f"{model}: initializer {tensor.name!r} cannot be read: {reason}"
        ) from error


def _named_nodes(nodes: Iterator[onnx.NodeProto]) -> list[onnx.NodeProto]:
    """Copies of the nodes in which every node has a name, as `Op#index` where it had none."""
    named = []
    for index, node in enumerate(nodes):
        copy = onnx.NodeProto()
        copy.CopyFrom(node)
        if not copy.name:
            copy.name = f"{node.op_type}#{index}"
        if copy.domain == "ai.onnx":
            copy.domain = ""
        named.append(copy)
    return named


def network_to_proto(network: Network, small_bytes: int = SMALL_BYTES) -> onnx.ModelProto:
    """The network as a `ModelProto` without its large weights, which appear as typed inputs."""
    initializers, inputs = [], list(network.inputs)
    used = {name for node in network.nodes for name in all_inputs(node)}
    used.update(network.output_names)
    for name, array in network.weights.items():
        if name not in used:
            continue
        if array.nbytes <= small_bytes:
            initializers.append(numpy_helper.from_array(array, name))
        else:
            inputs.append(value_info(name, array.dtype, array.shape))
    graph = helper.make_graph(
        network.nodes, network.name, inputs, network.outputs, initializer=initializers
    )
    return helper.make_model(
        graph,
        opset_imports=[helper.make_opsetid(d, v) for d, v in network.opsets.items()],
        functions=network.functions,
        ir_version=max(network.ir_version, 8),
    )


def value_info(
    name: str, dtype: np.dtype[Any], shape: tuple[int | str, ...]
) -> onnx.ValueInfoProto:
    """A tensor's name and type in ONNX's form; an axis without an extent has a name."""
    return helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(dtype), shape)


_NUMERIC = frozenset(onnx.TensorProto.DataType.values()) - {
    onnx.TensorProto.UNDEFINED,
    onnx.TensorProto.STRING,
}


def tensor_type(value: onnx.ValueInfoProto) -> TensorType | None:
    """The type of a tensor value; None for sequences, optionals, strings and untyped values."""
    tensor = value.type.tensor_type
    if value.type.WhichOneof("value") != "tensor_type" or tensor.elem_type not in _NUMERIC:
        return None
    dtype = np.dtype(helper.tensor_dtype_to_np_dtype(tensor.elem_type))
    if not tensor.HasField("shape"):
        return TensorType(dtype, None)
    dims = [d.dim_value if d.HasField("dim_value") else None for d in tensor.shape.dim]
    shape = None if None in dims else tuple(d for d in dims if d is not None)
    return TensorType(dtype, shape)


def attributes(node: onnx.NodeProto) -> Mapping[str, Any]:
    """A node's attributes as Python values."""
    return {a.name: helper.get_attribute_value(a) for a in node.attribute}


def subgraphs(node: onnx.NodeProto) -> Iterator[onnx.GraphProto]:
    """The graphs among a node's attributes (the branches and bodies of control flow)."""
    for attribute in node.attribute:
        if attribute.HasField("g"):
            yield attribute.g
        yield from attribute.graphs


def all_inputs(node: onnx.NodeProto) -> Iterator[str]:
    """Every name a node reads, also from within its subgraphs."""
    yield from (name for name in node.input if name)
    for graph in subgraphs(node):
        inner = {name for n in graph.node for name in n.output}
        inner.update(v.name for v in graph.input)
        inner.update(t.name for t in graph.initializer)
        for child in graph.node:
            yield from (name for name in all_inputs(child) if name not in inner)
        yield from (v.name for v in graph.output if v.name not in inner)
