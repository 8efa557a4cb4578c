"""A graph for one sample as any host sees it: batches of all sizes through the raw ABI."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests import bundles
from tests.bundles import SCALE_WEIGHTS
from tests.link.raw_abi import Host, run_command
from wasmgraph.bundle import Batch, Graph, Share
from wasmgraph.errors import ModelError
from wasmgraph.link.consistency import check_description

Start = Callable[..., Host]
RNG = np.random.default_rng(0)


def floats(*shape: int) -> np.ndarray:
    return RNG.normal(size=shape).astype(np.float32)


def give(graph: Host, i: int, array: np.ndarray) -> int:
    address = graph.declare(i, array.shape)
    assert address, graph.error()
    graph.write(address, array.tobytes())
    return address


def output(graph: Host, i: int) -> np.ndarray:
    dims = graph.call("wg_alloc", 64)
    rank = graph.call("wg_output_shape", i, dims)
    shape = np.frombuffer(graph.read(dims, 8 * rank), np.int64)
    graph.call("wg_free", dims, 64)
    data = graph.read(graph.call("wg_output", i), 4 * int(np.prod(shape)))
    return np.frombuffer(data, np.float32).reshape(shape)


def run_chain(graph: Host, x: np.ndarray) -> None:
    give(graph, 0, x)
    assert graph.call("wg_run") == 0, graph.error()
    np.testing.assert_array_equal(output(graph, 0), x * SCALE_WEIGHTS**2)
    np.testing.assert_array_equal(output(graph, 1), SCALE_WEIGHTS.reshape(2, 2))
    np.testing.assert_array_equal(output(graph, 2), x.T)


def test_batches_of_any_size_run_one_after_the_other(host: Start) -> None:
    graph = host("samples")
    for samples in (3, 1, 0, 100, 2, 1, 5000, 7, 0, 1):
        run_chain(graph, floats(samples, 4))


def test_a_batch_of_one_is_used_where_it_is_written(host: Start) -> None:
    graph = host("samples")
    address = give(graph, 0, floats(1, 4))
    graph.call("wg_run")
    assert graph.call("wg_output", 2) == address


def test_inputs_keep_their_bytes_between_runs(host: Start) -> None:
    graph = host("samples")
    x = floats(5, 4)
    give(graph, 0, x)
    for _ in range(2):
        assert graph.call("wg_run") == 0
        np.testing.assert_array_equal(output(graph, 0), x * SCALE_WEIGHTS**2)
    graph.declare(0, x.shape)
    assert graph.call("wg_run") == 0
    np.testing.assert_array_equal(output(graph, 0), x * SCALE_WEIGHTS**2)


def test_samples_lie_on_any_axis_and_may_have_several_rows(host: Start) -> None:
    graph = host("pairs")
    for samples in (1, 4, 3):
        a, b = floats(samples, 2, 3), floats(2, samples, 3)
        give(graph, 0, a)
        give(graph, 1, b)
        assert graph.call("wg_run") == 0, graph.error()
        expected = (a + b.transpose(1, 0, 2)).reshape(2 * samples, 3)
        np.testing.assert_array_equal(output(graph, 0), expected)


def test_inputs_agree_on_the_size_of_the_batch(host: Start) -> None:
    graph = host("pairs")
    give(graph, 0, floats(3, 2, 3))
    give(graph, 1, floats(2, 4, 3))
    assert graph.call("wg_run") == 1
    assert graph.error() == "axis 'N' is 3 in input 'a' and 4 in input 'b'"


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ((-1, 4), "input 'x' has shape [N, 4], not shape [-1, 4]"),
        ((2, 5), "input 'x' has shape [N, 4], not shape [2, 5]"),
        ((2, 4, 1), "input 'x' has shape [N, 4], not rank 3"),
        ((2**28, 4), "input 'x': no memory left"),
        ((2**40, 4), "input 'x': no memory left: it is larger than memory"),
        ((2**63 - 1, 4), "input 'x': no memory left: it is larger than memory"),
    ],
)
def test_a_batch_that_cannot_be_is_an_error(
    host: Start, shape: tuple[int, ...], message: str
) -> None:
    graph = host("samples", max_memory=64 << 20)
    assert graph.declare(0, shape) == 0
    assert graph.error().startswith(message)
    run_chain(graph, floats(2, 4))


def test_the_static_shape_is_not_known(host: Start) -> None:
    graph = host("samples")
    assert graph.call("wg_input", 0, 0, -1) == 0
    assert graph.error() == "input 'x' has shape [N, 4], not rank -1"


def test_outputs_without_room_are_an_error(host: Start) -> None:
    # 12 MiB for the input fit into 32, as much again for each of two outputs does not.
    graph = host("samples", max_memory=32 << 20)
    give(graph, 0, np.zeros((3 << 18, 4), np.float32))
    assert graph.call("wg_run") == 1
    assert graph.error() == f"output 'same': no memory left for {12 << 20} bytes"
    assert graph.call("wg_output", 0) == 0
    assert graph.error() == "there is no output before a run"


def test_the_memory_of_a_batch_is_used_again(host: Start) -> None:
    graph = host("samples", max_memory=64 << 20)
    x = np.ones((1 << 18, 4), np.float32)  # 12 MiB with its outputs
    for _ in range(10):
        run_chain(graph, x)
        run_chain(graph, x[:3])


def test_there_is_no_output_before_a_run(host: Start) -> None:
    graph = host("samples")
    assert graph.call("wg_output", 0) == 0
    assert graph.error() == "there is no output before a run"


def test_a_failed_kernel_ends_the_batch(tmp_path: Path) -> None:
    from wasmgraph.link import link

    bundle = bundles.failing_bundle()
    [x], [y] = bundle.graph.inputs, bundle.graph.outputs
    graph = replace(
        bundle.graph,
        inputs=(replace(x, shape=("N", 4)),),
        outputs=(replace(y, shape=("N", 4)),),
        batch=Batch("N", (Share(0, 1),), (Share(0, 1),)),
    )
    link(replace(bundle, graph=graph), tmp_path / "failing.wasm")
    instance = Host((tmp_path / "failing.wasm").read_bytes())
    batch = np.zeros((3, 4), np.float32)
    batch[1] = 9
    give(instance, 0, batch)
    assert instance.call("wg_run") == 1
    assert instance.error() == "the kernel of culprit failed with code 9"
    give(instance, 0, batch[:1])
    assert instance.call("wg_run") == 0


def test_a_batch_as_a_command(linked: Callable[[str], Path], tmp_path: Path) -> None:
    x, file = floats(3, 4), io.BytesIO()
    np.save(file, x)
    arguments = ["-o", "y=y.npy", "-o", "same=same.npy"]
    assert run_command(linked("samples"), arguments, tmp_path, file.getvalue()) == (0, b"", "")
    np.testing.assert_array_equal(np.load(tmp_path / "y.npy"), x * SCALE_WEIGHTS**2)
    np.testing.assert_array_equal(np.load(tmp_path / "same.npy"), x.T)


class TestDescription:
    """What contradicts itself is refused before anything is made of it."""

    @pytest.fixture
    def graph(self) -> Graph:
        return bundles.samples_bundle().graph

    def test_a_share_of_an_axis_that_is_not_open(self, graph: Graph) -> None:
        for axis in (1, 2, -1):
            batch = replace(graph.batch, inputs=(Share(axis, 1),))
            with pytest.raises(ModelError, match=f"input 'x' has no open axis {axis}"):
                check_description(replace(graph, batch=batch))

    def test_an_open_axis_that_is_not_shared(self, graph: Graph) -> None:
        with pytest.raises(ModelError, match="input 'x' has the extent 'N', which is no count"):
            check_description(replace(graph, batch=replace(graph.batch, inputs=(None,))))
        with pytest.raises(ModelError, match="input 'x' has the extent 'N', which is no count"):
            check_description(replace(graph, batch=None))

    def test_a_buffer_for_other_than_one_sample(self, graph: Graph) -> None:
        shares = (Share(0, 2), None, Share(1, 1))
        with pytest.raises(ModelError, match="output 'y' needs 32 bytes, its buffer has 16"):
            check_description(replace(graph, batch=replace(graph.batch, outputs=shares)))

    def test_several_rows_of_an_input_for_one_sample(self, graph: Graph) -> None:
        batch = replace(graph.batch, inputs=(Share(0, 4),))
        with pytest.raises(ModelError, match="one sample has 4 of 'x' on the batch axis"):
            check_description(replace(graph, batch=batch))

    def test_too_few_shares(self, graph: Graph) -> None:
        with pytest.raises(ModelError, match="3 outputs have 1 shares"):
            check_description(replace(graph, batch=replace(graph.batch, outputs=(None,))))
