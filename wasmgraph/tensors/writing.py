"""Write output tensors: one .npz, one .npy or .json, or a folder of .npy files. All or nothing."""

from __future__ import annotations

import functools
import json
import string
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import IO

import numpy as np

from wasmgraph.atomic import replaced_when_done
from wasmgraph.errors import InputError
from wasmgraph.metadata import NARROW_DTYPES
from wasmgraph.runtime.base import Array
from wasmgraph.runtime.dtypes import plain

_PLAIN = frozenset(string.ascii_letters + string.digits + "-_.+=@, ()[]#~")
_MAX_NAME_BYTES = 240
"""Of the 255 that file systems have; the rest is for `.npy` and the unfinished file's name."""


def write_outputs(outputs: Mapping[str, Array], target: Path) -> tuple[Path, ...]:
    """Write every output under its ONNX name.

    * `FILE.npz`: `np.load(FILE)[name]` gives each back, whatever its name holds;
    * `FILE.npy`, `FILE.json` (nested lists): for a graph with one output;
    * anything else is a folder, made if need be: one `NAME.npy` each, where characters that a file
      name cannot hold are percent-encoded as UTF-8.

    Every file appears whole or not at all.

    Args:
        outputs: Arrays by output name.
        target: Where to write; its suffix decides.

    Returns:
        The files written.

    Raises:
        InputError: a single-tensor format was asked for several outputs.
        WasmgraphError, OSError: the target cannot be written.
    """
    suffix = target.suffix.lower()
    if suffix == ".npz":
        _atomically(target, functools.partial(_write_npz, outputs))
        return (target,)
    if suffix in (".npy", ".json"):
        if len(outputs) != 1:
            raise InputError(
                f"{target} can hold one tensor, the graph has {len(outputs)} outputs",
                hint="write a .npz or a folder",
            )
        (array,) = outputs.values()
        _atomically(
            target, functools.partial(_write_npy if suffix == ".npy" else _write_json, array)
        )
        return (target,)
    target.mkdir(parents=True, exist_ok=True)
    paths = []
    for name, array in outputs.items():
        path = target / f"{file_name(name)}.npy"
        _atomically(path, functools.partial(_write_npy, array))
        paths.append(path)
    return tuple(paths)


def file_name(name: str) -> str:
    """A tensor's name as a file's, without a suffix: reversible with `urllib.parse.unquote`.

    Raises:
        InputError: the name is too long for a file.
    """
    encoded = "".join(
        c if c in _PLAIN else "".join(f"%{byte:02X}" for byte in c.encode()) for c in name
    )
    if encoded.startswith("."):
        encoded = "%2E" + encoded[1:]  # neither hidden, nor this folder, nor the one above
    encoded = encoded or "%"  # the empty name; no other name gives a lone percent sign
    if len(encoded) > _MAX_NAME_BYTES:
        raise InputError(f"output {name!r} has a name too long for a file", hint="write a .npz")
    return encoded


def _atomically(path: Path, write: Callable[[IO[bytes]], None]) -> None:
    with replaced_when_done(path) as unfinished, unfinished.open("wb") as file:
        write(file)


def _write_npy(array: Array, file: IO[bytes]) -> None:
    array = np.asanyarray(array)
    if array.dtype.name in NARROW_DTYPES:
        # numpy writes most of ml_dtypes' so, and has no name of its own that it could read back.
        array = array.view(f"V{array.dtype.itemsize}")
    np.lib.format.write_array(file, array, allow_pickle=False)


def _write_json(array: Array, file: IO[bytes]) -> None:
    file.write(json.dumps(plain(array).tolist()).encode() + b"\n")


def _write_npz(outputs: Mapping[str, Array], file: IO[bytes]) -> None:
    # Not np.savez, whose keyword arguments cannot be named "file".
    with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED, allowZip64=True) as archive:
        for name, array in outputs.items():
            # A fixed time: the same tensors give the same file.
            info = zipfile.ZipInfo(f"{name}.npy", date_time=(1980, 1, 1, 0, 0, 0))
            with archive.open(info, "w", force_zip64=True) as member:
                _write_npy(array, member)
