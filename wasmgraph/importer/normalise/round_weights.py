"""Round the weights of products and tables to what fewer bytes hold: half precision, or int8 steps.

They stay float32 here, so the rounded network is a model like any other: `kernels.exact_storage`
sees that its weights fit, and onnxruntime can run it, to tell the rounding from everything else.

Left alone are weights that were quantised already, small ones, those of depthwise convolutions and
of products with one or two columns (all of which are little beside the others), and those of
recurrent layers.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from wasmgraph.bundle import WeightFormat
from wasmgraph.importer.network import Network, TensorType, all_inputs, attributes
from wasmgraph.kernels.exact_storage import MIN_ELEMENTS
from wasmgraph.kernels.thin import MAX_COLUMNS

INT8_STEPS = 127
"""The largest weight of a channel is so many steps of its scale."""

_SCALE_BITS = 16
"""Of a scale's mantissa: with at most 7 bits of a number of steps, a weight is exact in float32."""

_CONVOLUTIONS = {"Conv": 1, "ConvTranspose": 0}
"""The axis of the weights that counts input channels."""


def round_weights(network: Network, weights: WeightFormat) -> None:
    """Round what is to be stored small; convolutions take batch normalisation into theirs first.

    Args:
        network: Normalised, changed in place.
        weights: "f16": to half precision, where all weights of a tensor have finite halves.
            "int8": to multiples of a scale per output channel (of a table: per row); weights
            whose channels no single axis counts stay as they are.
    """
    if weights == "f32":
        return
    fold_batch_normalisation(network)
    done: set[str] = set()
    for node in network.nodes:
        name = _weights_of(node, network)
        if name is None or name in done:
            continue
        array = network.weights[name]
        rounded = _halves(array) if weights == "f16" else _steps(array, _channel_axis(node, array))
        if rounded is not None:
            network.weights[name] = rounded
            done.add(name)


def _weights_of(node: onnx.NodeProto, network: Network) -> str | None:
    """The name of a node's large weights; None where it has none that are rounded."""
    if node.domain or node.op_type not in ("Gather", "MatMul", "Gemm", *_CONVOLUTIONS):
        return None
    name = node.input[0] if node.op_type == "Gather" else node.input[1]
    array = network.weights.get(name)
    if array is None or array.dtype != np.float32 or array.size < MIN_ELEMENTS or array.ndim < 2:
        return None
    if name in network.block_scaled:
        return None
    attrs = attributes(node)
    if node.op_type == "Gather":
        suits = array.ndim == 2 and attrs.get("axis", 0) == 0
    elif node.op_type in _CONVOLUTIONS:
        suits = attrs.get("group", 1) == 1 or array.shape[1] > 1
    else:
        columns = array.shape[0] if attrs.get("transB", 0) else array.shape[-1]
        suits = columns > MAX_COLUMNS and attrs.get("alpha", 1.0) == 1.0
    return name if suits else None


def _channel_axis(node: onnx.NodeProto, array: NDArray[Any]) -> int | None:
    """The axis of the weights that counts output channels; None where several do."""
    attrs = attributes(node)
    if node.op_type == "Gather":
        return 0
    if node.op_type in _CONVOLUTIONS:
        return 1 - _CONVOLUTIONS[node.op_type] if attrs.get("group", 1) == 1 else None
    if array.size != array.shape[-1] * array.shape[-2]:
        return None  # a product for each of a batch
    return array.ndim - 2 if attrs.get("transB", 0) else array.ndim - 1


def _halves(array: NDArray[Any]) -> NDArray[np.float32] | None:
    with np.errstate(over="ignore"):
        rounded = array.astype(np.float16)
    return rounded.astype(np.float32) if np.isfinite(rounded).all() else None


def _steps(array: NDArray[Any], axis: int | None) -> NDArray[np.float32] | None:
    if axis is None or not np.isfinite(array).all():
        return None
    others = tuple(a for a in range(array.ndim) if a != axis)
    largest = np.abs(array).max(axis=others, keepdims=True).astype(np.float64)
    scale = _short_mantissa(np.where(largest > 0, largest, INT8_STEPS) / INT8_STEPS)
    return (np.rint(array / scale) * scale).astype(np.float32) + np.float32(0)


def _short_mantissa(scale: NDArray[np.float64]) -> NDArray[np.float64]:
    """The next numbers above with `_SCALE_BITS` bits: so they are found again from the weights."""
    mantissa, exponent = np.frexp(scale)
    return np.asarray(np.ldexp(np.ceil(np.ldexp(mantissa, _SCALE_BITS)), exponent - _SCALE_BITS))


def fold_batch_normalisation(network: Network) -> None:
    """Multiply a convolution's weights by what normalises its result, where nothing else reads it.

    The optimiser does the same later, but then the products would not be those that were rounded.
    """
    readers: dict[str, int] = dict.fromkeys(network.output_names, 1)
    for node in network.nodes:
        for name in all_inputs(node):
            readers[name] = readers.get(name, 0) + 1
    makers = {name: node for node in network.nodes for name in node.output}
    kept = []
    for node in network.nodes:
        convolution = makers.get(node.input[0]) if node.op_type == "BatchNormalization" else None
        if (
            convolution is None
            or convolution.domain
            or convolution.op_type not in _CONVOLUTIONS
            or readers[node.input[0]] > 1
            or not _fold(network, convolution, node)
        ):
            kept.append(node)
            continue
        convolution.output[0] = node.output[0]
        makers[node.output[0]] = convolution
    network.nodes = kept


def _fold(network: Network, convolution: onnx.NodeProto, norm: onnx.NodeProto) -> bool:
    """Whether a normalisation could be put into a convolution; gives it weights of its own."""
    given = [network.weights.get(name) for name in norm.input[1:5]]
    weights = network.weights.get(convolution.input[1])
    has_bias = len(convolution.input) > 2 and bool(convolution.input[2])
    bias = network.weights.get(convolution.input[2]) if has_bias else np.zeros(1)
    attrs = attributes(norm)
    if weights is None or bias is None or weights.dtype != np.float32:
        return False
    if any(value is None for value in given) or attrs.get("training_mode", 0):
        return False
    axis = 1 - _CONVOLUTIONS[convolution.op_type]
    if axis == 1 and attributes(convolution).get("group", 1) != 1:
        return False
    gamma, beta, mean, var = (np.asarray(value, np.float64) for value in given)
    scale = gamma / np.sqrt(var + attrs.get("epsilon", 1e-5))
    shape = [1] * weights.ndim
    shape[axis] = -1
    names = [f"{norm.output[0]}/weights", f"{norm.output[0]}/bias"]
    values = [weights * scale.reshape(shape), (bias - mean) * scale + beta]
    for name, value in zip(names, values, strict=True):
        network.weights[name] = value.astype(np.float32)
        network.types[name] = TensorType(np.dtype(np.float32), value.shape)
    convolution.input[:] = [convolution.input[0], *names]
    return True
