"""Takes a constant per-channel addition off the front of a chain: kernels start from it."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from wasmgraph.kernels.chain import Chain, Step
from wasmgraph.optimise.channel_norms import per_channel
from wasmgraph.optimise.fuse import Group
from wasmgraph.optimise.select.builder import Builder


def peel_bias(
    builder: Builder, group: Group, channel_axis: int
) -> tuple[NDArray[Any] | None, Chain, tuple[int, ...]]:
    """Take a constant per-channel addition off the front of a chain.

    Returns:
        The vector [channels] or None, the rest of the chain, and its operands.
    """
    chain, operands = group.chain, group.operands
    added = _first_addition(chain)
    if added is None:
        return None, chain, operands
    shape = builder.graph.tensors[group.output].shape
    if isinstance(added, float):
        bias = np.full(shape[channel_axis], added, np.float32)
        return bias, _without_first(chain, None), operands
    info = builder.graph.tensors[operands[added - 1]]
    vector = per_channel(info.constant, shape, channel_axis)
    if vector is None:
        return None, chain, operands
    rest = tuple(t for i, t in enumerate(operands) if i != added - 1)
    return vector, _without_first(chain, added), rest


def _first_addition(chain: Chain) -> float | int | None:
    """The number, or the operand that nothing else reads, which is added to operand 0 first."""
    if not chain.steps or any(0 in step.args for step in chain.steps[1:]):
        return None
    first = chain.steps[0]
    if first.op == "add_number":
        return first.numbers[0]
    if first.op != "add" or 0 not in first.args or first.args == (0, 0):
        return None
    other = max(first.args)
    return None if any(other in step.args for step in chain.steps[1:]) else other


def _without_first(chain: Chain, dropped: int | None) -> Chain:
    """The chain less its first step (whose result becomes operand 0), and less one operand."""
    first_result = chain.operands

    def renumber(reference: int) -> int:
        if reference == first_result:
            return 0
        shift = (1 if dropped is not None and reference > dropped else 0) + (
            1 if reference > first_result else 0
        )
        return reference - shift

    steps = tuple(Step(s.op, tuple(map(renumber, s.args)), s.numbers) for s in chain.steps[1:])
    return Chain(chain.operands - (dropped is not None), steps)
