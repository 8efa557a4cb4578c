"""Read an input tensor from what a person has: .npy, .npz, .json, .pb, a picture, or `random:SEED`.

Reading gives an array of exactly the input's dtype and shape, or an error that says what is in the
file. Files come from anywhere: nothing is unpickled, and no other file is followed.
"""

from __future__ import annotations

import json
import math
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from tokenize import TokenError
from typing import IO

import numpy as np

from wasmgraph.errors import InputError
from wasmgraph.metadata import NARROW_DTYPES
from wasmgraph.runtime.base import Array, TensorSpec
from wasmgraph.runtime.inputs import check_inputs
from wasmgraph.tensors.images import SUFFIXES as IMAGE_SUFFIXES
from wasmgraph.tensors.images import ImageOptions, read_image
from wasmgraph.tensors.random import random_input

RANDOM = "random:"

_UNPARSABLE = (SyntaxError, TypeError, TokenError)
"""What comes of an NPY header that is no Python literal, in which numpy looks for one."""


def read_input(source: str, spec: TensorSpec, image: ImageOptions | None = None) -> Array:
    """One input.

    Args:
        source: A file's path, whose suffix says what it is, or `random:SEED`.
        spec: The input it is for.
        image: How a picture becomes numbers.

    Returns:
        An array of the input's dtype and shape.

    Raises:
        InputError: the file cannot be read, or what it holds does not fit the input.
        ToolchainError: Pillow is needed and missing.
    """
    if source.startswith(RANDOM):
        return random_input(spec, _seed(source))
    path = Path(source)
    suffix = path.suffix.lower()
    if suffix in IMAGE_SUFFIXES:
        return read_image(path, spec, image or ImageOptions())
    reader = _READERS.get(suffix)
    if reader is None:
        raise InputError(
            f"{path} has a suffix that says nothing: {suffix or 'none'}",
            hint=f"inputs are {', '.join(_READERS)}, pictures ({', '.join(IMAGE_SUFFIXES)}) "
            "or random:SEED",
        )
    try:
        return check_inputs([spec], {spec.name: reader(path, spec)})[0]
    except InputError as error:
        raise InputError(f"{path}: {error.message}", error.hint) from error
    except (OSError, ValueError, EOFError, MemoryError, RecursionError, *_UNPARSABLE) as error:
        reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
        raise InputError(f"{path} cannot be read: {reason}") from error


def _seed(source: str) -> int:
    text = source.removeprefix(RANDOM)
    if not text.isdecimal():
        raise InputError(
            f"{source!r}: expected a whole number after {RANDOM!r}", hint="for example random:0"
        )
    return int(text)


def _read_npy(path: Path, spec: TensorSpec) -> object:
    with path.open("rb") as file:
        return _read_array(file, spec)


def _read_array(file: IO[bytes], spec: TensorSpec) -> Array:
    """An NPY stream. The header comes first: a few bytes can claim, or unpack to, terabytes."""
    version = np.lib.format.read_magic(file)
    read_header = {
        (1, 0): np.lib.format.read_array_header_1_0,
        (2, 0): np.lib.format.read_array_header_2_0,
    }.get(version)
    if read_header is None:
        raise ValueError(f"NPY version {version} is not for arrays of numbers")
    shape, _, dtype = read_header(file)
    if spec.is_fixed and math.prod(shape) != math.prod(spec.extents):
        raise InputError(
            f"input {spec.name!r}: expected shape {list(spec.shape)}, found {list(shape)} ({dtype})"
        )
    file.seek(0)
    # Not np.load, which tries to unpickle what has no NPY header.
    array: Array = np.lib.format.read_array(file, allow_pickle=False)
    if spec.dtype in NARROW_DTYPES and array.dtype == f"V{np.dtype(spec.dtype).itemsize}":
        return array.view(spec.dtype)  # NPY has no name for them
    return array


def _read_npz(path: Path, spec: TensorSpec) -> object:
    try:
        with zipfile.ZipFile(path) as archive:
            members = {name.removesuffix(".npy"): name for name in archive.namelist()}
            name = members[_member(spec, list(members))]
            with archive.open(name) as file:
                return _read_array(file, spec)
    except (zipfile.BadZipFile, NotImplementedError, RuntimeError, zlib.error) as error:
        raise InputError(f"it cannot be read as .npz: {error}") from error


def _read_json(path: Path, spec: TensorSpec) -> object:
    value = json.loads(path.read_text(encoding="utf-8"))
    if isinstance(value, dict):
        return value[_member(spec, list(value))]
    return value


def _read_pb(path: Path, _spec: TensorSpec) -> object:
    import onnx
    from google.protobuf.message import DecodeError  # type: ignore[import-untyped]

    tensor = onnx.TensorProto()
    try:
        tensor.ParseFromString(path.read_bytes())
        if tensor.data_location == onnx.TensorProto.EXTERNAL:
            raise InputError("it keeps its data in another file, which is not read")
        return onnx.numpy_helper.to_array(tensor)
    except (DecodeError, TypeError) as error:
        raise InputError(f"it is not an ONNX TensorProto: {error}") from error


_READERS: dict[str, Callable[[Path, TensorSpec], object]] = {
    ".npy": _read_npy,
    ".npz": _read_npz,
    ".json": _read_json,
    ".pb": _read_pb,
}


def _member(spec: TensorSpec, names: list[str]) -> str:
    """Which of a file's arrays is for `spec`: the one of its name, or the only one."""
    if spec.name in names:
        return spec.name
    if len(names) == 1:
        return names[0]
    raise InputError(
        f"it holds no array named {spec.name!r}",
        hint=f"it holds {', '.join(map(repr, names)) or 'none'}",
    )
