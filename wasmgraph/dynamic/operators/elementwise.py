"""Element by element: numbers, comparisons, conditions, conversions
(toolchain/executor/src/dynamic/ops/binary.rs, unary.rs, cast.rs)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
from onnx import helper

from wasmgraph.dynamic.view import (
    FLOATS,
    INTEGERS,
    NUMBERS,
    Converter,
    NodeView,
    Unsupported,
    Value,
    float_word,
    moved,
    suffix_of,
)


def _binary(
    symbol: str, allowed: Sequence[str], view: NodeView, *, result: str | None = None
) -> list[Value]:
    a, b = view.input(0), _aligned(view)
    if a.dtype != b.dtype:
        raise Unsupported(f"its operands are {a.dtype} and {b.dtype}")
    suffix = view.suffix(allowed)
    return view.emit(f"{symbol}_{suffix}", [a, b], [result or view.dtype()])


def _aligned(view: NodeView) -> Value:
    """The second operand; before opset 7 an attribute says which axis it begins at."""
    b = view.input(1)
    axis = view.attribute("axis")
    if view.opset >= 7 or axis is None or not view.attribute("broadcast", 0):
        return b
    return view.emit("align", [view.input(0), b], [b.dtype], [axis])[0]


def _variadic(symbol: str, allowed: Sequence[str], view: NodeView) -> list[Value]:
    suffix = view.suffix(allowed)
    total = view.input(0)
    for i in range(1, len(view.inputs)):
        total = view.emit(f"{symbol}_{suffix}", [total, view.input(i)], [total.dtype])[0]
    return [total] if len(view.inputs) > 1 else view.emit("identity", [total], [total.dtype])


def _mean(view: NodeView) -> list[Value]:
    total = _variadic("add", FLOATS, view)[0]
    count = view.constant(len(view.inputs), total.dtype)
    return view.emit(f"div_{view.suffix(FLOATS)}", [total, count], [total.dtype])


def _logic(symbol: str, view: NodeView) -> list[Value]:
    return view.emit(f"{symbol}_u8", [view.input(0), view.input(1)], ["bool"])


def _mod(view: NodeView) -> list[Value]:
    symbol = "fmod" if view.attribute("fmod", 0) else "mod"
    return _binary(symbol, NUMBERS, view)


def _shift(view: NodeView) -> list[Value]:
    symbol = "shift_right" if view.attribute("direction") == "RIGHT" else "shift_left"
    return _binary(symbol, INTEGERS, view)


def _pow(view: NodeView) -> list[Value]:
    a, b = view.input(0), view.input(1)
    if a.dtype in ("float32", "float64"):
        return view.emit(f"pow_{view.suffix(FLOATS)}", [a, cast(view, b, a.dtype)], [a.dtype])
    suffix = view.suffix(("i32", "i64"))
    if b.dtype in ("float32", "float64"):
        power = view.emit(
            "pow_f64", [cast(view, a, "float64"), cast(view, b, "float64")], ["float64"]
        )[0]
        return [cast(view, power, a.dtype)]
    return view.emit(f"pow_{suffix}", [a, cast(view, b, a.dtype)], [a.dtype])


def cast(view: NodeView, value: Value, dtype: str) -> Value:
    """The same numbers as another dtype."""
    if value.dtype == dtype:
        return value
    known = (*NUMBERS, "bool", "f16", "bf16")
    source, target = (
        {"bool": "bool", "float16": "f16", "bfloat16": "bf16"}.get(d) or suffix_of(d, known)
        for d in (value.dtype, dtype)
    )
    return view.emit(f"cast_{source}_{target}", [value], [dtype])[0]


def _cast(view: NodeView) -> list[Value]:
    target = view.attributes["to"]
    try:
        dtype = np.dtype(helper.tensor_dtype_to_np_dtype(target)).name
    except (KeyError, TypeError) as error:
        raise Unsupported(f"casts to type {target} are not supported") from error
    value = view.input(0)
    if value.dtype == dtype:
        return view.emit("identity", [value], [dtype])
    return [cast(view, value, dtype)]


def _cast_like(view: NodeView) -> list[Value]:
    value = view.input(0)
    if value.dtype == view.dtype(1):
        return view.emit("identity", [value], [value.dtype])
    return [cast(view, value, view.dtype(1))]


def _where(view: NodeView) -> list[Value]:
    dtype = view.dtype(1)
    return view.emit(
        f"where_{moved(dtype)}", [view.input(0), view.input(1), view.input(2)], [dtype]
    )


def _clip(view: NodeView) -> list[Value]:
    dtype = view.dtype()
    value, suffix = view.input(0), view.suffix(NUMBERS)
    low, high = view.given(1, "min", dtype), view.given(2, "max", dtype)
    for symbol, bound in (("max", low), ("min", high)):
        if bound is not None:
            value = view.emit(f"{symbol}_{suffix}", [value, bound], [dtype])[0]
    return [value] if low or high else view.emit("identity", [value], [dtype])


def _unary(
    symbol: str,
    allowed: Sequence[str],
    view: NodeView,
    *,
    parameters: Sequence[tuple[str, float]] = (),
    result: str | None = None,
) -> list[Value]:
    words = [float_word(view.attribute(name, default)) for name, default in parameters]
    suffix = view.suffix(allowed)
    return view.emit(f"{symbol}_{suffix}", [view.input(0)], [result or view.dtype()], words)


def _not(view: NodeView) -> list[Value]:
    return view.emit("not", [view.input(0)], ["bool"])


def _gelu(view: NodeView) -> list[Value]:
    symbol = "gelu_tanh" if view.attribute("approximate", "none") == "tanh" else "gelu"
    return _unary(symbol, FLOATS, view)


def _is_inf(view: NodeView) -> list[Value]:
    words = [view.attribute("detect_negative", 1), view.attribute("detect_positive", 1)]
    return view.emit(f"isinf_{view.suffix(FLOATS)}", [view.input(0)], ["bool"], words)


def _prelu(view: NodeView) -> list[Value]:
    return _binary("prelu", FLOATS, view)


def _entries(
    table: Mapping[str, str], make: Callable[..., list[Value]], *rest: Any, **options: Any
) -> dict[tuple[str, str], Converter]:
    return {("", op): partial(make, symbol, *rest, **options) for op, symbol in table.items()}


_ARITHMETIC = {"Add": "add", "Sub": "sub", "Mul": "mul", "Div": "div"}
_COMPARISONS = {
    "Less": "less",
    "LessOrEqual": "less_equal",
    "Greater": "greater",
    "GreaterOrEqual": "greater_equal",
}
_MATH = {
    "Exp": "exp",
    "Log": "log",
    "Sqrt": "sqrt",
    "Reciprocal": "reciprocal",
    "Erf": "erf",
    "Sin": "sin",
    "Cos": "cos",
    "Tan": "tan",
    "Asin": "asin",
    "Acos": "acos",
    "Atan": "atan",
    "Sinh": "sinh",
    "Cosh": "cosh",
    "Tanh": "tanh",
    "Asinh": "asinh",
    "Acosh": "acosh",
    "Atanh": "atanh",
    "Floor": "floor",
    "Ceil": "ceil",
    "Round": "round",
    "Sigmoid": "sigmoid",
    "Softplus": "softplus",
    "Softsign": "softsign",
    "Mish": "mish",
    "HardSwish": "hard_swish",
}
_PARAMETERS: Mapping[str, tuple[str, tuple[tuple[str, float], ...]]] = {
    "LeakyRelu": ("leaky_relu", (("alpha", 0.01),)),
    "Elu": ("elu", (("alpha", 1.0),)),
    "Celu": ("celu", (("alpha", 1.0),)),
    "Selu": ("selu", (("alpha", 1.67326319217681884765625), ("gamma", 1.05070102214813232421875))),
    "HardSigmoid": ("hard_sigmoid", (("alpha", 0.2), ("beta", 0.5))),
    "ThresholdedRelu": ("thresholded_relu", (("alpha", 1.0),)),
    "Shrink": ("shrink", (("lambd", 0.5), ("bias", 0.0))),
    "Swish": ("swish", (("alpha", 1.0),)),
}
_BITS = {"BitwiseAnd": "bit_and", "BitwiseOr": "bit_or", "BitwiseXor": "bit_xor"}

CONVERTERS: Mapping[tuple[str, str], Converter] = {
    **_entries(_ARITHMETIC, _binary, NUMBERS),
    **_entries(_COMPARISONS, _binary, NUMBERS, result="bool"),
    **_entries({"Equal": "equal"}, _binary, NUMBERS, result="bool"),
    **_entries(_BITS, _binary, INTEGERS),
    **_entries({"And": "bit_and", "Or": "bit_or", "Xor": "bit_xor"}, _logic),
    **_entries({"Sum": "add", "Max": "max", "Min": "min"}, _variadic, NUMBERS),
    **_entries(_MATH, _unary, FLOATS),
    **_entries({"Relu": "relu", "Abs": "abs", "Neg": "neg", "Sign": "sign"}, _unary, NUMBERS),
    **_entries({"BitwiseNot": "bit_not"}, _unary, INTEGERS),
    **_entries({"IsNaN": "isnan"}, _unary, FLOATS, result="bool"),
    **{
        ("", op): partial(_unary, symbol, FLOATS, parameters=parameters)
        for op, (symbol, parameters) in _PARAMETERS.items()
    },
    ("", "Mean"): _mean,
    ("", "Mod"): _mod,
    ("", "BitShift"): _shift,
    ("", "Pow"): _pow,
    ("", "Cast"): _cast,
    ("", "CastLike"): _cast_like,
    ("", "Where"): _where,
    ("", "Clip"): _clip,
    ("", "Not"): _not,
    ("", "Gelu"): _gelu,
    ("", "IsInf"): _is_inf,
    ("", "PRelu"): _prelu,
}
