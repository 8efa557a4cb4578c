"""Shapes, and tensors under another shape (toolchain/executor/src/dynamic/ops/shape.rs)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from onnx import numpy_helper

from wasmgraph.dynamic.view import Converter, NodeView, Unsupported, Value, moved

_TO_THE_END = 2**31 - 1


def _identity(view: NodeView) -> list[Value]:
    return view.emit("identity", [view.input(0)], [view.dtype()])


def _dropout(view: NodeView) -> list[Value]:
    training = view.known(2)
    if view.has(2) and (training is None or training.any()):
        raise Unsupported("training is not supported")
    kept = _identity(view)
    if view.outputs < 2:
        return kept
    shape = view.emit("shape", [view.input(0)], ["int64"], [0, _TO_THE_END])[0]
    mask = view.emit("expand_u8", [view.constant(True), shape], ["bool"])
    return [*kept, *mask]


def _shape(view: NodeView) -> list[Value]:
    bounds = (view.attribute("start", 0), view.attribute("end", _TO_THE_END))
    words = [max(-_TO_THE_END, min(bound, _TO_THE_END)) for bound in bounds]
    return view.emit("shape", [view.input(0)], ["int64"], words)


def _size(view: NodeView) -> list[Value]:
    return view.emit("size", [view.input(0)], ["int64"])


def _reshape(view: NodeView) -> list[Value]:
    shape = view.given(1, "shape")
    return view.emit(
        "reshape", [view.input(0), shape], [view.dtype()], [view.attribute("allowzero", 0)]
    )


def _unsqueeze(view: NodeView) -> list[Value]:
    return view.emit("unsqueeze", [view.input(0), view.given(1, "axes")], [view.dtype()])


def _squeeze(view: NodeView) -> list[Value]:
    return view.emit("squeeze", [view.input(0), view.given(1, "axes")], [view.dtype()])


def _flatten(view: NodeView) -> list[Value]:
    return view.emit("flatten", [view.input(0)], [view.dtype()], [view.attribute("axis", 1)])


def _concat(view: NodeView) -> list[Value]:
    parts = [view.input(i) for i in range(len(view.inputs))]
    dtype = view.dtype()
    return view.emit(f"concat_{moved(dtype)}", parts, [dtype], [view.attribute("axis", 1)])


def _transpose(view: NodeView) -> list[Value]:
    order = view.attribute("perm", ())
    dtype = view.dtype()
    words = [len(order), *order]
    return view.emit(f"transpose_{moved(dtype)}", [view.input(0)], [dtype], words)


def _expand(view: NodeView) -> list[Value]:
    dtype = view.dtype()
    return view.emit(f"expand_{moved(dtype)}", [view.input(0), view.input(1)], [dtype])


def _constant_of_shape(view: NodeView) -> list[Value]:
    given: Any = view.attributes.get("value")
    value = np.zeros(1, np.float32) if given is None else numpy_helper.to_array(given)
    value = np.asarray(value).reshape(())
    dtype = value.dtype.name
    return view.emit(f"expand_{moved(dtype)}", [view.constant(value), view.input(0)], [dtype])


def _tile(view: NodeView) -> list[Value]:
    dtype = view.dtype()
    return view.emit(f"tile_{moved(dtype)}", [view.input(0), view.input(1)], [dtype])


CONVERTERS: Mapping[tuple[str, str], Converter] = {
    ("", "Identity"): _identity,
    ("", "Dropout"): _dropout,
    ("", "Shape"): _shape,
    ("", "Size"): _size,
    ("", "Reshape"): _reshape,
    ("", "Unsqueeze"): _unsqueeze,
    ("", "Squeeze"): _squeeze,
    ("", "Flatten"): _flatten,
    ("", "Concat"): _concat,
    ("", "Transpose"): _transpose,
    ("", "Expand"): _expand,
    ("", "ConstantOfShape"): _constant_of_shape,
    ("", "Tile"): _tile,
}
