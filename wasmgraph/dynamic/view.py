"""What an operator's converter sees of an ONNX node, and how it answers."""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import onnx
from numpy.typing import NDArray

from wasmgraph.dynamic.program import PREFIX
from wasmgraph.importer.converters.library import LIBRARY_DTYPES

Array = NDArray[Any]


class Unsupported(Exception):  # noqa: N818 - becomes an obstacle
    """Why a node cannot be compiled."""


@dataclass(frozen=True)
class Value:
    """A value that some slot holds.

    Attributes:
        slot: Which.
        dtype: The numpy dtype name of the tensor, or of the tensors of a sequence or optional.
        constant: Its elements, where they are known.
    """

    slot: int
    dtype: str
    constant: Array | None = None


class Maker(Protocol):
    """What turns an emitted call into a node: `wasmgraph.dynamic.build`."""

    def new_value(self, dtype: str) -> Value: ...
    def constant(self, array: Array) -> Value: ...
    def add(
        self,
        operator: str,
        words: Sequence[int],
        inputs: Sequence[Value | None],
        outputs: Sequence[Value],
        bodies: Sequence[Any],
    ) -> None: ...
    def body(
        self, graph: onnx.GraphProto, inputs: Sequence[str | None]
    ) -> tuple[Any, list[Value]]: ...


# As the executor's symbols call them.
SUFFIXES = {**LIBRARY_DTYPES, "bool": "u8"}


@dataclass(frozen=True)
class NodeView:
    """An ONNX node with its inputs resolved.

    Attributes:
        op_type: Its operator.
        attributes: By name, as Python values.
        inputs: None where one is left out; trailing ones may be missing.
        outputs: How many it has.
        opset: The version of its operator set.
        names: The names of its outputs.
        maker: Where calls go.
    """

    op_type: str
    attributes: Mapping[str, Any]
    inputs: tuple[Value | None, ...]
    outputs: int
    opset: int
    maker: Maker

    def has(self, index: int) -> bool:
        """Whether an input is given."""
        return index < len(self.inputs) and self.inputs[index] is not None

    def input(self, index: int) -> Value:
        """An input that must be given."""
        value = self.inputs[index] if index < len(self.inputs) else None
        if value is None:
            raise Unsupported(f"its input {index} is left out")
        return value

    def dtype(self, index: int = 0) -> str:
        """The dtype of an input."""
        return self.input(index).dtype

    def suffix(self, allowed: Sequence[str], index: int = 0) -> str:
        """The end of a symbol: the dtype of an input, which the operator must have.

        Raises:
            Unsupported: it has not.
        """
        return suffix_of(self.dtype(index), allowed)

    def attribute(self, name: str, default: Any = None) -> Any:
        """An attribute; texts as str."""
        value = self.attributes.get(name, default)
        return value.decode() if isinstance(value, bytes) else value

    def constant(self, array: Any, dtype: str | None = None) -> Value:
        """A constant of the converter's own."""
        return self.maker.constant(np.asarray(array, dtype))

    def known(self, index: int) -> Array | None:
        """The elements of an input, where they are known."""
        return self.input(index).constant if self.has(index) else None

    def given(self, index: int, attribute: str, dtype: str = "int64") -> Value | None:
        """What newer opsets take as an input and older ones as an attribute, or None."""
        if self.has(index):
            return self.input(index)
        value = self.attributes.get(attribute)
        return None if value is None else self.constant(value, dtype)

    def emit(
        self,
        operator: str,
        inputs: Sequence[Value | None],
        dtypes: Sequence[str],
        words: Sequence[int] = (),
        bodies: Sequence[Any] = (),
    ) -> list[Value]:
        """Call an operator; the results are new values of these dtypes."""
        outputs = [self.maker.new_value(dtype) for dtype in dtypes]
        self.maker.add(f"{PREFIX}{operator}", words, inputs, outputs, bodies)
        return outputs


Converter = Callable[[NodeView], list[Value]]
"""Emits the calls that compute a node, and returns its outputs."""


def suffix_of(dtype: str, allowed: Sequence[str]) -> str:
    """The end of a symbol for a dtype that an operator must have; see `NodeView.suffix`."""
    suffix = SUFFIXES.get(dtype)
    if suffix is None or suffix not in allowed:
        raise Unsupported(f"{dtype} is not supported where shapes are dynamic")
    return suffix


def float_word(number: float) -> int:
    """A float32 as the word that holds its bits."""
    (word,) = struct.unpack("<i", struct.pack("<f", number))
    return int(word)


FLOATS = ("f32", "f64")
INTEGERS = ("i8", "i16", "i32", "i64", "u8", "u16", "u32", "u64")
NUMBERS = FLOATS + INTEGERS

_MOVED = {1: "u8", 2: "u16", 4: "u32", 8: "u64"}


def moved(dtype: str) -> str:
    """The end of the symbol of an operator that only moves elements: an integer of their size."""
    import ml_dtypes  # noqa: F401 - numpy learns bfloat16

    return _MOVED[np.dtype(dtype).itemsize]
