"""What the pass `narrow` writes: nodes that convert between narrow dtypes and those of kernels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper

from wasmgraph.importer.network import Network, TensorType
from wasmgraph.importer.quantisation import DOMAIN

INTEGERS = {"int4": np.int8, "uint4": np.uint8, "int2": np.int8, "uint2": np.uint8}
"""What integers are stored as."""


def stored_dtype(dtype: str) -> np.dtype[Any]:
    """What a narrow tensor is inside."""
    return np.dtype(INTEGERS.get(dtype, port_dtype(dtype)))


def port_dtype(dtype: str) -> np.dtype[Any]:
    """What the bytes of an input or output of the graph are taken for."""
    return np.dtype(np.uint16 if dtype == "bfloat16" else np.uint8)


def low_bits(dtype: str) -> NDArray[np.uint8]:
    """Each byte without the bits above the element."""
    bits = int(dtype[-1]) if dtype in INTEGERS else 4 if dtype.startswith("float4") else 8
    return (np.arange(256) & ((1 << bits) - 1)).astype(np.uint8)


def decoded_bytes(dtype: str) -> NDArray[Any]:
    """What each byte means, as float32, int8 or uint8."""
    return low_bits(dtype).view(dtype).astype(INTEGERS.get(dtype, np.float32))


class Writer:
    """New nodes, one rewritten node after the other.

    Attributes:
        network: Gets the new tensors' types and constants.
        narrow: The dtype that every narrow tensor has in the model.
        nodes: The new ones so far.
        place: The node that is rewritten, which names what is new.
    """

    def __init__(self, network: Network, narrow: dict[str, str]) -> None:
        self.network = network
        self.narrow = narrow
        self.nodes: list[onnx.NodeProto] = []
        self.place = ""
        self.count = 0

    def decoded(self, name: str) -> str:
        """The tensor as numbers to compute with: float32, or integers of a byte."""
        dtype = self.narrow.get(name)
        if dtype is None or dtype in INTEGERS:
            return name
        known = self.network.weights.get(name)
        if known is not None:
            return self.weight("decoded", known.view(dtype).astype(np.float32))
        target = self.fresh("decoded")
        self.set_type(target, np.float32, name)
        self.decode(name, target)
        return target

    def decode(self, name: str, target: str) -> None:
        """Write a narrow float, which is no weight, as float32."""
        dtype = self.narrow[name]
        if dtype == "bfloat16":
            self.add("FromBfloat16", [name], target, domain=DOMAIN)
        else:
            self.lookup(name, decoded_bytes(dtype), target)

    def encode(self, x: str, target: str, attrs: Mapping[str, Any]) -> None:
        """Round to the dtype of `target`, as the attributes of Cast say."""
        if self.dtype(x) != np.float64 or self.narrow[target] == "float8_e8m0fnu":
            x = self.as_single(x)
        kept = {name: attrs[name] for name in ("saturate", "round_mode") if name in attrs}
        self.add("Encode", [x], target, domain=DOMAIN, dtype=self.narrow[target], **kept)

    def lookup(self, x: str, table: NDArray[Any], target: str) -> None:
        """What a table has for every byte."""
        if target not in self.network.types:
            self.set_type(target, table.dtype, x)
        self.add("Lookup", [x, self.weight("table", table)], target, domain=DOMAIN)

    def as_single(self, x: str) -> str:
        """The tensor as float32."""
        return x if self.dtype(x) == np.float32 else self.converted(x, np.float32)

    def converted(self, x: str, dtype: Any) -> str:
        """The tensor cast."""
        to = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
        target = self.fresh("Cast")
        self.set_type(target, dtype, x)
        self.add("Cast", [x], target, to=to)
        return target

    def reshaped(self, x: str, shape: Sequence[int]) -> str:
        """The same elements in another shape."""
        if self.shape(x) == tuple(shape):
            return x
        known = self.network.weights.get(x)
        if known is not None:
            return self.weight("reshaped", known.reshape(shape))
        return self.inner_of("Reshape", [x, self.extents(shape)], self.dtype(x), shape)

    def extents(self, shape: Sequence[int]) -> str:
        """A shape as Reshape takes it."""
        return self.weight("shape", np.array(shape, np.int64))

    def inner_of(
        self, op: str, inputs: Sequence[str], dtype: Any, shape: Sequence[int], **attrs: Any
    ) -> str:
        """The output of a new node, which only new nodes read."""
        target = self.fresh(op)
        self.network.types[target] = TensorType(np.dtype(dtype), tuple(shape))
        self.add(op, inputs, target, **attrs)
        return target

    def add(self, op: str, inputs: Sequence[str], target: str, **attrs: Any) -> None:
        """A new node in the place of the one that is rewritten."""
        place = f"{self.place}/{len(self.nodes)}/{op}"
        self.nodes.append(helper.make_node(op, inputs, [target], name=place, **attrs))

    def weight(self, what: str, array: NDArray[Any]) -> str:
        """The name of a new constant."""
        name = self.fresh(what)
        self.network.weights[name] = array
        self.network.types[name] = TensorType(array.dtype, array.shape)
        return name

    def fresh(self, what: str) -> str:
        """A name for a new tensor."""
        self.count += 1
        return f"{self.place}/{self.count}/{what}"

    def set_type(self, name: str, dtype: Any, like: str) -> None:
        """Say that a tensor has this dtype, and the shape of another one."""
        self.network.types[name] = TensorType(np.dtype(dtype), self.network.types[like].shape)

    def dtype(self, name: str) -> np.dtype[Any]:
        """A tensor's dtype, as it is stored."""
        return self.network.types[name].dtype

    def shape(self, name: str) -> tuple[int, ...]:
        """A tensor's shape, which must be known."""
        shape = self.network.types[name].shape
        assert shape is not None, name
        return shape
