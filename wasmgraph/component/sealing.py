"""Makes a module that imports functions of WASI import nothing.

A C library asks its host for arguments, the environment and open files, and says on stderr why it
gives up. In a component nobody is asked: each imported function is replaced by a small one in the
module itself that answers as on a machine without anything (as `wasmgraph.runtime.sandbox` does).

Imported functions are numbered before the module's own. So those that replace them, put before the
module's own in the same order, have the same numbers, and nothing that names a function changes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from wasmgraph.assembler import opcodes as op
from wasmgraph.assembler.function import signed, unsigned
from wasmgraph.errors import ToolchainError
from wasmgraph.wasmfile import MAGIC, WASI_MODULE, Reader, Section, encode_number, sections

_IMPORT, _FUNCTION, _EXPORT, _START, _CODE = 2, 3, 7, 8, 10
_SUCCESS, _BADF, _NOTCAPABLE = 0, 8, 76
_NO_LOCALS = unsigned(0)
_FOUR_BYTES = b"\x02\x00"  # alignment as a power of two, offset


def seal(data: bytes, initialize: str) -> bytes:
    """The module without imports, whose start function is the one that it exports as `initialize`.

    Raises:
        ToolchainError: it imports something other than functions of WASI preview 1, or has a start
            function already, or no such export.
    """
    found = {section.number: section for section in sections(data) if section.number}
    if _START in found:
        raise ToolchainError("the linked module has a start function of its own")
    imports = _imports(data, found)
    start = encode_number(_exported(data, found, initialize))
    stubs = [_stub(name) for name, _ in imports]
    first: Mapping[int, Sequence[bytes]] = {
        _FUNCTION: [encode_number(kind) for _, kind in imports],
        _CODE: [encode_number(len(body)) + body for body in stubs],
    }
    parts: list[bytes | memoryview] = [MAGIC]
    view = memoryview(data)
    for section in sections(data):
        if section.number in first:
            reader = _reader(data, section)
            entries = first[section.number]
            count = encode_number(reader.number() + len(entries))
            contents = b"".join([count, *entries, data[reader.position : section.end]])
            parts += [bytes([section.number]), encode_number(len(contents)), contents]
        elif section.number != _IMPORT:
            parts.append(view[section.start : section.end])
        if section.number == _EXPORT:
            parts += [bytes([_START]), encode_number(len(start)), start]
    return b"".join(parts)


def _imports(data: bytes, found: Mapping[int, Section]) -> list[tuple[str, int]]:
    """Name and type of every imported function."""
    imports: list[tuple[str, int]] = []
    if _IMPORT not in found:
        return imports
    reader = _reader(data, found[_IMPORT])
    for _ in range(reader.number()):
        module, name, kind = reader.name(), reader.name(), reader.kind()
        if (module, kind) != (WASI_MODULE, "func"):
            raise ToolchainError(f"the linked module imports the {kind} {name!r} of {module!r}")
        imports.append((name, reader.number()))
    return imports


def _exported(data: bytes, found: Mapping[int, Section], wanted: str) -> int:
    """The number of an exported function."""
    if _EXPORT in found:
        reader = _reader(data, found[_EXPORT])
        for _ in range(reader.number()):
            name, kind, index = reader.name(), reader.kind(), reader.number()
            if (name, kind) == (wanted, "func"):
                return index
    raise ToolchainError(f"the linked module does not export the function {wanted!r}")


def _reader(data: bytes, section: Section) -> Reader:
    return Reader(data, section.contents, section.end, f"section {section.name!r}")


def _stub(name: str) -> bytes:
    """The body of a function of WASI: its locals and instructions."""
    if name == "proc_exit":
        return _NO_LOCALS + bytes([op.UNREACHABLE, op.END])
    code = b""
    if name in ("args_sizes_get", "environ_sizes_get"):
        # None, of zero bytes.
        for parameter in (0, 1):
            code += bytes([op.LOCAL_GET]) + unsigned(parameter)
            code += bytes([op.I32_CONST]) + signed(0) + bytes([op.I32_STORE]) + _FOUR_BYTES
    errno = _ANSWERS.get(name, _NOTCAPABLE)
    return _NO_LOCALS + code + bytes([op.I32_CONST]) + signed(errno) + bytes([op.END])


_ANSWERS = {
    "args_sizes_get": _SUCCESS,
    "environ_sizes_get": _SUCCESS,
    "args_get": _SUCCESS,
    "environ_get": _SUCCESS,
    # Nothing is open: how a C library learns that there are no folders, and Rust no stderr.
    "fd_prestat_get": _BADF,
    "fd_write": _BADF,
}
