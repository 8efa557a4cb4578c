"""Upper bounds of open axes: who checks them, and that they fix the memory."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
import wasmtime

import wasmgraph
from tests.link.raw_abi import Host
from tests.onnx_models import Array, make_model, node
from wasmgraph.bundle import read_bundle
from wasmgraph.errors import InputError, ModelError
from wasmgraph.link import link
from wasmgraph.link.consistency import check_description
from wasmgraph.wasmfile import parse_wasm, read_metadata

RNG = np.random.default_rng(3)
PAGE = 65536


def images() -> onnx.ModelProto:
    """Convolutions and what follows, for any number of pictures of any size."""
    weights = {
        "w": RNG.normal(size=(8, 3, 3, 3)).astype(np.float32),
        "v": RNG.normal(size=(4, 8, 3, 3)).astype(np.float32),
    }
    nodes = [
        node("Conv", "x w", "a", pads=[1, 1, 1, 1]),
        node("Relu", "a", "b"),
        node("Conv", "b v", "c", pads=[1, 1, 1, 1], strides=[2, 2]),
        node("GlobalAveragePool", "c", "d"),
        node("Flatten", "d", "e"),
        node("Softmax", "e", "y", axis=-1),
    ]
    return make_model(nodes, {"x": ["batch", 3, "height", "width"]}, "y", weights)


BOUNDS = {"batch": 4, "height": 40, "width": 48}


@pytest.fixture(scope="module")
def bounded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    target = tmp_path_factory.mktemp("bounded") / "bounded.wasm"
    report = wasmgraph.compile(images(), target, dynamic=BOUNDS, bundle_dir=target.parent / "kept")
    assert report.bounds == BOUNDS
    assert report.verification is not None
    assert report.sizes["arena"] > 4 * (8 + 8) * 40 * 48 * 4, "of a convolution's input and output"
    return target


def pictures(*shape: int) -> dict[str, Array]:
    return {"x": RNG.random(shape, np.float32)}


def test_the_memory_is_fixed_and_stated(bounded: Path) -> None:
    data = bounded.read_bytes()
    memory, metadata = parse_wasm(data).memory, read_metadata(data)
    assert memory is not None
    assert memory.minimum == memory.maximum
    assert metadata.bounds == BOUNDS
    assert 0 < metadata.sizes.arena < memory.minimum * PAGE


def test_runs_at_every_size_up_to_the_bounds_take_no_more(bounded: Path) -> None:
    host = Host(bounded.read_bytes())
    memory = host.exports["memory"]
    assert isinstance(memory, wasmtime.Memory)
    with wasmgraph.load(bounded) as graph:
        nbytes = memory.data_len(host.store)
        extents = [(4, 40, 48), (1, 1, 1), (3, 17, 48), (4, 40, 48), (2, 40, 9), (0, 8, 8)]
        extents += [tuple(int(RNG.integers(1, n + 1)) for n in BOUNDS.values()) for _ in range(30)]
        for batch, height, width in [*extents, (4, 40, 48)]:
            given = pictures(batch, 3, height, width)
            address = host.declare(0, (batch, 3, height, width))
            assert address, host.error()
            host.write(address, given["x"].tobytes())
            assert host.call("wg_run") == 0, host.error()
            found = np.array(host.floats(0, 4 * batch), np.float32).reshape(batch, 4)
            np.testing.assert_array_equal(found, graph.run(given)["y"])
        assert memory.data_len(host.store) == nbytes


def test_what_is_larger_is_an_input_error_that_names_axis_and_bound(bounded: Path) -> None:
    with wasmgraph.load(bounded) as graph:
        with pytest.raises(InputError, match="axis 'batch' is 5 in input 'x', and at most 4"):
            graph.run(pictures(5, 3, 8, 8))
        with pytest.raises(InputError) as caught:
            graph.run(pictures(1, 3, 41, 49))
        assert "axis 'height' is 41 in input 'x', and at most 40" in caught.value.message
        assert "axis 'width' is 49 in input 'x', and at most 48" in caught.value.message
        assert graph.run(pictures(1, 3, 40, 48))["y"].shape == (1, 4)


def test_the_graph_itself_says_so_to_other_hosts(bounded: Path) -> None:
    host = Host(bounded.read_bytes())
    assert host.declare(0, (5, 3, 8, 8)) == 0
    assert host.error() == "axis 'batch' is at most 4, not 5 (input 'x')"


def test_the_kept_bundle_links_to_the_same_bytes(bounded: Path, tmp_path: Path) -> None:
    link(read_bundle(bounded.parent / "kept"), tmp_path / "again.wasm")
    assert (tmp_path / "again.wasm").read_bytes() == bounded.read_bytes()


def test_where_one_axis_has_no_bound_the_memory_grows(tmp_path: Path) -> None:
    target = tmp_path / "out.wasm"
    report = wasmgraph.compile(images(), target, dynamic={"batch": 2}, verify=False)
    assert report.bounds == {"batch": 2}
    assert report.sizes["arena"] == 0
    memory = parse_wasm(target.read_bytes()).memory
    assert memory is not None
    assert memory.maximum is None
    with wasmgraph.load(target) as graph:
        graph.run(pictures(2, 3, 64, 64))
        with pytest.raises(InputError, match="axis 'batch' is 3 in input 'x', and at most 2"):
            graph.run(pictures(3, 3, 8, 8))


def test_a_bound_of_an_input_holds_for_all_its_axes(tmp_path: Path) -> None:
    model = make_model([node("Relu", "x", "y")], {"x": [None, 3]}, "y")
    report = wasmgraph.compile(model, tmp_path / "out.wasm", dynamic={"x": 7}, verify=False)
    assert report.bounds == {"x:0": 7, "x:1": 7}


def test_an_axis_without_a_name_is_called_by_its_place(tmp_path: Path) -> None:
    model = make_model([node("Relu", "x", "y")], {"x": [None, 3]}, "y")
    report = wasmgraph.compile(model, tmp_path / "out.wasm", dynamic={"x:0": 7}, verify=False)
    assert report.bounds == {"x:0": 7}
    assert report.inputs[0].shape == ("x:0", 3)
    opened = wasmgraph.compile(model, tmp_path / "out.wasm", dynamic={"x:1": 5}, verify=False)
    assert opened.inputs[0].shape == ("x:0", "x:1")
    assert opened.bounds == {"x:1": 5}


def test_bounds_at_which_the_model_cannot_run_are_an_input_error(tmp_path: Path) -> None:
    weights = {"shape": np.array([-1, 7])}
    model = make_model([node("Reshape", "x shape", "y")], {"x": ["N"]}, "y", weights)
    with pytest.raises(InputError, match=r"cannot run at its upper bounds \(N 8\)"):
        wasmgraph.compile(model, tmp_path / "out.wasm", dynamic={"N": 8}, verify=False)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("bound", [0, -1, 2**31])
def test_a_bound_is_an_extent(tmp_path: Path, bound: int) -> None:
    with pytest.raises(InputError, match=f"'batch' cannot have the upper bound {bound}"):
        wasmgraph.compile(images(), tmp_path / "out.wasm", dynamic={"batch": bound})


def test_a_bundle_with_the_bound_of_no_axis_is_refused(bounded: Path, tmp_path: Path) -> None:
    kept = bounded.parent / "kept"
    for bounds in ({"depth": 3}, {"batch": 0}, {"batch": "x"}):
        described = json.loads((kept / "graph.json").read_text())
        (tmp_path / "graph.json").write_text(json.dumps({**described, "bounds": bounds}))
        for name in ("graph.o", "graph.params"):
            (tmp_path / name).write_bytes((kept / name).read_bytes())
        with pytest.raises(ModelError, match=r"has (a|the) bound"):
            check_description(read_bundle(tmp_path).graph)
