"""Random small models over a batch: many treat samples alone, many mix them.

Every node is tried on arrays of two samples as the model grows, and left out where it does not fit.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import onnx
from hypothesis import strategies as st
from onnx import helper
from onnx.reference import ReferenceEvaluator

from tests.onnx_models import Array, make_model, node

Draw = Callable[[st.SearchStrategy[Any]], Any]


class Builder:
    """A model as far as it is made, and its tensors for two samples."""

    def __init__(self, draw: Draw) -> None:
        self.draw = draw
        self.nodes: list[onnx.NodeProto] = []
        self.weights: dict[str, Array] = {}
        self.shape = [draw(st.integers(1, 4)) for _ in range(draw(st.integers(1, 3)))]
        self.axis = draw(st.sampled_from([0, 0, 0, 1]))
        self.rng = np.random.default_rng(draw(st.integers(0, 99)))
        self.values = {"x": np.asarray(self.rng.normal(size=self.given(2)), np.float32)}

    def given(self, samples: int) -> list[int]:
        shape: list[int] = list(self.shape)
        shape.insert(self.axis, samples)
        return shape

    def pick(self) -> str:
        """A tensor of floats; the later ones are likelier."""
        floats = [name for name, value in self.values.items() if value.dtype == np.float32]
        return self.draw(st.sampled_from([*floats, floats[-1], floats[-1]]))

    def image(self) -> str:
        """A tensor of floats with more axes than samples and channels, as onnxruntime wants it."""
        name = self.pick()
        if self.values[name].ndim < 3:
            raise ValueError("no image")
        return name

    def integer(self, low: int, high: int) -> int:
        return self.draw(st.integers(low, high))

    def weight(self, values: Any, dtype: Any = np.float32) -> str:
        name = f"w{len(self.weights)}"
        self.weights[name] = np.asarray(values, dtype)
        return name

    def floats(self, *shape: int) -> str:
        return self.weight(self.rng.normal(size=shape))

    def ints(self, *values: int) -> str:
        return self.weight(values, np.int64)

    def add(self, op: str, inputs: Sequence[str], outputs: int = 1, **attrs: Any) -> str:
        """Add a node; raises what the reference raises where it does not fit."""
        names = [f"t{len(self.nodes)}_{i}" for i in range(outputs)]
        made = node(op, inputs, names, name=names[0], **attrs)
        feeds = {n: self.values[n] for n in inputs if n in self.values}
        graph = helper.make_graph(
            [made],
            "one",
            [helper.make_tensor_value_info(n, _type(v), v.shape) for n, v in feeds.items()],
            [onnx.ValueInfoProto(name=n) for n in names],
            [onnx.numpy_helper.from_array(self.weights[n], n) for n in inputs if n in self.weights],
        )
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
        with np.errstate(all="ignore"):
            results = ReferenceEvaluator(model).run(None, feeds)
        if any(np.size(r) == 0 or np.size(r) > 4000 for r in results):
            raise ValueError("empty or large")
        self.nodes.append(made)
        self.values.update(zip(names, map(np.asarray, results), strict=True))
        return names[0]

    def model(self) -> onnx.ModelProto:
        given: list[int | str] = [*self.shape]
        given.insert(self.axis, "N")
        read = {name for made in self.nodes for name in made.input}
        ends = [n for made in self.nodes for n in made.output if n not in read]
        ports = {name: (self.values[name].dtype.name, None) for name in ends}
        return make_model(self.nodes, {"x": given}, ports, self.weights)


def _type(value: Array) -> int:
    return helper.np_dtype_to_tensor_dtype(value.dtype)


def unary(b: Builder) -> None:
    b.add(b.draw(st.sampled_from(["Relu", "Tanh", "Neg", "Sigmoid", "Identity"])), [b.pick()])


def binary(b: Builder) -> None:
    op = b.draw(st.sampled_from(["Add", "Mul", "Sub", "Max"]))
    b.add(op, [b.pick(), b.pick()])


def with_constant(b: Builder) -> None:
    x = b.pick()
    shape = [d if b.integer(0, 2) else 1 for d in b.values[x].shape]
    b.add("Add", [x, b.floats(*shape[b.integer(0, len(shape)) :])])


def transpose(b: Builder) -> None:
    x = b.pick()
    b.add("Transpose", [x], perm=b.draw(st.permutations(range(b.values[x].ndim))))


def reduce(b: Builder) -> None:
    x, op = b.pick(), b.draw(st.sampled_from(["ReduceSum", "ReduceMean", "ReduceMax"]))
    axes = b.draw(st.sets(st.integers(0, b.values[x].ndim - 1), max_size=2))
    inputs = [x, b.ints(*axes)] if axes else [x]
    b.add(op, inputs, keepdims=b.integer(0, 1))


def along(b: Builder) -> None:
    x, op = b.pick(), b.draw(st.sampled_from(["Softmax", "LogSoftmax", "ArgMax", "Hardmax"]))
    b.add(op, [x], axis=b.integer(-1, b.values[x].ndim - 1))


def cumulative(b: Builder) -> None:
    x = b.pick()
    b.add("CumSum", [x, b.weight(b.integer(0, b.values[x].ndim - 1), np.int64)])


def largest(b: Builder) -> None:
    x = b.pick()
    b.add("TopK", [x, b.ints(1)], 2, axis=b.integer(0, b.values[x].ndim - 1))


def reshape(b: Builder) -> None:
    x = b.pick()
    shape = b.values[x].shape
    targets = [[0, -1], [-1, shape[-1]], [-1], [shape[0] * shape[-1], -1], [1, *shape], [-1, 2]]
    targets += [[0, 0, -1], [*shape[:-1], -1], [*shape[1:], -1], [2, -1], [-1, *shape[1:]]]
    b.add("Reshape", [x, b.ints(*b.draw(st.sampled_from(targets)))])


def reshape_by_shape(b: Builder) -> None:
    """To a shape computed from the tensor's own, the way exporters do."""
    x = b.pick()
    axis = b.integer(0, b.values[x].ndim - 1)
    extent = b.add("Gather", [b.add("Shape", [x]), b.ints(axis)])
    op = b.draw(st.sampled_from(["Identity", "Mul", "Div", "Add", "Mod"]))
    if op != "Identity":
        extent = b.add(op, [extent, b.ints(b.integer(1, 3))])
    order = b.draw(st.permutations([extent, b.ints(-1)]))
    b.add("Reshape", [x, b.add("Concat", order, axis=0)])


