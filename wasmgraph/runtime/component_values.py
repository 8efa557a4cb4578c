"""Tensors as component values, in the layout of Wasmtime's C interface.

That interface has a list of bytes as a list of values, each tagged and as large as any value can
be. wasmtime-py makes and reads them one by one, as Python integers, which takes microseconds per
byte; here numpy does it for all at once, at a stride. The structures of an input are kept from run
to run: only its bytes are written each time. What Wasmtime then does with them value by value
remains: some 30 ns per byte of an input and 800 per byte of an output.
"""

from __future__ import annotations

import ctypes
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from wasmtime import _ffi as ffi

from wasmgraph.component.interface import DTYPES
from wasmgraph.runtime.base import Array, TensorSpec

_Value = ffi.wasmtime_component_val_t
_Entry = ffi.wasmtime_component_valrecord_entry_t
_VALUE_NBYTES = ctypes.sizeof(_Value)
_KIND, _CONTENT = _Value.kind.offset, _Value.of.offset
_OUR_DTYPES = {theirs: ours for ours, theirs in DTYPES.items()}


class Arguments:
    """What `run` is called with: one list of named tensors.

    Attributes:
        values: The arguments, as the C interface takes them.
    """

    def __init__(self, specs: Sequence[TensorSpec]) -> None:
        self._tensors = [_NamedTensor(spec) for spec in specs]
        self._items = (_Value * len(specs))(*(tensor.value for tensor in self._tensors))
        self.values = (_Value * 1)(_list(ctypes.addressof(self._items), len(specs)))

    def fill(self, arrays: Sequence[Array]) -> None:
        """Write tensors of the inputs' dtypes."""
        for tensor, array in zip(self._tensors, arrays, strict=True):
            tensor.fill(array)


class _NamedTensor:
    """The record `named-tensor` of one input, and all that it points to."""

    def __init__(self, spec: TensorSpec) -> None:
        self._dtype = np.dtype(spec.dtype).newbyteorder("<")
        self._kept: list[Any] = []
        self._shape: tuple[int, ...] | None = None
        self._extents = (_Value * 0)()
        self._bytes = np.empty((0, _VALUE_NBYTES), np.uint8)
        self._fields = self._record(
            {
                "dtype": self._text(ffi.WASMTIME_COMPONENT_ENUM, DTYPES[spec.dtype]),
                "shape": _list(0, 0),
                "bytes": _list(0, 0),
            }
        )
        name = self._text(ffi.WASMTIME_COMPONENT_STRING, spec.name)
        self.value = _record_of(self._record({"name": name, "tensor": _record_of(self._fields)}))

    def fill(self, array: Array) -> None:
        if array.shape != self._shape:
            self._reshape(array.shape, array.size * self._dtype.itemsize)
        little = np.ascontiguousarray(array, self._dtype).reshape(-1)
        self._bytes[:, _CONTENT] = little.view(np.uint8)

    def _reshape(self, shape: tuple[int, ...], nbytes: int) -> None:
        self._extents = (_Value * len(shape))()
        for value, extent in zip(self._extents, shape, strict=True):
            value.kind = ffi.WASMTIME_COMPONENT_U32
            value.of.u32 = extent
        self._bytes = np.zeros((nbytes, _VALUE_NBYTES), np.uint8)
        self._bytes[:, _KIND] = ffi.WASMTIME_COMPONENT_U8.value
        self._fields[1].val = _list(ctypes.addressof(self._extents), len(shape))
        self._fields[2].val = _list(self._bytes.ctypes.data, nbytes)
        self._shape = shape

    def _record(self, fields: Mapping[str, Any]) -> Any:
        entries = (_Entry * len(fields))()
        for entry, (name, value) in zip(entries, fields.items(), strict=True):
            entry.name = self._name(name)
            entry.val = value
        self._kept.append(entries)
        return entries

    def _text(self, kind: Any, text: str) -> Any:
        """A string or a case of an enum."""
        value = _Value(kind=kind)
        value.of.string = self._name(text)
        return value

    def _name(self, text: str) -> Any:
        encoded = text.encode()
        buffer = (ctypes.c_uint8 * len(encoded)).from_buffer_copy(encoded)
        self._kept.append(buffer)
        name = ffi.wasm_byte_vec_t(size=len(encoded))
        name.data = ctypes.cast(buffer, type(name.data))
        return name


def _record_of(entries: Any) -> Any:
    value = _Value(kind=ffi.WASMTIME_COMPONENT_RECORD)
    value.of.record.size = len(entries)
    value.of.record.data = ctypes.cast(entries, type(value.of.record.data))
    return value


def _list(address: int, size: int) -> Any:
    value = _Value(kind=ffi.WASMTIME_COMPONENT_LIST)
    value.of.list.size = size
    value.of.list.data = ctypes.cast(address, type(value.of.list.data))
    return value


@dataclass(frozen=True)
class GivenTensor:
    """A tensor that a component has returned, its bytes copied; nothing of it is checked yet.

    Attributes:
        dtype: By our name.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    contents: Array


@dataclass(frozen=True)
class GivenError:
    """The error that a component has returned: the case of the variant, and its text."""

    case: str
    text: str


def read_answer(value: Any) -> list[GivenTensor] | GivenError:
    """What `run` has returned; Wasmtime has made sure that it is of the type of `run`."""
    answer = value.of.result
    content = answer.val.contents
    if not answer.is_ok:
        case = _read_text(content.of.variant.discriminant)
        return GivenError(case, _read_text(content.of.variant.val.contents.of.string))
    tensors = content.of.list
    return [_read_tensor(tensors.data[i]) for i in range(tensors.size)]


def _read_tensor(value: Any) -> GivenTensor:
    name, tensor = (value.of.record.data[i].val for i in range(2))
    dtype, shape, contents = (tensor.of.record.data[i].val for i in range(3))
    return GivenTensor(
        _read_text(name.of.string),
        _OUR_DTYPES[_read_text(dtype.of.enumeration)],
        tuple(shape.of.list.data[i].of.u32 for i in range(shape.of.list.size)),
        _read_bytes(contents.of.list),
    )


def _read_bytes(values: Any) -> Array:
    if values.size == 0:
        return np.empty(0, np.uint8)
    whole = ctypes.c_uint8 * (values.size * _VALUE_NBYTES)
    buffer = whole.from_address(ctypes.addressof(values.data.contents))
    strided: Array = np.ndarray((values.size,), np.uint8, buffer, _CONTENT, (_VALUE_NBYTES,))
    return strided.copy()


def _read_text(text: Any) -> str:
    if text.size == 0:
        return ""
    return ctypes.string_at(text.data, text.size).decode(errors="replace")
