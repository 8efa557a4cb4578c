"""What is known of a tensor over batches of all sizes, and what a rule sees of a node.

A model is looked at with one sample and with `MANY`. The claim for a tensor that is `Spread` over
an axis: for every batch it is its samples' tensors, concatenated on that axis. A rule concludes it
for the outputs of a node from the claims for its inputs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from wasmgraph.importer.network import TensorType, attributes

MANY = 11
"""How many samples the larger batch has: a prime, so that few extents are multiples of it."""

Array = NDArray[Any]
Shape = tuple[int, ...]


class Mixed(Exception):  # noqa: N818 - caught by `separate`, becomes a sentence of the report
    """Why samples cannot be shown to be alone."""


@dataclass(frozen=True)
class Same:
    """It depends neither on the samples nor on how many there are."""


@dataclass(frozen=True)
class Lengths:
    """It depends on the number of samples alone, and every element of it does so affinely."""


@dataclass(frozen=True)
class Spread:
    """It is one part per sample, one after the other on `axis`."""

    axis: int


State = Same | Lengths | Spread
SAME = Same()
LENGTHS = Lengths()


@dataclass(frozen=True)
class Known:
    """What the folded network of one batch size tells.

    Attributes:
        types: Of all tensors that shape inference knows.
        values: Of all that are constants there.
    """

    types: Mapping[str, TensorType]
    values: Mapping[str, Array]

    def shape(self, name: str) -> Shape | None:
        """The shape of a tensor, if known."""
        known = self.types.get(name)
        return None if known is None else known.shape


@dataclass(frozen=True)
class NodeView:
    """A node, and what is known of its inputs.

    Attributes:
        node: As in the network before constants are folded.
        states: Of its inputs; None for one that is left out.
        one, many: The network with one sample, with `MANY`.
        opset: The version of its operator set.
    """

    node: onnx.NodeProto
    states: tuple[State | None, ...]
    one: Known
    many: Known
    opset: int

    @property
    def op(self) -> str:
        """The operator."""
        return str(self.node.op_type)

    def attribute(self, name: str, default: Any = None) -> Any:
        """An attribute's value."""
        return attributes(self.node).get(name, default)

    def state(self, i: int) -> State | None:
        """Of an input; None where it is left out."""
        return self.states[i] if i < len(self.states) else None

    def spread(self, i: int = 0) -> int:
        """The axis that input `i` is spread over.

        Raises:
            Mixed: it is not.
        """
        state = self.state(i)
        if not isinstance(state, Spread):
            raise Mixed(f"input {i} is not a batch of samples, another input is")
        return state.axis

    def rest_is_same(self, *but: int) -> None:
        """Require all other inputs not to depend on the batch.

        Raises:
            Mixed: one does.
        """
        for i, state in enumerate(self.states):
            if i not in but and state not in (None, SAME):
                raise Mixed(f"input {i} depends on the batch")

    def shape(self, i: int) -> Shape:
        """Of an input, with one sample."""
        return _known(self.one.shape(self.node.input[i]))

    def rank(self, i: int = 0) -> int:
        """Of an input."""
        return len(self.shape(i))

    def result(self, i: int = 0) -> tuple[Shape, Shape]:
        """The shape of an output, with one sample and with many."""
        name = self.node.output[i]
        return _known(self.one.shape(name)), _known(self.many.shape(name))

    def value(self, i: int) -> Array | None:
        """A constant that is the same for all batches; None where the input is left out.

        Raises:
            Mixed: it is no such constant.
        """
        if self.state(i) is None:
            return None
        name = self.node.input[i]
        if self.state(i) != SAME or name not in self.one.values:
            raise Mixed(f"input {i} is not known before a run")
        return self.one.values[name]

    def lengths(self, i: int) -> tuple[Array, Array]:
        """The values of an input of `Lengths` or a constant, with one sample and with many.

        Raises:
            Mixed: they are not known.
        """
        name = self.node.input[i]
        if name not in self.one.values or name not in self.many.values:
            raise Mixed(f"input {i} is not known before a run")
        one, many = self.one.values[name], self.many.values[name]
        if one.shape != many.shape or isinstance(self.state(i), Spread):
            raise Mixed(f"input {i} is not of one length for all batches")
        return one, many

    def axes(self, i: int, default: Sequence[int] | None = None) -> list[int]:
        """Axes given by the attribute `axes` or else by input `i`, as they are written."""
        given = self.attribute("axes")
        if given is None:
            given = self.value(i)
        if given is None:
            given = default
        if given is None:
            raise Mixed("its axes are not given")
        return [int(axis) for axis in np.asarray(given).reshape(-1)]


def normal_axis(axis: int, rank: int) -> int:
    """An axis counted from the front.

    Raises:
        Mixed: there is no such axis.
    """
    if not -rank <= axis < rank:
        raise Mixed(f"there is no axis {axis}")
    return axis % rank


def differing_axis(one: Shape, many: Shape) -> int | None:
    """The only axis on which many samples have `MANY` times the extent of one; None: they agree.

    Raises:
        Mixed: they differ in another way.
    """
    if len(one) == len(many):
        differing = [i for i, (a, b) in enumerate(zip(one, many, strict=True)) if a != b]
        if not differing:
            return None
        if len(differing) == 1 and many[differing[0]] == MANY * one[differing[0]]:
            return differing[0]
    raise Mixed(f"its shape is {list(one)} for one sample and {list(many)} for {MANY}")


def _known(shape: Shape | None) -> Shape:
    if shape is None:
        raise Mixed("a shape is not known before a run")
    return shape
