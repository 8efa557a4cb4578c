"""What a pass writes with that puts several nodes in the place of one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import onnx
from numpy.typing import ArrayLike, NDArray
from onnx import helper

from wasmgraph.errors import Obstacle, UnsupportedModelError
from wasmgraph.importer.network import Network, TensorType, attributes
from wasmgraph.importer.normalise.fold import fold_constants


class NodeWriter:
    """The nodes that one node becomes; those that compute its outputs bear its name.

    Attributes:
        network: It gets the constants.
        node: What is replaced.
        nodes: What replaces it, so far.
    """

    def __init__(self, network: Network, node: onnx.NodeProto, before: list[onnx.NodeProto]):
        """
        Args:
            network: Where the node is.
            node: What is replaced.
            before: What all the nodes before it became.
        """
        self.network = network
        self.node = node
        self.nodes: list[onnx.NodeProto] = []
        self._before = before
        self._given: dict[str, str] = {}
        self._attributes = attributes(node)

    def input(self, index: int) -> str:
        """An input's name, "" where it is left out."""
        return self.node.input[index] if index < len(self.node.input) else ""

    def wants(self, index: int) -> bool:
        """Whether the node has this output."""
        return index < len(self.node.output) and bool(self.node.output[index])

    def attribute(self, name: str, default: Any = None) -> Any:
        """An attribute's value; text as str."""
        value = self._attributes.get(name, default)
        return value.decode(errors="replace") if isinstance(value, bytes) else value

    def add(self, op: str, inputs: Sequence[str], **attrs: Any) -> str:
        """A node with one output, whose name is the answer."""
        return self.add_many(op, inputs, 1, **attrs)[0]

    def add_many(self, op: str, inputs: Sequence[str], count: int, **attrs: Any) -> list[str]:
        """A node with `count` outputs, whose names are the answer."""
        place = f"{self.node.name}/{len(self.nodes)}/{op}"
        names = list(inputs)
        while names and not names[-1]:
            names.pop()
        outputs = [place if index == 0 else f"{place}:{index}" for index in range(count)]
        self.nodes.append(helper.make_node(op, names, outputs, name=place, **attrs))
        return outputs

    def constant(self, values: ArrayLike, dtype: Any) -> str:
        """A weight of this dtype; the answer is its name."""
        name = f"{self.node.name}/constant{len(self.network.weights)}"
        self.network.weights[name] = np.array(values, dtype)
        return name

    def ints(self, *values: int) -> str:
        """A vector of integers, such as a shape or axes."""
        return self.constant(values, np.int64)

    def number(self, value: float, like: str) -> str:
        """A scalar of the same dtype as another tensor."""
        return self.constant(value, self.dtype(like))

    def give(self, index: int, name: str) -> None:
        """This tensor is the node's output; nothing happens where it has no such output."""
        if self.wants(index):
            self._given[self.node.output[index]] = name

    def finish(self) -> None:
        """Call what was given by the names that the readers of the outputs know."""
        makers = {name: node for node in self.nodes for name in node.output}
        names: dict[str, str] = {}
        for wanted, name in self._given.items():
            if name in makers and name not in names:
                names[name] = wanted
                makers[name].name = self.node.name
            else:  # an input of the node, or an output of it already
                self.add("Identity", [name])
                self.nodes[-1].output[0] = wanted
        for node in self.nodes:
            for listed in (node.input, node.output):
                for place, name in enumerate(listed):
                    listed[place] = names.get(name, name)

    def value(self, name: str) -> NDArray[Any]:
        """The elements of an input of the node that is a constant.

        Raises:
            NotImplementedError: it is none.
        """
        if name not in self.network.weights:
            self._infer()
        if name not in self.network.weights:
            raise NotImplementedError(f"{name!r} has to be a constant")
        return self.network.weights[name]

    def dtype(self, name: str) -> np.dtype[Any]:
        """The dtype of an input of the node, or of what was written."""
        return self._type(name).dtype

    def shape(self, name: str) -> tuple[int, ...]:
        """The same of its shape.

        Raises:
            NotImplementedError: it is not known.
        """
        shape = self._type(name).shape
        if shape is None:
            raise NotImplementedError(f"the shape of {name!r} is not known")
        return shape

    def _type(self, name: str) -> TensorType:
        weight = self.network.weights.get(name)
        if weight is not None:
            return TensorType(weight.dtype, weight.shape)
        known = self.network.types.get(name)
        if known is None or known.shape is None:
            # It may follow from what was written since the types were inferred.
            self._infer()
            known = self.network.types.get(name)
        if known is None:
            raise NotImplementedError(f"the dtype of {name!r} is not known")
        return known

    def _infer(self) -> None:
        """Fold and infer all that comes before, and what was written here."""
        network = self.network
        nodes, outputs = network.nodes, network.outputs
        network.nodes, network.outputs = [*self._before, *self.nodes], []
        fold_constants(network)
        left = {id(node) for node in network.nodes}
        for several in (self._before, self.nodes):
            several[:] = [node for node in several if id(node) in left]
        network.nodes, network.outputs = nodes, outputs


Expansion = Callable[[NodeWriter], None]


def expand_nodes(network: Network, choose: Callable[[onnx.NodeProto], Expansion | None]) -> None:
    """Replace every node that there is an expansion for.

    Args:
        network: Changed in place.
        choose: What writes the node, or None where it stays.

    Raises:
        UnsupportedModelError: expansions refuse nodes with NotImplementedError, or find them
            malformed; lists all of them.
    """
    found: list[onnx.NodeProto] = []
    obstacles = []
    for node in network.nodes:
        expand = choose(node)
        if expand is None:
            found.append(node)
            continue
        writer = NodeWriter(network, node, found)
        try:
            expand(writer)
        except (ArithmeticError, LookupError, NotImplementedError, TypeError, ValueError) as error:
            reason = str(error)
            if not isinstance(error, NotImplementedError):
                reason = f"its attributes or operands make no sense ({reason})"
            obstacles.append(Obstacle(node.name, f"{node.domain}.{node.op_type}", reason))
            found.append(node)
        else:
            writer.finish()
            found += writer.nodes
    if obstacles:
        raise UnsupportedModelError(f"{network.name} cannot be compiled:", obstacles=obstacles)
    network.nodes = found
