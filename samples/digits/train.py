"""Train the digits network and write everything else in this folder.

    python samples/digits/train.py            # half a minute on two cores

A small convolutional network learns scikit-learn's handwritten digits (1797 real 8x8 images that
the package carries). Forward pass, backward pass and Adam are plain numpy, so that the sample needs
no deep-learning framework. Every random number comes from one seed. Written are `digits.onnx`,
`labels.txt` and one held-out image per digit in `images/`.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
from numpy.lib.stride_tricks import sliding_window_view
from onnx import TensorProto, helper, numpy_helper

Array = npt.NDArray[np.float32]
Labels = npt.NDArray[np.int64]
Weights = dict[str, Array]

HERE = Path(__file__).resolve().parent
NAMES = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
SEED = 2024
HELD_OUT = 360
EPOCHS = 60
BATCH = 32
LEARNING_RATE = 2e-3
CHANNELS = (32, 64)
PICTURE_SIZE = (128, 128)


def split() -> tuple[Array, Labels, Array, Labels]:
    """The digits as (train images, train labels, held-out images, held-out labels).

    Images are float32 of shape (n, 1, 8, 8) in 0..1, 1 being ink; labels are int64 of shape (n,).
    """
    from sklearn.datasets import load_digits

    digits = load_digits()
    images = (digits.images / 16).astype(np.float32)[:, None]
    labels = digits.target.astype(np.int64)
    order = np.random.default_rng(SEED).permutation(len(images))
    held_out, train = order[:HELD_OUT], order[HELD_OUT:]
    return images[train], labels[train], images[held_out], labels[held_out]


def initial_weights(rng: np.random.Generator) -> Weights:
    """He initialisation (He et al. 2015): zero mean, variance 2 / fan-in; biases are zero."""

    def he(*shape: int) -> Array:
        scale = np.sqrt(2 / np.prod(shape[1:]))
        return (rng.standard_normal(shape) * scale).astype(np.float32)

    first, second = CHANNELS
    return {
        "conv1.weight": he(first, 1, 3, 3),
        "conv1.bias": np.zeros(first, np.float32),
        "conv2.weight": he(second, first, 3, 3),
        "conv2.bias": np.zeros(second, np.float32),
        "dense.weight": he(10, second * 4 * 4),
        "dense.bias": np.zeros(10, np.float32),
    }


def patches(x: Array) -> Array:
    """Every 3x3 neighbourhood of zero-padded `x` (n, c, 8, 8), as (n, 8, 8, c, 3, 3)."""
    padded = np.pad(x, ((0, 0), (0, 0), (1, 1), (1, 1)))
    return sliding_window_view(padded, (3, 3), axis=(2, 3)).transpose(0, 2, 3, 1, 4, 5)


def convolve(x: Array, weight: Array, bias: Array) -> Array:
    """3x3 convolution with padding 1: (n, c, 8, 8) to (n, k, 8, 8)."""
    out: Array = np.tensordot(patches(x), weight, axes=((3, 4, 5), (1, 2, 3))) + bias
    return out.transpose(0, 3, 1, 2)


def convolve_backward(x: Array, weight: Array, grad: Array) -> tuple[Array, Array, Array]:
    """Gradients of `convolve` with respect to x, weight and bias, given the output's."""
    grad_weight = np.tensordot(grad, patches(x), axes=((0, 2, 3), (0, 1, 2)))
    # The gradient with respect to x is a convolution with the kernel turned by 180 degrees.
    turned = weight[:, :, ::-1, ::-1].transpose(1, 0, 2, 3)
    grad_x = convolve(grad, turned, np.zeros(len(turned), np.float32))
    return grad_x, grad_weight, grad.sum(axis=(0, 2, 3))


def forward(weights: Weights, images: Array) -> tuple[Array, dict[str, Array]]:
    """Log-probabilities of shape (n, 10), and the activations which `gradients` needs."""
    a = {"image": images}
    a["relu1"] = np.maximum(convolve(images, weights["conv1.weight"], weights["conv1.bias"]), 0)
    a["relu2"] = np.maximum(convolve(a["relu1"], weights["conv2.weight"], weights["conv2.bias"]), 0)
    n, c = a["relu2"].shape[:2]
    a["pool"] = a["relu2"].reshape(n, c, 4, 2, 4, 2).max(axis=(3, 5))
    logits = a["pool"].reshape(n, -1) @ weights["dense.weight"].T + weights["dense.bias"]
    logits -= logits.max(axis=1, keepdims=True)
    return logits - np.log(np.exp(logits).sum(axis=1, keepdims=True)), a


def loss(weights: Weights, images: Array, labels: Labels) -> float:
    """Mean cross-entropy in nats."""
    log_probabilities, _ = forward(weights, images)
    return float(-log_probabilities[np.arange(len(labels)), labels].mean())


def gradients(weights: Weights, images: Array, labels: Labels) -> Weights:
    """The gradient of `loss` with respect to every weight."""
    log_probabilities, a = forward(weights, images)
    n = len(labels)
    grad = np.exp(log_probabilities)
    grad[np.arange(n), labels] -= 1
    grad /= n
    out = {"dense.weight": grad.T @ a["pool"].reshape(n, -1), "dense.bias": grad.sum(axis=0)}
    # Max pooling passes the gradient to the largest of the four.
    pooled = (grad @ weights["dense.weight"]).reshape(a["pool"].shape)
    widened = pooled.repeat(2, axis=2).repeat(2, axis=3)
    largest = a["relu2"] == a["pool"].repeat(2, axis=2).repeat(2, axis=3)
    grad = widened * largest * (a["relu2"] > 0)
    grad, out["conv2.weight"], out["conv2.bias"] = convolve_backward(
        a["relu1"], weights["conv2.weight"], grad
    )
    grad = grad * (a["relu1"] > 0)
    _, out["conv1.weight"], out["conv1.bias"] = convolve_backward(
        a["image"], weights["conv1.weight"], grad
    )
    return out


