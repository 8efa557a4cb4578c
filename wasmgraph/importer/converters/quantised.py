"""Quantising, dequantising, and products of integers.

int8 and uint8 are converted where they are read and written, by the kernels of what comes before
and after: "quantize" and "dequantize" are opaque calls that the optimiser fuses into chains.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx
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
from wasmgraph.importer.quantisation import DOMAIN, same_pads
from wasmgraph.kernels.integer_packing import per_column

_BYTES = ("int8", "uint8")
_SHORTS = ("int16", "uint16")


def quantize_linear(bb: Any, inputs: Sequence[Any], attrs: Mapping[str, Any]) -> Any:
    """QuantizeLinear: per tensor, per axis or by blocks."""
    x, scale = as_dtype(bb, inputs[0], "float32"), inputs[1]
    zero = operand(inputs, 2)
    dtype = dtype_of(zero) if zero is not None else _output_dtype(attrs)
    if dtype not in (*_BYTES, *_SHORTS):
        raise NotImplementedError(f"quantising to {dtype} is not supported")
    scale_value, zero_value = _known_scalar(scale), _known_scalar(zero)
    shape = shape_of(x)
    if dtype in _BYTES and scale_value is not None and zero_value is not None:
        return _quantize(bb, x, dtype, scale_value, int(zero_value))
    x, spread = _blocks(bb, x, scale, attrs)
    value = bb.normalize(relax.op.round(relax.op.divide(x, spread(as_dtype(bb, scale, "float32")))))
    if zero is not None:
        value = bb.normalize(relax.op.add(value, spread(_as_float(bb, zero))))
    if dtype in _BYTES:
        value = _quantize(bb, value, dtype, 1.0, 0)
    else:
        info = np.iinfo(dtype)
        value = bb.normalize(relax.op.astype(relax.op.clip(value, info.min, info.max), dtype))
    return _reshaped(bb, value, shape)


def _output_dtype(attrs: Mapping[str, Any]) -> str:
    code = attrs.get("output_dtype", 0)
    return onnx.helper.tensor_dtype_to_np_dtype(code).name if code else "uint8"


def _quantize(bb: Any, x: Any, dtype: str, scale: float, zero: int) -> Any:
    info = np.iinfo(dtype)
    parameters = {"scale": scale, "zero": zero, "low": info.min - zero, "high": info.max - zero}
    return bb.normalize(opaque_call("quantize", parameters, [x], [(dtype, shape_of(x))]))


def dequantize_linear(bb: Any, inputs: Sequence[Any], attrs: Mapping[str, Any]) -> Any:
    """DequantizeLinear: per tensor, per axis or by blocks."""
    x, scale = inputs[:2]
    zero = operand(inputs, 2)
    scale_value, zero_value = _known_scalar(scale), _known_scalar(zero)
    shape = shape_of(x)
    if dtype_of(x) not in (*_BYTES, *_SHORTS, "int32"):
        raise NotImplementedError(f"dequantising {dtype_of(x)} is not supported")
    if dtype_of(x) not in _SHORTS and scale_value is not None and zero_value is not None:
        return _dequantize(bb, x, scale_value, int(zero_value))
    x, spread = _blocks(bb, x, scale, attrs)
    value = _as_float(bb, x)
    if zero is not None:
        value = bb.normalize(relax.op.subtract(value, spread(_as_float(bb, zero))))
    value = bb.normalize(relax.op.multiply(value, spread(as_dtype(bb, scale, "float32"))))
    return _reshaped(bb, value, shape)


def _dequantize(bb: Any, x: Any, scale: float, zero: int) -> Any:
    parameters = {"scale": scale, "zero": zero}
    return bb.normalize(opaque_call("dequantize", parameters, [x], [("float32", shape_of(x))]))


def _as_float(bb: Any, x: Any) -> Any:
    """Integers as float32."""
    if constant_value(x) is not None or dtype_of(x) in _SHORTS:
        return as_dtype(bb, x, "float32")
    return _dequantize(bb, x, 1.0, 0)


def _known_scalar(expr: Any) -> float | None:
    """The number where it is known and the only one; 0 where an operand is left out."""
    if expr is None:
        return 0.0
    value = constant_value(expr)
    return float(value.reshape(())) if value is not None and value.size == 1 else None


def _blocks(bb: Any, x: Any, scale: Any, attrs: Mapping[str, Any]) -> tuple[Any, Any]:
    """x as it meets its scales, and what gives scales and zero points the axes for it."""
    shape, scales = shape_of(x), shape_of(scale)
    axis = int(attrs.get("axis", 1)) % max(1, len(shape))
    block = int(attrs.get("block_size", 0))
    if not scales or (len(scales) == 1 and scales[0] == 1 and not block):
        return x, lambda each: _reshaped(bb, each, ())
    if not block:
        wide = [scales[0] if a == axis else 1 for a in range(len(shape))]
        return x, lambda each: _reshaped(bb, each, wide)
    if shape[axis] != block * scales[axis]:
        raise NotImplementedError(f"axis {axis} is no multiple of the block's {block} elements")
    split = (*shape[:axis], scales[axis], block, *shape[axis + 1 :])
    wide = [*scales[: axis + 1], 1, *scales[axis + 1 :]]
    return _reshaped(bb, x, split), lambda each: _reshaped(bb, each, wide)


def _reshaped(bb: Any, x: Any, shape: Sequence[int]) -> Any:
    if shape_of(x) == tuple(shape):
        return x
    value = constant_value(x)
    if value is not None:
        return constant(value.reshape(shape))
    return bb.normalize(relax.op.reshape(x, tuple(shape)))


def dynamic_quantize_linear(bb: Any, inputs: Sequence[Any], _: Mapping[str, Any]) -> Any:
    """DynamicQuantizeLinear, to uint8; a tensor of zeros has the scale 1, as in onnxruntime."""
    (x,) = inputs
    zero = constant(0.0, "float32")
    least = bb.normalize(relax.op.minimum(relax.op.min(x), zero))
    most = bb.normalize(relax.op.maximum(relax.op.max(x), zero))
    reach = bb.normalize(relax.op.subtract(most, least))
    ratio = bb.normalize(relax.op.divide(reach, constant(255.0, "float32")))
    is_flat = relax.op.equal(reach, zero)
    scale = bb.normalize(relax.op.where(is_flat, constant(1.0, "float32"), ratio))
    start = bb.normalize(relax.op.divide(relax.op.negative(least), scale))
    zero_point = _quantize(bb, start, "uint8", 1.0, 0)
    y = quantize_linear(bb, [x, scale, zero_point], {})
    return relax.Tuple([y, scale, zero_point])


def conv_integer(bb: Any, inputs: Sequence[Any], attrs: Mapping[str, Any]) -> Any:
    """ConvInteger."""
    x, w = inputs[:2]
    x_zero, w_zero = operand(inputs, 2), operand(inputs, 3)
    rank = len(shape_of(w)) - 2
    parameters = {
        "strides": list(attrs.get("strides", [1] * rank)),
        "dilations": list(attrs.get("dilations", [1] * rank)),
        "pads": _pads(shape_of(x), shape_of(w), attrs),
        "group": int(attrs.get("group", 1)),
    }
    weights = constant_value(w)
    if weights is None or (w_zero is not None and not _is_constant(w_zero)):
        return _conv_of_two(bb, inputs, parameters)
    weights = _centred(weights, w_zero, 0)
    zero = _known_scalar(x_zero)
    if zero is None:
        x, zero = _less_zero(bb, x, x_zero, ()), 0.0
    sums = weights.sum(axis=tuple(range(1, weights.ndim)), dtype=np.int64)
    bias = constant((-int(zero) * sums).astype(np.int32))
    shape = _conv_shape(shape_of(x), weights.shape, parameters)
    operands = [x, constant(weights), bias]
    parameters["zero"] = int(zero)
    return opaque_call("integer_conv", parameters, operands, [("int32", shape)])


def _pads(x: Sequence[int], w: Sequence[int], attrs: Mapping[str, Any]) -> list[int]:
    mode = attrs.get("auto_pad", b"NOTSET").decode()
    rank = len(w) - 2
    if mode in ("NOTSET", "VALID"):
        return list(attrs.get("pads", [0] * 2 * rank))
    strides = attrs.get("strides", [1] * rank)
    dilations = attrs.get("dilations", [1] * rank)
    return same_pads(mode, x[2:], w[2:], strides, dilations)


def _conv_of_two(bb: Any, inputs: Sequence[Any], parameters: Mapping[str, Any]) -> Any:
    """Weights that are computed: nobody has them in a hurry, so this is TVM's plain convolution."""
    x, w = inputs[:2]
    w_zero = operand(inputs, 3)
    rank = len(shape_of(w)) - 2
    wide = [1] * (rank + 1)
    zero_shape = (*shape_of(w_zero), *wide) if w_zero is not None and shape_of(w_zero) else ()
    x = _less_zero(bb, x, operand(inputs, 2), ())
    w = _less_zero(bb, w, w_zero, zero_shape)
    operands = [as_dtype(bb, each, "int32") for each in (x, w)]
    convolve = (relax.op.nn.conv1d, relax.op.nn.conv2d, relax.op.nn.conv3d)[rank - 1]
    return convolve(
        *operands,
        parameters["strides"],
        parameters["pads"],
        parameters["dilations"],
        parameters["group"],
    )


