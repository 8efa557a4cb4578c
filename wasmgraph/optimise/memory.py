"""Plan the arena: give every intermediate tensor a fixed place, reusing bytes that are free again.

Greedy by size (Pisarchyk & Lee, "Efficient Memory Management for Deep Neural Net Inference",
2020): large tensors first, each at the lowest offset free during its whole life. An element-wise
step writes over an operand that nothing reads later, so that both count as one tensor.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from wasmgraph.bundle import ALIGNMENT, Buffer
from wasmgraph.optimise.program import Call, Program


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
    upon = _replaced(program, {life.storage: life for life in lives})
    arena, offsets = min((_place(lives, upon), _place(lives, {})), key=lambda placed: placed[0])
    for life in lives:
        buffers[life.storage] = Buffer("arena", offsets[life.storage], life.nbytes)
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
            for place in (*call.reads, *call.writes):
                last[place.storage] = index
            # Nobody writes a tensor without elements, and yet a reduction may read it.
            empty = [place for place in call.reads if not program.storages[place.storage].nbytes]
            for place in (*empty, *call.writes):
                first.setdefault(place.storage, index)
    return [_Life(s, program.storages[s].nbytes, first[s], last[s]) for s in first]


def _replaced(program: Program, lives: Mapping[int, _Life]) -> dict[int, int]:
    """For a storage that lies upon an earlier one, from the stage on in which that is read last.

    An earlier one may itself lie upon another.
    """
    upon: dict[int, int] = {}
    taken: set[int] = set()
    for index, stage in enumerate(program.stages):
        for new in dict.fromkeys(call.writes[0].storage for call in stage if call.writes):
            if new not in lives or lives[new].first != index:
                continue
            candidates = [
                old
                for old in dict.fromkeys(place.storage for call in stage for place in call.reads)
                if old in lives
                and old not in taken
                and old != new
                and lives[old].first < index == lives[old].last
                and lives[old].nbytes >= lives[new].nbytes
                and all(_only_replaced(call, old, new) for call in stage)
            ]
            if candidates:
                upon[new] = candidates[0]
                taken.add(candidates[0])
    return upon


def _only_replaced(call: Call, old: int, new: int) -> bool:
    """Whether all that a call does to two storages goes well where they are one."""
    for index, place in enumerate(call.reads):
        if place.storage == new:
            return False
        if place.storage == old and (
            index not in call.replaceable
            or (call.writes[0].storage, call.writes[0].offset) != (new, place.offset)
        ):
            return False
    if any(place.storage in (old, new) for place in call.writes[1:]):
        return False
    written = call.writes[0].storage if call.writes else None
    reads_old = any(place.storage == old for place in call.reads)
    return written != old and (written != new or reads_old)


def _place(lives: list[_Life], upon: Mapping[int, int]) -> tuple[int, dict[int, int]]:
    """The arena's size, and every storage's offset."""
    # A storage that others lie upon, one upon another, lives as long as the last of them.
    lowest: dict[int, int] = {}
    last: dict[int, int] = {}
    for life in lives:
        base = upon.get(life.storage)
        lowest[life.storage] = life.storage if base is None else lowest[base]
        last[lowest[life.storage]] = life.last
    together = [
        replace(life, last=last[life.storage]) for life in lives if life.storage not in upon
    ]
    arena = 0
    offsets: dict[int, int] = {}
    placed: list[_Life] = []
    for life in sorted(together, key=lambda life: (-life.nbytes, life.first, life.storage)):
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
        arena = max(arena, offset + _aligned(life.nbytes))
        placed.append(life)
    return arena, {storage: offsets[base] for storage, base in lowest.items()}
