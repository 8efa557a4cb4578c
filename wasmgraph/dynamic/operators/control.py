"""Branches and loops (toolchain/executor/src/dynamic/ops/control.rs)."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from wasmgraph.dynamic.view import Converter, NodeView, Unsupported, Value


def _itemsize(dtype: str) -> int:
    return np.dtype(dtype).itemsize


def _if(view: NodeView) -> list[Value]:
    branches, results = [], []
    for name in ("then_branch", "else_branch"):
        body, outputs = view.maker.body(view.attributes[name], ())
        branches.append(body)
        results.append([value.dtype for value in outputs])
    if results[0] != results[1]:
        raise Unsupported(f"its branches differ in types: {results[0]} and {results[1]}")
    return view.emit("if", [view.input(0)], results[0], bodies=branches)


def _loop(view: NodeView) -> list[Value]:
    carried = [view.input(i) for i in range(2, len(view.inputs))]
    dtypes = [value.dtype for value in carried]
    body, outputs = view.maker.body(view.attributes["body"], ["int64", "bool", *dtypes])
    results = [value.dtype for value in outputs[1:]]
    if results[: len(dtypes)] != dtypes:
        raise Unsupported("its body changes the types of what it carries")
    collected = results[len(dtypes) :]
    inputs = [*view.inputs[:2], *([None] * (2 - len(view.inputs))), *carried]
    return view.emit("loop", inputs, results, [_itemsize(d) for d in collected], [body])


def _scan(view: NodeView) -> list[Value]:
    if view.opset < 9:
        raise Unsupported("Scan of opset 8 is not supported")
    count = view.attributes["num_scan_inputs"]
    states = len(view.inputs) - count
    dtypes = [view.dtype(i) for i in range(len(view.inputs))]
    body, outputs = view.maker.body(view.attributes["body"], dtypes)
    results = [value.dtype for value in outputs]
    collected = results[states:]

    def each(name: str, length: int) -> list[int]:
        return list(view.attribute(name) or [0] * length)

    words = [
        states,
        *each("scan_input_axes", count),
        *each("scan_input_directions", count),
        *each("scan_output_axes", len(collected)),
        *each("scan_output_directions", len(collected)),
        *(_itemsize(dtype) for dtype in collected),
    ]
    inputs = [view.input(i) for i in range(len(view.inputs))]
    return view.emit("scan", inputs, results, words, [body])


CONVERTERS: Mapping[tuple[str, str], Converter] = {
    ("", "If"): _if,
    ("", "Loop"): _loop,
    ("", "Scan"): _scan,
}
