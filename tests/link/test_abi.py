"""A linked graph as a library: the ABI as any host sees it."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import wasmtime

from tests.bundles import SCALE_WEIGHTS
from tests.link.raw_abi import Host

A = np.arange(6, dtype=np.float32)
X = np.array([1, 2, 3, 4], dtype=np.float32)
Start = Callable[..., Host]


def test_two_inputs_are_added(host: Start) -> None:
    graph = host("add")
    graph.give(0, A)
    graph.give(1, 10 * A)
    assert graph.call("wg_run") == 0
    assert graph.floats(0, 6) == (11 * A).tolist()
    assert graph.call("wg_abi") == 1


def test_weights_lie_where_the_kernel_reads_them(host: Start) -> None:
    graph = host("scale")
    graph.give(0, X)
    assert graph.call("wg_run") == 0
    assert graph.floats(0, 4) == (X * SCALE_WEIGHTS).tolist()


def test_inputs_keep_their_bytes_between_runs(host: Start) -> None:
    graph = host("add")
    graph.give(0, A)
    graph.give(1, A)
    graph.call("wg_run")
    graph.give(1, 5 * A)
    graph.call("wg_run")
    assert graph.floats(0, 6) == (6 * A).tolist()


def test_steps_pass_tensors_through_the_arena(host: Start) -> None:
    graph = host("chain")
    graph.give(0, X)
    assert graph.call("wg_run") == 0
    assert graph.floats(0, 4) == (X * SCALE_WEIGHTS**2).tolist()


def test_an_output_may_be_a_constant_or_an_input(host: Start) -> None:
    graph = host("chain")
    graph.give(0, X)
    graph.call("wg_run")
    assert graph.floats(1, 4) == SCALE_WEIGHTS.tolist()
    assert graph.call("wg_output", 2) == graph.call("wg_input", 0, 0, -1)


def test_regions_start_at_multiples_of_64(host: Start) -> None:
    graph = host("chain")
    assert graph.call("wg_input", 0, 0, -1) % 64 == 0
    assert graph.call("wg_output", 0) % 64 == 0
    assert graph.call("wg_output", 1) % 64 == 0


def test_a_matching_shape_is_accepted(host: Start) -> None:
    graph = host("add")
    assert graph.declare(1, (2, 3)) == graph.call("wg_input", 1, 0, -1)


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ((3, 2), "input 'b' has shape [2, 3], not shape [3, 2]"),
        ((6,), "input 'b' has shape [2, 3], not rank 1"),
        ((), "input 'b' has shape [2, 3], not rank 0"),
        ((2, 3, 1), "input 'b' has shape [2, 3], not rank 3"),
        ((2, -3), "input 'b' has shape [2, 3], not shape [2, -3]"),
    ],
)
def test_another_shape_is_an_error(host: Start, shape: tuple[int, ...], message: str) -> None:
    graph = host("add")
    assert graph.declare(1, shape) == 0
    # wg_free does not touch the text.
    assert graph.error() == message


@pytest.mark.parametrize("rank", [-2, -(2**31), 2**31 - 1])
def test_an_absurd_rank_is_an_error_and_its_dims_are_not_read(host: Start, rank: int) -> None:
    graph = host("add")
    assert graph.call("wg_input", 0, 0, rank) == 0
    assert graph.error() == f"input 'a' has shape [2, 3], not rank {rank}"


@pytest.mark.parametrize("index", [2, -1, 2**31 - 1])
def test_an_index_out_of_range_is_an_error(host: Start, index: int) -> None:
    graph = host("add")
    assert graph.call("wg_input", index, 0, -1) == 0
    assert graph.error() == f"no input {index % 2**32}: the graph has 2"
    assert graph.call("wg_output", index) == 0
    assert graph.error() == f"no output {index % 2**32}: the graph has 1"
    assert graph.call("wg_output_shape", index, 0) == -1


def test_output_shapes_are_told(host: Start) -> None:
    graph = host("add")
    place = graph.call("wg_alloc", 16)
    assert graph.call("wg_output_shape", 0, place) == 2
    assert np.frombuffer(graph.read(place, 16), np.int64).tolist() == [2, 3]
    assert graph.call("wg_output_shape", 0, 0) == 2


def test_a_run_without_every_input_is_an_error_that_names_the_input(host: Start) -> None:
    graph = host("add")
    graph.give(0, A)
    assert graph.call("wg_run") != 0
    assert graph.error() == "input 'b' was not given"


def test_the_next_success_clears_the_error(host: Start) -> None:
    graph = host("add")
    graph.call("wg_run")
    assert graph.error() != ""
    graph.call("wg_input", 0, 0, -1)
    assert graph.error() == ""


def test_a_failed_kernel_is_an_error_that_names_its_nodes(host: Start) -> None:
    graph = host("failing")
    graph.give(0, 7 * np.ones(4, np.float32))
    assert graph.call("wg_run") != 0
    assert graph.error() == "the kernel of culprit failed with code 7"
    graph.give(0, -np.ones(4, np.float32))
    assert graph.call("wg_run") != 0
    assert graph.error() == "the kernel of culprit ran out of memory"


def test_a_graph_works_on_after_a_failed_run(host: Start) -> None:
    graph = host("failing")
    for value, code in ((5, 1), (0, 0)):
        graph.give(0, value * np.ones(4, np.float32))
        assert graph.call("wg_run") == code
    assert graph.error() == ""


def test_a_trap_in_a_kernel_reaches_the_host(host: Start) -> None:
    graph = host("trapping")
    graph.give(0, X)
    with pytest.raises(wasmtime.Trap, match="unreachable"):
        graph.call("wg_run")


def test_workspaces_are_aligned_and_given_back(host: Start) -> None:
    graph = host("hungry", max_memory=64 << 20)
    for _ in range(4):  # 160 MiB in all
        graph.give(0, np.full(4, 40, np.float32))
        assert graph.call("wg_run") == 0
        assert graph.floats(0, 4) == [0, 0, 0, 0]


def test_a_workspace_beyond_the_memory_limit_is_an_error(host: Start) -> None:
    graph = host("hungry", max_memory=16 << 20)
    graph.give(0, np.full(4, 40, np.float32))
    assert graph.call("wg_run") != 0
    assert graph.error() == "the kernel of culprit ran out of memory"


def test_a_parallel_loop_runs_every_task(host: Start) -> None:
    graph = host("parallel")
    graph.give(0, X)
    assert graph.call("wg_run") == 0
    assert graph.floats(0, 4) == [40, 41, 42, 43]


def test_scratch_memory_is_aligned_and_reused(host: Start) -> None:
    graph = host("add")
    for nbytes in (0, 1, 1000):
        place = graph.call("wg_alloc", nbytes)
        assert place > 0
        assert place % 64 == 0
        graph.call("wg_free", place, nbytes)
    pages = graph.exports["memory"].size(graph.store)
    for _ in range(100):
        graph.call("wg_free", graph.call("wg_alloc", 1 << 16), 1 << 16)
    assert graph.exports["memory"].size(graph.store) <= pages + 2


def test_scratch_memory_that_cannot_be_had_is_null(host: Start) -> None:
    graph = host("add", max_memory=16 << 20)
    for nbytes in (1 << 25, 2**31 - 1, -1):
        assert graph.call("wg_alloc", nbytes) == 0
        assert graph.error() == f"no memory left for {nbytes % 2**32} bytes"
    graph.call("wg_free", 0, 0)
