"""Writes the component around a core module.

What is around the module is the same for every graph and is written as text, which Wasmtime's own
assembler turns into bytes. The module takes the place of an empty one there.

A component may export a function only where the types that it names are exported, too. A nested
component does that: it takes the types and functions under one name and gives them under another.

The format: https://github.com/WebAssembly/component-model/blob/main/design/mvp/Binary.md
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping

from wasmgraph.component.file import COMPONENT_MAGIC, component_sections
from wasmgraph.component.interface import DESCRIBE, FUNCTIONS, MODEL, REALLOC, RUN, TYPES
from wasmgraph.wasmfile import encode_number

_CUSTOM, _CORE_MODULE, _COMPONENT = 0, 1, 4


def wrap(module: bytes) -> bytes:
    """The component around `module`, which exports `memory` and the functions of `interface`.

    The same module always gives the same bytes.
    """
    before, after = _around()
    header = bytes([_CORE_MODULE]) + encode_number(len(module))
    return b"".join([before, header, module, after])


@functools.cache
def _around() -> tuple[bytes, bytes]:
    """What comes before the module's section, and behind it."""
    import wasmtime  # not above: linking plain modules does without it

    whole = _without_names(bytes(wasmtime.wat2wasm(_text())))
    place = next(section for section in component_sections(whole) if section.number == _CORE_MODULE)
    return whole[: place.start], whole[place.end :]


def _without_names(data: bytes) -> bytes:
    """The component without custom sections: the names that its text uses."""
    parts = [COMPONENT_MAGIC]
    for section in component_sections(data):
        contents = data[section.contents : section.end]
        if section.number == _COMPONENT:
            contents = _without_names(contents)
        if section.number != _CUSTOM:
            parts += [bytes([section.number]), encode_number(len(contents)), contents]
    return b"".join(parts)


def _text() -> str:
    inner = "\n".join(_inner())
    own = "\n".join(f"(type ${name} {text})" for name, text in _filled("").items())
    functions = {
        name: text.format_map({key: f"${key}" for key in TYPES}) for name, text in FUNCTIONS.items()
    }
    given = [f'(with "type-{name}" (type ${name}))' for name in TYPES]
    given += [f'(with "func-{name}" (func ${name}))' for name in FUNCTIONS]
    return f"""(component
        (core module $graph)
        (core instance $graph (instantiate $graph))
        (alias core export $graph "memory" (core memory $memory))
        (alias core export $graph "{REALLOC}" (core func $realloc))
        (alias core export $graph "{DESCRIBE}" (core func $describe))
        (alias core export $graph "{RUN}" (core func $run))
        {own}
        (type $describe {functions["describe"]})
        (type $run {functions["run"]})
        (func $describe (type $describe) (canon lift (core func $describe) (memory $memory)))
        (func $run (type $run)
            (canon lift (core func $run) (memory $memory) (realloc $realloc)))
        (component $model {inner})
        (instance $model (instantiate $model {" ".join(given)}))
        (export "{MODEL}" (instance $model)))"""


def _inner() -> Iterator[str]:
    """The fields of the nested component: types and functions come in, and go out as exports."""
    for name, text in _filled("in-").items():
        yield f"(type $def-{name} {text})"
        yield f'(import "type-{name}" (type $in-{name} (eq $def-{name})))'
    for name, text in FUNCTIONS.items():
        yield f'(import "func-{name}" (func ${name} {_plain(text, "in-")}))'
    for name, text in _filled("out-").items():
        yield f"(type $new-{name} {text})"
        yield f'(export $out-{name} "{name}" (type $new-{name}))'
    for name, text in FUNCTIONS.items():
        yield f'(export "{name}" (func ${name}) (func {_plain(text, "out-")}))'


def _filled(prefix: str) -> Mapping[str, str]:
    """Every type, in terms of those before it, whose names begin with `prefix`."""
    names = {name: f"${prefix}{name}" for name in TYPES}
    return {name: text.format_map(names) for name, text in TYPES.items()}


def _plain(function: str, prefix: str) -> str:
    """A function's parameters and result, without the word `func`."""
    names = {name: f"${prefix}{name}" for name in TYPES}
    return function.removeprefix("(func ").removesuffix(")").format_map(names)
