"""Suppression, summation by equation, quantisation, blocks of images
(toolchain/executor/src/dynamic/ops/detect.rs, einsum.rs, quantise.rs, space.rs)."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

import numpy as np
from onnx import helper

from wasmgraph.dynamic.operators.elementwise import cast
from wasmgraph.dynamic.view import Converter, NodeView, Unsupported, Value, moved

_STORED = ("i8", "u8", "i16", "u16", "i32")


def _suppress(view: NodeView) -> list[Value]:
    inputs = [view.input(i) if view.has(i) else None for i in range(5)]
    words = [view.attribute("center_point_box", 0)]
    return view.emit("non_max_suppression", inputs, ["int64"], words)


def _einsum(view: NodeView) -> list[Value]:
    equation = view.attribute("equation").replace(" ", "")
    if "." in equation:
        raise Unsupported("an ellipsis is not supported where shapes are dynamic")
    left, arrow, right = equation.partition("->")
    terms = left.split(",")
    if not arrow:
        right = "".join(x for x in sorted(set(left) - {","}) if left.count(x) == 1)
    letters = [*right, *sorted(set(left) - {","} - set(right))]
    words = [len(letters), len(right)]
    for term in terms:
        words += [len(term), *(letters.index(x) for x in term)]
    inputs = [view.input(i) for i in range(len(terms))]
    symbol = f"einsum_{view.suffix(('f32', 'f64', 'i32', 'i64'))}"
    return view.emit(symbol, inputs, [view.dtype()], words)


def _quantise(view: NodeView) -> list[Value]:
    if view.attribute("block_size", 0):
        raise Unsupported("blocks of scales are not supported where shapes are dynamic")
    dtype = "uint8"
    if view.has(2):
        dtype = view.dtype(2)
    elif view.attribute("output_dtype", 0):
        kind = view.attribute("output_dtype")
        dtype = np.dtype(helper.tensor_dtype_to_np_dtype(kind)).name
    zero = view.input(2) if view.has(2) else None
    data, scale = (cast(view, view.input(i), "float32") for i in (0, 1))
    suffix = {"int8": "i8", "uint8": "u8", "int16": "i16", "uint16": "u16"}.get(dtype)
    if suffix is None:
        raise Unsupported(f"{dtype} is not supported where shapes are dynamic")
    words = [view.attribute("axis", 1)]
    return view.emit(f"quantise_{suffix}", [data, scale, zero], [dtype], words)


def _dequantise(view: NodeView) -> list[Value]:
    if view.attribute("block_size", 0) or view.dtype(1) != "float32":
        raise Unsupported("only one float32 scale, or one per axis, is supported")
    inputs = [view.input(0), view.input(1), view.input(2) if view.has(2) else None]
    words = [view.attribute("axis", 1)]
    return view.emit(f"dequantise_{view.suffix(_STORED)}", inputs, ["float32"], words)


def _space(to_space: int, view: NodeView) -> list[Value]:
    dtype = view.dtype()
    channels_first = view.attribute("mode", "DCR") == "CRD"
    words = [view.attribute("blocksize"), channels_first, to_space]
    return view.emit(f"space_{moved(dtype)}", [view.input(0)], [dtype], words)


CONVERTERS: Mapping[tuple[str, str], Converter] = {
    ("", "NonMaxSuppression"): _suppress,
    ("", "Einsum"): _einsum,
    ("", "QuantizeLinear"): _quantise,
    ("", "DequantizeLinear"): _dequantise,
    ("", "DepthToSpace"): partial(_space, 1),
    ("", "SpaceToDepth"): partial(_space, 0),
}
