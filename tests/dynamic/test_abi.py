"""The raw ABI of a dynamic graph: hostile shapes and pointers are errors, and it works on."""

from __future__ import annotations

import numpy as np
import pytest

import wasmgraph
from tests.link.raw_abi import Host
from tests.onnx_models import make_model, node

PAGE = 65536


@pytest.fixture(scope="module")
def linked(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """y = relu(x) for any number of rows and columns, of at most 5 rows."""
    target = tmp_path_factory.mktemp("open") / "open.wasm"
    model = make_model([node("Relu", "x", "y")], {"x": ["rows", "columns"]}, "y")
    wasmgraph.compile(model, target, verify=False, dynamic={"rows": 5})
    return target.read_bytes()


@pytest.fixture
def graph(linked: bytes) -> Host:
    return Host(linked)


def run(graph: Host, *shape: int) -> tuple[int, ...]:
    """The shape of the output for ones of this shape, all of which come out again."""
    address = graph.declare(0, shape)
    assert address, graph.error()
    graph.write(address, np.ones(shape, np.float32).tobytes())
    assert graph.call("wg_run") == 0, graph.error()
    place = graph.call("wg_alloc", 8 * 32)
    rank = graph.call("wg_output_shape", 0, place)
    found = np.frombuffer(graph.read(place, 8 * rank), np.int64)
    graph.call("wg_free", place, 8 * 32)
    assert graph.floats(0, int(np.prod(shape))) == [1.0] * int(np.prod(shape))
    return tuple(found.tolist())


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ((2,), "input 'x' has shape [rows, columns], not rank 1"),
        ((2, 3, 1), "input 'x' has shape [rows, columns], not rank 3"),
        ((-1, 3), "input 'x' has shape [rows, columns], not shape [-1, 3]"),
        ((2, -(2**63)), f"input 'x' has shape [rows, columns], not shape [2, -{2**63}]"),
        ((2, 2**31), "input 'x': it is larger than memory"),
        ((2, 2**32), "input 'x': it is larger than memory"),
        ((4, 2**30), "input 'x': it is larger than memory"),
        ((4, 2**62), "input 'x': it is larger than memory"),
        ((0, 2**40), "input 'x': it is larger than memory"),
        ((0, 2**30), "input 'x': it is larger than memory"),
        ((6, 1), "axis 'rows' is at most 5, not 6 (input 'x')"),
        ((2**62, 1), f"axis 'rows' is at most 5, not {2**62} (input 'x')"),
    ],
)
def test_a_shape_that_cannot_be_is_an_error(
    graph: Host, shape: tuple[int, ...], message: str
) -> None:
    assert graph.declare(0, shape) == 0
    assert graph.error() == message
    assert run(graph, 2, 3) == (2, 3)


@pytest.mark.parametrize("rank", [-1, -2, -(2**31), 2**31 - 1, 1, 33])
def test_a_rank_that_is_not_the_input_s_is_an_error_and_its_dims_are_not_read(
    graph: Host, rank: int
) -> None:
    assert graph.call("wg_input", 0, -8, rank) == 0
    assert graph.error() == f"input 'x' has shape [rows, columns], not rank {rank}"
    assert run(graph, 1, 4) == (1, 4)


@pytest.mark.parametrize("place", [-1, -8, -16, -(2**31)])
def test_dims_outside_of_memory_are_an_error(graph: Host, place: int) -> None:
    assert graph.call("wg_input", 0, place, 2) == 0
    assert graph.error() == f"there are no 2 numbers at {place % 2**32} in memory"
    run(graph, 2, 3)
    assert graph.call("wg_output_shape", 0, place) == -1
    assert graph.error() == f"there are no 2 numbers at {place % 2**32} in memory"
    assert graph.call("wg_output_shape", 0, 0) == 2


def test_dims_that_end_beyond_memory_are_an_error(graph: Host) -> None:
    end = graph.exports["memory"].data_len(graph.store)
    assert graph.call("wg_input", 0, end - 15, 2) == 0
    assert "in memory" in graph.error()
    run(graph, 2, 3)
    before = graph.read(end - 64, 64)
    assert graph.call("wg_output_shape", 0, end - 8) == -1
    assert graph.read(end - 64, 64) == before
    assert graph.call("wg_output_shape", 0, end - 16) == 2


def test_there_is_no_output_before_a_run_nor_after_one_that_failed(graph: Host) -> None:
    for _ in range(2):
        assert graph.call("wg_output", 0) == 0
        assert graph.call("wg_output_shape", 0, 0) == -1
        assert graph.error() == "there is no output before a run"
        assert graph.call("wg_run") != 0
        assert graph.error() == "input 'x' was not given"
    assert run(graph, 5, 0) == (5, 0)
