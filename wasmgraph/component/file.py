"""Reads the outside of a component: imports, exports, memory, custom sections.

As `wasmgraph.wasmfile` does for modules: bounded, without an engine, and whatever is malformed is a
`LoadError`. Types, and what is inside nested components, are the engine's business.

The format: https://github.com/WebAssembly/component-model/blob/main/design/mvp/Binary.md
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from wasmgraph.component.interface import MODEL
from wasmgraph.errors import LoadError
from wasmgraph.metadata import Metadata, load_metadata
from wasmgraph.wasmfile import METADATA_SECTION, Memory, Reader, Section, parse_wasm

COMPONENT_MAGIC = b"\0asm\x0d\0\1\0"
"""A module has version 1 in layer 0, a component version 13 in layer 1."""

_CUSTOM, _CORE_MODULE, _IMPORT, _EXPORT = 0, 1, 10, 11
_LAST_SECTION = 12
_CORE_SORT, _INSTANCE_SORT = 0, 5
_SORTS = ("core", "func", "value", "type", "component", "instance")


@dataclass(frozen=True)
class ComponentFile:
    """What a component shows to the outside.

    Attributes:
        imports: Their names.
        exports: What each is ("instance", "func", ...) by name.
        custom: Contents of the custom sections by name (of the first, where a name is repeated).
        memories: Of its core modules, in the file's order.
        nbytes: The file's length.
    """

    imports: tuple[str, ...]
    exports: Mapping[str, str]
    custom: Mapping[str, bytes]
    memories: tuple[Memory, ...]
    nbytes: int

    @property
    def memory_pages(self) -> int:
        """Pages of 64 KiB that it starts with."""
        return sum(memory.minimum for memory in self.memories)


def is_component(data: bytes) -> bool:
    """Whether this is the beginning of a component, as opposed to that of a module."""
    return data[: len(COMPONENT_MAGIC)] == COMPONENT_MAGIC


def component_sections(data: bytes) -> Iterator[Section]:
    """All sections of a component, in any order; those of what is nested in it are not among them.

    Raises:
        LoadError: it is not a component, or a section is longer than the file.
    """
    if not is_component(data):
        raise LoadError(f"not a wasm component of version 13 (found {data[:8].hex()})")
    reader = Reader(data, len(COMPONENT_MAGIC), len(data), "the list of sections")
    while not reader.done():
        start = reader.position
        number = reader.byte()
        nbytes = reader.number()
        contents = reader.position
        reader.skip(nbytes)
        if number > _LAST_SECTION:
            raise reader.fail(f"unknown section {number}")
        if number == _CUSTOM:
            inner = Reader(data, contents, reader.position, "a custom section")
            name = inner.name()
            yield Section(number, name, start, inner.position, reader.position)
        else:
            yield Section(number, "", start, contents, reader.position)


def parse_component(data: bytes) -> ComponentFile:
    """Read what a component shows to the outside.

    Raises:
        LoadError: the bytes are not a well-formed component, as far as this looks.
    """
    imports: list[str] = []
    exports: dict[str, str] = {}
    custom: dict[str, bytes] = {}
    memories: list[Memory] = []
    for section in component_sections(data):
        reader = Reader(data, section.contents, section.end, "a section")
        if section.number == _CUSTOM:
            if section.name == METADATA_SECTION and section.name in custom:
                raise LoadError(f"two custom sections {METADATA_SECTION!r}")
            custom.setdefault(section.name, data[section.contents : section.end])
        elif section.number == _CORE_MODULE:
            module = parse_wasm(data, section.contents, section.end)
            memories += [module.memory] if module.memory else []
        elif section.number == _IMPORT:
            imports += _import_names(reader)
        elif section.number == _EXPORT:
            _read_exports(reader, exports)
    return ComponentFile(tuple(imports), exports, custom, tuple(memories), len(data))


def _import_names(reader: Reader) -> list[str]:
    """The name of the first import: what follows it is a type, which is not looked into."""
    return [_name(reader)] if reader.number() else []


def _read_exports(reader: Reader, exports: dict[str, str]) -> None:
    for _ in range(reader.number()):
        name = _name(reader)
        sort = reader.byte()
        if sort >= len(_SORTS):
            raise reader.fail(f"unknown sort {sort}")
        if sort == _CORE_SORT:
            reader.byte()
        reader.number()
        if name in exports:
            raise reader.fail(f"{name!r} is exported twice")
        exports[name] = _SORTS[sort]
        if reader.byte():  # it has a type of its own, behind which this does not look
            return


def _name(reader: Reader) -> str:
    """An import's or export's name; a byte before it says whether attributes follow it."""
    kind = reader.byte()
    if kind > 1:
        raise reader.fail(f"a name of the unknown kind {kind}")
    return reader.name()


def check_component(data: bytes) -> tuple[Metadata, ComponentFile]:
    """Check that a component is a graph, and return its metadata and what else it shows.

    Raises:
        LoadError: it is not, or it imports anything.
    """
    component = parse_component(data)
    payload = component.custom.get(METADATA_SECTION)
    if payload is None:
        raise LoadError(
            f"a wasm component, but no graph: it has no custom section {METADATA_SECTION!r}",
            hint="a graph is what `wasmgraph compile --kind component` writes",
        )
    if component.imports:
        raise LoadError(f"the component imports {component.imports[0]!r}; a graph imports nothing")
    if component.exports.get(MODEL) != "instance":
        raise LoadError(f"the component does not export the interface {MODEL!r}")
    return load_metadata(payload), component
