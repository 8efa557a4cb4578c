"""`wasmgraph run`: tensors in, one run in the sandbox, tensors out."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.bundles import (
    SCALE_WEIGHTS,
    add_bundle,
    chain_bundle,
    endless_bundle,
    hungry_bundle,
    scale_bundle,
    trapping_bundle,
)
from tests.cli.conftest import Command
from tests.engines import need_engine
from tests.runtime.wat_graphs import LOOPS_FOREVER, WatGraph
from wasmgraph.cli.inputs import split_input
from wasmgraph.errors import InputError
from wasmgraph.link import link
from wasmgraph.metadata import TensorInfo
from wasmgraph.runtime.registry import RUNTIMES

X = np.float32([1, 2, 3, 4])


@pytest.fixture(scope="module")
def graphs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of linked graphs: add, scale, chain, endless, hungry, trapping (.wasm)."""
    folder = tmp_path_factory.mktemp("graphs")
    for make in (
        add_bundle,
        scale_bundle,
        chain_bundle,
        endless_bundle,
        hungry_bundle,
        trapping_bundle,
    ):
        link(make(), folder / f"{make.__name__.removesuffix('_bundle')}.wasm")
    return folder


class TestResults:
    def test_a_report_of_every_output(self, wasmgraph: Command, graphs: Path) -> None:
        np.save("x.npy", X)
        outcome = wasmgraph("run", graphs / "scale.wasm", "-i", "x=x.npy")
        assert outcome.code == 0
        for expected in ("y", "float32", "-4", "16", "1, -4, 1.5, 16", "load", "run"):
            assert expected in outcome.stdout
        assert outcome.stderr == ""

    def test_json_is_one_object(self, wasmgraph: Command, graphs: Path) -> None:
        np.save("x.npy", X)
        report = wasmgraph("run", graphs / "scale.wasm", "-i", "x.npy", "--json").json
        assert report["outputs"] == [
            {
                "name": "y",
                "dtype": "float32",
                "shape": [4],
                "min": -4.0,
                "max": 16.0,
                "mean": 3.625,
                "non_finite": 0,
                "first": [1.0, -4.0, 1.5, 16.0],
            }
        ]
        assert report["seconds"].keys() == {"load", "run"}

    def test_json_has_no_bare_nan(self, wasmgraph: Command, graphs: Path) -> None:
        np.save("x.npy", np.float32([np.nan, np.inf, 1, 1]))
        outcome = wasmgraph("run", graphs / "scale.wasm", "-i", "x.npy", "--json")
        assert "NaN" not in outcome.stdout
        assert outcome.json["outputs"][0]["first"][:2] == ["nan", "-inf"]
        assert outcome.json["outputs"][0]["non_finite"] == 2

    def test_quiet_says_nothing(self, wasmgraph: Command, graphs: Path) -> None:
        outcome = wasmgraph("run", graphs / "scale.wasm", "-i", "random:0", "-q")
        assert (outcome.code, outcome.stdout, outcome.stderr) == (0, "", "")

    def test_several_inputs_by_name_from_several_formats(
        self, wasmgraph: Command, graphs: Path
    ) -> None:
        np.save("a.npy", np.ones((2, 3), np.float32))
        Path("b.json").write_text("[[1, 2, 3], [4, 5, 6]]")
        wasmgraph(
            "run", graphs / "add.wasm", "-i", "b=b.json", "-i", "a=a.npy", "-o", "sum.npy", "-q"
        )
        np.testing.assert_array_equal(np.load("sum.npy"), [[2, 3, 4], [5, 6, 7]])

    def test_a_random_input_is_the_seeds(self, wasmgraph: Command, graphs: Path) -> None:
        for name, seed in (("1.npz", 5), ("2.npz", 5), ("3.npz", 6)):
            wasmgraph("run", graphs / "scale.wasm", "-i", f"random:{seed}", "-o", name)
        first, again, other = (np.load(f"{n}.npz")["y"] for n in (1, 2, 3))
        np.testing.assert_array_equal(first, again)
        assert not np.array_equal(first, other)


