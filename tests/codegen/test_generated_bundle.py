"""The bundle that the compiler generates: its description, weights and code fit together."""

from __future__ import annotations

import numpy as np
import pytest

from tests.onnx_models import Array, compile_to_bundle, make_model, node
from wasmgraph.bundle import ALIGNMENT, Buffer, Bundle

RNG = np.random.default_rng(0)
SQUARE = {f"w{i}": RNG.normal(size=(8, 8, 3, 3)).astype(np.float32) for i in range(3)}
SHARED: Array = RNG.normal(size=(6, 6)).astype(np.float32)


@pytest.fixture(scope="module")
def bundle() -> Bundle:
    """Three convolutions of one shape, a weight that is added twice, and views for outputs."""
    nodes = [
        node("Conv", "x w0", "a", name="first", pads=[1, 1, 1, 1]),
        node("Conv", "a w1", "b", name="second", pads=[1, 1, 1, 1]),
        node("Conv", "b w2", "c", name="third", pads=[1, 1, 1, 1]),
        node("Add", "c shared", "d", name="add"),
        node("Sigmoid", "d", "e", name="sigmoid"),
        node("Add", "e shared", "y", name="add again"),
        node("Identity", "shared", "constant"),
        node("Identity", "x", "same"),
    ]
    return compile_to_bundle(
        make_model(nodes, {"x": (1, 8, 6, 6)}, "y constant same", {**SQUARE, "shared": SHARED})
    )


def region_nbytes(bundle: Bundle, buffer: Buffer) -> int:
    graph = bundle.graph
    sizes = {"params": graph.params_nbytes, "io": graph.io_nbytes, "arena": graph.arena_nbytes}
    return sizes[buffer.region]


def test_every_buffer_lies_in_its_region(bundle: Bundle) -> None:
    graph = bundle.graph
    buffers = [buffer for step in graph.steps for buffer in step.buffers]
    buffers += [tensor.buffer for tensor in (*graph.inputs, *graph.outputs)]
    assert buffers
    for buffer in buffers:
        assert 0 <= buffer.offset <= buffer.offset + buffer.nbytes <= region_nbytes(bundle, buffer)


def test_inputs_and_outputs_are_aligned_and_as_long_as_they_should_be(bundle: Bundle) -> None:
    for tensor in (*bundle.graph.inputs, *bundle.graph.outputs):
        assert tensor.buffer.offset % ALIGNMENT == 0
        expected = int(np.prod(tensor.shape)) * np.dtype(tensor.dtype).itemsize
        assert tensor.buffer.nbytes == expected


def test_steps_call_kernels_with_as_many_buffers_as_these_take(bundle: Bundle) -> None:
    graph = bundle.graph
    for step in graph.steps:
        assert len(step.buffers) == graph.kernels[step.kernel].buffers
        assert 1 <= step.writes <= len(step.buffers)
    assert {step.kernel for step in graph.steps} == set(range(len(graph.kernels)))


def test_symbols_are_distinct_and_c_identifiers(bundle: Bundle) -> None:
    symbols = [kernel.symbol for kernel in bundle.graph.kernels]
    assert len(set(symbols)) == len(symbols)
    assert all(symbol.isidentifier() and symbol.isascii() for symbol in symbols)


def test_nothing_writes_to_weights_or_inputs(bundle: Bundle) -> None:
    graph = bundle.graph
    inputs = [tensor.buffer for tensor in graph.inputs]
    for step in graph.steps:
        for buffer in step.buffers[len(step.buffers) - step.writes :]:
            assert buffer.region != "params"
            assert not any(
                buffer.region == other.region
                and buffer.offset < other.offset + other.nbytes
                and other.offset < buffer.offset + buffer.nbytes
                for other in inputs
            )


def test_every_step_names_its_nodes_and_every_node_that_computes_is_named(bundle: Bundle) -> None:
    """But for a copy that brings an output into the order in which the host reads it."""
    graph = bundle.graph
    named = [set(step.nodes) for step in graph.steps]
    for step, nodes in zip(graph.steps, named, strict=True):
        assert nodes or graph.kernels[step.kernel].description == "copy"
    assert set().union(*named) == {"first", "second", "third", "add", "sigmoid", "add again"}


def test_equal_kernels_are_one(bundle: Bundle) -> None:
    """One kernel per distinct shape, not per node: the first two convolutions share theirs."""

    def kernels_of(name: str) -> set[int]:
        return {step.kernel for step in bundle.graph.steps if name in step.nodes}

    assert kernels_of("first") & kernels_of("second")


def test_a_weight_that_is_used_twice_is_stored_once(bundle: Bundle) -> None:
    assert bundle.params.count(SHARED.tobytes()) == 1


def test_constants_keep_their_onnx_names_where_they_are_stored_as_they_were(
    bundle: Bundle,
) -> None:
    (constant,) = (c for c in bundle.graph.constants if c.name == "shared")
    stored = bundle.params[constant.offset : constant.offset + SHARED.nbytes]
    assert stored == SHARED.tobytes()
    (output,) = (t for t in bundle.graph.outputs if t.name == "constant")
    assert output.buffer == Buffer("params", constant.offset, SHARED.nbytes)


def test_an_output_that_is_an_input_lies_where_the_input_lies(bundle: Bundle) -> None:
    (output,) = (t for t in bundle.graph.outputs if t.name == "same")
    assert output.buffer == bundle.graph.inputs[0].buffer


def test_weights_are_hardly_larger_than_in_the_model(bundle: Bundle) -> None:
    """Each may be padded to whole vectors and to the alignment."""
    in_model = sum(weight.nbytes for weight in SQUARE.values()) + SHARED.nbytes
    assert in_model <= bundle.graph.params_nbytes <= in_model * 1.5
    assert len(bundle.params) == bundle.graph.params_nbytes


def test_object_code_is_a_relocatable_wasm_object(bundle: Bundle) -> None:
    assert bundle.object_code[:8] == b"\0asm\x01\0\0\0"
    assert b"\x07linking" in bundle.object_code


def test_the_source_and_its_producers_are_named(bundle: Bundle) -> None:
    graph = bundle.graph
    assert graph.source.name == "tiny"
    assert graph.source.operators == {"Add": 2, "Conv": 3, "Identity": 2, "Sigmoid": 1}
    assert {"wasmgraph", "apache-tvm", "onnx"} <= set(graph.producer)
    assert all(graph.producer.values())
