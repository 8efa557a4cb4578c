"""Reads the outside of a WebAssembly binary: imports, exports, memory, sizes, custom sections.

Bounded and free of dependencies, so that a file of any origin can be looked at before an engine
sees it; whatever is malformed is a `LoadError`. Function bodies are not looked into: validating
them is the engine's business.

The format: https://webassembly.github.io/spec/core/binary/modules.html
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass

from wasmgraph.errors import LoadError
from wasmgraph.metadata import Metadata, load_metadata

MAGIC = b"\0asm\1\0\0\0"
METADATA_SECTION = "wasmgraph"
WASI_MODULE = "wasi_snapshot_preview1"
ABI_FUNCTIONS = (
    "_start",
    "wg_abi",
    "wg_input",
    "wg_run",
    "wg_output",
    "wg_output_shape",
    "wg_alloc",
    "wg_free",
    "wg_error",
    "wg_error_len",
)
"""The functions every graph exports."""

INITIALIZE = "_initialize"
"""What a host calls before any other function."""

OPTIONAL_FUNCTIONS = (INITIALIZE, "wg_step")
"""Functions that a graph may export besides; `wg_step` is for profilers."""

THREAD_FUNCTIONS = ("wg_work", "wg_stop")
"""What a graph for several threads exports besides; its memory it imports."""

SHARED_MEMORY = ("env", "memory")

PAGE_NBYTES = 65536

ABI_EXPORTS = frozenset({"memory", *ABI_FUNCTIONS, *OPTIONAL_FUNCTIONS})

# In the order in which a module has them.
_SECTIONS = {
    1: "type",
    2: "import",
    3: "function",
    4: "table",
    5: "memory",
    13: "tag",
    6: "global",
    7: "export",
    8: "start",
    9: "element",
    12: "data count",
    10: "code",
    11: "data",
}
_KINDS = ("func", "table", "memory", "global", "tag")


@dataclass(frozen=True)
class Import:
    """An import; `kind` is "func", "table", "memory", "global" or "tag"."""

    module: str
    name: str
    kind: str


@dataclass(frozen=True)
class Export:
    """An export; its kinds are an import's."""

    name: str
    kind: str


@dataclass(frozen=True)
class Memory:
    """A linear memory's limits in pages of 64 KiB; `maximum` is None where there is none."""

    minimum: int
    maximum: int | None
    shared: bool
    is_64bit: bool


@dataclass(frozen=True)
class WasmFile:
    """What a module shows to the outside.

    Attributes:
        imports, exports: In the file's order.
        custom: Contents of the custom sections by name (of the first, where a name is repeated).
        section_nbytes: Length of every section's contents by name, a custom one's as "custom:NAME".
        memory: The one memory, imported or its own, or None.
        nbytes: The file's length.
    """

    imports: tuple[Import, ...]
    exports: tuple[Export, ...]
    custom: Mapping[str, bytes]
    section_nbytes: Mapping[str, int]
    memory: Memory | None
    nbytes: int