class TestOutputs:
    def test_an_npz_holds_every_output_by_its_name(self, wasmgraph: Command, graphs: Path) -> None:
        np.save("x.npy", X)
        outcome = wasmgraph("run", graphs / "chain.wasm", "-i", "x.npy", "-o", "out.npz", "--json")
        assert outcome.json["written"] == ["out.npz"]
        with np.load("out.npz") as out:
            assert set(out.files) == {"y", "w", "same"}
            np.testing.assert_array_equal(out["y"], X * SCALE_WEIGHTS**2)

    def test_a_folder_holds_a_file_per_output(self, wasmgraph: Command, graphs: Path) -> None:
        wasmgraph("run", graphs / "chain.wasm", "-i", "random:0", "-o", "out/")
        assert sorted(os.listdir("out")) == ["same.npy", "w.npy", "y.npy"]

    def test_a_place_that_cannot_be_written_is_an_error(
        self, wasmgraph: Command, graphs: Path
    ) -> None:
        outcome = wasmgraph("run", graphs / "scale.wasm", "-i", "random:0", "-o", "no/such/out.npz")
        assert outcome.code == 1
        assert "no/such/out.npz" in outcome.stderr
        assert os.listdir() == []

    def test_an_error_leaves_what_was_there(self, wasmgraph: Command, graphs: Path) -> None:
        Path("out.npz").write_bytes(b"before")
        outcome = wasmgraph("run", graphs / "trapping.wasm", "-i", "random:0", "-o", "out.npz")
        assert outcome.code == 10
        assert Path("out.npz").read_bytes() == b"before"
        assert os.listdir() == ["out.npz"]


class TestWrongInput:
    @pytest.mark.parametrize(
        ("inputs", "message"),
        [
            ([], "input x: float32[4] is missing"),
            (["X=x.npy"], "no input named 'X'; did you mean 'x'?"),
            (["x=x.npy", "x.npy"], "'x' is given twice"),
            (["missing.npy"], "missing.npy cannot be read: No such file"),
            (["wide.npy"], "expected shape [4], found [5]"),
            (["double.npy"], "expected dtype float32, found float64"),
            (["x.txt"], "a suffix that says nothing"),
            (["picture.png"], "cannot take a picture"),
            (["random:x"], "expected a whole number"),
        ],
    )
    def test_is_one_clear_message_and_exit_code_7(
        self, wasmgraph: Command, graphs: Path, inputs: list[str], message: str
    ) -> None:
        np.save("x.npy", X)
        np.save("wide.npy", np.ones(5, np.float32))
        np.save("double.npy", np.ones(4))
        Path("picture.png").touch()
        options = [option for text in inputs for option in ("-i", text)]
        outcome = wasmgraph("run", graphs / "scale.wasm", *options)
        assert outcome.code == 7
        assert message in outcome.stderr
        assert "Traceback" not in outcome.stderr
        assert outcome.stdout == ""

    def test_with_json_the_error_is_one_object(self, wasmgraph: Command, graphs: Path) -> None:
        outcome = wasmgraph("run", graphs / "scale.wasm", "-i", "z=x.npy", "--json")
        assert outcome.json["error"]["kind"] == "InputError"
        assert outcome.json["error"]["exit_code"] == 7

    def test_an_input_without_a_name_needs_a_graph_with_one(
        self, wasmgraph: Command, graphs: Path
    ) -> None:
        outcome = wasmgraph("run", graphs / "add.wasm", "-i", "a.npy")
        assert outcome.code == 7
        assert "-i NAME=a.npy" in outcome.stderr

    @pytest.mark.parametrize(
        "options",
        [
            ["--max-memory", "much"],
            ["--timeout", "-1"],
            ["--image-size", "8"],
            ["--mean", "a,b"],
            ["--layout", "hwc"],
            ["--top", "0"],
        ],
    )
    def test_a_wrong_option_is_a_usage_error(
        self, wasmgraph: Command, graphs: Path, options: list[str]
    ) -> None:
        outcome = wasmgraph("run", graphs / "scale.wasm", "-i", "random:0", *options)
        assert outcome.code == 2
        assert options[0] in outcome.stderr


@pytest.mark.parametrize(
    ("text", "names", "expected"),
    [
        ("x=a.npy", ["x"], ("x", "a.npy")),
        ("a.npy", ["x"], ("x", "a.npy")),
        ("random:0", ["x"], ("x", "random:0")),
        ("x=y=z.npy", ["x"], ("x", "y=z.npy")),
        ("x=y=z.npy", ["x=y"], ("x=y", "z.npy")),
        ("model/in:0=a=b.npy", ["model/in:0", "b"], ("model/in:0", "a=b.npy")),
        ("=a.npy", [""], ("", "a.npy")),
    ],
)
def test_names_and_files_may_hold_equals_signs(
    text: str, names: list[str], expected: tuple[str, str]
) -> None:
    assert split_input(text, names) == expected


