"""Graphs of every kind in Node, against Wasmtime bit by bit: dtypes, shapes, limits."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import wasmgraph
from tests.javascript.conftest import RunGraph, Tensors
from tests.onnx_models import make_model, node
from tests.runtime.wat_graphs import WatGraph, X
from wasmgraph.metadata import KernelInfo, TensorInfo

RANDOM = np.random.default_rng(3)


def compile_model(folder: Path, *args: Any, **kwargs: Any) -> Path:
    """Compile a tiny model."""
    path = folder / "graph.wasm"
    wasmgraph.compile(make_model(*args, **kwargs), path, verify=False)
    return path


def assert_same(run_graph: RunGraph, path: Path, runs: list[Tensors], **options: Any) -> None:
    """Every run gives the same bits, shapes and dtypes in Node as under Wasmtime."""
    found = run_graph(path, runs, **options)
    assert len(found) == len(runs)
    with wasmgraph.load(path) as graph:
        for inputs, outputs in zip(runs, found, strict=True):
            assert "kind" not in outputs, outputs
            expected = graph.run(inputs)
            assert list(outputs) == list(expected)
            for name, array in expected.items():
                assert outputs[name].dtype == array.dtype
                assert outputs[name].shape == array.shape
                assert outputs[name].tobytes() == array.tobytes(), name


@pytest.mark.parametrize(
    "dtype",
    [
        *("bool", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64"),
        *("float16", "float32", "float64"),
    ],
)
def test_every_dtype_goes_in_and_out(run_graph: RunGraph, tmp_path: Path, dtype: str) -> None:
    tensor = TensorInfo("x", dtype, (2, 3))
    same = WatGraph(
        {
            "wg_output": "(func $wg_output (param i32) (result i32) i32.const 1024)",
            "wg_run": "(func $wg_run (result i32) i32.const 0)",
        },
        inputs=(tensor,),
        outputs=(TensorInfo("y", dtype, (2, 3)),),
    )
    bits = RANDOM.integers(0, 2, 6 * 8).astype(np.uint8).tobytes()
    values = np.frombuffer(bits, dtype, 6).reshape(2, 3)
    assert_same(run_graph, same.write(tmp_path), [{"x": values}])


@pytest.mark.parametrize("shape", [(), (0,), (3, 0, 2), (1,) * 8], ids=str)
def test_scalars_empty_tensors_and_many_axes(
    run_graph: RunGraph, tmp_path: Path, shape: tuple[int, ...]
) -> None:
    path = compile_model(tmp_path, [node("Neg", "x", "y")], {"x": shape}, {"y": shape})
    values = np.asarray(RANDOM.random(shape, dtype=np.float32))
    assert_same(run_graph, path, [{"x": values}])


def test_shapes_that_a_run_decides(run_graph: RunGraph, tmp_path: Path) -> None:
    path = compile_model(
        tmp_path,
        [node("MatMul", "x w", "p"), node("Relu", "p", "y"), node("NonZero", "y", "where")],
        {"x": ("rows", 3)},
        {"y": ("rows", 2), "where": ("int64", (2, "found"))},
        {"w": RANDOM.standard_normal((3, 2)).astype(np.float32)},
    )
    runs = [{"x": RANDOM.standard_normal((n, 3)).astype(np.float32)} for n in (1, 7, 0, 300, 2)]
    assert_same(run_graph, path, runs)
    assert_same(run_graph, path, runs, worker=True)
    narrow, wide = run_graph(path, [{"x": np.zeros((2, 4), np.float32)}, runs[0]])
    assert narrow["kind"] == "InputError"
    assert "expected float32[rows, 3] in a Float32Array of 8" in narrow["message"]
    assert "found float32[2, 4] in a Float32Array of 8" in narrow["message"]
    assert wide["y"].shape == (1, 2)


def test_axes_of_one_name_must_agree(run_graph: RunGraph, tmp_path: Path) -> None:
    path = compile_model(
        tmp_path, [node("Add", "a b", "y")], {"a": ("n",), "b": ("n",)}, {"y": ("n",)}
    )
    two, three = np.ones(2, np.float32), np.ones(3, np.float32)
    wrong, right = run_graph(path, [{"a": two, "b": three}, {"a": three, "b": three}])
    assert wrong["kind"] == "InputError"
    assert "input 'b': axis 'n' is 3, but 2 in input 'a'" in wrong["message"]
    np.testing.assert_array_equal(right["y"], three + three)


GROWS = """(func $wg_run (result i32)
    (loop $more (br_if $more (i32.ne (memory.grow (i32.const 1)) (i32.const -1))))
    (f32.store (i32.const 2048) (f32.convert_i32_u (memory.size))) i32.const 0)"""


@pytest.mark.parametrize("memory", ["1", "1 16", "1 40000"])
@pytest.mark.parametrize("worker", [False, True])
def test_memory_ends_at_its_limit(
    run_graph: RunGraph, tmp_path: Path, memory: str, worker: bool
) -> None:
    field = f'(memory (export "memory") {memory})'
    path = WatGraph({"wg_run": GROWS}, memory=field).write(tmp_path)
    (outputs,) = run_graph(path, [{"x": np.zeros(4, np.float32)}], maxMemory=1 << 21, worker=worker)
    assert outputs["y"][0] == (16 if memory == "1 16" else 32)


def test_a_section_before_the_memory_is_no_obstacle(run_graph: RunGraph, tmp_path: Path) -> None:
    path = WatGraph({"wg_run": GROWS}).write(tmp_path)
    binary = path.read_bytes()
    custom = b"\x00\x86\x04\x03abc" + bytes(514)  # a custom section of 518 bytes
    path.write_bytes(binary[:8] + custom + binary[8:])
    (outputs,) = run_graph(path, [{"x": np.zeros(4, np.float32)}], maxMemory=1 << 20)
    assert outputs["y"][0] == 16


def test_a_trap_names_its_kernel_and_the_next_run_works(
    run_graph: RunGraph, tmp_path: Path
) -> None:
    graph = WatGraph(
        {
            "wg_run": """(func $wg_run (result i32) (call $wgk_0) i32.const 0)
            (func $wgk_0 (if (f32.eq (f32.load (i32.const 1024)) (f32.const 7)) (then unreachable)))
            """
        },
        kernels=(KernelInfo("wgk_0", "conv2d + relu"),),
    )
    zeros = {"x": np.zeros(4, np.float32)}
    seven = {"x": np.full(4, 7, np.float32)}
    error, outputs = run_graph(graph.write(tmp_path), [seven, zeros])
    assert error["kind"] == "InferenceError"
    assert error["message"] == "the graph trapped in kernel wgk_0 (conv2d + relu): unreachable"
    np.testing.assert_array_equal(outputs["y"], 0)


def test_what_a_graph_says_before_it_traps_is_in_the_error(
    run_graph: RunGraph, tmp_path: Path
) -> None:
    says = WatGraph(
        {
            "wg_run": """(func $wg_run (result i32)
            (drop (call $say (i32.const 2) (i32.const 512) (i32.const 1) (i32.const 600)))
            unreachable)"""
        },
        imports="""(import "wasi_snapshot_preview1" "fd_write"
            (func $say (param i32 i32 i32 i32) (result i32)))""",
        rest=r'(data (i32.const 512) "\10\00\00\00\09\00\00\00")',
    )
    (error,) = run_graph(says.write(tmp_path), [{"x": np.zeros(4, np.float32)}])
    assert error["message"] == "the graph trapped: unreachable: it failed"


def test_an_exception_that_leaves_a_graph_is_a_trap(run_graph: RunGraph, tmp_path: Path) -> None:
    throws = WatGraph(
        {"wg_run": "(func $wg_run (result i32) (throw $oops) i32.const 0)"}, rest="(tag $oops)"
    )
    (error,) = run_graph(throws.write(tmp_path), [{"x": np.zeros(4, np.float32)}])
    assert error["kind"] == "InferenceError"
    assert error["message"].startswith("the graph trapped: ")


def test_names_that_a_terminal_would_obey_do_not_break_messages(
    run_graph: RunGraph, tmp_path: Path
) -> None:
    odd = TensorInfo("\x1b[2J", X.dtype, X.shape)
    (error,) = run_graph(WatGraph(inputs=(odd,)).write(tmp_path), [{}])
    assert error["kind"] == "InputError"
    assert "\x1b" not in error["message"] + error["hint"]
