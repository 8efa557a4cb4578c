"""Elements picked by index (toolchain/executor/src/dynamic/ops/select.rs, data.rs)."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

from wasmgraph.dynamic.operators.elementwise import cast
from wasmgraph.dynamic.view import NUMBERS, Converter, NodeView, Unsupported, Value, moved

_TO_THE_END = 2**31 - 1
_MODES = {"constant": 0, "reflect": 1, "edge": 2, "wrap": 3}
_REDUCTIONS = {"none": 0, "add": 1, "mul": 2, "max": 3, "min": 4}
_WIDE = ("f32", "f64", "i32", "i64", "u32", "u64")


def _moving(symbol: str, default_axis: int, view: NodeView) -> list[Value]:
    dtype = view.dtype()
    words = [view.attribute("axis", default_axis)]
    return view.emit(f"{symbol}_{moved(dtype)}", [view.input(0), view.input(1)], [dtype], words)


def _gather_nd(view: NodeView) -> list[Value]:
    dtype = view.dtype()
    words = [view.attribute("batch_dims", 0)]
    return view.emit(f"gather_nd_{moved(dtype)}", [view.input(0), view.input(1)], [dtype], words)


def _slice(view: NodeView) -> list[Value]:
    dtype = view.dtype()
    parts = [view.given(i, name) for i, name in ((1, "starts"), (2, "ends"), (3, "axes"))]
    steps = view.input(4) if view.has(4) else None
    return view.emit(f"slice_{moved(dtype)}", [view.input(0), *parts, steps], [dtype])


def _split(view: NodeView) -> list[Value]:
    dtype = view.dtype()
    words = [view.attribute("axis", 0), view.attribute("num_outputs", view.outputs)]
    inputs = [view.input(0), view.given(1, "split")]
    return view.emit(f"split_{moved(dtype)}", inputs, [dtype] * view.outputs, words)


def _pad(view: NodeView) -> list[Value]:
    dtype = view.dtype()
    mode = view.attribute("mode", "constant")
    if mode not in _MODES:
        raise Unsupported(f"mode {mode!r} is not supported")
    pads = view.given(1, "paddings" if "paddings" in view.attributes else "pads")
    value = view.given(2, "value", dtype)
    axes = view.input(3) if view.has(3) else None
    inputs = [view.input(0), pads, value, axes]
    return view.emit(f"pad_{moved(dtype)}", inputs, [dtype], [_MODES[mode]])


def _compress(view: NodeView) -> list[Value]:
    axis = view.attribute("axis")
    words = [axis is not None, axis or 0]
    return view.emit("compress", [view.input(0), view.input(1)], [view.dtype()], words)


def _nonzero(view: NodeView) -> list[Value]:
    return view.emit(f"nonzero_{view.suffix(NUMBERS)}", [view.input(0)], ["int64"])


def _unique(view: NodeView) -> list[Value]:
    axis = view.attribute("axis")
    words = [view.attribute("sorted", 1), axis is not None, axis or 0]
    dtypes = [view.dtype(), "int64", "int64", "int64"]
    return view.emit(f"unique_{view.suffix(NUMBERS)}", [view.input(0)], dtypes, words)


def _range(view: NodeView) -> list[Value]:
    suffix = view.suffix(("i16", "i32", "i64", "f32", "f64"))
    return view.emit(f"range_{suffix}", [view.input(i) for i in range(3)], [view.dtype()])


def _top_k(view: NodeView) -> list[Value]:
    k = view.given(1, "k")
    words = [view.attribute("axis", -1), view.attribute("largest", 1)]
    inputs = [view.input(0), k]
    return view.emit(f"top_k_{view.suffix(NUMBERS)}", inputs, [view.dtype(), "int64"], words)


def _cumulate(is_product: int, view: NodeView) -> list[Value]:
    words = [view.attribute("exclusive", 0), view.attribute("reverse", 0), is_product]
    inputs = [view.input(0), view.input(1)]
    return view.emit(f"cumulate_{view.suffix(_WIDE)}", inputs, [view.dtype()], words)


def _one_hot(view: NodeView) -> list[Value]:
    dtype = view.dtype(2)
    indices, depth = (cast(view, view.input(i), "int64") for i in (0, 1))
    inputs = [indices, depth, view.input(2)]
    return view.emit(f"one_hot_{moved(dtype)}", inputs, [dtype], [view.attribute("axis", -1)])


def _scatter(symbol: str, view: NodeView) -> list[Value]:
    words = [_REDUCTIONS[view.attribute("reduction", "none")]]
    if symbol == "scatter_elements":
        words.append(view.attribute("axis", 0))
    inputs = [view.input(0), cast(view, view.input(1), "int64"), view.input(2)]
    return view.emit(f"{symbol}_{view.suffix(NUMBERS)}", inputs, [view.dtype()], words)


def _trilu(view: NodeView) -> list[Value]:
    dtype = view.dtype()
    inputs = [view.input(0), view.input(1) if view.has(1) else None]
    return view.emit(f"trilu_{moved(dtype)}", inputs, [dtype], [view.attribute("upper", 1)])


CONVERTERS: Mapping[tuple[str, str], Converter] = {
    ("", "Gather"): partial(_moving, "gather", 0),
    ("", "GatherElements"): partial(_moving, "gather_elements", 0),
    ("", "GatherND"): _gather_nd,
    ("", "Slice"): _slice,
    ("", "Split"): _split,
    ("", "Pad"): _pad,
    ("", "Compress"): _compress,
    ("", "NonZero"): _nonzero,
    ("", "Unique"): _unique,
    ("", "Range"): _range,
    ("", "TopK"): _top_k,
    ("", "CumSum"): partial(_cumulate, 0),
    ("", "CumProd"): partial(_cumulate, 1),
    ("", "OneHot"): _one_hot,
    ("", "ScatterND"): partial(_scatter, "scatter_nd"),
    ("", "ScatterElements"): partial(_scatter, "scatter_elements"),
    ("", "Scatter"): partial(_scatter, "scatter_elements"),
    ("", "Trilu"): _trilu,
}
