"""Writes functions and data as a relocatable wasm object that wasm-ld links.

Kernels touch memory through their parameters only and call nothing. Code and data that name other
symbols come with relocations, which the linker fills in.

The format: https://github.com/WebAssembly/tool-conventions/blob/main/Linking.md
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum

from wasmgraph.assembler.function import I32, Function, signed, unsigned
from wasmgraph.wasmfile import MAGIC, custom_section

_TYPE, _IMPORT, _FUNCTION, _CODE, _DATA = 1, 2, 3, 10, 11
_LINKING_VERSION = 2
_SEGMENT_INFO, _SYMBOL_TABLE = 5, 8
_FUNCTION_SYMBOL, _DATA_SYMBOL, _GLOBAL_SYMBOL = 0, 1, 2
_UNDEFINED = 0x10
_RESULT_I32 = b"\x01\x7f"

PLACEHOLDER = b"\x80\x80\x80\x80\x00"
"""Five bytes of LEB128, which any 32-bit number fits."""


class Fill(IntEnum):
    """What the linker writes: relocation types of the format."""

    CALL = 0
    TABLE_INDEX_I32 = 2
    ADDRESS_SLEB = 4
    ADDRESS_I32 = 5
    GLOBAL_LEB = 7

    @property
    def has_addend(self) -> bool:
        """Whether a number is added to the symbol's address."""
        return self in (Fill.ADDRESS_SLEB, Fill.ADDRESS_I32)


@dataclass(frozen=True)
class Relocation:
    """A place that the linker fills.

    Attributes:
        fill: What with.
        offset: Bytes from the start of the body or of the data.
        symbol: Whose index or address.
        addend: Added to an address.
    """

    fill: Fill
    offset: int
    symbol: str
    addend: int = 0


@dataclass(frozen=True)
class Code:
    """A function of i32 parameters with an i32 result.

    Attributes:
        name: Its symbol.
        arity: How many parameters.
        body: Its locals and instructions, the final `end` included.
    """

    name: str
    arity: int
    body: bytes
    relocations: tuple[Relocation, ...] = ()


@dataclass(frozen=True)
class Data:
    """Bytes that may be written at run time.

    Attributes:
        name: The symbol of the first one.
        alignment: Of the first one, a power of two.
    """

    name: str
    contents: bytes
    alignment: int
    relocations: tuple[Relocation, ...] = ()


def write_object(functions: Sequence[Function]) -> bytes:
    """An object file that defines every function under its name."""
    return write_linked_object([Code(f.name, len(f.params), f.body()) for f in functions])


def write_linked_object(
    code: Sequence[Code],
    data: Sequence[Data] = (),
    called: Mapping[str, int] | None = None,
    global_name: str | None = None,
) -> bytes:
    """An object file of functions and data.

    Args:
        code, data: What it defines.
        called: Number of parameters of the functions that it calls and does not define.
        global_name: An i32 variable of the linker's, e.g. "__stack_pointer", that code names.
    """
    called = called or {}
    arities = sorted({*(c.arity for c in code), *called.values()})
    imports = [_text("env") + _text("__linear_memory") + b"\2\0\0"]
    imports += [
        _text("env") + _text(name) + b"\0" + unsigned(arities.index(arity))
        for name, arity in called.items()
    ]
    if global_name is not None:
        imports.append(_text("env") + _text(global_name) + b"\3\x7f\1")
    symbols, indices = _symbols(code, data, called, global_name)
    headers, address = [], 0
    for item in data:
        headers.append(b"\0\x41" + signed(address) + b"\x0b" + unsigned(len(item.contents)))
        address += len(item.contents)
    sections = [
        (_TYPE, [b"\x60" + _vector([bytes([I32])] * a) + _RESULT_I32 for a in arities]),
        (_IMPORT, imports),
        (_FUNCTION, [unsigned(arities.index(c.arity)) for c in code]),
        (_CODE, [unsigned(len(c.body)) + c.body for c in code]),
        (_DATA, [h + item.contents for h, item in zip(headers, data, strict=True)]),
    ]
    sections = [(number, entries) for number, entries in sections if entries]
    infos = [
        _text(f".data.{item.name}") + unsigned(item.alignment.bit_length() - 1) + b"\0"
        for item in data
    ]
    linking = unsigned(_LINKING_VERSION) + _section(_SYMBOL_TABLE, symbols)
    if infos:
        linking += _section(_SEGMENT_INFO, infos)
    parts = [MAGIC, *(_section(number, entries) for number, entries in sections)]
    parts.append(custom_section("linking", linking))
    numbers = [number for number, _ in sections]
    if code:
        starts = _starts([(len(unsigned(len(c.body))), len(c.body)) for c in code])
        parts.append(_fills("reloc.CODE", numbers.index(_CODE), code, starts, indices))
    if data:
        starts = _starts([(len(h), len(d.contents)) for h, d in zip(headers, data, strict=True)])
        parts.append(_fills("reloc.DATA", numbers.index(_DATA), data, starts, indices))
    return b"".join(parts)


