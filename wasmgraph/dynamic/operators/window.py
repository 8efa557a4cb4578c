"""Convolutions and pooling (toolchain/executor/src/dynamic/ops/conv.rs, pool.rs, window.rs)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial

from wasmgraph.dynamic.view import FLOATS, Converter, NodeView, Unsupported, Value

_AUTO = {"NOTSET": 0, "VALID": 1, "SAME_UPPER": 2, "SAME_LOWER": 3}


def _auto(view: NodeView) -> int:
    return _AUTO[view.attribute("auto_pad", "NOTSET") or "NOTSET"]


def _spatial(view: NodeView) -> int:
    """How many axes the window slides over: weights or attributes must tell when compiling."""
    weights = view.known(1)
    if weights is not None and weights.ndim > 2:
        return weights.ndim - 2
    for name in ("kernel_shape", "strides", "dilations"):
        if view.attribute(name):
            return len(view.attribute(name))
    if view.attribute("pads"):
        return len(view.attribute("pads")) // 2
    raise Unsupported("it does not say how many axes its window has")


def _listed(view: NodeView, name: str, count: int, default: int) -> list[int]:
    return list(view.attribute(name) or [default] * count)


def _window(view: NodeView, rank: int) -> list[int]:
    """The words that `window::Words` takes."""
    pads = _listed(view, "pads", 2 * rank, 0)
    if min(pads, default=0) < 0:
        raise Unsupported("negative pads are not supported")
    return [
        _auto(view),
        view.attribute("ceil_mode", 0),
        rank,
        *_listed(view, "strides", rank, 1),
        *_listed(view, "dilations", rank, 1),
        *pads,
    ]


def _operands(view: NodeView) -> list[Value | None]:
    return [view.input(0), view.input(1), view.input(2) if view.has(2) else None]


def _conv(view: NodeView) -> list[Value]:
    words = [view.attribute("group", 1), *_window(view, _spatial(view))]
    return view.emit(f"conv_{view.suffix(FLOATS)}", _operands(view), [view.dtype()], words)


def _conv_transpose(view: NodeView) -> list[Value]:
    rank = _spatial(view)
    pads = _listed(view, "pads", 2 * rank, 0)
    words = [
        view.attribute("group", 1),
        rank,
        _auto(view),
        *_listed(view, "strides", rank, 1),
        *_listed(view, "dilations", rank, 1),
        *pads,
        *_listed(view, "output_padding", rank, 0),
        *_listed(view, "output_shape", rank, 0)[-rank:],
    ]
    symbol = f"conv_transpose_{view.suffix(FLOATS)}"
    return view.emit(symbol, _operands(view), [view.dtype()], words)


def _pooled(view: NodeView) -> list[int]:
    kernel = view.attribute("kernel_shape")
    return [len(kernel), *kernel, *_window(view, len(kernel))]


def _max_pool(view: NodeView) -> list[Value]:
    suffix = view.suffix(("f32", "f64", "i8", "u8"))
    words = [view.attribute("storage_order", 0), *_pooled(view)]
    return view.emit(f"max_pool_{suffix}", [view.input(0)], [view.dtype(), "int64"], words)


def _average_pool(view: NodeView) -> list[Value]:
    words = [view.attribute("count_include_pad", 0), *_pooled(view)]
    return view.emit(f"average_pool_{view.suffix(FLOATS)}", [view.input(0)], [view.dtype()], words)


def _global(symbol: str, allowed: Sequence[str], view: NodeView) -> list[Value]:
    """Over all axes but the first two, whatever their number."""
    data = view.input(0)
    spatial = view.emit("spatial_axes", [data], ["int64"])[0]
    return view.emit(f"{symbol}_{view.suffix(allowed)}", [data, spatial], [data.dtype], [1, 1])


CONVERTERS: Mapping[tuple[str, str], Converter] = {
    ("", "Conv"): _conv,
    ("", "ConvTranspose"): _conv_transpose,
    ("", "MaxPool"): _max_pool,
    ("", "AveragePool"): _average_pool,
    ("", "GlobalMaxPool"): partial(_global, "reduce_max", ("f32", "f64")),
    ("", "GlobalAveragePool"): partial(_global, "reduce_mean", ("f32", "f64")),
}
