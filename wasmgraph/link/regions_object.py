"""Writes the graph's three memory regions as a wasm object file: a segment and a symbol for each.

This way rustc and LLVM never see the bytes, of which there may be a gigabyte. With 100 MB of
weights the whole link stage takes 1.4 s with Rust 1.95 and 1.9 s with 1.63, on two cores;
`include_bytes!` in the crate took 1.9 s and 6.1 s for cargo alone. 1000 MB take 10 to 11 s, spent
on copying files.
Zeros are even dearer as a Rust static, 10 ms per MB of arena: objects spell them out. Here they are
a hole in the file, which costs nothing.

The format: https://github.com/WebAssembly/tool-conventions/blob/main/Linking.md
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from wasmgraph.bundle import ALIGNMENT, Graph, Region
from wasmgraph.wasmfile import MAGIC, custom_section, encode_number

_IMPORT_SECTION, _DATA_SECTION = 2, 11
_LINKING_VERSION = 2
_SEGMENT_INFO, _SYMBOL_TABLE = 5, 8
_DATA_SYMBOL = 1


@dataclass(frozen=True)
class _Segment:
    """A segment's name (.bss is what the linker leaves out of the module), symbol and contents."""

    name: str
    symbol: str
    nbytes: int
    contents: bytes | None


def region_symbol(region: Region) -> str:
    """The C symbol of a region's first byte."""
    return f"wasmgraph_{region}"


def write_regions_object(path: Path, graph: Graph, params: bytes) -> None:
    """Write an object that defines the symbol of every region that has any bytes.

    Each starts at a multiple of `ALIGNMENT`; params holds the weights, the others are zero.

    Raises:
        OSError: the file cannot be written.
    """
    regions: list[tuple[Region, int, bytes | None]] = [
        ("params", graph.params_nbytes, params),
        ("io", graph.io_nbytes, None),
        ("arena", graph.arena_nbytes, None),
    ]
    segments = [
        _Segment(
            f"{'.bss' if contents is None else '.data'}.{region_symbol(region)}",
            region_symbol(region),
            nbytes,
            contents,
        )
        for region, nbytes, contents in regions
        if nbytes
    ]
    with path.open("wb") as file:
        file.write(MAGIC + _imported_memory())
        headers = _segment_headers(segments)
        count = encode_number(len(segments))
        nbytes = len(count) + sum(map(len, headers)) + sum(s.nbytes for s in segments)
        file.write(_header(_DATA_SECTION, nbytes) + count)
        for segment, header in zip(segments, headers, strict=True):
            file.write(header)
            if segment.contents is None:
                file.seek(segment.nbytes, os.SEEK_CUR)
            else:
                file.write(segment.contents)
        file.write(_linking_section(segments))


def _imported_memory() -> bytes:
    """An object with data imports its memory; the linker gives it one."""
    memory = _string("env") + _string("__linear_memory") + b"\2\0\0"
    return _section(_IMPORT_SECTION, [memory])


def _segment_headers(segments: list[_Segment]) -> list[bytes]:
    """Active segments, one after the other; the linker moves them."""
    headers, address = [], 0
    for segment in segments:
        headers.append(b"\0\x41" + _signed(address) + b"\x0b" + encode_number(segment.nbytes))
        address += segment.nbytes
    return headers


def _linking_section(segments: list[_Segment]) -> bytes:
    # A defined data symbol without flags: name, segment, offset in it, length.
    symbols = [
        bytes([_DATA_SYMBOL, 0])
        + _string(segment.symbol)
        + encode_number(index)
        + encode_number(0)
        + encode_number(segment.nbytes)
        for index, segment in enumerate(segments)
    ]
    # Name, alignment as a power of two, no flags.
    alignment = encode_number(ALIGNMENT.bit_length() - 1)
    infos = [_string(segment.name) + alignment + b"\0" for segment in segments]
    contents = encode_number(_LINKING_VERSION)
    contents += _section(_SYMBOL_TABLE, symbols) + _section(_SEGMENT_INFO, infos)
    return custom_section("linking", contents)


def _section(number: int, entries: list[bytes]) -> bytes:
    contents = encode_number(len(entries)) + b"".join(entries)
    return _header(number, len(contents)) + contents


def _header(number: int, nbytes: int) -> bytes:
    return bytes([number]) + encode_number(nbytes)


def _string(text: str) -> bytes:
    return encode_number(len(text.encode())) + text.encode()


def _signed(value: int) -> bytes:
    """A non-negative 32-bit address as signed LEB128: from 2 GiB on it reads as negative."""
    value = value - 2**32 if value >= 2**31 else value
    encoded = bytearray()
    while not -64 <= value < 64:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    encoded.append(value & 0x7F)
    return bytes(encoded)