def _symbols(
    code: Sequence[Code],
    data: Sequence[Data],
    called: Mapping[str, int],
    global_name: str | None,
) -> tuple[list[bytes], dict[str, int]]:
    """The symbol table and each name's place in it; addresses of others are undefined symbols."""
    entries: dict[str, bytes] = {}
    for index, name in enumerate(called):
        entries[name] = bytes([_FUNCTION_SYMBOL, _UNDEFINED]) + unsigned(index)
    for index, function in enumerate(code, len(called)):
        entries[function.name] = (
            bytes([_FUNCTION_SYMBOL, 0]) + unsigned(index) + _text(function.name)
        )
    for index, item in enumerate(data):
        place = unsigned(index) + unsigned(0) + unsigned(len(item.contents))
        entries[item.name] = bytes([_DATA_SYMBOL, 0]) + _text(item.name) + place
    if global_name is not None:
        entries[global_name] = bytes([_GLOBAL_SYMBOL, _UNDEFINED]) + unsigned(0)
    relocations = [r for owner in code for r in owner.relocations]
    relocations += [r for owner in data for r in owner.relocations]
    for name in (relocation.symbol for relocation in relocations):
        if name not in entries:
            entries[name] = bytes([_DATA_SYMBOL, _UNDEFINED]) + _text(name)
    return list(entries.values()), {name: index for index, name in enumerate(entries)}


def _starts(sizes: Sequence[tuple[int, int]]) -> list[int]:
    """Where each body or datum begins in its section's contents, by (header, contents) lengths."""
    starts, position = [], len(unsigned(len(sizes)))
    for header, contents in sizes:
        starts.append(position + header)
        position += header + contents
    return starts


def _fills(
    name: str,
    section: int,
    owners: Sequence[Code | Data],
    starts: Sequence[int],
    indices: Mapping[str, int],
) -> bytes:
    entries = []
    for owner, start in zip(owners, starts, strict=True):
        for item in sorted(owner.relocations, key=lambda r: r.offset):
            entry = bytes([item.fill]) + unsigned(start + item.offset)
            entry += unsigned(indices[item.symbol])
            if item.fill.has_addend:
                # From 2 GiB on as the negative number that leads to the same 32-bit address.
                entry += signed((item.addend + 2**31) % 2**32 - 2**31)
            entries.append(entry)
    return custom_section(name, unsigned(section) + _vector(entries)) if entries else b""


def _vector(entries: Sequence[bytes]) -> bytes:
    return unsigned(len(entries)) + b"".join(entries)


def _section(number: int, entries: Sequence[bytes]) -> bytes:
    contents = _vector(entries)
    return bytes([number]) + unsigned(len(contents)) + contents


def _text(text: str) -> bytes:
    return unsigned(len(text.encode())) + text.encode()
