"""Components give what modules give, bit by bit, within the same limits, with the same errors."""

from __future__ import annotations

import threading
from pathlib import Path

import ml_dtypes  # noqa: F401 - numpy knows its names from then on
import numpy as np
import onnx
import pytest

import wasmgraph
from tests import bundles
from tests.component.foreign_host import ForeignHost, floats, tensor
from tests.onnx_models import Array, make_model, node
from wasmgraph.bundle import Bundle, read_bundle
from wasmgraph.errors import InferenceError, LoadError, MemoryLimitExceeded, RunTimeout
from wasmgraph.link import link

RNG = np.random.default_rng(0)
IMAGE = RNG.random((1, 1, 8, 8), np.float32)


def both(model: onnx.ModelProto, folder: Path) -> tuple[Path, Path]:
    """A model as a module and as a component."""
    module, component = folder / "module.wasm", folder / "component.wasm"
    wasmgraph.compile(model, module, verify=False, bundle_dir=folder / "bundle")
    link(read_bundle(folder / "bundle"), component, kind="component")
    return module, component


def component_of(bundle: Bundle, folder: Path) -> Path:
    path = folder / "component.wasm"
    link(bundle, path, kind="component")
    return path


def assert_same(module: Path, component: Path, *feeds: dict[str, Array]) -> None:
    """Both give the same bits for each of the inputs, one after the other in one instance."""
    with wasmgraph.load(module) as one, wasmgraph.load(component) as other:
        assert (one.inputs, one.outputs) == (other.inputs, other.outputs)
        for feed in feeds:
            expected, found = one.run(feed), other.run(feed)
            assert list(found) == list(expected)
            for name, array in expected.items():
                assert (found[name].dtype, found[name].shape) == (array.dtype, array.shape)
                assert found[name].tobytes() == array.tobytes()


def test_the_sample(digits_wasm: Path, digits_component: Path) -> None:
    feeds = [{"image": RNG.random((1, 1, 8, 8), np.float32)} for _ in range(3)]
    assert_same(digits_wasm, digits_component, *feeds)


def test_outputs_are_the_callers(digits_component: Path) -> None:
    with wasmgraph.load(digits_component) as graph:
        first = graph.run({"image": np.zeros_like(IMAGE)})["probabilities"]
        before = first.copy()
        graph.run({"image": np.ones_like(IMAGE)})
    assert first.flags.writeable
    np.testing.assert_array_equal(first, before)


def test_strides_and_byte_order_do_not_matter(digits_component: Path) -> None:
    with wasmgraph.load(digits_component) as graph:
        expected = graph.run({"image": IMAGE})["probabilities"]
        turned = np.ascontiguousarray(IMAGE.swapaxes(2, 3)).swapaxes(2, 3)
        for same in (turned, IMAGE.astype(">f4"), IMAGE.tolist()):
            np.testing.assert_array_equal(graph.run({"image": same})["probabilities"], expected)


