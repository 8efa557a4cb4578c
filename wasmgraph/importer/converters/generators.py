"""Operators that make a tensor out of its shape or a few numbers alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from onnx import helper
from tvm import relax

from wasmgraph.importer.converters.static import dtype_of, shape_of


def eye_like(_bb: Any, inputs: Sequence[Any], attrs: Mapping[str, Any]) -> Any:
    """EyeLike; TVM refuses a dtype that is not the input's."""
    shape = shape_of(inputs[0])
    dtype = dtype_of(inputs[0])
    if "dtype" in attrs:
        dtype = helper.tensor_dtype_to_np_dtype(attrs["dtype"]).name
    return relax.op.eye(shape[0], shape[-1], int(attrs.get("k", 0)), dtype)


def only_folded(_bb: Any, _inputs: Sequence[Any], _attrs: Mapping[str, Any]) -> Any:
    """Operators that constant folding computes, with onnx's reference evaluator."""
    raise NotImplementedError("its operands are computed at run time; they must be constants")