def _conv_shape(
    x: Sequence[int], w: Sequence[int], parameters: Mapping[str, Any]
) -> tuple[int, ...]:
    pads, rank = parameters["pads"], len(w) - 2
    space = [
        (x[2 + i] + pads[i] + pads[rank + i] - parameters["dilations"][i] * (w[2 + i] - 1) - 1)
        // parameters["strides"][i]
        + 1
        for i in range(rank)
    ]
    return (x[0], w[0], *space)


def _centred(weights: Any, zero: Any, axis: int) -> Any:
    """Weights less their zero point, one or one per index of an axis: int8, or else int16."""
    value = required_constant(zero, "the zero point of the weights") if zero is not None else 0
    zeros = np.asarray(value, np.int16).reshape(-1)
    if zeros.size > 1:
        zeros = zeros.reshape([-1 if a == axis % weights.ndim else 1 for a in range(weights.ndim)])
    values = (weights.astype(np.int16) - zeros).astype(np.int16)
    narrow = values.astype(np.int8)
    return narrow if np.array_equal(narrow, values) else values


def _less_zero(bb: Any, x: Any, zero: Any, shape: Sequence[int]) -> Any:
    """Integers less a zero point that is known at run time only, as int16."""
    if zero is None:
        return x
    zero = _reshaped(bb, zero, shape)
    return bb.normalize(relax.op.subtract(as_dtype(bb, x, "int16"), as_dtype(bb, zero, "int16")))