def shifted(images: Array, rng: np.random.Generator) -> Array:
    """The images, each moved by up to one pixel in each direction, so that place matters less."""
    padded = np.pad(images, ((0, 0), (0, 0), (1, 1), (1, 1)))
    moved = [
        image[:, dy : dy + 8, dx : dx + 8]
        for image, (dy, dx) in zip(padded, rng.integers(0, 3, (len(images), 2)), strict=True)
    ]
    return np.stack(moved)


def batches(
    images: Array, labels: Labels, rng: np.random.Generator
) -> Iterator[tuple[Array, Labels]]:
    """One epoch: the shuffled, shifted training set in batches."""
    order = rng.permutation(len(images))
    for start in range(0, len(order) - BATCH + 1, BATCH):
        chosen = order[start : start + BATCH]
        yield shifted(images[chosen], rng), labels[chosen]


def train(images: Array, labels: Labels) -> Weights:
    """Adam (Kingma & Ba 2015, its default betas) with the learning rate falling as a cosine."""
    rng = np.random.default_rng(SEED)
    weights = initial_weights(rng)
    mean = {name: np.zeros_like(w) for name, w in weights.items()}
    square = {name: np.zeros_like(w) for name, w in weights.items()}
    step, steps = 0, EPOCHS * (len(images) // BATCH)
    for epoch in range(EPOCHS):
        for batch, truth in batches(images, labels, rng):
            step += 1
            rate = LEARNING_RATE * 0.5 * (1 + np.cos(np.pi * step / steps))
            for name, grad in gradients(weights, batch, truth).items():
                mean[name] = 0.9 * mean[name] + 0.1 * grad
                square[name] = 0.999 * square[name] + 0.001 * grad**2
                update = mean[name] / (1 - 0.9**step)
                update /= np.sqrt(square[name] / (1 - 0.999**step)) + 1e-8
                weights[name] = (weights[name] - rate * update).astype(np.float32)
        if epoch % 10 == 9:
            print(f"epoch {epoch + 1:3}: training loss {loss(weights, images, labels):.4f}")
    return weights


def predictions(weights: Weights, images: Array) -> Labels:
    """The most probable digit of every image."""
    return forward(weights, images)[0].argmax(axis=1)


def to_onnx(weights: Weights) -> onnx.ModelProto:
    """The network as ONNX: "image" (1, 1, 8, 8) in 0..1 to "probabilities" (1, 10)."""
    node = helper.make_node
    conv = {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1]}
    nodes = [
        node("Conv", ["image", "conv1.weight", "conv1.bias"], ["conv1"], "conv1", **conv),
        node("Relu", ["conv1"], ["relu1"], "relu1"),
        node("Conv", ["relu1", "conv2.weight", "conv2.bias"], ["conv2"], "conv2", **conv),
        node("Relu", ["conv2"], ["relu2"], "relu2"),
        node("MaxPool", ["relu2"], ["pool"], "pool", kernel_shape=[2, 2], strides=[2, 2]),
        node("Flatten", ["pool"], ["features"], "flatten", axis=1),
        node("Gemm", ["features", "dense.weight", "dense.bias"], ["logits"], "dense", transB=1),
        node("Softmax", ["logits"], ["probabilities"], "softmax", axis=1),
    ]
    graph = helper.make_graph(
        nodes,
        "digits",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, [1, 1, 8, 8])],
        [helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, [1, 10])],
        [numpy_helper.from_array(weight, name) for name, weight in weights.items()],
    )
    model = helper.make_model(
        graph,
        producer_name="wasmgraph samples/digits",
        opset_imports=[helper.make_opsetid("", 17)],
        ir_version=8,  # the one of opset 17, so that older tools read the file too
    )
    onnx.checker.check_model(model, full_check=True)
    return model


def write_pictures(weights: Weights, images: Array, labels: Labels, folder: Path) -> None:
    """The clearest image of each digit (the most probable one) as PNG, white on black.

    They are enlarged smoothly to 128x128, which a person can read; scaled back to 8x8, as
    `wasmgraph run` does with any picture, they are the digit again.
    """
    from PIL import Image

    folder.mkdir(exist_ok=True)
    log_probabilities, _ = forward(weights, images)
    for digit, name in enumerate(NAMES):
        certainty = np.where(labels == digit, log_probabilities[:, digit], -np.inf)
        index = int(certainty.argmax())
        pixels = np.rint(images[index, 0] * 255).astype(np.uint8)
        picture = Image.fromarray(pixels).resize(PICTURE_SIZE, Image.Resampling.BICUBIC)
        picture.save(folder / f"{name}-{index:03}.png", optimize=True)


def main() -> None:
    """Train, report the held-out accuracy, write the files."""
    images, labels, held_out_images, held_out_labels = split()
    weights = train(images, labels)
    right = int((predictions(weights, held_out_images) == held_out_labels).sum())
    print(f"held-out accuracy: {right} of {HELD_OUT} ({right / HELD_OUT:.2%})")
    onnx.save(to_onnx(weights), HERE / "digits.onnx")
    (HERE / "labels.txt").write_text("\n".join(NAMES) + "\n", encoding="utf-8")
    write_pictures(weights, held_out_images, held_out_labels, HERE / "images")


if __name__ == "__main__":
    main()
