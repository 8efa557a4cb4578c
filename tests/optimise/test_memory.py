"""The memory plan: what lives at the same time never shares bytes, whatever the program."""

from __future__ import annotations

from itertools import combinations, pairwise, product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wasmgraph.bundle import ALIGNMENT
from wasmgraph.optimise.memory import MemoryPlan, plan_memory
from wasmgraph.optimise.program import Call, Place, Port, Program, Storage, TirKernel, Weight

SIZES = st.integers(0, 5000) | st.sampled_from([0, 1, 63, 64, 65, 1 << 20])


KERNEL = TirKernel("none", None)


def whole(storages: list[Storage], index: int) -> Place:
    return Place(index, 0, storages[index].nbytes)


@st.composite
def programs(draw: st.DrawFn, in_place: bool = False) -> Program:
    """Any program: calls read storages that are there already and write new ones, in stages.

    Now and then a call writes more of a storage that an earlier one began, as the parts of a
    concatenation do.

    Args:
        in_place: Whether calls allow that their first result replaces some of what they read.
    """
    storages = [Storage("input", draw(SIZES)) for _ in range(draw(st.integers(0, 3)))]
    inputs = tuple(
        Port(f"in{i}", "uint8", (s.nbytes,), whole(storages, i)) for i, s in enumerate(storages)
    )
    weights = {}
    for _ in range(draw(st.integers(0, 3))):
        size = draw(SIZES)
        weights[len(storages)] = Weight(f"w{len(storages)}", np.zeros(size, np.uint8), size)
        storages.append(Storage("constant", size))
    calls = []
    for _ in range(draw(st.integers(0, 12))):
        known = st.integers(0, len(storages) - 1)
        reads = draw(st.lists(known, max_size=4)) if storages else []
        begun = [i for i, s in enumerate(storages) if s.kind == "computed"]
        writes = draw(st.lists(st.sampled_from(begun), max_size=1)) if begun else []
        for _ in range(draw(st.integers(1, 3))):
            writes.append(len(storages))
            storages.append(Storage("computed", draw(SIZES)))
        if in_place:
            writes.reverse()
        read, written = (tuple(whole(storages, i) for i in indices) for indices in (reads, writes))
        replaceable = tuple(i for i in range(len(reads)) if in_place and draw(st.booleans()))
        calls.append(Call(KERNEL, read, written, ("node",), "any", replaceable))
    known = st.integers(0, len(storages) - 1)
    chosen = draw(st.lists(known, max_size=3)) if storages else []
    outputs = tuple(
        Port(f"out{i}", "uint8", (storages[s].nbytes,), whole(storages, s))
        for i, s in enumerate(chosen)
    )
    stages: list[tuple[Call, ...]] = []
    while calls:
        count = draw(st.sampled_from([1, 1, 2, 3]))
        stages.append(tuple(calls[:count]))
        del calls[:count]
    return Program(tuple(storages), weights, inputs, outputs, tuple(stages))


def overlap(plan: MemoryPlan, a: int, b: int) -> bool:
    first, second = plan.buffers[a], plan.buffers[b]
    return (
        first.region == second.region
        and first.offset < second.offset + second.nbytes
        and second.offset < first.offset + first.nbytes
    )


def lives(program: Program) -> dict[int, tuple[int, int]]:
    """First and last stage that touches each storage, in the plainest way."""
    touched: dict[int, list[int]] = {}
    for index, stage in enumerate(program.stages):
        for call in stage:
            for place in (*call.reads, *call.writes):
                touched.setdefault(place.storage, []).append(index)
    return {storage: (stages[0], stages[-1]) for storage, stages in touched.items()}


def ports(program: Program) -> set[int]:
    return {port.place.storage for port in (*program.inputs, *program.outputs)}


@given(programs())
@settings(max_examples=300, deadline=None)
def test_storages_that_live_at_the_same_time_never_overlap(program: Program) -> None:
    plan = plan_memory(program)
    life = lives(program)
    for a, b in combinations(sorted(life), 2):
        together = life[a][0] <= life[b][1] and life[b][0] <= life[a][1]
        if together:
            assert not overlap(plan, a, b), (plan.buffers[a], plan.buffers[b])


@given(programs())
@settings(max_examples=200, deadline=None)
def test_inputs_outputs_and_weights_share_bytes_with_nothing(program: Program) -> None:
    plan = plan_memory(program)
    for a in ports(program) | set(program.weights):
        assert plan.buffers[a].region == ("params" if a in program.weights else "io")
        for b in plan.buffers:
            assert a == b or not overlap(plan, a, b)


@given(programs())
@settings(max_examples=200, deadline=None)
def test_every_buffer_is_aligned_and_inside_its_region(program: Program) -> None:
    plan = plan_memory(program)
    sizes = {"params": plan.params_nbytes, "io": plan.io_nbytes, "arena": plan.arena_nbytes}
    assert all(size % ALIGNMENT == 0 for size in sizes.values())
    for storage, buffer in plan.buffers.items():
        assert buffer.offset % ALIGNMENT == 0
        assert buffer.nbytes == program.storages[storage].nbytes
        assert 0 <= buffer.offset <= buffer.offset + buffer.nbytes <= sizes[buffer.region]


