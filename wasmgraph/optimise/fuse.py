"""Group operators: something that computes, and the element-wise operators that follow it.

A group ends where its value is read by more than one operator, unless all those readers meet
again: x * sigmoid(x) is one group.
"""

from __future__ import annotations

from dataclasses import dataclass

from wasmgraph.kernels.chain import COSTLY, Chain, Step
from wasmgraph.optimise.elementwise_ops import is_conversion, steps_of
from wasmgraph.optimise.opgraph import Op, OpGraph

MAX_OPERANDS = 6
"""More operands would each need a pointer that lives across the kernel's loops."""

MAX_REGION = 12

# Ops that compute much per element and can apply a chain to what they computed.
ANCHORS = frozenset(
    [
        "nn.conv1d",
        "nn.conv2d",
        "nn.conv3d",
        "nn.conv1d_transpose",
        "nn.conv2d_transpose",
        "nn.conv3d_transpose",
        "matmul",
        "channel_norm",
    ]
)

# The same of opaque calls, over integers; their chains read and give bytes as well.
INTEGER_ANCHORS = frozenset(["integer_conv", "integer_matmul", "integer_matmul_of_two"])


@dataclass(frozen=True)
class Group:
    """Operators that become one kernel.

    Attributes:
        anchor: The op that computes operand 0 of the chain, or None for a purely element-wise
            group.
        chain: What follows, over operand 0 (the anchor's result, if any) and `operands`.
        operands: Tensors that the chain reads, in order.
        output: The tensor the group computes.
        nodes: ONNX nodes of all members.
        position: Where in the order of ops the group runs: that of its last member.
    """

    anchor: Op | None
    chain: Chain
    operands: tuple[int, ...]
    output: int
    nodes: frozenset[int]
    position: int


def group_ops(graph: OpGraph) -> list[Group | tuple[int, Op]]:
    """Groups, and the ops outside any as (position, op), in execution order."""
    return _Grouping(graph).run()


