"""Encoders of ai.onnx.ml on numbers, which the operator library looks up; picking features."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import TensorProto, numpy_helper
from tvm import relax

from wasmgraph.importer.converters.classes import looked_up
from wasmgraph.importer.converters.library import library_call, suffix
from wasmgraph.importer.converters.static import (
    as_dtype,
    constant,
    constant_value,
    dtype_of,
    shape_of,
)


def _key_numbers(x: Any, keys: NDArray[Any], may_be_none: bool) -> Any:
    """The place of every element among the keys; behind the last where it is none of them."""
    shape, dtype = shape_of(x), dtype_of(x)
    words = [prod(shape), keys.size, int(may_be_none)]
    operands = [x, constant(keys, dtype)]
    return library_call(f"key_number_{suffix(dtype)}", operands, [("int64", shape)], words)


def _refuse_strings(attrs: Mapping[str, Any], *names: str) -> None:
    if any(attrs.get(name) for name in names):
        raise NotImplementedError(
            "strings are not supported; encode them as numbers before the model"
        )


def label_encoder(bb: Any, inputs: Sequence[Any], attrs: Mapping[str, Any]) -> Any:
    """LabelEncoder from numbers to numbers."""
    _refuse_strings(attrs, "keys_strings", "values_strings", "classes_strings")
    keys = _listed(attrs, "keys", dtype_of(inputs[0]))
    values = _listed(attrs, "values")
    if len(keys) != len(values):
        raise ValueError(f"there are {len(keys)} keys and {len(values)} values")
    default = numpy_helper.to_array(attrs["default_tensor"]) if "default_tensor" in attrs else None
    if default is None:
        name, usual = ("default_int64", -1) if values.dtype == np.int64 else ("default_float", -0.0)
        default = np.array(attrs.get(name, usual), values.dtype)
    numbers = bb.normalize(_key_numbers(inputs[0], keys, may_be_none=True))
    return looked_up(bb, np.append(values, default.reshape(-1)[0]), numbers)


def _listed(attrs: Mapping[str, Any], what: str, dtype: str | None = None) -> NDArray[Any]:
    """Keys or values, from whichever of the attributes they are in."""
    tensor = attrs.get(f"{what}_tensor")
    if isinstance(tensor, TensorProto):
        return np.asarray(numpy_helper.to_array(tensor), dtype).reshape(-1)
    if attrs.get(f"{what}_int64s"):
        return np.array(attrs[f"{what}_int64s"], dtype or "int64")
    return np.array(attrs.get(f"{what}_floats", ()), dtype or "float32")


def one_hot_encoder(bb: Any, inputs: Sequence[Any], attrs: Mapping[str, Any]) -> Any:
    """OneHotEncoder of numbers; a run ends where one is no category and `zeros` is 0."""
    _refuse_strings(attrs, "cats_strings")
    categories = np.array(attrs["cats_int64s"], np.int64)
    x = as_dtype(bb, inputs[0], "int64")
    numbers = bb.normalize(_key_numbers(x, categories, may_be_none=bool(attrs.get("zeros", 1))))
    rows = np.eye(len(categories) + 1, len(categories), dtype=np.float32)
    return bb.normalize(relax.op.take(constant(rows), numbers, 0, mode="clip"))


def array_feature_extractor(bb: Any, inputs: Sequence[Any], _attrs: Mapping[str, Any]) -> Any:
    """ArrayFeatureExtractor: some of the elements along the last axis; a vector becomes a row."""
    x, shape = inputs[0], shape_of(inputs[0])
    if len(shape) == 1:
        x = bb.normalize(relax.op.reshape(x, (1, shape[0])))
    axis = max(len(shape), 2) - 1
    known = constant_value(inputs[1])
    if known is None:
        places = bb.normalize(relax.op.reshape(inputs[1], (prod(shape_of(inputs[1])),)))
        return bb.normalize(relax.op.take(x, places, axis, mode="clip"))
    if known.size and not 0 <= known.min() <= known.max() < shape[-1]:
        raise ValueError(f"feature {known.max()} is asked for, there are {shape[-1]}")
    chosen = constant(known.reshape(-1), "int64")
    return bb.normalize(relax.op.take(x, chosen, axis, mode="fast"))