def flatten(b: Builder) -> None:
    x = b.pick()
    b.add("Flatten", [x], axis=b.integer(0, b.values[x].ndim))


def join(b: Builder) -> None:
    x, y = b.pick(), b.pick()
    b.add("Concat", [x, y], axis=b.integer(0, b.values[x].ndim - 1))


def slice_(b: Builder) -> None:
    x = b.pick()
    axis, step = b.integer(0, b.values[x].ndim - 1), b.draw(st.sampled_from([1, 1, 2, -1]))
    start, end = b.integer(-2, 1), b.draw(st.sampled_from([1, 2, -1, 10**9, 2**63 - 1]))
    b.add("Slice", [x, *map(b.ints, (start, end, axis, step))])


def slice_to_shape(b: Builder) -> None:
    """To the end of an axis, which is computed."""
    x, other = b.pick(), b.pick()
    axis, end = b.integer(0, b.values[x].ndim - 1), b.integer(0, b.values[other].ndim - 1)
    to = b.add("Slice", [b.add("Shape", [other]), b.ints(end), b.ints(end + 1)])
    b.add("Slice", [x, b.ints(0), to, b.ints(axis)])


def gather(b: Builder) -> None:
    x = b.pick()
    axis = b.integer(0, b.values[x].ndim - 1)
    indices = b.weight(b.draw(st.sampled_from([0, [0], [0, -1], [[0], [1]]])), np.int64)
    b.add("Gather", [x, indices], axis=axis)


def look_up(b: Builder) -> None:
    """In a constant, with indices that depend on data."""
    x = b.pick()
    index = b.add("ArgMax", [x], axis=b.integer(0, b.values[x].ndim - 1), keepdims=0)
    b.add("Gather", [b.floats(64, 64), index], axis=b.integer(0, 1))


def unsqueeze(b: Builder) -> None:
    x = b.pick()
    b.add("Unsqueeze", [x, b.ints(b.integer(0, b.values[x].ndim))])


def squeeze(b: Builder) -> None:
    x = b.pick()
    ones = [i for i, d in enumerate(b.values[x].shape) if d == 1]
    b.add("Squeeze", [x, b.ints(b.draw(st.sampled_from(ones)))])


def product(b: Builder) -> None:
    x = b.pick()
    y = b.floats(b.values[x].shape[-1], 3) if b.integer(0, 1) else b.pick()
    b.add("MatMul", b.draw(st.sampled_from([[x, y], [y, x]])))


def with_itself(b: Builder) -> None:
    """As attention does."""
    x = b.pick()
    order = [*range(b.values[x].ndim)]
    order[-2:] = order[-2:][::-1]
    b.add("MatMul", [x, b.add("Transpose", [x], perm=order)])


def gemm(b: Builder) -> None:
    x, transposed = b.pick(), b.integer(0, 1)
    inner = b.values[x].shape[1 - transposed]
    inputs = [x, b.floats(inner, 3)]
    if b.integer(0, 1):
        inputs.append(b.floats(*b.draw(st.sampled_from([(3,), (1,), (2, 3), (2, 1)]))))
    b.add("Gemm", inputs, transA=transposed)


def einsum(b: Builder) -> None:
    x = b.pick()
    equations = ["ab,ab->a", "ab,ab->b", "ab,ac->abc", "ab,cb->ac", "abc,abd->acd", "abc,dbc->ad"]
    b.add("Einsum", [x, x], equation=b.draw(st.sampled_from(equations)))


