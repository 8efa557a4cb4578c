"""Outputs to files: every name survives, nothing is left half-written."""

from __future__ import annotations

import json
import os
from pathlib import Path
from urllib.parse import unquote

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wasmgraph.errors import InputError, WasmgraphError
from wasmgraph.runtime.base import Array, TensorSpec
from wasmgraph.tensors import writing
from wasmgraph.tensors.reading import read_input
from wasmgraph.tensors.writing import file_name, write_outputs

OUTPUTS: dict[str, Array] = {
    "probs": np.arange(3, dtype=np.float32),
    "model/layer:0": np.array(True),
    "file": np.zeros((0, 2), np.int64),
    "名前 ±": np.float16([1.5]),
    "../../escape": np.uint8([[1, 2]]),
    ".hidden": np.int8([1]),
}


def test_an_npz_holds_every_output_under_its_own_name(tmp_path: Path) -> None:
    path = tmp_path / "out.npz"
    assert write_outputs(OUTPUTS, path) == (path,)
    with np.load(path) as loaded:
        assert set(loaded.files) == set(OUTPUTS)
        for name, array in OUTPUTS.items():
            np.testing.assert_array_equal(loaded[name], array, strict=True)


def test_the_same_outputs_give_the_same_bytes(tmp_path: Path) -> None:
    write_outputs(OUTPUTS, tmp_path / "a.npz")
    write_outputs(OUTPUTS, tmp_path / "b.npz")
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()


def test_a_folder_holds_a_file_per_output(tmp_path: Path) -> None:
    folder = tmp_path / "new" / "folder"
    paths = write_outputs(OUTPUTS, folder)
    assert sorted(paths) == sorted(folder.iterdir())  # none outside, nothing else inside
    for (name, array), path in zip(OUTPUTS.items(), paths, strict=True):
        assert unquote(path.name.removesuffix(".npy")) == name
        np.testing.assert_array_equal(np.load(path, allow_pickle=False), array, strict=True)


@settings(max_examples=300, deadline=None)
@given(st.text(max_size=20))
def test_a_file_name_is_safe_and_reversible(name: str) -> None:
    encoded = file_name(name)
    assert "/" not in encoded
    assert "\0" not in encoded
    assert encoded not in ("", ".", "..")
    assert encoded.isascii()
    if name:
        assert unquote(encoded) == name


def test_a_name_too_long_for_a_file_is_an_input_error() -> None:
    with pytest.raises(InputError, match="too long"):
        file_name("x" * 241)


def test_one_output_can_be_an_npy_or_json(tmp_path: Path) -> None:
    one = {"y": np.float32([[1, 2.5]])}
    write_outputs(one, tmp_path / "y.npy")
    np.testing.assert_array_equal(np.load(tmp_path / "y.npy"), one["y"], strict=True)
    write_outputs(one, tmp_path / "y.json")
    assert json.loads((tmp_path / "y.json").read_text()) == [[1, 2.5]]


NARROW = ["bfloat16", "float8_e5m2", "float8_e4m3fn", "float4_e2m1fn", "int4", "uint2"]


@pytest.mark.parametrize("dtype", NARROW)
@pytest.mark.parametrize("suffix", [".npy", ".npz", ".json"])
def test_a_dtype_that_numpy_lacks_can_be_read_back(tmp_path: Path, dtype: str, suffix: str) -> None:
    pytest.importorskip("ml_dtypes")
    array = np.array([0, 1, 1, 0], np.float32).astype(dtype)
    write_outputs({"y": array}, tmp_path / f"y{suffix}")
    found = read_input(str(tmp_path / f"y{suffix}"), TensorSpec("y", dtype, (4,)))
    assert found.dtype == dtype
    assert found.tobytes() == array.tobytes()


@pytest.mark.parametrize("name", ["out.npy", "out.json"])
def test_several_outputs_do_not_fit_a_single_tensors_format(tmp_path: Path, name: str) -> None:
    with pytest.raises(InputError, match="can hold one tensor, the graph has 6"):
        write_outputs(OUTPUTS, tmp_path / name)
    assert not list(tmp_path.iterdir())


def test_a_failed_write_leaves_what_was_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "out.npz"
    path.write_bytes(b"before")

    def fail(array: Array, file: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(writing, "_write_npy", fail)
    with pytest.raises(OSError, match="No space left"):
        write_outputs(OUTPUTS, path)
    assert path.read_bytes() == b"before"
    assert list(tmp_path.iterdir()) == [path]


def test_files_get_the_modes_that_the_umask_leaves(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        write_outputs(OUTPUTS, tmp_path / "out.npz")
    finally:
        os.umask(before)
    assert (tmp_path / "out.npz").stat().st_mode & 0o777 == 0o640


def test_a_target_that_cannot_be_written_is_an_os_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(WasmgraphError, match=r"cannot write .*out\.npz: Not a directory"):
        write_outputs(OUTPUTS, tmp_path / "file" / "out.npz")
    with pytest.raises(OSError, match="exists"):
        write_outputs(OUTPUTS, tmp_path / "file")