def matmul_integer(bb: Any, inputs: Sequence[Any], _: Mapping[str, Any]) -> Any:
    """MatMulInteger."""
    a, b = inputs[:2]
    a_zero, b_zero = operand(inputs, 2), operand(inputs, 3)
    zero = _known_scalar(a_zero)
    weights = constant_value(b)
    if weights is None or weights.ndim != 2 or (b_zero is not None and not _is_constant(b_zero)):
        return _matmul_of_two(bb, a, b, a_zero, b_zero)
    weights = _centred(weights, b_zero, 1)
    sums = weights.sum(axis=0, dtype=np.int64)
    if zero is None and shape_of(a_zero) not in ((), (1,)):
        a, zero = _less_zero(bb, a, a_zero, (*shape_of(a_zero), 1)), 0.0
    if zero is not None:
        bias = constant((-int(zero) * sums).astype(np.int32))
    else:
        padded = per_column(-sums.astype(np.int32), weights.shape[1])
        point = as_dtype(bb, _reshaped(bb, a_zero, ()), "int32")
        bias = bb.normalize(relax.op.multiply(constant(padded), point))
    shape = (*shape_of(a)[:-1], weights.shape[1])
    operands = [a, constant(weights), bias]
    return opaque_call("integer_matmul", {}, operands, [("int32", shape)])