def expand(b: Builder) -> None:
    """A constant for every sample, such as a token or an initial state."""
    x, y = b.pick(), b.floats(*b.draw(st.sampled_from([(1, 1), (1, 2), (2, 1), (1,), (3,)])))
    shape = b.add("Slice", [b.add("Shape", [x]), b.ints(0), b.ints(b.integer(1, 2))])
    if b.integer(0, 1):
        shape = b.add("Concat", [shape, b.ints(b.integer(1, 2))], axis=0)
    b.add(b.draw(st.sampled_from(["Expand", "Tile"])), [y, shape])


def filled(b: Builder) -> None:
    x = b.pick()
    value = helper.make_tensor("value", onnx.TensorProto.FLOAT, [1], [2.5])
    b.add("ConstantOfShape", [b.add("Shape", [x])], value=value)


def repeat(b: Builder) -> None:
    x = b.pick()
    b.add("Tile", [x, b.ints(*(b.integer(1, 2) for _ in b.values[x].shape))])


def pad(b: Builder) -> None:
    x = b.pick()
    b.add("Pad", [x, b.ints(*(b.integer(0, 2) // 2 for _ in range(2 * b.values[x].ndim)))])


def split(b: Builder) -> None:
    x = b.pick()
    axis = b.integer(0, b.values[x].ndim - 1)
    b.add("Split", [x], 2, axis=axis, num_outputs=2)


def counted(b: Builder) -> None:
    """A value that depends on how many samples there are."""
    x = b.pick()
    extent = b.add("Gather", [b.add("Shape", [x]), b.ints(b.integer(0, b.values[x].ndim - 1))])
    b.add("Mul", [x, b.add("Cast", [extent], to=onnx.TensorProto.FLOAT)])


def chosen(b: Builder) -> None:
    x, y = b.pick(), b.pick()
    b.add("Where", [b.add("Greater", [x, b.weight(0.0)]), x, y])


def instance_norm(b: Builder) -> None:
    x = b.image()
    channels = b.values[x].shape[1]
    b.add("InstanceNormalization", [x, b.floats(channels), b.floats(channels)])


def layer_norm(b: Builder) -> None:
    x = b.pick()
    axis = b.integer(0, b.values[x].ndim - 1)
    b.add("LayerNormalization", [x, b.floats(*b.values[x].shape[axis:])], axis=axis)


def batch_norm(b: Builder) -> None:
    x = b.pick()
    channels = b.values[x].shape[1]
    weights = [b.floats(channels), b.floats(channels), b.floats(channels)]
    weights.append(b.weight(b.rng.random(channels) + 0.5))
    training = b.integer(0, 1)
    b.add("BatchNormalization", [x, *weights], 1 + 2 * training, training_mode=training)


def convolution(b: Builder) -> None:
    x = b.image()
    shape = b.values[x].shape
    weights = b.floats(2, shape[1], *[1] * (len(shape) - 2))
    b.add("Conv", [x, weights])


def global_pool(b: Builder) -> None:
    b.add("GlobalAveragePool", [b.image()])


def quantised(b: Builder) -> None:
    x = b.pick()
    if b.integer(0, 1):
        y = b.add("DynamicQuantizeLinear", [x], 3)
        b.add("DequantizeLinear", [y, y.replace("_0", "_1"), y.replace("_0", "_2")])
    else:
        scale, zero = b.weight(0.1), b.weight(3, np.uint8)
        b.add("DequantizeLinear", [b.add("QuantizeLinear", [x, scale, zero]), scale, zero])


def one_hot(b: Builder) -> None:
    x = b.pick()
    index = b.add("ArgMax", [x], axis=b.integer(0, b.values[x].ndim - 1), keepdims=0)
    values = b.weight([0.0, 1.0])
    b.add("OneHot", [index, b.weight(5, np.int64), values], axis=b.integer(-1, 1))


STEPS = (
    *(unary, binary, with_constant, transpose, reduce, along, cumulative, largest, reshape),
    *(reshape_by_shape, flatten, join, slice_, slice_to_shape, gather, look_up, unsqueeze),
    *(squeeze, product, with_itself, gemm, einsum, expand, filled, repeat, pad, split, counted),
    *(chosen, instance_norm, layer_norm, batch_norm, convolution, global_pool, quantised, one_hot),
)


@st.composite
def models(draw: Draw) -> tuple[onnx.ModelProto, Builder]:
    """A model with the open axis "N" in its input "x", and what built it."""
    builder = Builder(draw)
    for _ in range(draw(st.integers(1, 5))):
        step = draw(st.sampled_from(STEPS))
        kept = list(builder.nodes), dict(builder.values), dict(builder.weights)
        try:
            step(builder)
        except Exception:  # the reference's errors are of all kinds
            builder.nodes, builder.values, builder.weights = kept
    if not builder.nodes:
        unary(builder)
    return builder.model(), builder
