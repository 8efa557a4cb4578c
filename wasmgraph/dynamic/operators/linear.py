"""Matrix products (toolchain/executor/src/dynamic/ops/linear.rs)."""

from __future__ import annotations

from collections.abc import Mapping

from wasmgraph.dynamic.view import Converter, NodeView, Value, float_word

_DTYPES = ("f32", "f64", "i32", "i64", "u32", "u64")


def _matmul(view: NodeView) -> list[Value]:
    symbol = f"matmul_{view.suffix(_DTYPES)}"
    return view.emit(symbol, [view.input(0), view.input(1)], [view.dtype()])


def _gemm(view: NodeView) -> list[Value]:
    inputs = [view.input(0), view.input(1), view.input(2) if view.has(2) else None]
    words = [
        view.attribute("transA", 0),
        view.attribute("transB", 0),
        float_word(view.attribute("alpha", 1.0)),
        float_word(view.attribute("beta", 1.0)),
    ]
    return view.emit(f"gemm_{view.suffix(_DTYPES)}", inputs, [view.dtype()], words)


CONVERTERS: Mapping[tuple[str, str], Converter] = {
    ("", "MatMul"): _matmul,
    ("", "Gemm"): _gemm,
}