class Reader:
    """A place in the bytes and the end of what may be read from there.

    Its methods raise LoadError, which names `what` is read, where the bytes are malformed.
    """

    def __init__(self, data: bytes, position: int, end: int, what: str) -> None:
        self.data = data
        self.position = position
        self.end = end
        self.what = what

    def fail(self, reason: str) -> LoadError:
        return LoadError(f"not a valid wasm file: {reason} (in {self.what}, byte {self.position})")

    def done(self) -> bool:
        return self.position == self.end

    def byte(self) -> int:
        if self.position >= self.end:
            raise self.fail("it ends early")
        self.position += 1
        return self.data[self.position - 1]

    def number(self, bits: int = 32) -> int:
        """An unsigned LEB128 number of at most `bits` bits."""
        value = shift = 0
        while True:
            byte = self.byte()
            value |= (byte & 0x7F) << shift
            if value >> bits or shift >= bits:
                raise self.fail(f"a number of more than {bits} bits")
            if byte < 0x80:
                return value
            shift += 7

    def take(self, nbytes: int) -> bytes:
        start = self.position
        self.skip(nbytes)
        return self.data[start : self.position]

    def skip(self, nbytes: int) -> None:
        if nbytes > self.end - self.position:
            raise self.fail("it ends early")
        self.position += nbytes

    def name(self) -> str:
        try:
            return self.take(self.number()).decode()
        except UnicodeDecodeError:
            raise self.fail("a name is not UTF-8") from None

    def kind(self) -> str:
        code = self.byte()
        if code >= len(_KINDS):
            raise self.fail(f"unknown kind {code}")
        return _KINDS[code]

    def limits(self) -> Memory:
        flags = self.byte()
        if flags > 7:
            raise self.fail(f"unknown limits {flags}")
        bits = 64 if flags & 4 else 32
        minimum = self.number(bits)
        maximum = self.number(bits) if flags & 1 else None
        return Memory(minimum, maximum, bool(flags & 2), bool(flags & 4))

    def value_type(self) -> None:
        # (ref null? heap type) is the only type of more than one byte.
        if self.byte() in (0x63, 0x64):
            self.number(33)


@dataclass(frozen=True)
class Section:
    """A section's number and name; where its number, its contents (of a custom one what follows its
    name) and what is behind it begin."""

    number: int
    name: str
    start: int
    contents: int
    end: int


def sections(data: bytes, start: int = 0, end: int | None = None) -> Iterator[Section]:
    """All sections of the module in `data[start:end]`; checks their order and lengths.

    Raises:
        LoadError: the bytes are not a wasm module of version 1.
    """
    end = len(data) if end is None else end
    magic = data[start : min(start + 8, end)]
    if magic[:4] != MAGIC[:4]:
        raise LoadError(
            "not a wasm file: it does not begin with '\\0asm'",
            hint="a graph is the .wasm that `wasmgraph compile` writes",
        )
    if magic != MAGIC:
        raise LoadError(f"not a wasm module of version 1 (found {magic[4:].hex()})")
    reader = Reader(data, start + 8, end, "the list of sections")
    order = list(_SECTIONS)
    passed = -1
    while not reader.done():
        begin = reader.position
        number = reader.byte()
        contents_nbytes = reader.number()
        contents = reader.position
        reader.skip(contents_nbytes)
        if number == 0:
            inner = Reader(data, contents, reader.position, "a custom section")
            name = inner.name()
            yield Section(0, name, begin, inner.position, reader.position)
            continue
        if number not in _SECTIONS:
            raise reader.fail(f"unknown section {number}")
        if order.index(number) <= passed:
            raise reader.fail(f"section {_SECTIONS[number]!r} out of order")
        passed = order.index(number)
        yield Section(number, _SECTIONS[number], begin, contents, reader.position)


def parse_wasm(data: bytes, start: int = 0, end: int | None = None) -> WasmFile:
    """Read what the module in `data[start:end]` shows to the outside.

    Raises:
        LoadError: the bytes are not a well-formed wasm module of version 1.
    """
    imports: list[Import] = []
    exports: list[Export] = []
    memories: list[Memory] = []
    custom: dict[str, bytes] = {}
    sizes: dict[str, int] = {}
    end = len(data) if end is None else end
    for section in sections(data, start, end):
        what = f"section {section.name!r}"
        reader = Reader(data, section.contents, section.end, what)
        if section.number == 0:
            if section.name == METADATA_SECTION and section.name in custom:
                raise LoadError(f"two custom sections {METADATA_SECTION!r}")
            custom.setdefault(section.name, data[section.contents : section.end])
            key = f"custom:{section.name}"
        else:
            key = section.name
            _read_section(section.number, reader, imports, exports, memories)
        sizes[key] = sizes.get(key, 0) + section.end - section.contents
    if len(memories) > 1:
        raise LoadError(f"{len(memories)} memories where one is expected")
    memory = memories[0] if memories else None
    return WasmFile(tuple(imports), tuple(exports), custom, sizes, memory, end - start)


