"""`wasmgraph compile`: what it writes, what it says, and what it refuses."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from tests.cli.conftest import Command
from wasmgraph.bundle import SIMD_LEVELS, read_bundle
from wasmgraph.cli.compile import command
from wasmgraph.cli.shapes import parse_shapes

STAGES = ("import", "optimise", "lower", "codegen", "link", "verify")


def small_model(*nodes: onnx.NodeProto, shape: tuple[int | str, ...] = (2, 3)) -> onnx.ModelProto:
    """ "x" to "y" through `nodes`, or one Relu."""
    graph = helper.make_graph(
        list(nodes) or [helper.make_node("Relu", ["x"], ["y"], "relu")],
        "small",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, shape)],
    )
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("example.org", 1)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=8)


def left_behind(folder: Path) -> list[str]:
    """What a failed command must not leave."""
    return [path.name for path in folder.rglob("*") if path.suffix != ".onnx"]


class TestSuccess:
    def test_writes_the_file_and_reports_as_json(
        self, process: Command, tmp_path: Path, digits_onnx: Path
    ) -> None:
        outcome = process("compile", digits_onnx, "-o", "out.wasm", "--json")
        assert outcome.code == 0, outcome.stderr
        report = outcome.json
        out = tmp_path / "out.wasm"
        assert out.read_bytes()[:4] == b"\0asm"
        assert report["model"]["sha256"] == hashlib.sha256(digits_onnx.read_bytes()).hexdigest()
        assert [(t["name"], t["dtype"], t["shape"]) for t in report["inputs"]] == [
            ("image", "float32", [1, 1, 8, 8])
        ]
        assert [(t["name"], t["dtype"], t["shape"]) for t in report["outputs"]] == [
            ("probabilities", "float32", [1, 10])
        ]
        assert report["sizes"]["file"] == out.stat().st_size
        assert set(report["seconds"]) == set(STAGES)
        assert report["kernels"] >= 1
        assert report["steps"] >= report["kernels"]
        assert report["verification"] is not None

    def test_shows_a_line_per_stage_and_a_report(
        self, wasmgraph: Command, digits_onnx: Path
    ) -> None:
        outcome = wasmgraph("compile", digits_onnx)
        assert outcome.code == 0, outcome.stderr
        shown = [line.split()[0] for line in outcome.stderr.splitlines() if line.endswith(" s")]
        assert shown == list(STAGES)
        for text in ("digits.wasm", "image", "1x1x8x8", "probabilities", "weights", "agree"):
            assert text in outcome.stdout

    def test_says_what_rounded_weights_save_and_cost(
        self, wasmgraph: Command, digits_onnx: Path
    ) -> None:
        outcome = wasmgraph("compile", digits_onnx, "--weights", "int8")
        assert outcome.code == 0, outcome.stderr
        assert "as float32)" in outcome.stdout
        assert "weights rounded to int8" in outcome.stdout
        assert "from the model's own outputs" in " ".join(outcome.stdout.split())
        verified = wasmgraph("verify", "digits.wasm", "--onnx", digits_onnx)
        assert verified.code == 0, verified.stderr
        assert "rounded to int8" in verified.stdout
        assert "rounded to int8" in wasmgraph("inspect", "digits.wasm").stdout

    def test_writes_beside_you_by_default(
        self, wasmgraph: Command, tmp_path: Path, digits_onnx: Path
    ) -> None:
        outcome = wasmgraph("compile", digits_onnx, "--no-verify", "-q")
        assert (outcome.code, outcome.stdout, outcome.stderr) == (0, "", "")
        assert [path.name for path in tmp_path.iterdir()] == ["digits.wasm"]

    def test_no_verify_leaves_the_comparison_out(
        self, wasmgraph: Command, digits_onnx: Path
    ) -> None:
        report = wasmgraph("compile", digits_onnx, "--no-verify", "--json").json
        assert report["verification"] is None
        assert "verify" not in report["seconds"]

    def test_keeps_the_bundle_which_link_turns_into_the_same_file(
        self, wasmgraph: Command, tmp_path: Path, digits_onnx: Path
    ) -> None:
        outcome = wasmgraph("compile", digits_onnx, "--no-verify", "--bundle", "kept")
        assert outcome.code == 0, outcome.stderr
        assert read_bundle(tmp_path / "kept").graph.source.name == "digits.onnx"
        linked = wasmgraph("link", "kept", "-o", "linked.wasm")
        assert linked.code == 0, linked.stderr
        assert (tmp_path / "linked.wasm").read_bytes() == (tmp_path / "digits.wasm").read_bytes()

    def test_the_same_model_gives_the_same_bytes(
        self, process: Command, tmp_path: Path, digits_onnx: Path
    ) -> None:
        for name in ("a.wasm", "b.wasm"):
            # Two processes, so that nothing one of them keeps in memory can make them alike.
            outcome = process(
                "compile", digits_onnx, "-o", name, "--no-verify", PYTHONHASHSEED=str(ord(name[0]))
            )
            assert outcome.code == 0, outcome.stderr
        assert (tmp_path / "a.wasm").read_bytes() == (tmp_path / "b.wasm").read_bytes()

    def test_fixes_a_dynamic_shape(self, wasmgraph: Command, tmp_path: Path) -> None:
        onnx.save(small_model(shape=("batch", 3)), tmp_path / "dynamic.onnx")
        outcome = wasmgraph("compile", "dynamic.onnx", "--shape", "x=4,3", "--json")
        assert outcome.code == 0, outcome.stderr
        assert outcome.json["inputs"][0]["shape"] == [4, 3]


class TestShapeOption:
    @pytest.mark.parametrize(
        ("text", "expected"),
        [
            ("x=1,3", {"x": (1, 3)}),
            ("a=b=2", {"a=b": (2,)}),
            ("input:0=1,16", {"input:0": (1, 16)}),
            ("step=", {"step": ()}),
        ],
    )
    def test_takes_any_onnx_name(self, text: str, expected: dict[str, tuple[int, ...]]) -> None:
        context = command.make_context("compile", ["model.onnx", "--shape", text])
        assert context.params["shapes"] == expected
        assert parse_shapes(context, command.params[0], [text]) == expected

    @pytest.mark.parametrize("text", ["x", "=1", "x=a", "x=-1,3", "x=1,,3", "x=1.5"])
    def test_refuses_what_is_no_shape(self, wasmgraph: Command, text: str) -> None:
        outcome = wasmgraph("compile", "model.onnx", "--shape", text)
        assert outcome.code == 2
        assert text in outcome.stderr

    def test_refuses_two_shapes_for_one_input(self, wasmgraph: Command) -> None:
        outcome = wasmgraph("compile", "model.onnx", "--shape", "x=1", "--shape", "x=2")
        assert outcome.code == 2
        assert "'x' is given twice" in outcome.stderr


def test_the_choices_of_simd_are_the_compiler_s() -> None:
    (option,) = (p for p in command.params if p.name == "simd")
    assert tuple(option.type.to_info_dict()["choices"]) == SIMD_LEVELS


class TestRefusal:
    """Each leaves with its exit code, one clear message, no traceback and no file."""

    def check(self, outcome: object, code: int, *texts: str) -> None:
        assert outcome.code == code, outcome
        assert outcome.stderr.startswith("error: ")
        assert "Traceback" not in outcome.stderr
        for text in texts:
            assert text in outcome.stderr

    def test_of_a_file_that_is_not_there(self, wasmgraph: Command, tmp_path: Path) -> None:
        self.check(wasmgraph("compile", "no.onnx"), 3, "no.onnx")
        assert left_behind(tmp_path) == []

    def test_of_a_text_file(self, wasmgraph: Command, tmp_path: Path) -> None:
        (tmp_path / "text.onnx").write_text("this is not a model\n")
        self.check(wasmgraph("compile", "text.onnx"), 3, "text.onnx", "not an ONNX model")
        assert left_behind(tmp_path) == []

    def test_of_an_empty_file(self, wasmgraph: Command, tmp_path: Path) -> None:
        (tmp_path / "empty.onnx").touch()
        self.check(wasmgraph("compile", "empty.onnx"), 3, "empty.onnx")
        assert left_behind(tmp_path) == []

    def test_of_a_truncated_model(
        self, wasmgraph: Command, tmp_path: Path, digits_onnx: Path
    ) -> None:
        whole = digits_onnx.read_bytes()
        for length in (100, len(whole) // 2, len(whole) - 1):
            (tmp_path / "cut.onnx").write_bytes(whole[:length])
            self.check(wasmgraph("compile", "cut.onnx"), 3, "cut.onnx")
        assert left_behind(tmp_path) == []

    def test_of_unknown_operators_names_every_one(self, wasmgraph: Command, tmp_path: Path) -> None:
        model = small_model(
            helper.make_node("Frobnicate", ["x"], ["a"], "first", domain="example.org"),
            helper.make_node("Relu", ["a"], ["b"], "fine"),
            helper.make_node("Transmogrify", ["b"], ["y"], "second", domain="example.org"),
        )
        onnx.save(model, tmp_path / "odd.onnx")
        outcome = wasmgraph("compile", "odd.onnx")
        self.check(outcome, 4, "first", "Frobnicate", "second", "Transmogrify")
        assert "fine" not in outcome.stderr
        assert left_behind(tmp_path) == []

    def test_of_threads_for_open_axes_shows_the_way_out(
        self, wasmgraph: Command, tmp_path: Path
    ) -> None:
        onnx.save(small_model(shape=("batch", "n")), tmp_path / "open.onnx")
        self.check(wasmgraph("compile", "open.onnx", "--threads"), 4, "one thread", "--shape")
        assert left_behind(tmp_path) == []

    def test_of_a_shape_for_an_input_that_is_not_there(
        self, wasmgraph: Command, tmp_path: Path
    ) -> None:
        onnx.save(small_model(), tmp_path / "small.onnx")
        self.check(wasmgraph("compile", "small.onnx", "--shape", "z=2,3"), 7, "'z'", "'x'")
        assert left_behind(tmp_path) == []

    def test_of_missing_external_data(self, wasmgraph: Command, tmp_path: Path) -> None:
        model = small_model(helper.make_node("Add", ["x", "w"], ["y"], "add"))
        weight = numpy_helper.from_array(np.ones((2, 3), np.float32), "w")
        model.graph.initializer.append(weight)
        onnx.save(
            model,
            tmp_path / "apart.onnx",
            save_as_external_data=True,
            location="apart.bin",
            size_threshold=0,
        )
        (tmp_path / "apart.bin").unlink()
        self.check(wasmgraph("compile", "apart.onnx"), 3, "apart.bin", "w")
        assert left_behind(tmp_path) == []

    def test_of_an_output_that_cannot_be_written(
        self, wasmgraph: Command, tmp_path: Path, digits_onnx: Path
    ) -> None:
        outcome = wasmgraph("compile", digits_onnx, "-o", "no/such/folder/out.wasm")
        assert outcome.code != 0
        assert outcome.stderr.splitlines()[-1].startswith(("error: ", "hint: "))
        assert "no/such/folder" in outcome.stderr
        assert "bug" not in outcome.stderr
        assert left_behind(tmp_path) == []

    def test_of_writing_over_the_model(self, wasmgraph: Command, tmp_path: Path) -> None:
        onnx.save(small_model(), tmp_path / "small.onnx")
        before = (tmp_path / "small.onnx").read_bytes()
        assert wasmgraph("compile", "small.onnx", "-o", "small.onnx").code == 2
        assert (tmp_path / "small.onnx").read_bytes() == before

    def test_of_outputs_that_disagree_writes_nothing(
        self, wasmgraph: Command, tmp_path: Path, digits_onnx: Path
    ) -> None:
        # No float32 sum of 1024 products in another order is equal to the last bit everywhere.
        outcome = wasmgraph("compile", digits_onnx, "--rtol", "0", "--atol", "0", "--json")
        assert outcome.code == 11
        assert outcome.json["error"]["kind"] == "VerificationError"
        assert "probabilities" in outcome.json["error"]["message"]
        assert left_behind(tmp_path) == []


# The real command, except that its reporter presses Ctrl-C a moment after a stage began.
INTERRUPTED = """
import os, signal, sys, threading, time
from wasmgraph.cli import main
from wasmgraph.cli.reporters import PlainReporter

