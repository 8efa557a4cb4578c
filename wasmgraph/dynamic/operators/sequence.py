"""Sequences and optional values (toolchain/executor/src/dynamic/ops/sequence.rs)."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

import numpy as np
from onnx import helper

from wasmgraph.dynamic.view import Converter, NodeView, Unsupported, Value


def _same(symbol: str, view: NodeView) -> list[Value]:
    """What gives a value of the first input's type, or of its elements'."""
    return view.emit(symbol, list(view.inputs), [view.dtype()])


def _empty(view: NodeView) -> list[Value]:
    kind = view.attribute("dtype", 1)
    dtype = np.dtype(helper.tensor_dtype_to_np_dtype(kind)).name
    return view.emit("sequence_construct", [], [dtype])


def _insert(view: NodeView) -> list[Value]:
    # The tensor's type is right even where the sequence was carried into a loop empty.
    return view.emit("sequence_insert", list(view.inputs), [view.dtype(1)])


def _length(view: NodeView) -> list[Value]:
    return view.emit("sequence_length", [view.input(0)], ["int64"])


def _concat(view: NodeView) -> list[Value]:
    dtype = view.dtype()
    words = [view.attribute("axis"), view.attribute("new_axis", 0), np.dtype(dtype).itemsize]
    return view.emit("sequence_concat", [view.input(0)], [dtype], words)


def _split(view: NodeView) -> list[Value]:
    words = [view.attribute("axis", 0), view.attribute("keepdims", 1)]
    return view.emit("sequence_split", list(view.inputs), [view.dtype()], words)


def _optional(view: NodeView) -> list[Value]:
    if view.has(0):
        return view.emit("optional", [view.input(0)], [view.dtype()])
    kind = view.attribute("type")
    tensor = kind.tensor_type if kind.HasField("tensor_type") else None
    if kind.HasField("sequence_type"):
        tensor = kind.sequence_type.elem_type.tensor_type
    if tensor is None or not tensor.elem_type:
        raise Unsupported("an optional value of this type is not supported")
    dtype = np.dtype(helper.tensor_dtype_to_np_dtype(tensor.elem_type)).name
    return view.emit("optional", [None], [dtype])


def _has_element(view: NodeView) -> list[Value]:
    given = view.input(0) if view.has(0) else None
    return view.emit("optional_has_element", [given], ["bool"])


CONVERTERS: Mapping[tuple[str, str], Converter] = {
    ("", "SequenceConstruct"): partial(_same, "sequence_construct"),
    ("", "SequenceEmpty"): _empty,
    ("", "SequenceInsert"): _insert,
    ("", "SequenceErase"): partial(_same, "sequence_erase"),
    ("", "SequenceAt"): partial(_same, "sequence_at"),
    ("", "SequenceLength"): _length,
    ("", "ConcatFromSequence"): _concat,
    ("", "SplitToSequence"): _split,
    ("", "Optional"): _optional,
    ("", "OptionalHasElement"): _has_element,
    ("", "OptionalGetElement"): partial(_same, "optional_get_element"),
}
