"""All stages in a row: what a graph may give out, the same bytes every time, Ctrl-C anywhere."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto

import wasmgraph
from tests.onnx_models import Array, make_model, node
from wasmgraph.bundle import SIMD_LEVELS, SimdLevel
from wasmgraph.compiler import STAGES
from wasmgraph.errors import InputError, VerificationError
from wasmgraph.progress import Reporter
from wasmgraph.wasmfile import parse_wasm

X = np.random.default_rng(0).normal(size=(2, 3)).astype(np.float32)
RELU = np.maximum(X, 0)
FEEDS: dict[str, Array] = {
    "x": X,
    "s": np.array(3, np.float32),
    "n": np.array([2**40, -(2**62)]),
    "flags": np.array([True, False, True]),
    "empty": np.zeros((0, 3), np.float32),
    "unread": np.zeros(4, np.float32),
}
WEIGHTS: dict[str, Array] = {
    "w": np.arange(4, dtype=np.float32).reshape(2, 2),
    "column": np.array([6, 1]),
    "row": np.array([1, 4]),
    "zero": np.array(0, np.float32),
}
OUTPUTS: dict[str, tuple[onnx.NodeProto | None, Array]] = {
    "x": (None, X),
    "w": (None, WEIGHTS["w"]),
    "relu": (node("Relu", "x", "relu"), RELU),
    "input_again": (node("Identity", "x", "input_again"), X),
    "view_of_input": (node("Reshape", "x column", "view_of_input"), X.reshape(6, 1)),
    "output_again": (node("Identity", "relu", "output_again"), RELU),
    "view_of_output": (node("Reshape", "relu column", "view_of_output"), RELU.reshape(6, 1)),
    "constant_again": (node("Identity", "w", "constant_again"), WEIGHTS["w"]),
    "view_of_constant": (
        node("Reshape", "w row", "view_of_constant"),
        WEIGHTS["w"].reshape(1, 4),
    ),
    "constant_node": (node("Constant", "", "constant_node", value_ints=[7, 8]), np.array([7, 8])),
    "neg": (node("Neg", "relu", "neg"), -RELU),
    "exp": (node("Exp", "neg", "exp"), np.exp(-RELU)),
    "view_of_exp": (node("Reshape", "exp column", "view_of_exp"), np.exp(-RELU).reshape(6, 1)),
    "scalar": (node("ReduceSum", "x", "scalar", keepdims=0), X.sum()),
    "scalar_of_scalars": (node("Add", "scalar s", "scalar_of_scalars"), X.sum() + np.float32(3)),
    "bool": (node("Greater", "x zero", "bool"), X > 0),
    "not": (node("Not", "flags", "not"), ~FEEDS["flags"]),
    "integers": (node("Cast", "bool", "integers", to=TensorProto.INT64), (X > 0).astype(np.int64)),
    "argmax": (node("ArgMax", "x", "argmax", axis=1, keepdims=0), X.argmax(1)),
    "large_integers": (node("Add", "n n", "large_integers"), FEEDS["n"] * 2),
    "still_empty": (
        node("Concat", "empty empty", "still_empty", axis=1),
        np.zeros((0, 6), np.float32),
    ),
    "beside_empty": (node("Concat", "empty x", "beside_empty", axis=0), X),
}


@pytest.fixture(scope="module")
def graph(tmp_path_factory: pytest.TempPathFactory) -> wasmgraph.Graph:
    """A graph with all of `OUTPUTS`."""
    model = make_model(
        [item for item, _ in OUTPUTS.values() if item is not None],
        {name: (array.dtype.name, array.shape) for name, array in FEEDS.items()},
        {name: (array.dtype.name, None) for name, (_, array) in OUTPUTS.items()},
        WEIGHTS,
    )
    out = tmp_path_factory.mktemp("outputs") / "outputs.wasm"
    wasmgraph.compile(model, out, verify=False)
    return wasmgraph.load(out)


@pytest.fixture(scope="module")
def found(graph: wasmgraph.Graph) -> dict[str, Array]:
    """What it gives for `FEEDS`."""
    return graph.run(FEEDS)


class TestOutputs:
    def test_come_in_the_model_s_order_with_their_types(self, graph: wasmgraph.Graph) -> None:
        assert [(t.name, t.dtype, t.shape) for t in graph.outputs] == [
            (name, array.dtype.name, array.shape) for name, (_, array) in OUTPUTS.items()
        ]
        assert [(t.name, t.dtype, t.shape) for t in graph.inputs] == [
            (name, array.dtype.name, array.shape) for name, array in FEEDS.items()
        ]

    @pytest.mark.parametrize("name", OUTPUTS)
    def test_may_be_anything_that_has_a_name(self, name: str, found: dict[str, Array]) -> None:
        _, expected = OUTPUTS[name]
        assert found[name].dtype == expected.dtype
        assert found[name].shape == expected.shape
        np.testing.assert_allclose(found[name], expected, rtol=1e-6)

    def test_of_a_second_run_are_of_its_own_inputs(
        self, graph: wasmgraph.Graph, found: dict[str, Array]
    ) -> None:
        again = graph.run({**FEEDS, "x": X + 1})
        np.testing.assert_array_equal(again["input_again"], X + 1)
        np.testing.assert_array_equal(again["constant_again"], WEIGHTS["w"])
        np.testing.assert_array_equal(found["input_again"], X)


def test_a_model_without_inputs_is_a_constant(tmp_path: Path) -> None:
    model = make_model([node("Mul", "w w", "y")], {}, "y", {"w": WEIGHTS["w"]})
    wasmgraph.compile(model, tmp_path / "out.wasm", verify=False)
    with wasmgraph.load(tmp_path / "out.wasm") as graph:
        np.testing.assert_array_equal(graph.run({})["y"], WEIGHTS["w"] ** 2)


def test_a_model_without_declared_output_shapes_compiles(tmp_path: Path) -> None:
    model = make_model([node("Relu", "x", "y")], {"x": (2, 3)}, {"y": ("float32", None)})
    report = wasmgraph.compile(model, tmp_path / "out.wasm")
    assert report.outputs[0].shape == (2, 3)
    assert report.verification is not None
    assert report.verification.agrees


class TestReport:
    def test_tells_what_was_made(self, digits_onnx: Path, tmp_path: Path) -> None:
        out = tmp_path / "digits.wasm"
        report = wasmgraph.compile(digits_onnx, out, verify=False)
        assert report.path == out
        assert report.sizes["file"] == out.stat().st_size
        assert report.sizes["code"] + report.sizes["weights"] == report.sizes["file"]
        assert report.source.name == "digits.onnx"
        assert 1 <= report.kernels <= report.steps
        assert list(report.seconds) == [stage for stage in STAGES if stage != "verify"]
        assert report.to_json()["verification"] is None

    def test_default_path_is_the_model_s_name_in_the_current_folder(
        self, digits_onnx: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.chdir(tmp_path)
        assert wasmgraph.compile(digits_onnx, verify=False).path == Path("digits.wasm")
        assert [path.name for path in tmp_path.iterdir()] == ["digits.wasm"]

    @pytest.mark.parametrize(
        ("name", "file"),
        [
            ("tiny", "tiny.wasm"),
            ("net v1.2", "net_v1.2.wasm"),
            ("../../escape/me", "escape_me.wasm"),
            ("...", "model.wasm"),
        ],
    )
    def test_a_model_in_memory_is_named_by_its_graph(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, file: str
    ) -> None:
        folder = tmp_path / "a" / "b" / "c"
        folder.mkdir(parents=True)
        monkeypatch.chdir(folder)
        model = make_model([node("Relu", "x", "y")], {"x": (1,)}, "y")
        model.graph.name = name
        assert wasmgraph.compile(model, verify=False).path == Path(file)
        assert [path.name for path in folder.iterdir()] == [file]

    def test_the_model_given_is_not_changed(self, digits_onnx: Path, tmp_path: Path) -> None:
        model = onnx.load(digits_onnx)
        before = model.SerializeToString(deterministic=True)
        wasmgraph.compile(model, tmp_path / "out.wasm", verify=False)
        assert model.SerializeToString(deterministic=True) == before

    def test_an_unknown_simd_level_is_refused(self, digits_onnx: Path, tmp_path: Path) -> None:
        with pytest.raises(InputError, match="'avx512'; there are none, simd128, relaxed"):
            wasmgraph.compile(digits_onnx, tmp_path / "out.wasm", simd="avx512")  # type: ignore[arg-type]
        assert list(tmp_path.iterdir()) == []


class TestVerification:
    def test_that_fails_leaves_the_old_file(self, digits_onnx: Path, tmp_path: Path) -> None:
        out = tmp_path / "out.wasm"
        out.write_bytes(b"the old one")
        with pytest.raises(VerificationError, match="probabilities") as caught:
            wasmgraph.compile(digits_onnx, out, rtol=0, atol=0)
        assert str(out) in caught.value.message
        assert out.read_bytes() == b"the old one"
        assert list(tmp_path.iterdir()) == [out]

    def test_draws_other_inputs_for_another_seed(self, digits_onnx: Path, tmp_path: Path) -> None:
        found = [
            wasmgraph.compile(digits_onnx, tmp_path / "out.wasm", seed=seed).verification
            for seed in (0, 0, 1)
        ]
        assert found[0] == found[1] != found[2]


@pytest.mark.parametrize("simd", SIMD_LEVELS)
def test_every_simd_level_runs_and_agrees(
    simd: SimdLevel, digits_onnx: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out.wasm"
    report = wasmgraph.compile(digits_onnx, out, simd=simd)
    assert report.simd == simd
    assert report.verification is not None
    assert report.verification.agrees
    with wasmgraph.load(out) as graph:
        assert graph.metadata.simd == simd


def test_imports_nothing_but_wasi(digits_wasm: Path) -> None:
    imports = parse_wasm(digits_wasm.read_bytes()).imports
    assert imports
    assert {item.module for item in imports} == {"wasi_snapshot_preview1"}


def compile_apart(model: Path, out: Path, seed: int, folder: Path) -> bytes:
    """Compile in a process of its own, with its own order of hashes and its own folder."""
    folder.mkdir()
    subprocess.run(
        [sys.executable, "-m", "wasmgraph", "compile", model, "-o", out, "--no-verify", "-q"],
        cwd=folder,
        env={**os.environ, "PYTHONHASHSEED": str(seed), "TMPDIR": str(folder)},
        check=True,
        timeout=300,
    )
    return out.read_bytes()


def assert_reproducible(model: Path, tmp_path: Path) -> None:
    first, second = (
        compile_apart(model, tmp_path / f"{seed}.wasm", seed, tmp_path / f"in{seed}")
        for seed in (1, 22)
    )
    assert first == second
    assert str(tmp_path).encode() not in first


def test_the_same_model_gives_the_same_bytes(digits_onnx: Path, tmp_path: Path) -> None:
    assert_reproducible(digits_onnx, tmp_path)


def test_the_same_bytes_whether_from_a_file_or_from_memory(
    digits_onnx: Path, tmp_path: Path
) -> None:
    """But for what the metadata say of the source."""
    wasmgraph.compile(digits_onnx, tmp_path / "a.wasm", verify=False)
    wasmgraph.compile(onnx.load(digits_onnx), tmp_path / "b.wasm", verify=False)
    a, b = (parse_wasm((tmp_path / name).read_bytes()) for name in ("a.wasm", "b.wasm"))
    same = {key for key in a.section_nbytes if "custom:wasmgraph" not in key}
    assert {key: a.section_nbytes[key] for key in same} == {
        key: b.section_nbytes[key] for key in same
    }


class Collected(Reporter):
    """Everything a reporter is told."""

    def __init__(self) -> None:
        self.events: list[tuple[str, ...]] = []

    def start(self, stage: str, total: int | None = None) -> None:
        self.events.append(("start", stage))

    def finish(self, stage: str, seconds: float) -> None:
        self.events.append(("finish", stage))


def test_stages_are_reported_in_their_order(digits_onnx: Path, tmp_path: Path) -> None:
    reporter = Collected()
    wasmgraph.compile(digits_onnx, tmp_path / "out.wasm", reporter=reporter)
    assert reporter.events == [(what, stage) for stage in STAGES for what in ("start", "finish")]


def test_two_threads_compile_at_the_same_time(digits_onnx: Path, tmp_path: Path) -> None:
    reports: dict[str, wasmgraph.CompileReport] = {}

    def work(name: str) -> None:
        reports[name] = wasmgraph.compile(digits_onnx, tmp_path / name, verify=False)

    threads = [threading.Thread(target=work, args=(name,)) for name in ("a.wasm", "b.wasm")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert set(reports) == {"a.wasm", "b.wasm"}
    assert (tmp_path / "a.wasm").read_bytes() == (tmp_path / "b.wasm").read_bytes()


@pytest.fixture(scope="module")
def slow_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Every stage of it takes a moment: many kernels of different shapes, and some weights."""
    rng = np.random.default_rng(0)
    nodes, weights, channels = [], {}, 3
    for layer in range(16):
        wider = channels + 1 + layer
        shape = (wider, channels, 3, 3)
        weights[f"w{layer}"] = rng.normal(0, 0.1, shape).astype(np.float32)
        nodes.append(node("Conv", f"t{layer} w{layer}", f"c{layer}", pads=[1, 1, 1, 1]))
        nodes.append(node("Softmax", f"c{layer}", f"t{layer + 1}", axis=1))
        channels = wider
    nodes.append(node("Flatten", "t16", "flat"))
    weights["dense"] = rng.normal(0, 0.1, (channels * 40 * 40, 16)).astype(np.float32)
    nodes.append(node("MatMul", "flat dense", "y"))
    path = tmp_path_factory.mktemp("slow") / "slow.onnx"
    onnx.save(make_model(nodes, {"t0": (1, 3, 40, 40)}, "y", weights), path)
    return path


