"""Graphs for one sample, compiled from models whose batch is open, against onnxruntime.

Tolerance: 1e-3 relative and 1e-4 absolute, as everywhere for whole float32 models.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest

import wasmgraph
from tests.batching.models import MODELS, floats, inputs
from wasmgraph import backend
from wasmgraph.compiler import make_bundle
from wasmgraph.errors import InferenceError, InputError, MemoryLimitExceeded, RunTimeout
from wasmgraph.optimise import Options

ONE_BY_ONE = "the graph for one sample, run once per sample"


@pytest.fixture(scope="module")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], tuple[Path, Path]]:
    """The model and the graph of a name in `MODELS`; "network" is for several threads."""
    folder = tmp_path_factory.mktemp("batches")

    def get(name: str) -> tuple[Path, Path]:
        model, graph = folder / f"{name}.onnx", folder / f"{name}.wasm"
        if not graph.exists():
            onnx.save(MODELS[name](), model)
            report = wasmgraph.compile(model, graph, threads=name == "network")
            assert not report.dynamic
            assert report.openness.endswith(ONE_BY_ONE)
        return model, graph

    return get


@pytest.mark.parametrize("name", MODELS)
def test_batches_of_all_sizes_agree(
    compiled: Callable[[str], tuple[Path, Path]], name: str
) -> None:
    model, path = compiled(name)
    session = onnxruntime.InferenceSession(model)
    with wasmgraph.load(path) as graph:
        for samples in (3, 1, 2, 16, 1, 5):
            given = inputs(name, samples)
            found = graph.run(given)
            for output, expected in zip(found, session.run(list(found), given), strict=True):
                np.testing.assert_allclose(found[output], expected, 1e-3, 1e-4, err_msg=output)


def test_an_empty_batch_gives_empty_outputs(
    compiled: Callable[[str], tuple[Path, Path]],
) -> None:
    with wasmgraph.load(compiled("network")[1]) as graph:
        given = inputs("network", 0)
        found = graph.run(given)
        assert found["scores"].shape == (0, 5)
        assert found["pixels"].shape == (0, 256)
        np.testing.assert_array_equal(found["shared"], np.maximum(given["gain"], 0))


@pytest.mark.parametrize("threads", [2, 3])
def test_threads_change_nothing(compiled: Callable[[str], tuple[Path, Path]], threads: int) -> None:
    path = compiled("network")[1]
    with wasmgraph.load(path) as one, wasmgraph.load(path, threads=threads) as several:
        for samples in (1, 5, 0, 2, 16, 1):
            given = inputs("network", samples)
            expected, found = one.run(given), several.run(given)
            for name, array in expected.items():
                np.testing.assert_array_equal(found[name], array)


def test_inputs_disagree_on_the_size_of_the_batch(
    compiled: Callable[[str], tuple[Path, Path]],
) -> None:
    with wasmgraph.load(compiled("network")[1]) as graph:
        given = {**inputs("network", 2), "offset": floats(3, 1, 1, 1)}
        with pytest.raises(InputError, match="axis 'N' is 2 in input 'x' and 3 in input 'offset'"):
            graph.run(given)


def test_limits_hold_for_whole_batches(
    compiled: Callable[[str], tuple[Path, Path]],
) -> None:
    path = compiled("recurrent")[1]
    with wasmgraph.load(path, max_memory="8MiB") as graph:
        graph.run(inputs("recurrent", 4))
        with pytest.raises(MemoryLimitExceeded):
            graph.run(inputs("recurrent", 20_000))
        graph.run(inputs("recurrent", 4))
    with (
        wasmgraph.load(path, timeout=0.05) as graph,
        pytest.raises((RunTimeout, InferenceError)),
    ):
        graph.run(inputs("recurrent", 100_000))


def test_metadata_name_the_axis(compiled: Callable[[str], tuple[Path, Path]]) -> None:
    with wasmgraph.load(compiled("network")[1]) as graph:
        assert [spec.shape for spec in graph.inputs] == [
            ("N", 3, 16, 16),
            ("N", 1, 1, 1),
            (16, 1, 1),
        ]
        assert [spec.shape for spec in graph.outputs] == [("N", 5), (16, 1, 1), ("pixels:0", 256)]
        assert graph.metadata.openness == f"batch axis 'N': {ONE_BY_ONE}"


def test_steps_are_those_of_one_sample(compiled: Callable[[str], tuple[Path, Path]]) -> None:
    with wasmgraph.load(compiled("network")[1]) as graph:
        graph.run(inputs("network", 3))
        assert len(graph.time_steps(0.05)) == len(graph.metadata.steps)


def test_the_backend_takes_batches(compiled: Callable[[str], tuple[Path, Path]]) -> None:
    model = onnx.load(compiled("attention")[0])
    prepared = backend.prepare(model)
    session = onnxruntime.InferenceSession(compiled("attention")[0])
    for samples in (1, 3):
        given = inputs("attention", samples)
        [found] = prepared.run(given)
        np.testing.assert_allclose(found, session.run(None, given)[0], 1e-3, 1e-4)


def test_a_model_can_be_kept_whole(compiled: Callable[[str], tuple[Path, Path]]) -> None:
    graph = make_bundle(compiled("attention")[0], options=Options(by_sample=False)).graph
    assert graph.dynamic is not None
    assert graph.openness.startswith("dynamic (open axes batch); fixed shapes")


def test_its_weights_can_be_rounded(
    compiled: Callable[[str], tuple[Path, Path]], tmp_path: Path
) -> None:
    report = wasmgraph.compile(compiled("network")[0], tmp_path / "f16.wasm", weights="f16")
    assert report.rounded == "f16"
    assert report.openness.endswith(ONE_BY_ONE)
    assert report.verification is not None
    assert report.verification.agrees