def start(self, stage, total=None):
    if stage == sys.argv[1]:
        # To the whole group, as a terminal does it: cargo and rustc get it as well.
        threading.Timer(float(sys.argv[2]), os.killpg, (0, signal.SIGINT)).start()
        if sys.argv[2] == "0":
            time.sleep(10)

PlainReporter.start = start
main(["compile", *sys.argv[3:]])
"""


# The short stages are caught at their beginning, the long ones at work.
@pytest.mark.parametrize(
    ("stage", "delay"),
    [
        ("import", "0"),
        ("import", "0.1"),
        ("optimise", "0"),
        ("lower", "0"),
        ("codegen", "0"),
        ("link", "0"),
        ("link", "0.3"),
        ("verify", "0"),
    ],
)
def test_ctrl_c_in_any_stage_leaves_the_old_file_whole(
    stage: str, delay: str, tmp_path: Path, digits_onnx: Path
) -> None:
    out = tmp_path / "out.wasm"
    out.write_bytes(b"the old one")
    done = subprocess.run(
        [sys.executable, "-c", INTERRUPTED, stage, delay, digits_onnx, "-o", out],
        # Nothing cached: the link stage builds the executor.
        env={**os.environ, "XDG_CACHE_HOME": str(tmp_path.with_name(f"{tmp_path.name}-cache"))},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        start_new_session=True,
    )
    assert done.returncode == 130, done.stderr
    assert done.stderr.splitlines()[-1] == "error: interrupted"
    assert "Traceback" not in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["out.wasm"]
    assert out.read_bytes() == b"the old one"
