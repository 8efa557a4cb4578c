"""Tensors survive the way through files."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from benchmarks.tensorfiles import read_tensors, write_tensors


def test_names_dtypes_shapes_and_values_come_back(tmp_path: Path) -> None:
    tensors = {
        "a/b:0": np.arange(6, dtype=np.int64).reshape(2, 3),
        "half": np.float16([[0.5], [1.5]]),
        "flag": np.array([True, False]),
        "scalar": np.array(3.25),
        "transposed": np.arange(6, dtype=np.float32).reshape(2, 3).T,
    }
    write_tensors(tmp_path / "folder", tensors)
    found = read_tensors(tmp_path / "folder")
    assert list(found) == list(tensors)
    for name, array in tensors.items():
        assert found[name].dtype == array.dtype
        assert found[name].shape == array.shape
        assert np.array_equal(found[name], array)
