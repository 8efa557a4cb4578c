"""Pictures as inputs."""

from __future__ import annotations

import struct
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from wasmgraph.errors import InputError, ToolchainError
from wasmgraph.runtime.base import TensorSpec
from wasmgraph.tensors.images import ImageOptions, read_image

RGB = np.arange(2 * 3 * 3, dtype=np.uint8).reshape(2, 3, 3) * 10
NCHW = TensorSpec("image", "float32", (1, 3, 2, 3))


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    """RGB, 3 wide and 2 high."""
    path = tmp_path / "picture.png"
    Image.fromarray(RGB).save(path)
    return path


def test_channels_come_first_where_the_shape_says_so(picture: Path) -> None:
    array = read_image(picture, NCHW, ImageOptions())
    assert array.dtype == np.float32
    np.testing.assert_allclose(array[0], RGB.transpose(2, 0, 1) / 255, rtol=1e-6)


def test_channels_come_last_where_the_shape_says_so(picture: Path) -> None:
    array = read_image(picture, TensorSpec("i", "uint8", (1, 2, 3, 3)), ImageOptions())
    np.testing.assert_array_equal(array[0], RGB)


def test_the_layout_option_decides_where_both_would_do(picture: Path) -> None:
    cube = TensorSpec("i", "uint8", (1, 3, 3, 3))
    first = read_image(picture, cube, ImageOptions(layout="nchw"))
    last = read_image(picture, cube, ImageOptions(layout="nhwc"))
    np.testing.assert_array_equal(first[0].transpose(1, 2, 0), last[0])
    assert not np.array_equal(first, last)


@pytest.mark.parametrize(
    ("range_", "low", "high"), [("0-1", 0, 1), ("0-255", 0, 255), ("-1-1", -1, 1), (None, 0, 1)]
)
def test_the_range_is_what_0_and_255_become(
    tmp_path: Path, range_: str | None, low: float, high: float
) -> None:
    path = tmp_path / "bw.png"
    Image.fromarray(np.uint8([[0, 255]])).save(path)
    array = read_image(path, TensorSpec("i", "float32", (1, 2)), ImageOptions(range=range_))  # type: ignore[arg-type]
    np.testing.assert_allclose(array, [[low, high]], atol=1e-6)


def test_mean_and_std_apply_per_channel_after_the_range(picture: Path) -> None:
    options = ImageOptions(mean=(0.5, 0.25, 0.0), std=(0.5, 1.0, 2.0))
    array = read_image(picture, NCHW, options)
    expected = (RGB / 255 - [0.5, 0.25, 0.0]) / [0.5, 1.0, 2.0]
    np.testing.assert_allclose(array[0].transpose(1, 2, 0), expected, rtol=1e-5, atol=1e-6)


def test_a_gray_input_gets_gray(picture: Path) -> None:
    array = read_image(picture, TensorSpec("i", "float32", (1, 1, 2, 3)), ImageOptions())
    luma = RGB @ [0.299, 0.587, 0.114]  # ITU-R 601, to the rounding of a byte
    np.testing.assert_allclose(array[0, 0] * 255, luma, atol=1)


def test_a_gray_picture_fills_three_channels(tmp_path: Path) -> None:
    path = tmp_path / "gray.png"
    Image.fromarray(np.full((2, 3), 51, np.uint8)).save(path)
    np.testing.assert_allclose(read_image(path, NCHW, ImageOptions()), 0.2, rtol=1e-6)


def test_sixteen_bit_gray_keeps_its_range(tmp_path: Path) -> None:
    path = tmp_path / "deep.png"
    Image.fromarray(np.uint16([[0, 32768, 65535]])).save(path)
    array = read_image(path, TensorSpec("i", "float32", (1, 3)), ImageOptions())
    np.testing.assert_allclose(array, [[0, 0.5, 1]], atol=1 / 255)


def test_a_picture_is_resized_to_the_inputs_size(tmp_path: Path) -> None:
    path = tmp_path / "big.jpg"
    Image.fromarray(np.full((40, 60, 3), 128, np.uint8)).save(path)
    array = read_image(path, NCHW, ImageOptions(size=(3, 2)))
    np.testing.assert_allclose(array, 128 / 255, atol=2 / 255)


def test_a_size_other_than_the_inputs_is_an_input_error(picture: Path) -> None:
    with pytest.raises(InputError, match="takes a picture of 3x2, an image size of 2x3"):
        read_image(picture, NCHW, ImageOptions(size=(2, 3)))


def test_a_photograph_is_turned_upright(tmp_path: Path) -> None:
    path = tmp_path / "turned.png"
    exif = Image.Exif()
    exif[0x0112] = 6  # to be shown turned by 90 degrees clockwise
    Image.fromarray(np.uint8([[0, 100, 200]])).save(path, exif=exif)
    array = read_image(path, TensorSpec("i", "uint8", (3, 1)), ImageOptions())
    np.testing.assert_array_equal(array, [[0], [100], [200]])


@pytest.mark.parametrize(
    "shape", [(3,), (2, 3, 4, 4), (1, 5, 4, 7), (1, 1, 3, 2, 3), (1, 3, 0, 4), ()]
)
def test_an_input_that_is_no_picture_is_an_input_error(
    picture: Path, shape: tuple[int, ...]
) -> None:
    with pytest.raises(InputError, match="cannot take a picture"):
        read_image(picture, TensorSpec("i", "float32", shape), ImageOptions())


@pytest.mark.parametrize(
    "content", [b"", b"no picture", b"\x89PNG\r\n\x1a\n", b"%!PS-Adobe-3.0 EPSF"]
)
def test_a_picture_that_cannot_be_read_is_an_input_error(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "broken.png"
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"broken\.png cannot be read"):
        read_image(path, NCHW, ImageOptions())


def test_every_truncation_of_a_picture_is_an_input_error(picture: Path) -> None:
    whole = picture.read_bytes()
    for length in range(len(whole) - 20):
        picture.write_bytes(whole[:length])
        with pytest.raises(InputError):
            read_image(picture, NCHW, ImageOptions())


@pytest.mark.parametrize("side", [9_000, 100_000])
def test_a_decompression_bomb_is_refused_before_it_is_decoded(tmp_path: Path, side: int) -> None:
    def chunk(kind: bytes, data: bytes) -> bytes:
        body = kind + data
        return struct.pack(">I", len(data)) + body + struct.pack(">I", zlib.crc32(body))

    header = struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0)
    path = tmp_path / "bomb.png"
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", b""))
    with pytest.raises(InputError, match="pixels"):
        read_image(path, NCHW, ImageOptions())


def test_an_integer_input_takes_only_what_fits(picture: Path) -> None:
    spec = TensorSpec("i", "int8", (1, 3, 2, 3))
    assert read_image(picture, spec, ImageOptions(mean=(128.0,))).min() == -128
    with pytest.raises(InputError, match="do not fit into input i: int8"):
        read_image(picture, spec, ImageOptions())


def test_mean_and_std_are_checked(picture: Path) -> None:
    with pytest.raises(InputError, match="mean needs 1 value or one for each of 3 channels"):
        read_image(picture, NCHW, ImageOptions(mean=(0.1, 0.2)))
    with pytest.raises(InputError, match="std must be positive"):
        read_image(picture, NCHW, ImageOptions(std=(0.0,)))


def test_without_pillow_the_error_says_what_to_install(
    picture: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "PIL", None)
    with pytest.raises(ToolchainError) as caught:
        read_image(picture, NCHW, ImageOptions())
    assert caught.value.hint == "pip install 'wasmgraph[images]'"
