"""The sample's network: trained right, exported right, and the same after compiling."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import numpy as np
import numpy.typing as npt
import onnxruntime
import pytest
from PIL import Image

import wasmgraph

DIGITS = Path(__file__).resolve().parents[2] / "samples" / "digits"
PICTURES = sorted((DIGITS / "images").glob("*.png"))

Predict = Callable[[npt.NDArray[np.float32]], npt.NDArray[np.float32]]


@pytest.fixture(scope="module")
def train() -> ModuleType:
    """samples/digits/train.py as a module."""
    spec = importlib.util.spec_from_file_location("digits_train", DIGITS / "train.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def reference(digits_onnx: Path) -> Predict:
    """onnxruntime on the committed model: an image (1, 1, 8, 8) to ten probabilities."""
    session = onnxruntime.InferenceSession(digits_onnx, providers=["CPUExecutionProvider"])
    return lambda image: session.run(None, {"image": image})[0][0]


def test_the_gradients_are_those_of_the_loss(train: ModuleType) -> None:
    rng = np.random.default_rng(1)
    images = rng.random((4, 1, 8, 8), dtype=np.float32)
    labels = rng.integers(0, 10, 4)
    # In float64 the central difference's own error (step squared) is far below the tolerance.
    weights = {k: w.astype(np.float64) for k, w in train.initial_weights(rng).items()}
    gradients = train.gradients(weights, images.astype(np.float64), labels)
    step = 1e-6
    for name, weight in weights.items():
        for index in rng.integers(0, weight.size, 3):
            losses = []
            for sign in (1, -1):
                moved = weight.copy()
                moved.flat[index] += sign * step
                losses.append(train.loss({**weights, name: moved}, images, labels))
            numeric = (losses[0] - losses[1]) / (2 * step)
            assert gradients[name].flat[index] == pytest.approx(numeric, rel=1e-4, abs=1e-7), name


def test_the_onnx_file_computes_what_the_numpy_network_computes(
    train: ModuleType, digits_onnx: Path
) -> None:
    rng = np.random.default_rng(2)
    weights = train.initial_weights(rng)
    image = rng.random((1, 1, 8, 8), dtype=np.float32)
    session = onnxruntime.InferenceSession(train.to_onnx(weights).SerializeToString())
    (probabilities,) = session.run(None, {"image": image})
    expected = np.exp(train.forward(weights, image)[0])
    # Both in float32, sums of up to 1024 products: a few units in the last place.
    np.testing.assert_allclose(probabilities, expected, rtol=1e-4, atol=1e-6)


def test_the_committed_model_reads_over_97_percent_of_the_held_out_digits(
    train: ModuleType, reference: Predict, digits_onnx: Path
) -> None:
    _, _, images, labels = train.split()
    right = sum(
        reference(image[None]).argmax() == k for image, k in zip(images, labels, strict=True)
    )
    assert right / len(labels) > 0.97
    assert digits_onnx.stat().st_size < 300_000


def test_the_wasm_predicts_every_held_out_digit_as_onnxruntime_does(
    train: ModuleType, reference: Predict, digits_wasm: Path
) -> None:
    _, _, images, labels = train.split()
    with wasmgraph.load(digits_wasm) as graph:
        ours = [graph.run({"image": image[None]})["probabilities"][0].argmax() for image in images]
    theirs = [reference(image[None]).argmax() for image in images]
    assert ours == theirs
    # Agreeing is only worth something where the network is right.
    assert np.mean(np.array(ours) == labels) > 0.97


def test_there_is_a_picture_of_every_digit() -> None:
    names = (DIGITS / "labels.txt").read_text(encoding="utf-8").split()
    assert {path.stem.split("-")[0] for path in PICTURES} == set(names)


@pytest.mark.parametrize("picture", PICTURES, ids=lambda path: path.stem)
def test_a_picture_scaled_back_to_8x8_is_its_digit(picture: Path, reference: Predict) -> None:
    names = (DIGITS / "labels.txt").read_text(encoding="utf-8").split()
    small = Image.open(picture).resize((8, 8), Image.Resampling.BILINEAR)
    image = np.asarray(small, dtype=np.float32)[None, None] / 255
    assert names[reference(image).argmax()] == picture.stem.split("-")[0]
