"""Reductions, and what is computed along axes (toolchain/executor/src/dynamic/ops/reduce.rs,
norm.rs)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial

from wasmgraph.dynamic.view import (
    FLOATS,
    NUMBERS,
    Converter,
    NodeView,
    Unsupported,
    Value,
    float_word,
)

_SUMS = ("f32", "f64", "i32", "i64", "u32", "u64")
_EXTREMES = (*_SUMS, "i8", "u8")


def _reduced(
    symbol: str, value: Value, view: NodeView, allowed: Sequence[str], *, keeps: int | None = None
) -> Value:
    kept = view.attribute("keepdims", 1) if keeps is None else keeps
    words = [kept, view.attribute("noop_with_empty_axes", 0)]
    inputs = [value, view.given(1, "axes")]
    return view.emit(f"{symbol}_{view.suffix(allowed)}", inputs, [value.dtype], words)[0]


def _plain(symbol: str, allowed: Sequence[str], view: NodeView) -> list[Value]:
    return [_reduced(symbol, view.input(0), view, allowed)]


def _call(view: NodeView, symbol: str, *values: Value) -> Value:
    suffix = view.suffix(NUMBERS)
    return view.emit(f"{symbol}_{suffix}", values, [values[0].dtype])[0]


def _l1(view: NodeView) -> list[Value]:
    return [_reduced("reduce_sum", _call(view, "abs", view.input(0)), view, _SUMS)]


def _sum_square(view: NodeView) -> list[Value]:
    squares = _call(view, "mul", view.input(0), view.input(0))
    return [_reduced("reduce_sum", squares, view, _SUMS)]


def _l2(view: NodeView) -> list[Value]:
    view.suffix(FLOATS)
    return [_call(view, "sqrt", _sum_square(view)[0])]


def _log_sum(view: NodeView) -> list[Value]:
    view.suffix(FLOATS)
    return [_call(view, "log", _reduced("reduce_sum", view.input(0), view, _SUMS))]


def _log_sum_exp(view: NodeView) -> list[Value]:
    view.suffix(FLOATS)
    top = _reduced("reduce_max", view.input(0), view, _EXTREMES, keeps=1)
    powers = _call(view, "exp", _call(view, "sub", view.input(0), top))
    logs = _call(view, "log", _reduced("reduce_sum", powers, view, _SUMS))
    return [_call(view, "add", logs, _reduced("reduce_max", view.input(0), view, _EXTREMES))]


def _arg(is_max: int, view: NodeView) -> list[Value]:
    words = [
        view.attribute("axis", 0),
        view.attribute("keepdims", 1),
        view.attribute("select_last_index", 0),
        is_max,
    ]
    return view.emit(f"arg_{view.suffix(NUMBERS)}", [view.input(0)], ["int64"], words)


def _softmax(kind: int, view: NodeView) -> list[Value]:
    symbol, data = f"softmax_{view.suffix(FLOATS)}", view.input(0)
    if view.opset >= 13:
        return view.emit(symbol, [data], [data.dtype], [view.attribute("axis", -1), kind])
    # Over all axes from the given one on.
    flat = view.emit("flatten", [data], [data.dtype], [view.attribute("axis", 1)])[0]
    result = view.emit(symbol, [flat], [data.dtype], [1, kind])[0]
    shape = view.emit("shape", [data], ["int64"], [0, 2**31 - 1])[0]
    return view.emit("reshape", [result, shape], [data.dtype], [1])


def _batch_norm(view: NodeView) -> list[Value]:
    if view.attribute("training_mode", 0) or not view.attribute("spatial", 1):
        raise Unsupported("only inference over channels is supported")
    words = [float_word(view.attribute("epsilon", 1e-5))]
    inputs = [view.input(i) for i in range(5)]
    if len({value.dtype for value in inputs}) > 1:
        raise Unsupported("its inputs differ in type")
    return view.emit(f"batch_norm_{view.suffix(FLOATS)}", inputs, [view.dtype()], words)


def _instance_norm(view: NodeView) -> list[Value]:
    words = [float_word(view.attribute("epsilon", 1e-5))]
    inputs = [view.input(i) for i in range(3)]
    return view.emit(f"instance_norm_{view.suffix(FLOATS)}", inputs, [view.dtype()], words)


def _layer_norm(view: NodeView) -> list[Value]:
    words = [view.attribute("axis", -1), float_word(view.attribute("epsilon", 1e-5))]
    inputs = [view.input(0), view.input(1), view.input(2) if view.has(2) else None]
    dtypes = [view.dtype()] * 3
    return view.emit(f"layer_norm_{view.suffix(FLOATS)}", inputs, dtypes, words)


CONVERTERS: Mapping[tuple[str, str], Converter] = {
    ("", "ReduceSum"): partial(_plain, "reduce_sum", _SUMS),
    ("", "ReduceProd"): partial(_plain, "reduce_prod", _SUMS),
    ("", "ReduceMean"): partial(_plain, "reduce_mean", _SUMS),
    ("", "ReduceMax"): partial(_plain, "reduce_max", _EXTREMES),
    ("", "ReduceMin"): partial(_plain, "reduce_min", _EXTREMES),
    ("", "ReduceL1"): _l1,
    ("", "ReduceL2"): _l2,
    ("", "ReduceSumSquare"): _sum_square,
    ("", "ReduceLogSum"): _log_sum,
    ("", "ReduceLogSumExp"): _log_sum_exp,
    ("", "ArgMax"): partial(_arg, 1),
    ("", "ArgMin"): partial(_arg, 0),
    ("", "Softmax"): partial(_softmax, 0),
    ("", "LogSoftmax"): partial(_softmax, 1),
    ("", "Hardmax"): partial(_softmax, 2),
    ("", "BatchNormalization"): _batch_norm,
    ("", "InstanceNormalization"): _instance_norm,
    ("", "LayerNormalization"): _layer_norm,
}