class _Grouping:
    """Dequantising is done by whoever reads the result, again and again, as far as that can.

    Attributes:
        dequantised: The ops that do, by their results.
        chained: Ops that are steps of some chain, by index.
        anchors: The anchor of each of them.
    """

    def __init__(self, graph: OpGraph) -> None:
        self.graph = graph
        self.readers = graph.readers()
        self.outputs = set(graph.outputs)
        self.taken: set[int] = set()
        self.chained: set[int] = set()
        self.anchors: dict[int, int | None] = {}
        self.dequantised = {
            op.outputs[0]: index
            for index, op in enumerate(graph.ops)
            if is_conversion(op) and op.attrs.name == "dequantize"
        }

    def run(self) -> list[Group | tuple[int, Op]]:
        found: list[tuple[int, Group | tuple[int, Op]]] = []
        delayed: list[int] = []
        for index, op in enumerate(self.graph.ops):
            if index in self.taken:
                continue
            if op.outputs[0] in self.dequantised:
                delayed.append(index)
                continue
            if _is_integer(op) or (op.name in ANCHORS and self._is_float(op)):
                group = self._grow(index, is_anchor=True)
            elif self._steps(op) is not None:
                group = self._grow(index, is_anchor=False)
            else:
                found.append((index, (index, op)))
                continue
            found.append((group.position, group))
        for index in delayed:
            if index not in self.taken and self._is_needed(self.graph.ops[index].outputs[0]):
                found.append((index, self._group([index], is_anchor=False)))
        return [item for _, item in sorted(found, key=lambda pair: pair[0])]

    def _is_needed(self, tensor: int) -> bool:
        """Whether somebody reads a dequantised tensor who does not dequantise it himself."""
        return tensor in self.outputs or any(
            reader not in self.chained or not self._may_convert(reader)
            for reader in self.readers.get(tensor, [])
        )

    def _may_convert(self, member: int) -> bool:
        """Whether an op is in a chain that reads other types than float32."""
        anchor = self.anchors[member]
        return anchor is None or _is_integer(self.graph.ops[anchor])

    def _is_float(self, op: Op) -> bool:
        tensors = self.graph.tensors
        return all(tensors[t].dtype == "float32" for t in (*op.inputs, *op.outputs))

    def _steps(self, op: Op) -> bool | None:
        """True if the op is element-wise over float32, None if it is not."""
        if len(op.outputs) != 1 or not (is_conversion(op) or self._is_float(op)):
            return None
        return True if steps_of(op, self.graph) is not None else None

    def _grow(self, start: int, is_anchor: bool) -> Group:
        ops = self.graph.ops
        members, grown = [start], {start}
        made, operands = set(ops[start].outputs), dict[int, None]()
        if not is_anchor:
            operands = self._read_from_outside([start], made, start, is_anchor)
        exit_value = ops[start].outputs[0]
        shape = self.graph.tensors[exit_value].shape
        while True:
            region = self._region(exit_value, shape, start, grown, is_anchor)
            if region is None:
                break
            made.update(t for m in region for t in ops[m].outputs)
            operands = operands | self._read_from_outside(region, made, start, is_anchor)
            if len(operands) > MAX_OPERANDS:
                break
            members += region
            grown.update(region)
            exit_value = ops[region[-1]].outputs[0]
        while len(members) > 1 and ops[members[-1]].outputs[0] in self.dequantised:
            members.pop()
        return self._group(members, is_anchor)

    def _group(self, members: list[int], is_anchor: bool) -> Group:
        ops, start = self.graph.ops, members[0]
        self.taken.update(members)
        for member in members[1:] if is_anchor else members:
            self.chained.add(member)
            self.anchors[member] = start if is_anchor else None
        chain, operands, converted = self._chain(members, is_anchor)
        return Group(
            anchor=ops[start] if is_anchor else None,
            chain=chain,
            operands=operands,
            output=ops[members[-1]].outputs[0],
            nodes=frozenset().union(*(ops[m].nodes for m in (*members, *converted))),
            position=members[-1],
        )

    def _region(
        self, value: int, shape: tuple[int, ...], start: int, grown: set[int], is_anchor: bool
    ) -> list[int] | None:
        """The fewest ops after `value` whose only value read elsewhere is the last one's."""
        if value in self.outputs or self._is_integer_sum(start):
            return None
        region: list[int] = []
        inside = {value}
        is_float = is_anchor and not _is_integer(self.graph.ops[start])
        pending = sorted(self.readers.get(value, []))
        while pending and len(region) < MAX_REGION:
            index = pending.pop(0)
            op = self.graph.ops[index]
            if (
                index in self.taken
                or index in grown
                or self._steps(op) is None
                or self.graph.tensors[op.outputs[0]].shape != shape
                or (is_anchor and self._is_costly(op))
                or (is_float and is_conversion(op))
            ):
                return None
            region.append(index)
            result = op.outputs[0]
            inside.add(result)
            inner = inside - {result}
            closed = all(
                set(self.readers.get(t, [])) <= set(region) and t not in self.outputs for t in inner
            )
            if closed:
                return region
            if result in self.outputs:
                return None
            pending = sorted(set(pending) | set(self.readers.get(result, [])))
        return None

    def _is_integer_sum(self, start: int) -> bool:
        """Whether a group starts with sums that stay integers, after which nothing fits."""
        first = self.graph.ops[start]
        return _is_integer(first) and self.graph.tensors[first.outputs[0]].dtype == "int32"

    def _is_costly(self, op: Op) -> bool:
        found = steps_of(op, self.graph)
        return found is not None and any(step.op in COSTLY for step in found.steps)

    def _operands(self, members: list[int], is_anchor: bool) -> list[int]:
        made = {t for m in members for t in self.graph.ops[m].outputs}
        chained = members[1:] if is_anchor else members
        return list(self._read_from_outside(chained, made, members[0], is_anchor))

    def _read_from_outside(
        self, chained: list[int], made: set[int], start: int, is_anchor: bool
    ) -> dict[int, None]:
        """What these steps of a chain read that its group has not made, in order."""
        found: dict[int, None] = {}
        for member in chained:
            description = steps_of(self.graph.ops[member], self.graph)
            assert description is not None
            for tensor in description.tensors:
                if tensor not in made:
                    found[self._source(tensor, start, is_anchor)] = None
        return found

    def _source(self, tensor: int, start: int, is_anchor: bool) -> int:
        """What a chain reads where it needs a tensor: the integers where those are dequantised."""
        may_convert = not is_anchor or _is_integer(self.graph.ops[start])
        index = self.dequantised.get(tensor)
        return self.graph.ops[index].inputs[0] if may_convert and index is not None else tensor

    def _chain(
        self, members: list[int], is_anchor: bool
    ) -> tuple[Chain, tuple[int, ...], list[int]]:
        """The chain, its operands, and the ops that dequantise those, by index."""
        operands = self._operands(members, is_anchor)
        first = 1 if is_anchor else 0
        number = {tensor: first + i for i, tensor in enumerate(operands)}
        if is_anchor:
            number[self.graph.ops[members[0]].outputs[0]] = 0
        total = first + len(operands)
        steps: list[Step] = []

        def append(index: int) -> None:
            op = self.graph.ops[index]
            description = steps_of(op, self.graph)
            assert description is not None
            base = total + len(steps)
            local = [number[t] for t in description.tensors]
            for step in description.steps:
                arguments = tuple(
                    local[a] if a < len(local) else base + a - len(local) for a in step.args
                )
                steps.append(Step(step.op, arguments, step.numbers))
            number[op.outputs[0]] = total + len(steps) - 1

        converted: list[int] = []
        for member in members[1:] if is_anchor else members:
            description = steps_of(self.graph.ops[member], self.graph)
            assert description is not None
            for tensor in description.tensors:
                if tensor not in number:
                    converted.append(self.dequantised[tensor])
                    append(converted[-1])
            append(member)
        return Chain(total, tuple(steps)), tuple(operands), converted


def _is_integer(op: Op) -> bool:
    """Whether an op is a product of integers."""
    return op.kind == "opaque" and op.name in INTEGER_ANCHORS