def test_several_threads_have_instances_of_their_own(digits_component: Path) -> None:
    images = RNG.random((4, 1, 1, 8, 8), np.float32)
    with wasmgraph.load(digits_component, timeout=60) as graph:
        expected = [graph.run({"image": image})["probabilities"] for image in images]
        found: dict[int, Array] = {}

        def work(i: int) -> None:
            for _ in range(20):
                found[i] = graph.run({"image": images[i]})["probabilities"]

        threads = [threading.Thread(target=work, args=(i,)) for i in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    for i, array in enumerate(expected):
        np.testing.assert_array_equal(found[i], array)


DTYPES = ["bool", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64"]
DTYPES += ["float16", "bfloat16", "float32", "float64", "float8_e4m3fn", "int4"]


def identities(dtypes: list[str], shape: tuple[int | str, ...]) -> onnx.ModelProto:
    """A model that hands every input on, one of each dtype."""
    return make_model(
        [node("Identity", f"x_{dtype}", f"y_{dtype}") for dtype in dtypes],
        {f"x_{dtype}": (dtype, shape) for dtype in dtypes},
        {f"y_{dtype}": (dtype, shape) for dtype in dtypes},
        opset=21,
    )


def any_bits(dtype: str, shape: tuple[int, ...]) -> Array:
    if dtype in ("bool", "int4"):
        return RNG.integers(0, 2, shape).astype(dtype)
    count = int(np.prod(shape))
    return np.frombuffer(RNG.bytes(np.dtype(dtype).itemsize * count), dtype).reshape(shape)


def test_every_dtype_passes_bit_by_bit(tmp_path: Path) -> None:
    module, component = both(identities(DTYPES, (2, 3)), tmp_path)
    feed = {f"x_{dtype}": any_bits(dtype, (2, 3)) for dtype in DTYPES}
    assert_same(module, component, feed, feed)
    with wasmgraph.load(component) as graph:
        for name, array in graph.run(feed).items():
            assert array.tobytes() == feed[name.replace("y", "x", 1)].tobytes()


def test_open_axes(tmp_path: Path) -> None:
    """Sizes that grow, shrink, stay, and keep their bytes under another shape."""
    dtypes = ["float32", "int64", "uint8"]
    module, component = both(identities(dtypes, ("N", "M")), tmp_path)
    shapes = [(2, 3), (2, 3), (3, 2), (6, 1), (0, 4), (100, 70), (1, 1), (70, 100)]
    feeds = [{f"x_{d}": any_bits(d, shape) for d in dtypes} for shape in shapes]
    assert_same(module, component, *feeds)


def test_an_open_batch(tmp_path: Path) -> None:
    """A graph for one sample, run once per sample."""
    weights = {"w": RNG.random((256, 256), np.float32)}
    nodes = [node("MatMul", "x w", "h"), node("Relu", "h", "y")]
    model = make_model(nodes, {"x": ("N", 256)}, {"y": ("N", 256)}, weights)
    module, component = both(model, tmp_path)
    assert read_bundle(tmp_path / "bundle").graph.batch is not None
    feeds = [{"x": RNG.random((n, 256), np.float32)} for n in (1, 3, 3, 1, 5, 0, 2)]
    assert_same(module, component, *feeds)


@pytest.mark.parametrize("shape", [(), (0, 3)])
def test_scalars_and_tensors_without_elements(tmp_path: Path, shape: tuple[int, ...]) -> None:
    module, component = both(identities(["float32", "int8"], shape), tmp_path)
    assert_same(module, component, {f"x_{d}": any_bits(d, shape) for d in ("float32", "int8")})


@pytest.mark.parametrize("extent", [64, "N"])
def test_inputs_of_one_size_are_not_mistaken_for_each_other(
    tmp_path: Path, extent: int | str
) -> None:
    """A component gives out memory by size alone; names say which is which."""
    ports = {"a": (extent,), "b": (extent,)}
    _, component = both(make_model([node("Sub", "a b", "y")], ports, {"y": (extent,)}), tmp_path)
    host = ForeignHost(component)
    for order in ("ab", "ba", "ab", "ba"):
        feed = {name: RNG.random(64, np.float32) for name in "ab"}
        (y,) = host.run(*(tensor(name, feed[name]) for name in order))
        np.testing.assert_array_equal(floats(y), feed["a"] - feed["b"])


def test_a_name_as_long_as_an_input_does_not_spoil_it(tmp_path: Path) -> None:
    model = make_model(
        [node("Identity", "image", "y")], {"image": ("uint8", (5,))}, {"y": ("uint8", (5,))}
    )
    _, component = both(model, tmp_path)
    (y,) = ForeignHost(component).run(tensor("image", np.arange(5, dtype=np.uint8)))
    assert y.tensor.bytes == bytes(range(5))


def test_a_foreign_host_is_told_what_is_wrong(digits_component: Path) -> None:
    """wasmgraph's own runtime checks before; any other host may pass what it likes."""
    host, good = ForeignHost(digits_component), tensor("image", IMAGE)
    (expected,) = host.run(good)
    wrong = {
        "'image' was not given": [],
        "'image' was given twice": [good, good],
        "no input 'picture': there is 'image'": [tensor("picture", IMAGE)],
        "input 'image' has float32, not float64": [tensor("image", IMAGE.astype(np.float64))],
        "has 256 bytes in that shape, not 252": [tensor("image", IMAGE, nbytes=252)],
        "has shape [1, 1, 8, 8], not shape [1, 1, 4, 16]": [
            tensor("image", IMAGE.reshape(1, 1, 4, 16))
        ],
        "more than memory has bytes in that shape": [tensor("image", IMAGE, shape=[2**32 - 1] * 4)],
    }
    for text, tensors in wrong.items():
        error = host.run(*tensors)
        assert error.tag == "input-error"
        assert text in error.payload
        # The same instance goes on.
        (found,) = host.run(good)
        assert found.tensor.bytes == expected.tensor.bytes


def test_describe(digits_component: Path) -> None:
    said = ForeignHost(digits_component).describe()
    metadata = wasmgraph.load(digits_component).metadata
    assert dict(said.producer) == metadata.producer
    assert (said.model.name, said.model.sha256, said.model.opset) == (
        metadata.model.name,
        metadata.model.sha256,
        metadata.model.opset,
    )
    assert said.simd == "simd128"
    (image,), (probabilities,) = said.inputs, said.outputs
    assert (image.name, image.dtype) == ("image", "float32")
    assert [
        (extent.tag, extent.payload) if hasattr(extent, "tag") else extent for extent in image.shape
    ] == [1, 1, 8, 8]
    assert probabilities.shape == [1, 10]


def test_describe_names_open_axes(tmp_path: Path) -> None:
    _, component = both(identities(["float32"], (2, "N")), tmp_path)
    (x,) = ForeignHost(component).describe().inputs
    assert x.shape == [2, "N"]


def test_a_kernel_that_fails_is_an_error(tmp_path: Path) -> None:
    component = component_of(bundles.failing_bundle(), tmp_path)
    with (
        wasmgraph.load(component) as graph,
        pytest.raises(InferenceError, match="failed with code 7"),
    ):
        graph.run({"x": np.full(4, 7, np.float32)})


def test_a_trap_names_the_kernel(tmp_path: Path) -> None:
    component = component_of(bundles.trapping_bundle(), tmp_path)
    with wasmgraph.load(component) as graph, pytest.raises(InferenceError, match="kernel trap"):
        graph.run({"x": np.zeros(4, np.float32)})


def test_the_time_limit_is_kept(tmp_path: Path) -> None:
    component = component_of(bundles.endless_bundle(), tmp_path)
    with (
        wasmgraph.load(component, timeout=0.2) as graph,
        pytest.raises(RunTimeout, match=r"0\.2 s"),
    ):
        graph.run({"x": np.zeros(4, np.float32)})


def test_the_memory_limit_is_kept(tmp_path: Path) -> None:
    component = component_of(bundles.hungry_bundle(), tmp_path)
    with (
        wasmgraph.load(component, max_memory="64MiB") as graph,
        pytest.raises(MemoryLimitExceeded, match=r"ran out of memory; the limit is 64.0 MiB"),
    ):
        graph.run({"x": np.full(4, 100, np.float32)})


def test_inputs_beyond_the_memory_limit(tmp_path: Path) -> None:
    """Memory that a caller asks for and the graph does not have is a trap, which a host knows."""
    _, component = both(identities(["uint8"], ("N",)), tmp_path)
    with (
        wasmgraph.load(component, max_memory="8MiB") as graph,
        pytest.raises(MemoryLimitExceeded, match=r"the limit is 8.0 MiB"),
    ):
        graph.run({"x_uint8": np.zeros(2**23, np.uint8)})


def test_more_outputs_than_wasmtime_carries_are_an_error_that_says_so(tmp_path: Path) -> None:
    _, component = both(identities(["uint8"], (3 * 2**20,)), tmp_path)
    with (
        wasmgraph.load(component) as graph,
        pytest.raises(InferenceError, match="128 MiB of values") as caught,
    ):
        graph.run({"x_uint8": np.zeros(3 * 2**20, np.uint8)})
    assert "without --kind component" in (caught.value.hint or "")


def test_a_component_for_several_threads_does_not_exist(digits_component: Path) -> None:
    with pytest.raises(LoadError, match="runs on one thread, not on 2"):
        wasmgraph.load(digits_component, threads=2)


def test_a_runtime_for_modules_refuses_a_component(digits_component: Path) -> None:
    with pytest.raises(LoadError, match="takes modules"):
        wasmgraph.load(digits_component, runtime="node")
    with pytest.raises(ValueError, match="no runtime 'mode'"):
        wasmgraph.load(digits_component, runtime="mode")


def test_native_code_is_cached(digits_component: Path, isolated_cache: Path) -> None:
    with wasmgraph.load(digits_component):
        before = set((isolated_cache / "wasmgraph" / "native").glob("*.cwasm"))
    with wasmgraph.load(digits_component) as graph:
        graph.run({"image": IMAGE})
    assert set((isolated_cache / "wasmgraph" / "native").glob("*.cwasm")) == before
    assert before