def _read_section(
    number: int,
    reader: Reader,
    imports: list[Import],
    exports: list[Export],
    memories: list[Memory],
) -> None:
    if _SECTIONS[number] == "import":
        for _ in range(reader.number()):
            imports.append(_read_import(reader, memories))
    elif _SECTIONS[number] == "memory":
        for _ in range(reader.number()):
            memories.append(reader.limits())
    elif _SECTIONS[number] == "export":
        names: set[str] = set()
        for _ in range(reader.number()):
            export = Export(reader.name(), reader.kind())
            reader.number()
            if export.name in names:
                raise reader.fail(f"{export.name!r} is exported twice")
            names.add(export.name)
            exports.append(export)
    else:
        return
    if not reader.done():
        raise reader.fail("bytes after the section's last entry")


def _read_import(reader: Reader, memories: list[Memory]) -> Import:
    item = Import(reader.name(), reader.name(), reader.kind())
    if item.kind == "func":
        reader.number()
    elif item.kind == "table":
        reader.value_type()
        reader.limits()
    elif item.kind == "memory":
        memories.append(reader.limits())
    elif item.kind == "global":
        reader.value_type()
        if reader.byte() > 1:
            raise reader.fail("a global is neither constant nor mutable")
    else:
        reader.byte()
        reader.number()
    return item


def read_metadata(data: bytes) -> Metadata:
    """The metadata of a graph.

    Raises:
        LoadError: not a wasm module, no graph, or its metadata are malformed.
    """
    return _metadata(parse_wasm(data))


def _metadata(module: WasmFile) -> Metadata:
    payload = module.custom.get(METADATA_SECTION)
    if payload is None:
        raise LoadError(
            f"a wasm module, but no graph: it has no custom section {METADATA_SECTION!r}",
            hint="a graph is the .wasm that `wasmgraph compile` writes",
        )
    return load_metadata(payload)


def check_graph(data: bytes) -> Metadata:
    """Check that a module is a graph of ABI version 1, and return its metadata.

    Raises:
        LoadError: not a graph, another ABI, an export is missing or is something else, or it
            imports anything but functions of WASI preview 1.
    """
    module = parse_wasm(data)
    metadata = _metadata(module)
    allowed = f"functions of {WASI_MODULE!r}"
    if metadata.threads:
        allowed += f" and the memory {SHARED_MEMORY[1]!r} of {SHARED_MEMORY[0]!r}"
    for item in module.imports:
        is_wasi = item.module == WASI_MODULE and item.kind == "func"
        is_memory = item.kind == "memory" and (item.module, item.name) == SHARED_MEMORY
        if not (is_wasi or (metadata.threads and is_memory)):
            raise LoadError(
                f"the graph imports the {item.kind} {item.name!r} of {item.module!r}; "
                f"only {allowed} are allowed"
            )
    kinds = {export.name: export.kind for export in module.exports}
    expected = dict.fromkeys(ABI_FUNCTIONS, "func")
    expected.update(
        dict.fromkeys(THREAD_FUNCTIONS, "func") if metadata.threads else {"memory": "memory"}
    )
    expected.update({name: "func" for name in OPTIONAL_FUNCTIONS if name in kinds})
    for name, kind in expected.items():
        if kinds.get(name) != kind:
            found = f"a {kinds[name]}" if name in kinds else "nothing"
            raise LoadError(f"the graph should export the {kind} {name!r}, it exports {found}")
    memory = module.memory
    if memory is None or memory.is_64bit or memory.shared != metadata.threads:
        should = (
            "imported, 32-bit and shared" if metadata.threads else "its own, 32-bit and not shared"
        )
        raise LoadError(f"the graph's memory should be {should}")
    return metadata


