"""Batch normalisation as what it is at inference: one scale and one shift per channel."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from tvm import relax

from wasmgraph.importer.converters.static import (
    constant,
    dtype_of,
    required_constant,
    shape_of,
)


def batch_norm(bb: Any, inputs: Sequence[Any], attrs: Mapping[str, Any]) -> Any:
    """BatchNormalization in inference mode: x * scale + shift, both computed here in float64.

    y = gamma * (x - mean) / sqrt(var + epsilon) + beta
    """
    if attrs.get("training_mode", 0):
        raise NotImplementedError("training mode is not supported")
    x = inputs[0]
    gamma, beta, mean, var = (
        required_constant(value, f"its {what}").astype(np.float64)
        for value, what in zip(inputs[1:5], ("scale", "bias", "mean", "variance"), strict=True)
    )
    scale = gamma / np.sqrt(var + attrs.get("epsilon", 1e-5))
    shift = beta - mean * scale
    channel_shape = (-1, *[1] * (len(shape_of(x)) - 2))
    dtype = dtype_of(x)
    scaled = bb.normalize(relax.op.multiply(x, constant(scale.reshape(channel_shape), dtype)))
    return relax.op.add(scaled, constant(shift.reshape(channel_shape), dtype))
