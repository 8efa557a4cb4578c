"""Inputs from files, whatever they hold."""

from __future__ import annotations

import json
import pickle
import struct
import zipfile
from pathlib import Path

import numpy as np
import onnx
import pytest

from wasmgraph.errors import InputError
from wasmgraph.runtime.base import Array, TensorSpec
from wasmgraph.tensors.random import random_input
from wasmgraph.tensors.reading import read_input

SPEC = TensorSpec("x/in:0", "float32", (2, 3))
VALUES = np.arange(6, dtype=np.float32).reshape(2, 3)


def write(path: Path, array: Array) -> Path:
    """Write an array in the format of the path's suffix."""
    if path.suffix == ".npy":
        np.save(path, array)
    elif path.suffix == ".npz":
        np.savez(path, **{SPEC.name: array, "other": array + 1})
    elif path.suffix == ".json":
        path.write_text(json.dumps(array.tolist()))
    else:
        path.write_bytes(onnx.numpy_helper.from_array(array, "any").SerializeToString())
    return path


@pytest.mark.parametrize("suffix", [".npy", ".npz", ".json", ".pb"])
def test_every_format_gives_the_array_back(tmp_path: Path, suffix: str) -> None:
    array = read_input(str(write(tmp_path / f"in{suffix}", VALUES)), SPEC)
    assert array.dtype == np.float32
    np.testing.assert_array_equal(array, VALUES)


@pytest.mark.parametrize("suffix", [".npy", ".npz", ".json", ".pb"])
def test_every_format_tells_a_wrong_shape_with_its_file(tmp_path: Path, suffix: str) -> None:
    path = write(tmp_path / f"in{suffix}", VALUES[:, :2])
    with pytest.raises(InputError, match=r"expected shape \[2, 3\], found \[2, 2\]") as caught:
        read_input(str(path), SPEC)
    assert str(path) in caught.value.message


@pytest.mark.parametrize("suffix", [".npy", ".npz", ".pb"])
def test_nothing_is_cast(tmp_path: Path, suffix: str) -> None:
    path = write(tmp_path / f"in{suffix}", VALUES.astype(np.float64))
    with pytest.raises(InputError, match="expected dtype float32, found float64"):
        read_input(str(path), SPEC)


@pytest.mark.parametrize("suffix", [".npy", ".npz", ".json", ".pb"])
def test_every_truncation_is_an_input_error(tmp_path: Path, suffix: str) -> None:
    path = write(tmp_path / f"in{suffix}", VALUES)
    whole = path.read_bytes()
    for length in range(0, len(whole) - 1, 3):
        path.write_bytes(whole[:length])
        with pytest.raises(InputError):
            read_input(str(path), SPEC)


