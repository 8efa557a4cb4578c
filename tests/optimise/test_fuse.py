"""Grouping: how long it takes on long chains, by the looks that it takes at operators."""

from __future__ import annotations

import pytest

from wasmgraph.optimise import fuse
from wasmgraph.optimise.fuse import Group, group_ops
from wasmgraph.optimise.opgraph import Op, OpGraph, TensorInfo


def chain(length: int) -> OpGraph:
    """Relu after Relu, the first on the graph's input."""
    tensors = [TensorInfo((4, 4), "float32") for _ in range(length + 1)]
    ops = [Op("nn.relu", (i,), (i + 1,), None, frozenset([i]), None) for i in range(length)]
    return OpGraph(tensors, ops, [0], [length])


@pytest.fixture
def looks(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """An entry for every operator that was looked at."""
    seen: list[int] = []

    def counted(op: Op, graph: OpGraph) -> object:
        seen.append(op.outputs[0])
        return steps_of(op, graph)

    steps_of = fuse.steps_of
    monkeypatch.setattr(fuse, "steps_of", counted)
    return seen


def test_a_chain_is_one_group() -> None:
    (group,) = group_ops(chain(50))
    assert isinstance(group, Group)
    assert len(group.chain.steps) == 50
    assert group.operands == (0,)
    assert group.nodes == frozenset(range(50))


def test_every_operator_of_a_chain_is_looked_at_a_few_times(looks: list[int]) -> None:
    group_ops(chain(300))
    assert len(looks) <= 8 * 300
