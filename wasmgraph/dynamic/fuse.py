"""Makes few nodes of many: products with what follows them, chains of element-wise operators.

Only for graphs that may use 128-bit vectors. What a node becomes stands in the executor's `fast`
(toolchain/executor/src/dynamic/fast).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from wasmgraph.assembler import Function
from wasmgraph.dynamic.chains import ELEMENTWISE, Argument, Call, ChainBuilder, number_of
from wasmgraph.dynamic.chains import words_as_floats as as_floats
from wasmgraph.dynamic.constants import Constants
from wasmgraph.dynamic.kernels.decoding import BITS, decoding
from wasmgraph.dynamic.kernels.panels import WIDTHS, product
from wasmgraph.dynamic.kernels.strips import CELLS, strip
from wasmgraph.dynamic.kernels.taps import taps
from wasmgraph.dynamic.liveness import reads
from wasmgraph.dynamic.products import PRODUCTS, as_products
from wasmgraph.dynamic.program import Body, Node
from wasmgraph.kernels.chain import COSTLY, Chain

_WIDEST = 16
"""How many nodes are looked through for where the ways out of a value meet again."""


class Fusion:
    """Fuses the bodies of one program.

    Attributes:
        chains: The chains that nodes call, with their symbols.
    """

    def __init__(self, constants: Constants, *, winograd: bool = True) -> None:
        self._constants, self._winograd = constants, winograd
        self.chains: dict[Chain, str] = {}

    def body(self, body: Body) -> Body:
        """A body, and those inside of it, with fewer nodes."""
        nodes = [
            replace(node, bodies=tuple(map(self.body, node.bodies)))
            for node in as_products(body, self._constants, winograd=self._winograd)
        ]
        return replace(body, nodes=tuple(_Groups(self, self._constants, nodes, body).fused()))

    def symbol(self, chain: Chain) -> str:
        """The kernel of a chain."""
        return self.chains.setdefault(chain, f"wgk_chain_{len(self.chains)}")

    def functions(self) -> list[Function]:
        """The kernels that the fused nodes need."""
        named = [*CELLS.items(), *((name, chain) for chain, name in self.chains.items())]
        decoders = [decoding(bits, width) for bits in BITS for width in WIDTHS]
        strips = [strip(name, chain) for name, chain in named]
        return [*map(product, WIDTHS), *decoders, taps(), *strips]


@dataclass
class _Group:
    """Nodes that become one.

    Attributes:
        members: Places of its nodes, in order.
        chain: Their steps.
        values: Where the members' results are in the chain.
        result: The slot that it gives.
    """

    members: list[int]
    chain: ChainBuilder
    values: dict[int, Argument]
    result: int


class _Groups:
    def __init__(
        self, fusion: Fusion, constants: Constants, nodes: Sequence[Node], body: Body
    ) -> None:
        self._fusion, self._constants, self._nodes = fusion, constants, nodes
        self._readers: dict[int, list[int]] = {}
        for place, node in enumerate(nodes):
            for slot in set(reads(node)):
                self._readers.setdefault(slot, []).append(place)
        self._kept = frozenset(body.outputs)
        self._taken: set[int] = set()

    def fused(self) -> Iterator[Node]:
        """The nodes, each group in place of its last one."""
        ends: dict[int, _Group] = {}
        for place, node in enumerate(self._nodes):
            if place not in self._taken and (group := self._group(place, node)) is not None:
                self._taken.update(group.members)
                ends[group.members[-1]] = group
        for place, node in enumerate(self._nodes):
            if place in ends:
                yield self._node(ends[place])
            elif place not in self._taken:
                yield node

    def _group(self, place: int, node: Node) -> _Group | None:
        """What begins with a node, as long as possible."""
        first = node.outputs[0]
        if first is None:
            return None
        if node.operator in PRODUCTS:
            chain = ChainBuilder([None])
            group = _Group([place], chain, {first: ("operand", 0)}, first)
        else:
            begun = self._with(_Group([], ChainBuilder(), {}, -1), place)
            if begun is None:
                return None
            group = begun
        while (longer := self._longer(group)) is not None:
            group = longer
        return group

    def _longer(self, group: _Group) -> _Group | None:
        """The group and those nodes behind it that give one value again."""
        start, live = group, {group.result}
        for _ in range(_WIDEST):
            if live & self._kept:
                return None
            waiting = {p for slot in live for p in self._readers.get(slot, ())} - {*group.members}
            if not waiting:
                return None
            following = self._with(group, min(waiting))
            if following is None:
                return None
            group = following
            live.add(group.result)
            live = {s for s in live if set(self._readers.get(s, ())) - {*group.members}} or {
                group.result
            }
            if live == {group.result} and group.members != start.members:
                return group
        return None

    def _with(self, group: _Group, place: int) -> _Group | None:
        """The group and one more node, if that can be in a chain."""
        node = self._nodes[place]
        emit = ELEMENTWISE.get(node.operator)
        result = node.outputs[0]
        if place in self._taken or emit is None or result is None or None in node.inputs:
            return None
        chain = group.chain.copy()
        args: list[Argument | None] = []
        numbers: list[float | None] = []
        for slot in node.inputs:
            assert slot is not None
            known = self._constants.array(slot)
            number = number_of(known) if len(node.inputs) > 1 else None
            if number is not None and known is not None:
                chain.least_rank = max(chain.least_rank, known.ndim)
            elif slot not in group.values and known is None and self._is_costly(group):
                # It may have more elements, for which the costly steps would be repeated.
                return None
            numbers.append(number)
            args.append(
                None if number is not None else group.values.get(slot) or chain.operand(slot)
            )
        value = emit(Call(chain, tuple(args), tuple(numbers), as_floats(node.words)))
        if value is None or not chain.fits:
            return None
        members = [*group.members, place]
        return _Group(members, chain, {**group.values, result: value}, result)

    def _is_costly(self, group: _Group) -> bool:
        return any(op in COSTLY for op, _, _ in group.chain.steps)

    def _node(self, group: _Group) -> Node:
        first = self._nodes[group.members[0]]
        name = "+".join(self._nodes[place].name for place in group.members)
        words = (group.chain.least_rank, *first.words)
        if not group.chain.steps:
            return replace(first, words=words)
        symbol = self._fusion.symbol(group.chain.finish())
        operands = tuple(group.chain.slots)
        if first.operator in PRODUCTS:
            inputs = (*_padded(first), *operands[1:])
            return replace(
                first, words=words, inputs=inputs, outputs=(group.result,), chain=symbol, name=name
            )
        return Node(
            "wgd_fast_chain",
            (group.chain.least_rank,),
            operands,
            (group.result,),
            (),
            (),
            name,
            symbol,
        )


def _padded(node: Node) -> tuple[int | None, ...]:
    """A product's own operands, of which trailing ones may be missing."""
    return (*node.inputs, *[None] * (PRODUCTS[node.operator] - len(node.inputs)))
