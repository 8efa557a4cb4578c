"""Narrow numbers as what they are stored as: the operators that the pass `narrow` writes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import astuple, dataclass, replace
from math import prod
from typing import Any

from wasmgraph.importer.converters.library import library_call, suffix
from wasmgraph.importer.converters.static import dtype_of, shape_of


@dataclass(frozen=True)
class Format:
    """A float's bits: a sign, an exponent, a mantissa.

    Attributes:
        mantissa_bits: Without the implicit one.
        bias: What is added to exponents.
        largest: The code of the largest finite number.
        overflow: The code of larger numbers and infinity.
        nan: NaN's code.
        sign: The sign's bit.
        has_negative_zero: Or else zero has no sign.
    """

    mantissa_bits: int
    bias: int
    largest: int
    overflow: int
    nan: int
    sign: int
    has_negative_zero: bool


FORMATS = {
    "float8_e4m3fn": Format(3, 7, 0x7E, 0x7F, 0x7F, 0x80, True),
    "float8_e4m3fnuz": Format(3, 8, 0x7F, 0x80, 0x80, 0x80, False),
    "float8_e5m2": Format(2, 15, 0x7B, 0x7C, 0x7E, 0x80, True),
    "float8_e5m2fnuz": Format(2, 16, 0x7F, 0x80, 0x80, 0x80, False),
    "bfloat16": Format(7, 127, 0x7F7F, 0x7F80, 0x7FC0, 0x8000, True),
    # Without NaN and infinity: ml_dtypes makes of NaN a negative zero.
    "float4_e2m1fn": Format(1, 1, 0x7, 0x7, 0x8, 0x8, True),
}
"""Sources: P. Micikevicius et al., "FP8 Formats for Deep Learning", 2022; B. Noune et al., "8-bit
Numerical Formats for Deep Neural Networks", 2022 (fnuz); the Open Compute Project's "Microscaling
Formats", 2023 (float4)."""

_ROUND_MODES = {"down": 0, "up": 1, "nearest": 2}


def encode(_bb: Any, inputs: Sequence[Any], attrs: Mapping[str, Any]) -> Any:
    """Round a float32 or float64 to a narrow float, as ONNX's Cast does."""
    (x,) = inputs
    dtype = attrs["dtype"].decode()
    saturates = bool(attrs.get("saturate", 1))
    count = prod(shape_of(x))
    if dtype == "float8_e8m0fnu":
        mode = _ROUND_MODES[attrs.get("round_mode", b"up").decode()]
        outputs = [("uint8", shape_of(x))]
        return library_call("encode_exponents_f32_u8", [x], outputs, [mode, saturates, count])
    form = FORMATS[dtype]
    if saturates and dtype.startswith("float8"):
        form = replace(form, overflow=form.largest)
    stored = "uint16" if dtype == "bfloat16" else "uint8"
    name = f"encode_{suffix(dtype_of(x))}_{suffix(stored)}"
    return library_call(name, [x], [(stored, shape_of(x))], [*astuple(form), count])


def from_bfloat16(_bb: Any, inputs: Sequence[Any], _attrs: Mapping[str, Any]) -> Any:
    """The float32 of the same value."""
    (x,) = inputs
    outputs = [("float32", shape_of(x))]
    return library_call("from_bfloat16_f32", [x], outputs, [prod(shape_of(x))])


def lookup(_bb: Any, inputs: Sequence[Any], _attrs: Mapping[str, Any]) -> Any:
    """What a table of 256 has for every byte."""
    x, table = inputs
    outputs = [(dtype_of(table), shape_of(x))]
    return library_call(
        f"lookup_{suffix(dtype_of(table))}", [x, table], outputs, [prod(shape_of(x))]
    )
