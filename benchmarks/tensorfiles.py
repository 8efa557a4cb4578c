"""Tensors between processes of any language: a folder with raw bytes and a list in JSON.

`tensors.json` holds name, dtype, shape and file of each; a file holds the bytes in C order,
little-endian. numpy's own format would need a reader in JavaScript.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]


def write_tensors(folder: Path, tensors: Mapping[str, Array]) -> None:
    """Write arrays by name; the folder is made if need be."""
    folder.mkdir(parents=True, exist_ok=True)
    described = []
    for index, (name, array) in enumerate(tensors.items()):
        file = f"{index}.bin"
        (folder / file).write_bytes(np.ascontiguousarray(array).tobytes())
        shape = list(array.shape)
        described.append({"name": name, "dtype": array.dtype.name, "shape": shape, "file": file})
    (folder / "tensors.json").write_text(json.dumps(described), encoding="utf-8")


def read_tensors(folder: Path) -> dict[str, Array]:
    """Read them back, by name."""
    described = json.loads((folder / "tensors.json").read_text(encoding="utf-8"))
    return {
        item["name"]: np.frombuffer((folder / item["file"]).read_bytes(), item["dtype"]).reshape(
            item["shape"]
        )
        for item in described
    }
