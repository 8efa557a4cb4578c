"""Large calls become stages of shares, small ones and those that cannot be cut stay whole."""

from __future__ import annotations

from dataclasses import dataclass, replace

import pytest

from wasmgraph.assembler import Function
from wasmgraph.kernels.chain import Chain, Step
from wasmgraph.kernels.contraction import Contraction
from wasmgraph.kernels.copying import StridedCopy
from wasmgraph.kernels.elementwise import Elementwise
from wasmgraph.kernels.sharing import Share
from wasmgraph.kernels.softmax import Softmax
from wasmgraph.optimise import parallel
from wasmgraph.optimise.memory import plan_memory
from wasmgraph.optimise.parallel import seconds, share_out
from wasmgraph.optimise.program import Call, Kernel, Place, Port, Program, Storage, TirKernel

RELU = Chain(1, (Step("relu", (0,)),))
SIGMOID = Chain(1, (Step("sigmoid", (0,)),))


@pytest.fixture(autouse=True)
def shares_whatever_is_long_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also in programs that are too short to gain by it."""
    monkeypatch.setattr(parallel, "WORTH_SECONDS", 0.0)


def elementwise(count: int, chain: Chain = RELU) -> Elementwise:
    return Elementwise((count,), (1,), ((1,),), chain)


def program(*kernels: Kernel, sizes: tuple[int, ...]) -> Program:
    """One kernel after the other; `sizes` in bytes, of the input and of what each writes."""
    storages = tuple(Storage("computed" if i else "input", n) for i, n in enumerate(sizes))
    places = [Place(i, 0, n) for i, n in enumerate(sizes)]
    calls = tuple(
        Call(kernel, (places[i],), (places[i + 1],), (f"node{i}",), "any")
        for i, kernel in enumerate(kernels)
    )
    return Program(
        storages,
        {},
        (Port("x", "float32", (sizes[0] // 4,), places[0]),),
        (Port("y", "float32", (sizes[-1] // 4,), places[-1]),),
        tuple((call,) for call in calls),
    )


def test_large_calls_become_stages_and_small_ones_stay_whole() -> None:
    n = 1 << 21
    kernels = [elementwise(n), elementwise(64), elementwise(n)]
    whole = program(*kernels, sizes=(4 * n, 4 * n, 256, 4 * n))
    small = whole.calls[1]
    whole = replace(
        whole, stages=(whole.stages[0], (replace(small, reads=small.writes),), whole.stages[2])
    )
    shared = share_out(whole)
    assert shared.threads
    assert [len(stage) for stage in shared.stages] == [16, 1, 16]
    assert shared.stages[1] == whole.stages[1]


# Bytes read and written, at 20 GB/s: below 15, from 15, 30, 75 and 200 microseconds on.
@pytest.mark.parametrize(
    ("nbytes", "shares"),
    [
        (149_952, 1),
        (150_016, 2),
        (299_968, 2),
        (300_032, 4),
        (749_952, 4),
        (750_016, 8),
        (1_999_936, 8),
        (2_000_000, 16),
    ],
)
def test_the_number_of_shares_grows_with_the_time(nbytes: int, shares: int) -> None:
    (stage,) = share_out(program(elementwise(nbytes // 4), sizes=(nbytes, nbytes))).stages
    assert len(stage) == shares


def test_costly_operators_take_longer() -> None:
    plain, costly = (
        program(elementwise(16_000, chain), sizes=(64_000, 64_000)) for chain in (RELU, SIGMOID)
    )
    assert seconds(plain.calls[0]) == pytest.approx(6.4e-6)
    assert seconds(costly.calls[0]) == pytest.approx(6.4e-6 + 16e-6)


def test_a_softmax_takes_the_time_of_its_exponentials() -> None:
    (call,) = program(Softmax(((10, 100, 100),), (100, 1, 1), 1), sizes=(4000, 4000)).calls
    assert seconds(call) == pytest.approx(0.4e-6 + 1e-6)


def test_a_copy_takes_the_time_of_its_elements_not_of_its_reach() -> None:
    kernel = StridedCopy((1000,), (50,), (1,))
    (call,) = program(kernel, sizes=(200_000, 4000)).calls
    assert seconds(call) == pytest.approx(8000 / 20e9)


def test_shares_read_and_write_their_parts_of_the_places() -> None:
    n = 50_048
    whole = program(elementwise(n), sizes=(4 * n, 4 * n))
    first, second = share_out(whole).stages[0]
    assert (first.nodes, first.description) == (("node0",), "any")
    half = 4 * 25_024
    assert first.reads == (Place(0, 0, 4 * n),)
    assert second.reads == (Place(0, half, 4 * n - half),)
    assert second.writes == (Place(1, half, 4 * n - half),)


def test_a_products_shares_do_its_flops_together() -> None:
    kernel = Contraction((), ((600, 64),), 64, ((64, 1),), 64)
    storages = tuple(Storage("input", n) for n in (4 * 600 * 64, 4 * 64 * 64, 4 * 600 * 64))
    a, b, out = (Place(i, 0, storage.nbytes) for i, storage in enumerate(storages))
    whole = Program(storages, {}, (), (), ((Call(kernel, (a, b), (out,), (), "any"),),))
    (stage,) = share_out(whole).stages
    assert len(stage) == 8
    assert sum(call.kernel.flops for call in stage) == kernel.flops  # type: ignore[union-attr]
    assert {call.reads[1] for call in stage} == {b}


def test_tir_kernels_and_what_cannot_be_cut_stay_whole() -> None:
    n = 1 << 20
    tir, single = TirKernel("any", None), Contraction((), ((1, n),), 1, ((n, 1),), 1)
    whole = program(tir, single, sizes=(4 * n,) * 3)
    assert share_out(whole).stages == whole.stages


def test_what_any_share_of_a_stage_touches_lives_during_the_whole_stage() -> None:
    n = 1 << 18
    shared = share_out(program(*[elementwise(n)] * 4, sizes=(4 * n,) * 5))
    assert all(len(stage) == 8 for stage in shared.stages)
    assert plan_memory(shared).arena_nbytes == 2 * 4 * n


@dataclass(frozen=True)
class Scratching:
    """A kernel with scratch memory; its shares need 100 bytes each."""

    scratch_nbytes: int
    flops: int = 10**9

    def assemble(self, name: str) -> Function:
        raise NotImplementedError

    def shares(self, count: int) -> tuple[Share, ...]:
        return tuple(Share(Scratching(100), (0, 0, 128 * i)) for i in range(count))


def test_every_share_has_scratch_memory_of_its_own() -> None:
    storages = (Storage("input", 64), Storage("computed", 64), Storage("computed", 300))
    x, y, scratch = (Place(i, 0, storage.nbytes) for i, storage in enumerate(storages))
    call = Call(Scratching(300), (x,), (y, scratch), (), "any")
    shared = share_out(Program(storages, {}, (), (), ((call,),)))
    assert [c.writes[1] for c in shared.calls] == [Place(2, 128 * i, 100) for i in range(16)]
    assert [storage.nbytes for storage in shared.storages] == [64, 64, 15 * 128 + 100]


def test_a_short_run_stays_on_one_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    n = 1 << 20  # 8 MiB read and written take about 0.4 ms
    whole = program(elementwise(n), sizes=(4 * n, 4 * n))
    assert len(share_out(whole).stages[0]) > 1
    monkeypatch.setattr(parallel, "WORTH_SECONDS", 2 * seconds(whole.calls[0]))
    assert share_out(whole) == replace(whole, threads=True)