@pytest.mark.parametrize("stage", STAGES)
def test_ctrl_c_in_the_middle_of_a_stage(stage: str, slow_model: Path, tmp_path: Path) -> None:
    """The real command, interrupted from outside a moment after the stage before was finished."""
    out = tmp_path / "out.wasm"
    out.write_bytes(b"the old one")
    process = subprocess.Popen(
        [
            *(sys.executable, "-m", "wasmgraph", "compile", slow_model),
            *("-o", out, "--bundle", tmp_path / "bundle", "-v"),
        ],
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,  # a process group, to which a terminal's Ctrl-C goes
        cwd=tmp_path,
    )
    assert process.stderr is not None
    begun = r"nodes, opset" if stage == "import" else rf"^{STAGES[STAGES.index(stage) - 1]} .* s$"
    seen = []
    for line in process.stderr:
        seen.append(line)
        if re.search(begun, line):
            time.sleep(0.05)
            os.killpg(process.pid, signal.SIGINT)
            break
    said = "".join(seen) + process.stderr.read()
    # The interpreter may end itself by the same signal where C code saw it; to a shell it is 130.
    assert process.wait(timeout=60) in (130, -signal.SIGINT), said
    # TVM may add, behind it, that a builder of its own was destroyed half-way.
    assert said.splitlines().count("error: interrupted") == 1
    assert "Traceback" not in said
    assert [path.name for path in tmp_path.iterdir()] == ["out.wasm"]
    assert out.read_bytes() == b"the old one"
