"""Writes finished functions as a relocatable wasm object that wasm-ld links.

Kernels touch memory through their parameters only and call nothing, so the object needs a symbol
per function and no relocations.

The format: https://github.com/WebAssembly/tool-conventions/blob/main/Linking.md
"""

from __future__ import annotations

from collections.abc import Sequence

from wasmgraph.assembler.function import I32, Function, unsigned
from wasmgraph.wasmfile import MAGIC, custom_section

_TYPE, _IMPORT, _FUNCTION, _CODE = 1, 2, 3, 10
_LINKING_VERSION, _SYMBOL_TABLE, _FUNCTION_SYMBOL = 2, 8, 0


def write_object(functions: Sequence[Function]) -> bytes:
    """An object file that defines every function under its name."""
    arities = sorted({len(function.params) for function in functions})
    types = [b"\x60" + _vector([bytes([I32])] * arity) + b"\x01\x7f" for arity in arities]
    memory = _text("env") + _text("__linear_memory") + b"\2\0\0"
    bodies = [function.body() for function in functions]
    symbols = [
        bytes([_FUNCTION_SYMBOL, 0]) + unsigned(index) + _text(function.name)
        for index, function in enumerate(functions)
    ]
    table = _vector(symbols)
    linking = unsigned(_LINKING_VERSION) + bytes([_SYMBOL_TABLE]) + unsigned(len(table)) + table
    return b"".join(
        [
            MAGIC,
            _section(_TYPE, types),
            _section(_IMPORT, [memory]),
            _section(_FUNCTION, [unsigned(arities.index(len(f.params))) for f in functions]),
            _section(_CODE, [unsigned(len(body)) + body for body in bodies]),
            custom_section("linking", linking),
        ]
    )


def _vector(entries: Sequence[bytes]) -> bytes:
    return unsigned(len(entries)) + b"".join(entries)


def _section(number: int, entries: Sequence[bytes]) -> bytes:
    contents = _vector(entries)
    return bytes([number]) + unsigned(len(contents)) + contents


def _text(text: str) -> bytes:
    return unsigned(len(text.encode())) + text.encode()
