"""Store what is narrower than a byte, or a float of 8 bits or bfloat16, as integers.

Kernels know none of these dtypes. Afterwards no tensor has one: float8, float4 and bfloat16 tensors
hold their codes as uint8 or uint16, integers of 4 and 2 bits are int8 or uint8. What only moves
elements is left as it is; Cast, QuantizeLinear and DequantizeLinear convert from and to float32.
The graph's inputs and outputs keep the bytes that ml_dtypes' arrays have.
"""

from __future__ import annotations

from collections.abc import Mapping, MutableSequence
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

from wasmgraph.errors import Obstacle, UnsupportedModelError
from wasmgraph.importer.network import Network, TensorType, attributes
from wasmgraph.importer.normalise.fold import fold_once
from wasmgraph.importer.normalise.narrow_writer import (
    INTEGERS,
    Writer,
    decoded_bytes,
    low_bits,
    port_dtype,
    stored_dtype,
)
from wasmgraph.metadata import NARROW_DTYPES

MOVERS = frozenset(
    [
        *("Identity", "Reshape", "Flatten", "Squeeze", "Unsqueeze", "Transpose", "Pad"),
        *("ConstantOfShape", "TensorScatter"),
    ]
)
"""All that ONNX has for these dtypes; bfloat16 has none of them any more."""


def store_narrow(network: Network) -> None:
    """Rewrite every narrow tensor and the nodes that read or write one.

    Runs after `widen_halves`, so that bfloat16 is left at inputs, outputs and BitCast only.

    Raises:
        UnsupportedModelError: nodes compute with narrow tensors otherwise; lists each.
    """
    narrow = {
        name: known.dtype.name
        for name, known in network.types.items()
        if known.dtype.name in NARROW_DTYPES
    }
    if narrow:
        _Storing(network, narrow).run()


