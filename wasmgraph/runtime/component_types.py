"""Spells out component types, to compare a component's function with what it should be.

Wasmtime checks what passes the boundary against the component's own types. Only where those are the
interface's may values be read without looking at their tags.
"""

from __future__ import annotations

from collections.abc import Sequence

from wasmtime import component

from wasmgraph.component.interface import DTYPES, ERRORS

_DTYPE = f"enum({','.join(DTYPES.values())})"
_TENSOR = f"record(dtype:{_DTYPE},shape:list(u32),bytes:list(u8))"
_NAMED_TENSORS = f"list(record(name:string,tensor:{_TENSOR}))"
_ERROR = f"variant({','.join(f'{case}:string' for case in ERRORS)})"
RUN_TYPE = f"func(inputs:{_NAMED_TENSORS})->result({_NAMED_TENSORS},{_ERROR})"
"""The type of `run`, as `spell_function` has it."""

_NAMES = {
    component.String: "string",
    component.U8: "u8",
    component.U32: "u32",
}


def spell_function(function: component.FuncType) -> str:
    """The type of a function as a text; equal types have equal texts, others have others."""
    parameters = ",".join(f"{name}:{_spell(kind)}" for name, kind in function.params)
    return f"func({parameters})->{_spell(function.result)}"


def _spell(kind: component.ValType | None) -> str:  # noqa: PLR0911
    if kind is None:
        return "nothing"
    if isinstance(kind, component.ListType):
        return f"list({_spell(kind.element)})"
    if isinstance(kind, component.RecordType):
        return f"record({_spell_fields(kind.fields)})"
    if isinstance(kind, component.VariantType):
        return f"variant({_spell_fields(kind.cases)})"
    if isinstance(kind, component.EnumType):
        return f"enum({','.join(kind.names)})"
    if isinstance(kind, component.ResultType):
        return f"result({_spell(kind.ok)},{_spell(kind.err)})"
    return _NAMES.get(type(kind), type(kind).__name__)


def _spell_fields(fields: Sequence[tuple[str, component.ValType | None]]) -> str:
    return ",".join(f"{name}:{_spell(kind)}" for name, kind in fields)