def test_a_file_whose_name_has_an_equals_sign_needs_no_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("lr=0.1.npy").touch()
    assert split_input("lr=0.1.npy", ["x"]) == ("x", "lr=0.1.npy")
    with pytest.raises(InputError, match="no input named 'lr'"):
        split_input("lr=0.2.npy", ["x"])


class TestPictures:
    """A graph that gives back its input, so that what a picture became can be seen."""

    @pytest.fixture
    def echo(self, tmp_path: Path) -> Path:
        return WatGraph(
            {"wg_output": "(func $wg_output (param i32) (result i32) i32.const 1024)"},
            inputs=(TensorInfo("image", "float32", (1, 3, 2, 2)),),
            outputs=(TensorInfo("echo", "float32", (1, 3, 2, 2)),),
        ).write(tmp_path)

    def test_the_options_say_how_pixels_become_numbers(
        self, wasmgraph: Command, echo: Path
    ) -> None:
        pixels = np.uint8([[[0, 51, 255], [255, 0, 0]], [[0, 0, 0], [255, 255, 255]]])
        Image.fromarray(pixels).save("p.png")
        outcome = wasmgraph(
            *("run", echo, "-i", "p.png", "-o", "echo.npy", "--image-size", "2x2"),
            *("--mean", "0.5,0.25,0", "--std", "0.5", "--layout", "nchw", "--range", "0-1"),
        )
        assert outcome.code == 0
        expected = (pixels / 255 - [0.5, 0.25, 0]) / 0.5
        np.testing.assert_allclose(np.load("echo.npy")[0].transpose(1, 2, 0), expected, atol=1e-6)

    def test_a_broken_picture_is_an_input_error(self, wasmgraph: Command, echo: Path) -> None:
        Path("p.png").write_bytes(b"\x89PNG\r\n\x1a\nno more")
        outcome = wasmgraph("run", echo, "-i", "p.png")
        assert outcome.code == 7
        assert "the picture p.png cannot be read" in outcome.stderr


class TestClasses:
    def test_the_most_probable_classes_by_label(self, wasmgraph: Command, graphs: Path) -> None:
        np.save("x.npy", np.float32([0, 0, 2, 0.5]))  # scores 0, 0, 1, 2
        Path("labels.txt").write_text("ant\nbee\ncat\ndog\n")
        run = ("run", graphs / "scale.wasm", "-i", "x.npy", "--labels", "labels.txt", "--top", "2")
        outcome = wasmgraph(*run)
        assert outcome.stdout.index("dog") < outcome.stdout.index("cat")
        assert "ant" not in outcome.stdout
        assert "softmax" in outcome.stdout
        classes = wasmgraph(*run, "--json").json["classes"]
        assert [score["label"] for score in classes["top"]] == ["dog", "cat"]
        # softmax over 0, 0, 1, 2
        assert classes["top"][0]["probability"] == pytest.approx(np.e**2 / (2 + np.e + np.e**2))

    def test_labels_of_another_number_are_an_input_error(
        self, wasmgraph: Command, graphs: Path
    ) -> None:
        Path("labels.txt").write_text("ant\nbee\n")
        outcome = wasmgraph(
            "run", graphs / "scale.wasm", "-i", "random:0", "--labels", "labels.txt"
        )
        assert outcome.code == 7
        assert "4 classes, there are 2 labels" in outcome.stderr

    def test_labels_are_read_before_the_graph_runs(self, wasmgraph: Command, graphs: Path) -> None:
        outcome = wasmgraph("run", graphs / "endless.wasm", "-i", "random:0", "--labels", "none")
        assert outcome.code == 7


class TestGraphs:
    @pytest.mark.parametrize("content", [None, b"", b"text", b"\0asm\1\0\0\0"])
    def test_what_is_no_graph_has_exit_code_6(
        self, wasmgraph: Command, content: bytes | None
    ) -> None:
        if content is not None:
            Path("g.wasm").write_bytes(content)
        outcome = wasmgraph("run", "g.wasm", "-i", "random:0")
        assert outcome.code == 6
        assert "g.wasm" in outcome.stderr
        assert "Traceback" not in outcome.stderr

    def test_a_trap_has_exit_code_10(self, wasmgraph: Command, graphs: Path) -> None:
        outcome = wasmgraph("run", graphs / "trapping.wasm", "-i", "random:0")
        assert outcome.code == 10
        assert "trapped" in outcome.stderr

    def test_a_memory_limit_has_exit_code_8(self, wasmgraph: Command, graphs: Path) -> None:
        np.save("x.npy", np.full(4, 100, np.float32))  # MiB
        run = ("run", graphs / "hungry.wasm", "-i", "x.npy", "--max-memory")
        assert wasmgraph(*run, "1GiB").code == 0
        outcome = wasmgraph(*run, "32MiB")
        assert outcome.code == 8
        assert "limit is 32.0 MiB" in outcome.stderr
        assert wasmgraph(*run, "64KiB").code == 8

    def test_a_time_limit_has_exit_code_9(self, wasmgraph: Command, graphs: Path) -> None:
        began = time.monotonic()
        outcome = wasmgraph("run", graphs / "endless.wasm", "-i", "random:0", "--timeout", "300ms")
        assert outcome.code == 9
        assert "time limit of 0.3 s" in outcome.stderr
        assert 0.3 <= time.monotonic() - began < 2  # loading included