class _Storing(Writer):
    """One walk through the network.

    Attributes:
        inner: Of inputs and outputs that are integers, the tensor inside.
        obstacles: What cannot be rewritten.
    """

    def __init__(self, network: Network, narrow: dict[str, str]) -> None:
        super().__init__(network, narrow)
        self.inner: dict[str, str] = {}
        self.obstacles: list[Obstacle] = []

    def run(self) -> None:
        network = self.network
        for name, dtype in list(self.narrow.items()):
            self.store(name, dtype)
        self.declare(network.inputs)
        self.declare(network.outputs)
        for node in network.nodes:
            for names in (node.input, node.output):
                for index, name in enumerate(names):
                    names[index] = self.inner.get(name, name)
        self.begin_inputs()
        for node in network.nodes:
            self.visit(node)
        self.end_outputs()
        network.nodes = self.nodes
        if self.obstacles:
            raise UnsupportedModelError(
                f"{network.name} computes with dtypes that can only be stored:",
                obstacles=self.obstacles,
            )
        fold_once(network)

    def store(self, name: str, dtype: str) -> None:
        """Change what is known of a tensor, and a weight itself."""
        network, stored = self.network, stored_dtype(dtype)
        network.types[name] = TensorType(stored, network.types[name].shape)
        weight = network.weights.get(name)
        if weight is not None:
            bits = weight.view(port_dtype(dtype))
            network.weights[name] = weight.astype(stored) if dtype in INTEGERS else bits

    def declare(self, values: MutableSequence[onnx.ValueInfoProto]) -> None:
        """Let inputs or outputs be bytes that have their dtype in name only."""
        network = self.network
        for index, value in enumerate(values):
            name, dtype = value.name, self.narrow.get(value.name)
            if dtype is None:
                continue
            network.declared[name] = dtype
            elem_type = helper.np_dtype_to_tensor_dtype(port_dtype(dtype))
            shape = network.types[name].shape
            values[index] = helper.make_tensor_value_info(name, elem_type, shape)
            if dtype in INTEGERS and name not in self.inner:
                inner = self.inner[name] = f"{name}/{dtype}"
                self.narrow[inner] = dtype
                network.types[inner] = network.types[name]
                self.set_type(name, port_dtype(dtype), name)
                if name in network.weights:
                    network.weights[inner] = network.weights[name]
                    network.weights[name] = low_bits(dtype)[network.weights[name].view(np.uint8)]

    def begin_inputs(self) -> None:
        """Give integers the sign that the bits above them leave out."""
        for name in self.network.input_names:
            if name in self.inner:
                self.place = name
                self.lookup(name, decoded_bytes(self.narrow[name]), self.inner[name])

    def end_outputs(self) -> None:
        """And take it away again."""
        known = {*self.network.input_names, *self.network.weights}
        for name in self.network.output_names:
            if name in self.inner and name not in known:
                self.place = name
                self.lookup(self.inner[name], low_bits(self.narrow[name]), name)

    def visit(self, node: onnx.NodeProto) -> None:
        self.place = node.name or node.output[0]
        handler = _HANDLERS.get(node.op_type) if not node.domain else None
        touched = [name for name in (*node.input, *node.output) if name in self.narrow]
        if not touched:
            self.nodes.append(node)
        elif handler is not None and (why := self.why_not(node)):
            self.obstacles.append(Obstacle(self.place, node.op_type, why))
        elif handler is not None:
            handler(self, node)
        elif not node.domain and node.op_type in MOVERS:
            _store_attributes(node)
            self.nodes.append(node)
        else:
            reason = f"elements of {self.narrow[touched[0]]} can only be moved and converted"
            self.obstacles.append(Obstacle(self.place, node.op_type, reason))

    def why_not(self, node: onnx.NodeProto) -> str | None:
        """The reason why scales cannot be spread over what a node converts, if there is one."""
        if "Linear" not in node.op_type:
            return None
        types = [self.network.types.get(name) for name in (*node.input, *node.output) if name]
        shapes = [known.shape for known in types if known is not None and known.shape is not None]
        if len(shapes) < len(types):
            return "its shapes depend on values that are computed at run time"
        shape, scales = shapes[:2]
        block, axis = _block_and_axis(attributes(node), len(shape))
        if not block and scales in ((), (1,)):
            return None
        expected: list[int] = [shape[axis]] if shape else []
        if block > 0 and shape and shape[axis] % block == 0:
            expected = [*shape[:axis], shape[axis] // block, *shape[axis + 1 :]]
        elif block or not shape:
            return f"blocks of {block} do not fit axis {axis} of {list(shape)}"
        if list(scales) != expected:
            return f"its scales are {list(scales)}, not {expected}"
        return None

    def cast(self, node: onnx.NodeProto) -> None:
        """Cast and CastLike: what the output should be, its type says."""
        source, target = node.input[0], node.output[0]
        to = self.narrow.get(target)
        is_weight = source in self.network.weights
        if self.dtype(target) == np.float32 and not is_weight and self.is_float(source):
            self.decode(source, target)
            return
        x = self.decoded(source)
        if to is None:
            self.add("Cast", [x], target, to=helper.np_dtype_to_tensor_dtype(self.dtype(target)))
        elif to in INTEGERS:
            self.wrap(x, to, target)
        else:
            self.encode(x, target, attributes(node))

    def is_float(self, name: str) -> bool:
        """Whether a tensor is a narrow float."""
        return name in self.narrow and self.narrow[name] not in INTEGERS

    def wrap(self, x: str, dtype: str, target: str) -> None:
        """Keep the low bits of a number that is rounded towards zero."""
        if self.dtype(x).kind == "f":
            x = self.converted(x, np.int32)
        x = self.converted(x, np.uint8)
        self.lookup(x, decoded_bytes(dtype), target)

    def bit_cast(self, node: onnx.NodeProto) -> None:
        """Between dtypes of as many bits, which lie in the lowest of a byte."""
        x, target = node.input[0], node.output[0]
        dtype, to = self.narrow.get(x), self.narrow.get(target)
        if dtype in INTEGERS:
            bits = self.fresh("bits")
            self.set_type(bits, np.uint8, x)
            self.lookup(x, low_bits(dtype), bits)
            x = bits
        if to in INTEGERS:
            self.lookup(x, decoded_bytes(to), target)
        else:
            elem_type = helper.np_dtype_to_tensor_dtype(self.dtype(target))
            same = self.dtype(x) == self.dtype(target)
            op, attrs = ("Identity", {}) if same else ("BitCast", {"to": elem_type})
            self.add(op, [x], target, **attrs)

    def decode_first(self, node: onnx.NodeProto) -> None:
        """Operators that look at numbers of any dtype."""
        node.input[0] = self.decoded(node.input[0])
        self.nodes.append(node)

    def quantize(self, node: onnx.NodeProto) -> None:
        x, scale, *zeros = node.input
        scale = self.decoded(scale)
        target, attrs = node.output[0], dict(attributes(node))
        to = self.narrow.get(target)
        attrs.pop("precision", None)
        if to is None:
            self.add("QuantizeLinear", [x, scale, *zeros], target, **attrs)
        elif to in INTEGERS:
            self.quantize_integers(node, scale, attrs)
        else:
            x, split = self.split(self.as_single(x), scale, attrs)
            spread = self.spread(self.as_single(scale), x, attrs)
            ratio = self.inner_of("Div", [x, spread], np.float32, split)
            # Of 8 bits there is only the zero point 0, which would take the sign of a zero away.
            if to.startswith("float4") and zeros and zeros[0]:
                zero = self.spread(self.decoded(zeros[0]), ratio, attrs)
                ratio = self.inner_of("Add", [ratio, zero], np.float32, split)
            self.encode(self.reshaped(ratio, self.shape(target)), target, attrs)

    def quantize_integers(self, node: onnx.NodeProto, scale: str, attrs: dict[str, Any]) -> None:
        """To int8 or uint8, and no further than the narrow dtype goes."""
        target, shape = node.output[0], self.shape(node.output[0])
        dtype = self.narrow[target]
        stored = stored_dtype(dtype)
        attrs.pop("output_dtype", None)
        attrs.pop("saturate", None)
        zero = node.input[2] if len(node.input) > 2 and node.input[2] else ""
        if not zero:
            zero = self.weight("zero", np.zeros(self.shape(scale), stored))
        wide = self.inner_of("QuantizeLinear", [node.input[0], scale, zero], stored, shape, **attrs)
        span = decoded_bytes(dtype)
        clipped = np.arange(256).astype(np.uint8).view(stored).clip(span.min(), span.max())
        self.lookup(wide, clipped, target)

    def dequantize(self, node: onnx.NodeProto) -> None:
        x, scale, *zeros = node.input
        target, attrs = node.output[0], dict(attributes(node))
        dtype = self.narrow.get(x)
        scale = self.decoded(scale)
        if dtype is None or dtype in INTEGERS:
            self.add("DequantizeLinear", [x, scale, *zeros], target, **attrs)
            return
        x, split = self.split(self.decoded(x), scale, attrs)
        product = self.inner_of("Mul", [x, self.spread(scale, x, attrs)], np.float32, split)
        self.add("Reshape", [product, self.extents(self.shape(target))], target)

    def split(self, x: str, scale: str, attrs: dict[str, Any]) -> tuple[str, tuple[int, ...]]:
        """x with the blocks that share a scale on an axis of their own, and its shape."""
        shape = self.shape(x)
        block, axis = _block_and_axis(attrs, len(shape))
        if not block:
            return x, shape
        split = (*shape[:axis], self.shape(scale)[axis], block, *shape[axis + 1 :])
        return self.reshaped(x, split), split

    def spread(self, vector: str, x: str, attrs: dict[str, Any]) -> str:
        """Scales or zero points with the axes to meet x, which `split` gave."""
        shape, given = self.shape(x), self.shape(vector)
        block, axis = _block_and_axis(attrs, len(shape) - bool(attrs.get("block_size", 0)))
        if block:
            return self.reshaped(vector, (*given[: axis + 1], 1, *given[axis + 1 :]))
        if given in ((), (1,)):
            return self.reshaped(vector, ())
        return self.reshaped(vector, [given[0] if a == axis else 1 for a in range(len(shape))])


_HANDLERS = {
    "Cast": _Storing.cast,
    "CastLike": _Storing.cast,
    "BitCast": _Storing.bit_cast,
    "IsInf": _Storing.decode_first,
    "IsNaN": _Storing.decode_first,
    "QuantizeLinear": _Storing.quantize,
    "DequantizeLinear": _Storing.dequantize,
}


def _block_and_axis(attrs: Mapping[str, Any], rank: int) -> tuple[int, int]:
    """How many elements share a scale (0: all, or all of an index), and along which axis."""
    return int(attrs.get("block_size", 0)), int(attrs.get("axis", 1)) % max(1, rank)


def _store_attributes(node: onnx.NodeProto) -> None:
    """The value that ConstantOfShape fills with."""
    for attribute in node.attribute:
        if not attribute.HasField("t"):
            continue
        value = numpy_helper.to_array(attribute.t)
        dtype = value.dtype.name
        if dtype in NARROW_DTYPES:
            stored = (
                value.view(np.uint8) if dtype not in INTEGERS else value.astype(INTEGERS[dtype])
            )
            attribute.t.CopyFrom(numpy_helper.from_array(stored, attribute.t.name))