@given(programs())
@settings(max_examples=100, deadline=None)
def test_everything_that_is_touched_has_a_place_and_the_same_one_each_time(
    program: Program,
) -> None:
    plan = plan_memory(program)
    assert set(lives(program)) | ports(program) | set(program.weights) <= set(plan.buffers)
    assert plan == plan_memory(program)


def chain(sizes: list[int]) -> Program:
    """x -> sizes[0] -> sizes[1] ... each storage read once, by the next call."""
    storages = [Storage("input", 64), *(Storage("computed", size) for size in sizes)]
    places = [whole(storages, index) for index in range(len(storages))]
    return Program(
        tuple(storages),
        {},
        (Port("x", "uint8", (64,), places[0]),),
        (Port("y", "uint8", (sizes[-1],), places[-1]),),
        tuple(
            (Call(KERNEL, (source,), (target,), (), "any"),) for source, target in pairwise(places)
        ),
    )


def test_a_chain_of_equal_tensors_needs_room_for_two() -> None:
    assert plan_memory(chain([1024] * 10)).arena_nbytes == 2048


def test_a_chain_needs_no_more_than_its_largest_pair() -> None:
    sizes = [640, 64, 1280, 128, 320, 2560, 64, 64]
    largest = max(a + b for a, b in pairwise(sizes[:-1]))
    assert plan_memory(chain(sizes)).arena_nbytes == largest


def test_without_intermediates_there_is_no_arena() -> None:
    assert plan_memory(chain([64])).arena_nbytes == 0


@given(programs(in_place=True))
@settings(max_examples=200, deadline=None)
def test_a_result_lies_only_upon_what_its_call_alone_reads_and_reads_last(
    program: Program,
) -> None:
    plan = plan_memory(program)
    holder: dict[tuple[str, int], int] = {}

    def cells(storage: int) -> list[tuple[str, int]]:
        buffer = plan.buffers[storage]
        lines = range(buffer.offset, buffer.offset + buffer.nbytes, ALIGNMENT)
        return [(buffer.region, line) for line in lines]

    for storage in (*program.weights, *(port.place.storage for port in program.inputs)):
        holder.update(dict.fromkeys(cells(storage), storage))
    for stage in program.stages:
        written = {place.storage for call in stage for place in call.writes}
        read = {place.storage for call in stage for place in call.reads}
        for storage in read - written:
            assert all(holder.get(cell) == storage for cell in cells(storage))
        for writer, reader in product(stage, stage):
            for target, (index, source) in product(writer.writes, enumerate(reader.reads)):
                a, b = target.storage, source.storage
                if a != b and overlap(plan, a, b):
                    assert writer is reader
                    assert target is writer.writes[0]
                    assert index in reader.replaceable
                    assert plan.buffers[a].offset == plan.buffers[b].offset
        for storage in written:
            holder.update(dict.fromkeys(cells(storage), storage))
    for port in program.outputs:
        if plan.buffers[port.place.storage].nbytes and port.place.storage in lives(program):
            assert all(holder[c] == port.place.storage for c in cells(port.place.storage))


def sums(shares: int, offset: int = 0, kept: bool = False) -> Program:
    """x -> a -> b = a + x, by shares -> y; the sums replace a where they may."""
    nbytes = 1024
    storages = [Storage("input", nbytes), *[Storage("computed", nbytes) for _ in range(3)]]
    x, a, b, y = (whole(storages, index) for index in range(4))
    part = nbytes // shares

    def share(index: int) -> Call:
        source, target = (
            Place(s, start + index * part, part - start) for s, start in ((1, offset), (2, 0))
        )
        return Call(KERNEL, (x, source), (target,), (), "add", (1,))

    return Program(
        tuple(storages),
        {},
        (Port("x", "uint8", (nbytes,), x),),
        (Port("y", "uint8", (nbytes,), y),),
        (
            (Call(KERNEL, (x,), (a,), (), "any"),),
            tuple(map(share, range(shares))),
            (Call(KERNEL, (b, a) if kept else (b,), (y,), (), "any"),),
        ),
    )


@pytest.mark.parametrize("shares", [1, 2, 4])
def test_a_sum_is_written_over_its_operand(shares: int) -> None:
    assert plan_memory(sums(shares)).arena_nbytes == 1024


def test_an_operand_that_is_read_later_is_kept() -> None:
    assert plan_memory(sums(1, kept=True)).arena_nbytes == 2048


def test_an_operand_that_lies_elsewhere_in_its_storage_is_kept() -> None:
    assert plan_memory(sums(2, offset=64)).arena_nbytes == 2048


def test_an_empty_tensor_that_no_kernel_writes_has_a_place() -> None:
    storages = [Storage("computed", 0), Storage("computed", 4)]
    empty, least = (whole(storages, index) for index in range(2))
    call = Call(KERNEL, (empty,), (least,), ("Min",), "min")
    port = Port("y", "float32", (), least)
    plan = plan_memory(Program(tuple(storages), {}, (), (port,), ((call,),)))
    assert plan.buffers[0].region == "arena"
    assert plan.buffers[0].nbytes == 0
