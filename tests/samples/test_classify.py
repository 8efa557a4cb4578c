"""samples/go and samples/rust: one program in two languages, over two engines of their own."""

from __future__ import annotations

import io
import re
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import wasmgraph
from tests.hostile_graphs import HOSTILE, STRANGE, HostileGraph
from tests.hosts.programs import go_sample, rust_sample
from tests.runtime.wat_graphs import LOOPS_FOREVER, WatGraph
from wasmgraph import errors

DIGITS = Path(__file__).resolve().parents[2] / "samples" / "digits"
IMAGE = np.random.default_rng(0).random((1, 1, 8, 8), dtype=np.float32)
FOUR = np.arange(4, dtype=np.float32)
CRASHES = re.compile(r"panic|goroutine \d|SIG[A-Z]+|core dumped|overflow at src")

Run = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture(params=["go", "rust"])
def classify(request: pytest.FixtureRequest, tmp_path: Path) -> Run:
    """Runs the program in a folder of its own; "in.npy" holds what it is given."""
    program = {"go": go_sample, "rust": rust_sample}[request.param]()

    def run(
        graph: object, array: np.ndarray | bytes, *flags: object
    ) -> subprocess.CompletedProcess[str]:
        data = array if isinstance(array, bytes) else npy(array)
        (tmp_path / "in.npy").write_bytes(data)
        return subprocess.run(
            [program, str(graph), "in.npy", *map(str, flags)],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )

    return run


def npy(array: np.ndarray) -> bytes:
    """The array as a file has it."""
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


def exit_code(kind: str) -> int:
    """That of the wasmgraph command for an error of this kind."""
    return int(getattr(errors, kind).exit_code)


def test_it_reads_the_metadata_and_prints_the_top_classes(
    classify: Run, digits_wasm: Path, tmp_path: Path
) -> None:
    with wasmgraph.load(digits_wasm) as graph:
        expected = graph.run({"image": IMAGE})["probabilities"]
        weights = graph.metadata.sizes.weights
    names = (DIGITS / "labels.txt").read_text(encoding="utf-8").split()
    best = np.argsort(-expected[0], kind="stable")[:4]
    done = classify(
        digits_wasm, IMAGE, "--labels", DIGITS / "labels.txt", "--top", 4, "--output", "out.npy"
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [
        f'digits.wasm: "digits.onnx", opset 17, simd128, {weights} bytes of weights',
        "input  image: float32[1, 1, 8, 8]",
        "output probabilities: float32[1, 10]",
        "",
        *(f"{names[k]:<12} {expected[0][k]:.4f}" for k in best),
    ]
    # The same instructions on the same bits: simd128 leaves an engine no choice.
    found = np.load(tmp_path / "out.npy")
    assert (found.dtype, found.shape) == (expected.dtype, expected.shape)
    assert found.tobytes() == expected.tobytes()


def test_without_labels_classes_have_numbers(classify: Run, digits_wasm: Path) -> None:
    done = classify(digits_wasm, IMAGE, "--top", 10)
    assert sorted(line.split()[0] for line in done.stdout.splitlines()[4:]) == list("0123456789")


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (IMAGE[0], "1, 8, 8"),
        (IMAGE.astype(np.float64), "float64"),
        (np.asfortranarray(np.random.default_rng(1).random((3, 4))), "C order"),
        (IMAGE.astype(">f4"), "little-endian"),
        (np.zeros((1, 1, 8, 8), "<U1"), "little-endian"),
    ],
)
def test_another_input_is_an_input_error(
    classify: Run, digits_wasm: Path, array: np.ndarray, message: str
) -> None:
    done = classify(digits_wasm, array)
    assert done.returncode == 7
    assert done.stderr.startswith("error: ")
    assert message in done.stderr


@pytest.mark.parametrize("length", [0, 5, 9, 40, 128, 300])
def test_a_file_that_is_cut_short_is_an_input_error(
    classify: Run, digits_wasm: Path, length: int
) -> None:
    done = classify(digits_wasm, npy(IMAGE)[:length])
    assert (done.returncode, done.stderr[:7]) == (7, "error: ")


def test_labels_of_other_classes_are_an_input_error(
    classify: Run, digits_wasm: Path, tmp_path: Path
) -> None:
    (tmp_path / "two.txt").write_text("yes\nno\n")
    done = classify(digits_wasm, IMAGE, "--labels", "two.txt")
    assert (done.returncode, "2" in done.stderr, "10" in done.stderr) == (7, True, True)


def test_bad_flags_show_the_usage(classify: Run, digits_wasm: Path) -> None:
    done = classify(digits_wasm, IMAGE, "--no-such-flag")
    assert done.returncode == 2
    assert "usage: classify GRAPH.wasm IN.npy" in done.stderr


def test_a_graph_that_is_not_there_is_a_load_error(classify: Run, tmp_path: Path) -> None:
    done = classify("none.wasm", IMAGE)
    assert done.returncode == 6
    assert "none.wasm" in done.stderr


def test_the_memory_limit_is_kept(classify: Run, digits_wasm: Path) -> None:
    assert classify(digits_wasm, IMAGE, "--max-memory", 64 << 20).returncode == 0
    assert classify(digits_wasm, IMAGE, "--max-memory", 65536).returncode == 8


def test_the_time_limit_is_kept(classify: Run, tmp_path: Path) -> None:
    path = WatGraph({"wg_run": LOOPS_FOREVER}).write(tmp_path)
    assert classify(path, FOUR, "--timeout", "0.2s").returncode == 9


def limits(graph: HostileGraph) -> list[object]:
    """A hostile graph's limits as flags."""
    flags: list[object] = []
    if graph.memory is not None:
        flags += ["--max-memory", graph.memory]
    if graph.seconds is not None:
        flags += ["--timeout", f"{graph.seconds}s"]
    return flags


def test_every_hostile_graph_ends_in_its_error(classify: Run, tmp_path: Path) -> None:
    wrong = []
    for graph in HOSTILE:
        path = tmp_path / "hostile.wasm"
        path.write_bytes(graph.binary)
        [array] = graph.feeds.values()
        done = classify(path, array, *limits(graph))
        text = done.stderr.removeprefix("error: ")
        clean = all(c == "\n" or c.isprintable() for c in done.stderr)
        if done.returncode != exit_code(graph.kind) or CRASHES.search(text) or not clean:
            wrong.append(f"{graph.name}: {graph.kind}, not {done.returncode}: {done.stderr[:300]}")
    assert wrong == []


def test_every_strange_graph_gives_what_it_should(classify: Run, tmp_path: Path) -> None:
    wrong = []
    for graph in STRANGE:
        path = tmp_path / "strange.wasm"
        path.write_bytes(graph.binary)
        [array] = graph.feeds.values()
        done = classify(path, array, "--output", "out.npy")
        # The first output; classes are printed where it is float32, else it is an input error.
        expected = next(iter(graph.outputs.values()))
        found = np.load(tmp_path / "out.npy")
        code = 0 if expected.dtype == np.float32 else exit_code("InputError")
        if done.returncode != code or found.dtype != expected.dtype:
            wrong.append(f"{graph.name}: {done.returncode}: {done.stderr[:300]}")
        elif found.shape != expected.shape or found.tobytes() != expected.tobytes():
            wrong.append(f"{graph.name}: {found} instead of {expected}")
    assert wrong == []
