"""Element-wise operators whose conversion by TVM is wrong or needlessly long."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import reduce
from typing import Any

import numpy as np
from onnx import helper
from tvm import relax

from wasmgraph.importer.converters.static import (
    as_dtype,
    constant,
    constant_value,
    dtype_of,
    operand,
    required_constant,
    shape_of,
)
from wasmgraph.importer.opaque import opaque_call


def clip(bb: Any, inputs: Sequence[Any], _attrs: Mapping[str, Any]) -> Any:
    """Clip; TVM tests each bound for NaN at run time.

    A constant bound that is NaN or left out does not bind, as in onnxruntime.
    """
    x = inputs[0]
    dtype = dtype_of(x)
    for index, bound in ((1, relax.op.maximum), (2, relax.op.minimum)):
        limit = operand(inputs, index)
        if limit is None:
            continue
        value = constant_value(limit)
        if value is not None:
            if value.dtype.kind == "f" and not np.isfinite(value.reshape(())):
                continue
            limit = constant(value.reshape(()), dtype)
        x = bb.normalize(bound(x, limit))
    return x


def variadic(
    combine: Callable[[Any, Any], Any], mean: bool = False
) -> Callable[[Any, Sequence[Any], Mapping[str, Any]], Any]:
    """Max, Min, Sum or Mean of any number of inputs, as a chain of fusible binary operators.

    TVM broadcasts every input and stacks them into one tensor first.
    """

    def convert(bb: Any, inputs: Sequence[Any], _attrs: Mapping[str, Any]) -> Any:
        total = reduce(lambda a, b: bb.normalize(combine(a, b)), inputs)
        if mean:
            count = constant(len(inputs), dtype_of(inputs[0]))
            return relax.op.divide(total, count)
        return total

    return convert


maximum = variadic(relax.op.maximum)
minimum = variadic(relax.op.minimum)
total = variadic(relax.op.add)
mean = variadic(relax.op.add, mean=True)


def is_inf(bb: Any, inputs: Sequence[Any], attrs: Mapping[str, Any]) -> Any:
    """IsInf of one sign or both; TVM ignores which."""
    x = inputs[0]
    infinity = constant(np.inf, dtype_of(x))
    found = []
    if attrs.get("detect_positive", 1):
        found.append(bb.normalize(relax.op.equal(x, infinity)))
    if attrs.get("detect_negative", 1):
        negative = bb.normalize(relax.op.negative(x))
        found.append(bb.normalize(relax.op.equal(negative, infinity)))
    if not found:
        return relax.op.zeros(shape_of(x), "bool")
    return reduce(lambda a, b: bb.normalize(relax.op.logical_or(a, b)), found)


def sign(bb: Any, inputs: Sequence[Any], _attrs: Mapping[str, Any]) -> Any:
    """Sign of unsigned integers, which TVM lacks; None for the rest."""
    x = inputs[0]
    if np.dtype(dtype_of(x)).kind != "u":
        return None
    return bb.normalize(relax.op.minimum(x, constant(1, dtype_of(x))))


def equal(bb: Any, inputs: Sequence[Any], _attrs: Mapping[str, Any]) -> Any:
    """Equal of bools, which TVM compares as if they were floats; None for the rest."""
    if dtype_of(inputs[0]) != "bool":
        return None
    return relax.op.equal(*(as_dtype(bb, operand, "uint8") for operand in inputs))


def dropout(bb: Any, inputs: Sequence[Any], _attrs: Mapping[str, Any]) -> Any:
    """Dropout at inference: the input as it is, and a mask that keeps everything.

    In training mode so, too, where nothing is to be dropped.
    """
    ratio, training = operand(inputs, 1), operand(inputs, 2)
    if training is not None and required_constant(training, "the training mode").any():
        share = 0.5 if ratio is None else required_constant(ratio, "the ratio").item()
        if share != 0:
            raise NotImplementedError("training mode is not supported: what it drops is random")
    kept = bb.normalize(relax.op.ones(shape_of(inputs[0]), "bool"))
    return relax.Tuple([inputs[0], kept])


def bit_cast(_bb: Any, inputs: Sequence[Any], attrs: Mapping[str, Any]) -> Any:
    """BitCast: the same bytes under another dtype of the same size."""
    dtype = helper.tensor_dtype_to_np_dtype(attrs["to"])
    return opaque_call("bit_cast", {}, inputs, [(dtype.name, shape_of(inputs[0]))])