def _is_constant(expr: Any) -> bool:
    return constant_value(expr) is not None


def _matmul_of_two(bb: Any, a: Any, b: Any, a_zero: Any, b_zero: Any) -> Any:
    """Both operands are computed. Zero points that are not known are taken off first."""
    zeros = {}
    for name, zero in (("zero_a", a_zero), ("zero_b", b_zero)):
        value = _known_scalar(zero)
        zeros[name] = 0 if value is None else int(value)
    if _known_scalar(a_zero) is None:
        # One per row, if there are several.
        per_row = shape_of(a_zero) not in ((), (1,))
        a = _less_zero(bb, a, a_zero, (*shape_of(a_zero), 1) if per_row else ())
    if _known_scalar(b_zero) is None:
        b = _less_zero(bb, b, b_zero, shape_of(b_zero))
    return _of_two(bb, [a, b], zeros, "int32")


def _of_two(bb: Any, operands: Sequence[Any], zeros: Mapping[str, int], dtype: str) -> Any:
    """As `numpy.matmul`: an operand of one axis is a row or a column."""
    left, right, *rest = operands
    a, b = shape_of(left), shape_of(right)
    rows = a if len(a) > 1 else (1, *a)
    columns = b if len(b) > 1 else (*b, 1)
    batch = np.broadcast_shapes(rows[:-2], columns[:-2])
    matrices = [_reshaped(bb, left, rows), _reshaped(bb, right, columns), *rest]
    outputs = [(dtype, (*batch, rows[-2], columns[-1]))]
    product = bb.normalize(opaque_call("integer_matmul_of_two", zeros, matrices, outputs))
    return _reshaped(bb, product, (*batch, *rows[-2:-1] * (len(a) > 1), *b[-1:] * (len(b) > 1)))


def integer_matmul_of_two(bb: Any, inputs: Sequence[Any], attrs: Mapping[str, Any]) -> Any:
    """The pass's IntegerMatMulOfTwo: rows times columns, scaled."""
    zeros = {name: int(attrs[name]) for name in ("zero_a", "zero_b")}
    return _of_two(bb, inputs, zeros, "float32")


def integer_conv(_: Any, inputs: Sequence[Any], attrs: Mapping[str, Any]) -> Any:
    """The pass's IntegerConv: a scaled convolution of integers."""
    x, weights, multiplier, bias = inputs
    names = ("strides", "dilations", "pads", "group", "zero")
    parameters = {name: _plain(attrs[name]) for name in names}
    shape = _conv_shape(shape_of(x), shape_of(weights), parameters)
    operands = [x, weights, multiplier, bias]
    return opaque_call("integer_conv", parameters, operands, [("float32", shape)])


def _plain(value: Any) -> Any:
    return [int(item) for item in value] if isinstance(value, Sequence) else int(value)


def integer_matmul(_: Any, inputs: Sequence[Any], __: Mapping[str, Any]) -> Any:
    """The pass's IntegerMatMul: rows times weights, scaled."""
    shape = (*shape_of(inputs[0])[:-1], shape_of(inputs[1])[1])
    return opaque_call("integer_matmul", {}, inputs, [("float32", shape)])


CONVERTERS = {
    ("", "QuantizeLinear"): quantize_linear,
    ("", "DequantizeLinear"): dequantize_linear,
    ("", "DynamicQuantizeLinear"): dynamic_quantize_linear,
    ("", "ConvInteger"): conv_integer,
    ("", "MatMulInteger"): matmul_integer,
    (DOMAIN, "IntegerConv"): integer_conv,
    (DOMAIN, "IntegerMatMul"): integer_matmul,
    (DOMAIN, "IntegerMatMulOfTwo"): integer_matmul_of_two,
}
