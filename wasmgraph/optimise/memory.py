"""Plan the arena: give every intermediate tensor a fixed place, reusing bytes that are free again.

Greedy by size (Pisarchyk & Lee, "Efficient Memory Management for Deep Neural Net Inference",
2020): large tensors first, each at the lowest offset free during its whole life.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from wasmgraph.bundle import ALIGNMENT, Buffer
from wasmgraph.optimise.program import Program


@dataclass(frozen=True)
class MemoryPlan:
    """Where every storage of a program lives.

    Attributes:
        buffers: By storage.
        params_nbytes, io_nbytes, arena_nbytes: Sizes of the regions.
    """

    buffers: Mapping[int, Buffer]
    params_nbytes: int
    io_nbytes: int
    arena_nbytes: int


@dataclass(frozen=True)
class _Life:
    storage: int
    nbytes: int
    first: int
    last: int


def plan_memory(program: Program) -> MemoryPlan:
    """Place weights, inputs, outputs and intermediates.

    Inputs and outputs have bytes of their own, so that a host may write the next input while it
    still reads the last output, and may run again without writing an input that has not changed.
    """
    buffers: dict[int, Buffer] = {}
    params = 0
    for storage in program.weights:
        nbytes = program.storages[storage].nbytes
        buffers[storage] = Buffer("params", params, nbytes)
        params += _aligned(nbytes)
    io = 0
    for port in (*program.inputs, *program.outputs):
        if port.place.storage not in buffers:
            nbytes = program.storages[port.place.storage].nbytes
            buffers[port.place.storage] = Buffer("io", io, nbytes)
            io += _aligned(nbytes)
    lives = [life for life in _lives(program) if life.storage not in buffers]
    offsets = _place(lives)
    arena = 0
    for life in lives:
        buffers[life.storage] = Buffer("arena", offsets[life.storage], life.nbytes)
        arena = max(arena, offsets[life.storage] + _aligned(life.nbytes))
    return MemoryPlan(buffers, params, io, arena)


def _aligned(nbytes: int) -> int:
    """Rounded up; an empty tensor takes one line too, so that its address is its own."""
    return max(1, -(-nbytes // ALIGNMENT)) * ALIGNMENT


def _lives(program: Program) -> list[_Life]:
    """From the first stage that writes a storage to the last one that reads it, both included."""
    first: dict[int, int] = {}
    last: dict[int, int] = {}
    for index, stage in enumerate(program.stages):
        for call in stage:
            for place in call.writes:
                first.setdefault(place.storage, index)
            for place in (*call.reads, *call.writes):
                last[place.storage] = index
    return [_Life(s, program.storages[s].nbytes, first[s], last[s]) for s in first]


def _place(lives: list[_Life]) -> dict[int, int]:
    offsets: dict[int, int] = {}
    placed: list[_Life] = []
    for life in sorted(lives, key=lambda life: (-life.nbytes, life.first, life.storage)):
        busy = sorted(
            (offsets[other.storage], offsets[other.storage] + _aligned(other.nbytes))
            for other in placed
            if other.first <= life.last and life.first <= other.last
        )
        offset = 0
        for begin, end in busy:
            if offset + _aligned(life.nbytes) <= begin:
                break
            offset = max(offset, end)
        offsets[life.storage] = offset
        placed.append(life)
    return offsets
