"""`fromImageData` against Pillow and numpy: resizing, colours, normalisation, layouts."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest

PACKAGE = Path(__file__).resolve().parents[2] / "toolchain" / "javascript"
SCRIPT = f"""
import {{ readFileSync }} from "node:fs";
import {{ fromImageData }} from {json.dumps((PACKAGE / "src" / "index.js").as_uri())};
const {{ width, height, data, options }} = JSON.parse(readFileSync(0));
try {{
  const tensor = fromImageData({{ width, height, data: Uint8ClampedArray.from(data) }}, options);
  console.log(JSON.stringify({{ ...tensor, data: [...tensor.data] }}));
}} catch (error) {{
  console.log(JSON.stringify({{ kind: error.kind, message: error.message }}));
}}
"""


def convert(node: str, pixels: np.ndarray, **options: Any) -> Any:
    """What `fromImageData` makes of pixels, uint8 (height, width, 3)."""
    height, width, _ = pixels.shape
    opaque = np.dstack([pixels, np.full((height, width), 255, np.uint8)])
    request = {"width": width, "height": height, "data": opaque.ravel().tolist()}
    done = subprocess.run(
        [node, "--input-type=module", "-e", SCRIPT],
        input=json.dumps({**request, "options": options}),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    if "kind" in found:
        return found
    assert found["dtype"] == options.get("dtype", "float32")
    return np.asarray(found["data"], found["dtype"]).reshape(found["shape"])


def picture(height: int, width: int) -> np.ndarray:
    """Noise, which shows every pixel that is in the wrong place."""
    return np.random.default_rng(height).integers(0, 256, (height, width, 3), np.uint8)


def test_unchanged_it_is_pixels_over_255(node: str) -> None:
    pixels = picture(5, 7)
    found = convert(node, pixels)
    assert found.shape == (1, 3, 5, 7)
    np.testing.assert_array_equal(found[0], (pixels / 255).astype(np.float32).transpose(2, 0, 1))


@pytest.mark.parametrize("size", [(5, 7), (10, 3), (64, 64), (224, 1), (1, 1), (20, 31)], ids=str)
@pytest.mark.parametrize("channels", [1, 3])
def test_it_resizes_as_pillow_does(node: str, size: tuple[int, int], channels: int) -> None:
    image = pytest.importorskip("PIL.Image", reason="Pillow is not installed")
    pixels = picture(40, 31)
    mode = {1: "L", 3: "RGB"}[channels]
    resized = image.fromarray(pixels).convert(mode).resize(size[::-1], image.Resampling.BILINEAR)
    expected = np.asarray(resized).reshape(*size, channels)
    options = {"channels": channels, "layout": "NHWC", "dtype": "uint8", "scale": 1}
    found = convert(node, pixels, size=size, **options)
    # Pillow computes with weights of 22 bits: where a value is half-way, rounding may differ.
    np.testing.assert_allclose(found[0].astype(int), expected, rtol=0, atol=1)


def test_it_normalises_each_channel_and_lays_out(node: str) -> None:
    pixels = picture(4, 6)
    mean, std = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
    expected = (pixels / 255 - mean) / std
    last = convert(node, pixels, mean=mean, std=std, layout="NHWC")
    # float32 of values of at most 3
    np.testing.assert_allclose(last[0], expected, rtol=0, atol=1e-6)
    first = convert(node, pixels, mean=mean, std=std)
    np.testing.assert_array_equal(first[0], last[0].transpose(2, 0, 1))
    minus_one_to_one = convert(node, pixels, scale=1, mean=127.5, std=127.5, dtype="float64")
    np.testing.assert_allclose(minus_one_to_one[0, 0], pixels[..., 0] / 127.5 - 1, atol=1e-12)


def test_a_square_takes_one_number(node: str) -> None:
    assert convert(node, picture(4, 6), size=3).shape == (1, 3, 3, 3)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"channels": 4}, "an image cannot become 2,2 4 NCHW float32"),
        ({"layout": "CHW"}, "an image cannot become 2,2 3 CHW float32"),
        ({"mean": [0, 1]}, "2 values for 3 channels"),
        ({"dtype": "float16"}, "an image cannot become 2,2 3 NCHW float16"),
        ({"size": 0}, "an image cannot become 0 3"),
    ],
)
def test_what_makes_no_sense_is_an_input_error(
    node: str, options: dict[str, Any], message: str
) -> None:
    error = convert(node, picture(2, 2), **options)
    assert error["kind"] == "InputError"
    assert message in error["message"]