def encode_number(value: int) -> bytes:
    """A number as unsigned LEB128."""
    encoded = bytearray()
    while value > 0x7F:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    encoded.append(value)
    return bytes(encoded)


def custom_section(name: str, payload: bytes) -> bytes:
    """The bytes of a custom section."""
    encoded = name.encode()
    contents = encode_number(len(encoded)) + encoded + payload
    return b"\0" + encode_number(len(contents)) + contents


def add_custom_section(data: bytes, name: str, payload: bytes) -> bytes:
    """The module with one more custom section at its end.

    Raises:
        LoadError: `data` is not a wasm module.
    """
    for _ in sections(data):
        pass
    return data + custom_section(name, payload)


def with_memory_maximum(data: bytes, pages: int) -> bytes:
    """The module whose own memory can grow to so many pages at most; less if it says less itself.

    For engines that have no limit of their own. A memory that is imported stays as it is: who
    makes it can bound it.

    Raises:
        LoadError: `data` is not a wasm module, or its memory begins with more.
    """
    pieces: list[bytes | memoryview] = [MAGIC]
    view = memoryview(data)
    for section in sections(data):
        if section.number == 0 or section.name != "memory":
            pieces.append(view[section.start : section.end])
            continue
        reader = Reader(data, section.contents, section.end, "section 'memory'")
        memories = [_bounded(reader, pages) for _ in range(reader.number())]
        contents = encode_number(len(memories)) + b"".join(memories)
        pieces += (bytes([section.number]), encode_number(len(contents)), contents)
    return b"".join(pieces)


def _bounded(reader: Reader, pages: int) -> bytes:
    """A memory's limits as bytes, its maximum at most `pages`."""
    memory = reader.limits()
    most = pages if memory.maximum is None else min(pages, memory.maximum)
    if memory.minimum > most:
        raise reader.fail(f"the memory begins with {memory.minimum} pages, allowed are {most}")
    flags = 1 | memory.shared << 1 | memory.is_64bit << 2
    return bytes([flags]) + encode_number(memory.minimum) + encode_number(most)


def keep_names(data: bytes, exports: Collection[str], functions: Collection[str]) -> bytes:
    """The module with no other exports, and no other names of functions in its name section.

    Raises:
        LoadError: `data` is not a wasm module, or one of the two sections is malformed.
    """
    named = b""
    pieces: list[bytes | memoryview] = [MAGIC]
    view = memoryview(data)
    for section in sections(data):
        reader = Reader(data, section.contents, section.end, f"section {section.name!r}")
        if section.number == 0 and section.name == "name":
            named += _filter_function_names(reader, functions)
        elif section.name == "export" and section.number != 0:
            contents = _filter_exports(reader, exports)
            pieces += (bytes([section.number]), encode_number(len(contents)), contents)
        else:
            pieces.append(view[section.start : section.end])
    if named:
        pieces.append(custom_section("name", named))
    return b"".join(pieces)


def _filter_exports(reader: Reader, wanted: Collection[str]) -> bytes:
    """The contents of the export section, filtered."""
    entries = []
    for _ in range(reader.number()):
        start = reader.position
        name, _, _ = reader.name(), reader.kind(), reader.number()
        if name in wanted:
            entries.append(reader.data[start : reader.position])
    return encode_number(len(entries)) + b"".join(entries)


def _filter_function_names(reader: Reader, wanted: Collection[str]) -> bytes:
    """The name section's subsection of function names, filtered; b"" where none is left."""
    entries = []
    while not reader.done():
        number = reader.byte()
        end = reader.number() + reader.position
        if number != 1:
            reader.skip(end - reader.position)
            continue
        for _ in range(reader.number()):
            index, name = reader.number(), reader.name()
            if name in wanted:
                encoded = name.encode()
                entries.append(encode_number(index) + encode_number(len(encoded)) + encoded)
    if not entries:
        return b""
    contents = encode_number(len(entries)) + b"".join(entries)
    return b"\1" + encode_number(len(contents)) + contents
