"""Infer shapes and compute, with numpy, everything that depends on constants alone.

TVM's own constant folding builds a host kernel per expression (5 to 10 s for a typical model);
onnx's reference evaluator does the same in milliseconds, with ONNX's semantics.
"""

from __future__ import annotations

import math
import re
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, shape_inference
from onnx.reference import ReferenceEvaluator

from wasmgraph.errors import ModelError
from wasmgraph.importer.network import (
    Network,
    TensorType,
    attributes,
    network_to_proto,
    subgraphs,
    tensor_type,
)
from wasmgraph.importer.normalise.quantised_values import quantised_value

# Their results differ from call to call, so they are not constants.
RANDOM_OPS = frozenset(
    [
        "Bernoulli",
        "Multinomial",
        "RandomNormal",
        "RandomNormalLike",
        "RandomUniform",
        "RandomUniformLike",
    ]
)

MAX_GROWTH_BYTES = 1 << 20
"""A folded result may be this much larger than its inputs: expanding a scalar into a huge tensor
is cheaper at run time than in the file."""


# onnx repeats these before every line.
_INFERENCE_PREFIX = re.compile(r"\[(Shape|Type)InferenceError\] |Inference error\(s\): ")


def fold_constants(network: Network) -> None:
    """Alternate shape inference and folding until nothing changes.

    Raises:
        ModelError: shapes contradict each other, or a constant expression is invalid.
    """
    while True:
        infer_shapes(network)
        if not fold_once(network):
            return


def infer_shapes(network: Network) -> None:
    """Fill `network.types`.

    Raises:
        ModelError: ONNX's shape inference finds a contradiction between shapes or types.
    """
    graph = inferred_proto(network).graph
    network.types = {
        name: TensorType(array.dtype, array.shape) for name, array in network.weights.items()
    }
    for value in [*graph.input, *graph.value_info, *graph.output]:
        known = tensor_type(value)
        if known is not None:
            network.types[value.name] = known


def inferred_proto(network: Network) -> onnx.ModelProto:
    """The network as a model in which ONNX has written the types of all tensors.

    Raises:
        ModelError: ONNX's shape inference finds a contradiction between shapes or types.
    """
    proto = network_to_proto(network)
    for output in proto.graph.output:
        # What the file claims may predate the shapes given now.
        if output.type.HasField("tensor_type"):
            output.type.tensor_type.ClearField("shape")
    try:
        # No data propagation: it stores an object per element of a ConstantOfShape or a Range, and
        # what it would tell of shapes is folded here anyway.
        return shape_inference.infer_shapes(proto, check_type=True, strict_mode=True)
    except (shape_inference.InferenceError, RuntimeError, ValueError) as error:
        reason = " ".join(_INFERENCE_PREFIX.sub("", str(error)).split())
        raise ModelError(
            f"{network.name}: shapes or types do not fit together: {reason}"
        ) from error


def fold_once(network: Network) -> bool:
    """Compute what depends on constants alone, whose types are known; whether there was any.

    Quantised weights stay as they are: as floats they are four times as large, and products of
    integers have no use for those.
    """
    kept = []
    for node in network.nodes:
        values = None if node.op_type == "DequantizeLinear" else evaluated(node, network)
        if values is None:
            kept.append(node)
        else:
            network.weights.update(values)
    changed = len(kept) < len(network.nodes)
    network.nodes = kept
    return changed


def evaluated(node: onnx.NodeProto, network: Network) -> dict[str, NDArray[Any]] | None:
    """The node's outputs if they are constants worth storing, else None."""
    if node.domain or node.op_type in RANDOM_OPS or any(subgraphs(node)):
        return None
    if node.op_type == "Shape":
        return _fold_shape(node, network)
    if node.op_type == "Size":
        known = network.types.get(node.input[0])
        if known is not None and known.shape is not None:
            return {node.output[0]: np.array(math.prod(known.shape), np.int64)}
        return None
    names = [name for name in node.input if name]
    if not all(name in network.weights for name in names) or not _worth_storing(node, network):
        return None
    values = {name: network.weights[name] for name in names}
    is_quantising = node.op_type == "QuantizeLinear"
    return quantised_value(node, values) if is_quantising else _run_reference(node, values, network)


def _fold_shape(node: onnx.NodeProto, network: Network) -> dict[str, NDArray[Any]] | None:
    known = network.types.get(node.input[0])
    if known is None or known.shape is None:
        return None
    window = attributes(node)
    shape = known.shape[window.get("start", 0) : window.get("end")]
    return {node.output[0]: np.array(shape, np.int64)}


def _worth_storing(node: onnx.NodeProto, network: Network) -> bool:
    if node.op_type == "OneHot":
        return False  # shape inference never knows its size, and the depth is not bounded
    inputs = sum(network.weights[name].nbytes for name in node.input if name)
    known = [network.types.get(name) for name in node.output]
    outputs = sum(kind.nbytes or 0 for kind in known if kind is not None)
    return outputs <= inputs + MAX_GROWTH_BYTES


def _run_reference(
    node: onnx.NodeProto, values: dict[str, NDArray[Any]], network: Network
) -> dict[str, NDArray[Any]] | None:
    if node.op_type == "Tile" and values[node.input[1]].size != values[node.input[0]].ndim:
        return None  # numpy adds axes; shape inference refuses it, now that the repeats are known
    graph = helper.make_graph(
        [node],
        "fold",
        [onnx.ValueInfoProto(name=name) for name in values],
        [onnx.ValueInfoProto(name=name) for name in node.output if name],
    )
    model = helper.make_model(
        graph,
        opset_imports=[helper.make_opsetid("", network.opset)],
        ir_version=10,
    )
    try:
        results = ReferenceEvaluator(model).run(None, values)
    except Exception:
        # The evaluator lacks operators and has defects of its own (GatherElements on one row), so
        # the node is compiled like any other; contradictions were found by shape inference.
        return None
    arrays = {}
    for name, result in zip([n for n in node.output if n], results, strict=True):
        if not isinstance(result, (np.ndarray, np.generic)) or result.dtype.kind in "OUS":
            return None
        arrays[name] = np.asarray(result)
    return arrays