@pytest.mark.parametrize("suffix", [".npy", ".npz", ".json", ".pb", ".png"])
def test_a_missing_file_is_an_input_error(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"missing{suffix}"
    with pytest.raises(InputError, match="No such file"):
        read_input(str(path), SPEC)


def test_the_only_member_needs_no_name(tmp_path: Path) -> None:
    np.savez(tmp_path / "in.npz", arr_0=VALUES)
    np.testing.assert_array_equal(read_input(str(tmp_path / "in.npz"), SPEC), VALUES)
    (tmp_path / "in.json").write_text(json.dumps({"any": VALUES.tolist()}))
    np.testing.assert_array_equal(read_input(str(tmp_path / "in.json"), SPEC), VALUES)


def test_of_several_members_the_name_decides(tmp_path: Path) -> None:
    np.savez(tmp_path / "in.npz", a=VALUES, b=VALUES)
    with pytest.raises(InputError, match=r"no array named 'x/in:0'") as caught:
        read_input(str(tmp_path / "in.npz"), SPEC)
    assert caught.value.hint == "it holds 'a', 'b'"


def test_a_compressed_npz_is_read(tmp_path: Path) -> None:
    np.savez_compressed(tmp_path / "in.npz", x=VALUES)
    np.testing.assert_array_equal(read_input(str(tmp_path / "in.npz"), SPEC), VALUES)


def test_fortran_order_and_big_endian_are_read_right(tmp_path: Path) -> None:
    np.save(tmp_path / "in.npy", np.asfortranarray(VALUES.astype(">f4")))
    np.testing.assert_array_equal(read_input(str(tmp_path / "in.npy"), SPEC), VALUES)


class Explodes:
    """Runs code when it is unpickled."""

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return (pytest.fail, ("something was unpickled",))


def test_nothing_is_ever_unpickled(tmp_path: Path) -> None:
    bare = tmp_path / "pickle.npy"
    bare.write_bytes(pickle.dumps(Explodes()))
    inside = tmp_path / "objects.npy"
    np.save(inside, np.full((2, 3), Explodes(), object), allow_pickle=True)
    packed = tmp_path / "objects.npz"
    np.savez(packed, x=np.full((2, 3), Explodes(), object))
    for path in (bare, inside, packed):
        with pytest.raises(InputError):
            read_input(str(path), SPEC)


def test_a_header_that_claims_terabytes_reads_nothing(tmp_path: Path) -> None:
    header = b"{'descr': '<f4', 'fortran_order': False, 'shape': (1099511627776, 4)}"
    header += b" " * (128 - 10 - len(header) - 1) + b"\n"
    npy = b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header
    (tmp_path / "in.npy").write_bytes(npy)
    with zipfile.ZipFile(tmp_path / "in.npz", "w") as archive:
        archive.writestr("x.npy", npy)
    for name in ("in.npy", "in.npz"):
        with pytest.raises(InputError, match=r"found \[1099511627776, 4\]"):
            read_input(str(tmp_path / name), SPEC)


@pytest.mark.parametrize(
    "text", ["", "{", "[1, 2", '"text"', "null", "[[1, 2, 3], [4, 5]]", "[" * 100_000, "{}", "\xff"]
)
def test_other_json_is_an_input_error(tmp_path: Path, text: str) -> None:
    path = tmp_path / "in.json"
    path.write_bytes(text.encode("latin-1"))
    with pytest.raises(InputError):
        read_input(str(path), SPEC)


def test_json_numbers_must_fit_an_integer_input(tmp_path: Path) -> None:
    path = tmp_path / "in.json"
    spec = TensorSpec("n", "uint8", (2,))
    path.write_text("[1, 255]")
    assert read_input(str(path), spec).dtype == np.uint8
    for text in ("[1, 256]", "[1, 2.5]"):
        path.write_text(text)
        with pytest.raises(InputError):
            read_input(str(path), spec)


def test_a_tensor_proto_does_not_lead_to_another_file(tmp_path: Path) -> None:
    tensor = onnx.numpy_helper.from_array(VALUES)
    tensor.ClearField("raw_data")
    tensor.data_location = onnx.TensorProto.EXTERNAL
    entry = tensor.external_data.add()
    entry.key, entry.value = "location", "secret.bin"
    (tmp_path / "in.pb").write_bytes(tensor.SerializeToString())
    with pytest.raises(InputError, match="another file"):
        read_input(str(tmp_path / "in.pb"), SPEC)


def test_random_is_the_seeded_array() -> None:
    np.testing.assert_array_equal(read_input("random:7", SPEC), random_input(SPEC, 7))


@pytest.mark.parametrize("source", ["random:", "random:x", "random:-1", "random:1.5"])
def test_a_seed_is_a_whole_number(source: str) -> None:
    with pytest.raises(InputError, match="whole number"):
        read_input(source, SPEC)


@pytest.mark.parametrize("name", ["in.txt", "in", "in.pt"])
def test_an_unknown_suffix_lists_the_known_ones(tmp_path: Path, name: str) -> None:
    with pytest.raises(InputError) as caught:
        read_input(str(tmp_path / name), SPEC)
    assert ".npz" in str(caught.value.hint)


@pytest.mark.parametrize("shape", [(), (2, 0)])
@pytest.mark.parametrize("suffix", [".npy", ".npz", ".json", ".pb"])
def test_scalars_and_empty_tensors_are_read(
    tmp_path: Path, suffix: str, shape: tuple[int, ...]
) -> None:
    array = np.full(shape, 2.5, np.float32)
    path = write(tmp_path / f"in{suffix}", array)
    np.testing.assert_array_equal(
        read_input(str(path), TensorSpec(SPEC.name, "float32", shape)), array
    )


@pytest.mark.parametrize("suffix", [".npy", ".npz"])
def test_a_damaged_header_is_an_input_error(tmp_path: Path, suffix: str) -> None:
    spec = TensorSpec("x", "float32", (4,))
    np.save(tmp_path / "x.npy", np.zeros(4, np.float32))
    good = (tmp_path / "x.npy").read_bytes()
    # An unclosed bracket, an odd indent, no literal, a literal of another kind, other keys.
    for old, new in [
        (b"), }", b"(,( "),
        (b"{'descr'", b"\n 'descr'"),
        (b"'<f4'", b"<f4()"),
        (b"(4,)", b"None"),
    ]:
        assert old in good
        damaged = good.replace(old, new.ljust(len(old)))
        path = tmp_path / f"bad{suffix}"
        path.write_bytes(damaged)
        if suffix == ".npz":
            with zipfile.ZipFile(path, "w") as archive:
                archive.writestr("x.npy", damaged)
        with pytest.raises(InputError, match="bad"):
            read_input(str(path), spec)