class TestProcess:
    def test_ctrl_c_while_the_graph_computes_ends_it_at_once(
        self, graphs: Path, tmp_path: Path
    ) -> None:
        running = start(tmp_path, "run", graphs / "endless.wasm", "-i", "random:0", "-o", "y.npz")
        assert_interrupted(running)
        assert list(tmp_path.iterdir()) == []

    def test_ctrl_c_stops_a_graph_with_a_time_limit_too(self, tmp_path: Path) -> None:
        graph = WatGraph({"wg_run": LOOPS_FOREVER}).write(tmp_path)
        assert_interrupted(start(tmp_path, "run", graph, "-i", "random:0", "--timeout", "60s"))

    def test_a_time_limit_ends_the_process(self, process: Command, graphs: Path) -> None:
        outcome = process("run", graphs / "endless.wasm", "-i", "random:0", "--timeout", "0.5s")
        assert outcome.code == 9
        assert "Traceback" not in outcome.stderr

    def test_help_shows_an_example(self, process: Command) -> None:
        outcome = process("run", "--help")
        assert outcome.code == 0
        assert "wasmgraph run " in outcome.stdout.partition("Example")[2]


def start(folder: Path, *args: object) -> subprocess.Popen[str]:
    """Start a command and wait until its graph computes."""
    running = subprocess.Popen(
        [sys.executable, "-m", "wasmgraph", *map(str, args)],
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    deadline = time.monotonic() + 60
    while running.poll() is None and time.monotonic() < deadline and cpu_seconds(running.pid) < 1.5:
        time.sleep(0.05)
    assert running.poll() is None, running.communicate()
    return running


def cpu_seconds(pid: int) -> float:
    """CPU time of a process: what a loop without end spends, after about half a second of start."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def assert_interrupted(running: subprocess.Popen[str]) -> None:
    """Send Ctrl-C; the process ends at once, with the code of an interrupt and without a trace."""
    began = time.monotonic()
    running.send_signal(signal.SIGINT)
    try:
        stdout, stderr = running.communicate(timeout=10)
    except subprocess.TimeoutExpired:
        running.kill()
        raise
    assert running.returncode == 130
    assert time.monotonic() - began < 2
    assert stdout == ""
    assert "Traceback" not in stderr


class TestRuntimes:
    def test_another_engine_gives_the_same(self, wasmgraph: Command, graphs: Path) -> None:
        need_engine("node")
        np.save("x.npy", X)
        run = ("run", graphs / "scale.wasm", "-i", "x.npy", "--runtime", "node")
        outcome = wasmgraph(*run, "-o", "y.npy", "--json")
        assert outcome.code == 0, outcome.stderr
        assert outcome.json["runtime"] == "node"
        np.testing.assert_array_equal(np.load("y.npy"), X * SCALE_WEIGHTS)

    def test_one_that_is_missing_exits_with_5_and_an_unknown_one_with_2(
        self, wasmgraph: Command, graphs: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("WASMGRAPH_NODE", "/absent")
        run = ("run", graphs / "scale.wasm", "-i", "random:0", "--runtime")
        outcome = wasmgraph(*run, "node")
        assert outcome.code == 5
        assert "WASMGRAPH_NODE names '/absent'" in outcome.stderr
        outcome = wasmgraph(*run, "v8")
        assert outcome.code == 2
        assert all(name in outcome.stderr for name in RUNTIMES)

    @pytest.mark.parametrize("command", ["run", "verify"])
    def test_the_help_names_all(self, wasmgraph: Command, command: str) -> None:
        text = wasmgraph(command, "--help").stdout
        assert all(name in text for name in RUNTIMES)
