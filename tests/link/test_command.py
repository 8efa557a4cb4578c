"""A linked graph as a command: NPY in, NPY out, as numpy itself writes and reads it."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from tests.bundles import SCALE_WEIGHTS
from tests.link.raw_abi import run_command

Linked = Callable[[str], Path]
X = np.array([1, 2, 3, 4], dtype=np.float32)
A = np.arange(6, dtype=np.float32).reshape(2, 3)


def npy(array: np.ndarray, version: tuple[int, int] | None = None) -> bytes:
    file = io.BytesIO()
    np.lib.format.write_array(file, array, version)
    return file.getvalue()


@pytest.mark.parametrize("version", [(1, 0), (2, 0), (3, 0)])
def test_one_input_and_one_output_use_stdin_and_stdout(
    linked: Linked, tmp_path: Path, version: tuple[int, int]
) -> None:
    code, out, err = run_command(linked("scale"), [], tmp_path, npy(X, version))
    assert (code, err) == (0, "")
    result = np.load(io.BytesIO(out))
    assert result.dtype == np.float32
    np.testing.assert_array_equal(result, X * SCALE_WEIGHTS)


def test_more_inputs_come_from_files(linked: Linked, tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", A)
    np.save(tmp_path / "b=1.npy", 2 * A)
    arguments = ["-i", "b=b=1.npy", "-i", "a=a.npy", "-o", "sum=c.npy"]
    assert run_command(linked("add"), arguments, tmp_path) == (0, b"", "")
    np.testing.assert_array_equal(np.load(tmp_path / "c.npy"), 3 * A)


def test_the_name_may_be_left_out_where_there_is_one(linked: Linked, tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", X)
    assert run_command(linked("scale"), ["-i", "x.npy", "-o", "y.npy"], tmp_path)[0] == 0
    np.testing.assert_array_equal(np.load(tmp_path / "y.npy"), X * SCALE_WEIGHTS)


def test_files_and_streams_can_be_mixed(linked: Linked, tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", X)
    code, out, _ = run_command(linked("scale"), ["-i", "x.npy"], tmp_path)
    assert code == 0
    np.testing.assert_array_equal(np.load(io.BytesIO(out)), X * SCALE_WEIGHTS)


def test_only_the_outputs_asked_for_are_written(linked: Linked, tmp_path: Path) -> None:
    arguments = ["-o", "w=w.npy", "-o", "same=same.npy"]
    assert run_command(linked("chain"), arguments, tmp_path, npy(X)) == (0, b"", "")
    np.testing.assert_array_equal(np.load(tmp_path / "w.npy"), SCALE_WEIGHTS.reshape(2, 2))
    np.testing.assert_array_equal(np.load(tmp_path / "same.npy"), X.reshape(4, 1))
    assert not (tmp_path / "y.npy").exists()


def test_help_lists_inputs_and_outputs(linked: Linked, tmp_path: Path) -> None:
    code, out, _ = run_command(linked("add"), ["--help"], tmp_path)
    assert code == 0
    text = out.decode()
    assert "Inputs:\n  a  float32 [2, 3]\n  b  float32 [2, 3]\n" in text
    assert "Outputs:\n  sum  float32 [2, 3]\n" in text


@pytest.mark.parametrize(
    ("name", "arguments", "stdin", "message"),
    [
        ("scale", ["x"], b"", "unknown argument 'x' (try --help)"),
        ("scale", ["-i"], b"", "-i is followed by NAME=FILE.npy"),
        ("scale", ["-i", "z=x.npy"], b"", "no input 'z': there is 'x'"),
        ("scale", ["-i", "none.npy"], b"", "none.npy: "),
        ("scale", ["-i", "x=x.npy", "-i", "x.npy"], b"", "input 'x' was given twice"),
        ("add", [], b"", "no file for input 'a', 'b'; give every input with -i NAME=FILE.npy"),
        ("add", ["-i", "a=a.npy"], b"", "no file for input 'b'"),
        ("add", ["-i", "a.npy"], b"", "'a.npy' does not say which input it is for: 'a', 'b'"),
        ("chain", [], npy(X), "there are several outputs, 'y', 'w', 'same'; give those you want"),
        ("scale", [], b"", "stdin: not an NPY file: it is shorter than its signature"),
        ("scale", [], b"PK\3\4 a zip file", "stdin: not an NPY file"),
        ("scale", [], npy(X)[:-1], "stdin: the data ends early (for input 'x')"),
        ("scale", [], npy(X) + b"!", "stdin: there are more bytes than the shape needs"),
        ("scale", [], npy(X.astype(np.float64)), "stdin: float32 expected, not '<f8'"),
        ("scale", [], npy(X.astype(">f4")), "stdin: big-endian numbers"),
        ("scale", [], npy(X.reshape(4, 1)), "stdin: input 'x' has shape [4], not shape [4, 1]"),
        ("failing", [], npy(5 * X), "the kernel of culprit failed with code 5"),
    ],
)
def test_an_error_goes_to_stderr_with_exit_code_1(
    linked: Linked, tmp_path: Path, name: str, arguments: list[str], stdin: bytes, message: str
) -> None:
    code, out, err = run_command(linked(name), arguments, tmp_path, stdin)
    assert (code, out) == (1, b"")
    assert err.startswith("error: ")
    assert message in err


def test_fortran_order_is_an_error(linked: Linked, tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.asfortranarray(A))
    np.save(tmp_path / "b.npy", A)
    arguments = ["-i", "a=a.npy", "-i", "b=b.npy"]
    code, out, err = run_command(linked("add"), arguments, tmp_path)
    assert (code, out) == (1, b"")
    assert "a.npy: Fortran order" in err


def test_an_output_that_cannot_be_written_is_an_error(linked: Linked, tmp_path: Path) -> None:
    arguments = ["-o", "nowhere/y.npy"]
    code, _, err = run_command(linked("scale"), arguments, tmp_path, npy(X))
    assert code == 1
    assert "nowhere/y.npy: " in err
