"""Batch normalisation as what it is at inference, a scale and a shift; other normalisations."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import prod
from typing import Any

import numpy as np
from tvm import relax

from wasmgraph.importer.converters.static import (
    as_dtype,
    constant,
    constant_value,
    dtype_of,
    operand,
    shape_of,
)
from wasmgraph.importer.opaque import opaque_call


def batch_norm(bb: Any, inputs: Sequence[Any], attrs: Mapping[str, Any]) -> Any:
    """BatchNormalization.

    y = gamma * (x - mean) / sqrt(var + epsilon) + beta

    In inference mode, with constant statistics, x * scale + shift, both computed here in float64.
    """
    if attrs.get("training_mode", 0):
        return _batch_norm_in_training(bb, inputs, attrs)
    x = inputs[0]
    values = [constant_value(value) for value in inputs[1:5]]
    if any(value is None for value in values):
        return _batch_norm_at_run_time(bb, inputs, attrs)
    gamma, beta, mean, var = (np.asarray(value, np.float64) for value in values)
    scale = gamma / np.sqrt(var + attrs.get("epsilon", 1e-5))
    shift = beta - mean * scale
    channel_shape = (-1, *[1] * (len(shape_of(x)) - 2))
    dtype = dtype_of(x)
    scaled = bb.normalize(relax.op.multiply(x, constant(scale.reshape(channel_shape), dtype)))
    return relax.op.add(scaled, constant(shift.reshape(channel_shape), dtype))


def _batch_norm_at_run_time(bb: Any, inputs: Sequence[Any], attrs: Mapping[str, Any]) -> Any:
    x, dtype = inputs[0], dtype_of(inputs[0])
    channel_shape = (1, -1, *[1] * (len(shape_of(x)) - 2))
    gamma, beta, mean, var = (
        bb.normalize(relax.op.reshape(as_dtype(bb, value, dtype), channel_shape))
        for value in inputs[1:5]
    )
    epsilon = constant(attrs.get("epsilon", 1e-5), dtype)
    deviation = bb.normalize(relax.op.sqrt(bb.normalize(relax.op.add(var, epsilon))))
    scale = bb.normalize(relax.op.divide(gamma, deviation))
    centred = bb.normalize(relax.op.subtract(x, mean))
    scaled = bb.normalize(relax.op.multiply(centred, scale))
    return bb.normalize(relax.op.add(scaled, beta))


def _batch_norm_in_training(bb: Any, inputs: Sequence[Any], attrs: Mapping[str, Any]) -> Any:
    """By the batch's own statistics; the running ones are outputs."""
    x = inputs[0]
    axes = [axis for axis in range(len(shape_of(x))) if axis != 1]
    mean, var = _mean_and_variance(bb, x, axes)
    momentum = attrs.get("momentum", 0.9)

    def running(old: Any, new: Any) -> Any:
        flat = bb.normalize(relax.op.reshape(new, shape_of(old)))
        kind = dtype_of(old)
        kept = bb.normalize(relax.op.multiply(old, constant(momentum, kind)))
        added = relax.op.multiply(as_dtype(bb, flat, kind), constant(1 - momentum, kind))
        return bb.normalize(relax.op.add(kept, bb.normalize(added)))

    y = _batch_norm_at_run_time(bb, [*inputs[:3], mean, var], attrs)
    return relax.Tuple([y, running(inputs[3], mean), running(inputs[4], var)])


def _mean_and_variance(bb: Any, x: Any, axes: list[int]) -> tuple[Any, Any]:
    """The mean, and the mean of squared distances to it; the axes are kept with extent 1."""
    mean = bb.normalize(relax.op.mean(x, axes, keepdims=True))
    centred = bb.normalize(relax.op.subtract(x, mean))
    squares = bb.normalize(relax.op.multiply(centred, centred))
    return mean, bb.normalize(relax.op.mean(squares, axes, keepdims=True))


