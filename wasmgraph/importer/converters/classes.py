"""What the converters of ai.onnx.ml's classifiers, regressors and encoders have in common."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import TensorProto, numpy_helper
from tvm import relax

from wasmgraph.importer.converters.static import as_dtype, constant, dtype_of, shape_of

TRANSFORMS = ("NONE", "SOFTMAX", "LOGISTIC", "SOFTMAX_ZERO", "PROBIT")
"""Post transformations, in the order of their numbers."""


def transform_number(attrs: Mapping[str, Any]) -> int:
    """The number of the node's post transformation.

    Raises:
        ValueError: there is none of that name.
    """
    return TRANSFORMS.index(attrs.get("post_transform", b"NONE").decode())


def class_labels(attrs: Mapping[str, Any], *names: str) -> NDArray[np.int64]:
    """The labels of the classes, from whichever of these attributes there is.

    Raises:
        NotImplementedError: they are strings.
        ValueError: there are none.
    """
    if attrs.get("classlabels_strings"):
        raise NotImplementedError(
            "classes labelled by strings are not supported; train on integer labels"
        )
    for name in names:
        if attrs.get(name):
            return np.array(attrs[name], np.int64)
    raise ValueError("the classes have no labels")


def rows_of(bb: Any, x: Any, keep_double: bool = False) -> Any:
    """The input as (rows, features) of float32, or of float64 if that may be kept."""
    if not (keep_double and dtype_of(x) == "float64"):
        x = as_dtype(bb, x, "float32")
    shape = shape_of(x)
    if len(shape) == 1:
        return bb.normalize(relax.op.reshape(x, (1, shape[0])))
    if len(shape) != 2:
        raise NotImplementedError(f"inputs of {len(shape)} axes are not supported")
    return x


def looked_up(bb: Any, values: NDArray[Any], numbers: Any) -> Any:
    """The elements of a constant vector by a tensor of places."""
    return bb.normalize(relax.op.take(constant(values), numbers, 0, mode="clip"))


def numbers_of(attrs: Mapping[str, Any], name: str, dtype: str) -> NDArray[Any]:
    """A list of numbers, which may also be given as a tensor in another attribute.

    Args:
        attrs: The node's.
        name: The attribute; its tensor is called `name_as_tensor`.
        dtype: What is made of the numbers.
    """
    tensor = attrs.get(f"{name}_as_tensor")
    if isinstance(tensor, TensorProto):
        return np.asarray(numpy_helper.to_array(tensor), dtype).reshape(-1)
    return vector(attrs.get(name, ()), dtype)


def vector(values: Sequence[Any] | TensorProto, dtype: str) -> NDArray[Any]:
    """An attribute that is a list or a tensor as a vector."""
    if isinstance(values, TensorProto):
        values = numpy_helper.to_array(values)
    return np.array(values, dtype).reshape(-1)