def layer_norm_with_statistics(bb: Any, inputs: Sequence[Any], attrs: Mapping[str, Any]) -> Any:
    """LayerNormalization that also gives the mean and the inverse of the standard deviation.

    TVM gives placeholders for them.
    """
    x, scale, bias = inputs[0], inputs[1], operand(inputs, 2)
    dtype, rank = dtype_of(x), len(shape_of(x))
    axes = list(range(int(attrs.get("axis", -1)) % rank, rank))
    single = as_dtype(bb, x, "float32")
    mean, var = _mean_and_variance(bb, single, axes)
    epsilon = constant(attrs.get("epsilon", 1e-5), "float32")
    deviation = bb.normalize(relax.op.sqrt(bb.normalize(relax.op.add(var, epsilon))))
    inverse = bb.normalize(relax.op.divide(constant(1, "float32"), deviation))
    centred = bb.normalize(relax.op.subtract(single, mean))
    normal = as_dtype(bb, bb.normalize(relax.op.multiply(centred, inverse)), dtype)
    y = bb.normalize(relax.op.multiply(normal, scale))
    if bias is not None:
        y = bb.normalize(relax.op.add(y, bias))
    return relax.Tuple([y, mean, inverse])


def instance_norm(bb: Any, inputs: Sequence[Any], attrs: Mapping[str, Any]) -> Any:
    """InstanceNormalization: every channel of every image on its own."""
    return _channel_norm(bb, inputs, 1, attrs)


def group_norm(bb: Any, inputs: Sequence[Any], attrs: Mapping[str, Any]) -> Any:
    """GroupNormalization; scale and bias are per channel, as from opset 21 on.

    onnx's checker refuses the one of opset 18, where they are per group.
    """
    channels, groups = shape_of(inputs[0])[1], int(attrs["num_groups"])
    if channels % groups:
        raise NotImplementedError(f"{channels} channels do not make {groups} groups")
    return _channel_norm(bb, inputs, channels // groups, attrs)


def _channel_norm(bb: Any, inputs: Sequence[Any], group: int, attrs: Mapping[str, Any]) -> Any:
    """(x - mean) / sqrt(variance + epsilon) * scale + bias, per `group` of adjacent channels."""
    x, scale, bias = inputs
    dtype, shape = dtype_of(x), shape_of(x)
    epsilon = float(attrs.get("epsilon", 1e-5))
    if dtype == "float32":
        parameters = {"group": group, "epsilon": epsilon}
        return opaque_call("channel_norm", parameters, inputs, [(dtype, shape)])
    grouped = (shape[0], shape[1] // group, prod(shape[2:]) * group)
    rows = bb.normalize(relax.op.reshape(x, grouped))
    mean, var = _mean_and_variance(bb, rows, [2])
    deviation = bb.normalize(
        relax.op.sqrt(bb.normalize(relax.op.add(var, constant(epsilon, dtype))))
    )
    centred = bb.normalize(relax.op.subtract(rows, mean))
    normal = bb.normalize(relax.op.divide(centred, deviation))
    y = bb.normalize(relax.op.reshape(normal, shape))
    channel_shape = (-1, *[1] * (len(shape) - 2))
    scale, bias = (bb.normalize(relax.op.reshape(v, channel_shape)) for v in (scale, bias))
    return bb.normalize(relax.op.add(bb.normalize(relax.op.multiply(y, scale)), bias))


def lp_normalization(bb: Any, inputs: Sequence[Any], attrs: Mapping[str, Any]) -> Any:
    """LpNormalization: x / norm, and 0 where the norm is 0."""
    x, dtype = inputs[0], dtype_of(inputs[0])
    axis, p = int(attrs.get("axis", -1)), int(attrs.get("p", 2))
    if p == 1:
        norm = bb.normalize(relax.op.sum(bb.normalize(relax.op.abs(x)), axis, keepdims=True))
    else:
        squares = bb.normalize(relax.op.multiply(x, x))
        norm = bb.normalize(relax.op.sqrt(bb.normalize(relax.op.sum(squares, axis, keepdims=True))))
    # Where the norm is 0, so are all elements.
    is_zero = bb.normalize(relax.op.equal(norm, constant(0, dtype)))
    divisor = bb.normalize(relax.op.where(is_zero, constant(1, dtype), norm))
    return bb.normalize(relax.op.divide(x, divisor))
