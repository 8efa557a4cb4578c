"""A scale and a shift after a convolution go into its weights and bias, where nobody else looks."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from tvm import relax

import wasmgraph
from tests.onnx_models import Array, make_model, node
from tests.optimise.relax_modules import module, operators
from wasmgraph.optimise.fold_affine import fold_affine_into_convolution
from wasmgraph.optimise.fold_weights import fold_weight_expressions

RNG = np.random.default_rng(0)
WEIGHTS: dict[str, Array] = {
    "w": RNG.normal(size=(4, 3, 3, 3)).astype(np.float32),
    "grouped": RNG.normal(size=(6, 1, 3, 3)).astype(np.float32),
    "transposed": RNG.normal(size=(3, 4, 2, 2)).astype(np.float32),
    "transposed_grouped": RNG.normal(size=(4, 2, 2, 2)).astype(np.float32),
    "line": RNG.normal(size=(4, 3, 3)).astype(np.float32),
    "cube": RNG.normal(size=(4, 3, 2, 2, 2)).astype(np.float32),
    "b": RNG.normal(size=4).astype(np.float32),
    "b6": RNG.normal(size=6).astype(np.float32),
    **{f"s{i}": RNG.uniform(0.5, 2, 4).astype(np.float32) for i in range(4)},
    **{f"s6{i}": RNG.uniform(0.5, 2, 6).astype(np.float32) for i in range(4)},
    "channel": RNG.normal(size=(4, 1, 1)).astype(np.float32),
    "scalar": np.float32(1.5),
    "ones": np.ones((1, 1, 1, 1), np.float32),
    "columns": RNG.normal(size=(6,)).astype(np.float32),
    "whole": RNG.normal(size=(1, 4, 6, 6)).astype(np.float32),
    "five": np.float32(2).reshape(1, 1, 1, 1, 1),
}
INPUTS = {
    "x": (1, 3, 8, 8),
    "six": (1, 6, 8, 8),
    "four": (1, 4, 5, 5),
    "l": (1, 3, 8),
    "c": (1, 3, 4, 4, 4),
    "v": (4, 1, 1),
}
NORM = "s0 s1 s2 s3"
NORM6 = "s60 s61 s62 s63"


def tiny(*nodes: onnx.NodeProto, outputs: str = "y") -> tuple[Any, ...]:
    used = {name for item in nodes for name in item.input}
    return (
        list(nodes),
        {name: shape for name, shape in INPUTS.items() if name in used},
        outputs,
        {name: weight for name, weight in WEIGHTS.items() if name in used},
    )


def folded(*nodes: onnx.NodeProto, outputs: str = "y") -> list[str]:
    """The operators that are left."""
    mod = fold_weight_expressions(module(*tiny(*nodes, outputs=outputs)))
    mod = fold_affine_into_convolution(mod)
    return operators(relax.transform.DeadCodeElimination()(mod))


# name -> (nodes from the input to "y", operators that are left)
FOLDS: dict[str, tuple[list[onnx.NodeProto], list[str]]] = {
    "batch norm": (
        [node("Conv", "x w", "a"), node("BatchNormalization", f"a {NORM}", "y")],
        ["nn.conv2d", "add"],
    ),
    "bias and batch norm": (
        [node("Conv", "x w b", "a"), node("BatchNormalization", f"a {NORM}", "y")],
        ["nn.conv2d", "add"],
    ),
    "batch norm, then scale and shift": (
        [
            node("Conv", "x w b", "a"),
            node("BatchNormalization", f"a {NORM}", "n"),
            node("Mul", "n scalar", "m"),
            node("Sub", "m channel", "y"),
        ],
        ["nn.conv2d", "add"],
    ),
    "scale alone leaves no addition": (
        [node("Conv", "x w", "a"), node("Mul", "channel a", "y")],
        ["nn.conv2d"],
    ),
    "grouped": (
        [
            node("Conv", "six grouped b6", "a", group=6),
            node("BatchNormalization", f"a {NORM6}", "y"),
        ],
        ["nn.conv2d", "add"],
    ),
    "transposed": (
        [
            node("ConvTranspose", "x transposed b", "a", strides=[2, 2]),
            node("BatchNormalization", f"a {NORM}", "y"),
        ],
        ["nn.conv2d_transpose", "add"],
    ),
    "one dimension": (
        [node("Conv", "l line", "a"), node("BatchNormalization", f"a {NORM}", "y")],
        ["nn.conv1d", "add"],
    ),
    "three dimensions": (
        [node("Conv", "c cube b", "a"), node("BatchNormalization", f"a {NORM}", "y")],
        ["nn.conv3d", "add"],
    ),
    "behind a relu a new one begins": (
        [
            node("Conv", "x w", "a"),
            node("BatchNormalization", f"a {NORM}", "n"),
            node("Relu", "n", "r"),
            node("Mul", "r channel", "y"),
        ],
        ["nn.conv2d", "add", "nn.relu", "multiply"],
    ),
}

# Where it must keep its hands off: name -> (nodes, outputs, operators that must be there).
KEPT: dict[str, tuple[list[onnx.NodeProto], str, list[str]]] = {
    "a convolution that is read twice": (
        [
            node("Conv", "x w", "a"),
            node("Mul", "a channel", "m"),
            node("Relu", "a", "r"),
            node("Add", "m r", "y"),
        ],
        "y",
        ["nn.conv2d", "multiply", "nn.relu", "add"],
    ),
    "a convolution that is an output": (
        [node("Conv", "x w", "a"), node("Mul", "a channel", "y")],
        "a y",
        ["nn.conv2d", "multiply"],
    ),
    "a biased convolution whose sum is read twice": (
        [
            node("Conv", "x w b", "a"),
            node("Mul", "a scalar", "m"),
            node("Add", "m a", "y"),
        ],
        "y",
        ["nn.conv2d", "add", "multiply", "add"],
    ),
    "a convolution that is multiplied with itself": (
        [node("Conv", "x w", "a"), node("Mul", "a a", "y")],
        "y",
        ["nn.conv2d", "multiply"],
    ),
    "a factor per column": (
        [node("Conv", "x w", "a"), node("Mul", "a columns", "y")],
        "y",
        ["nn.conv2d", "multiply"],
    ),
    "a summand per element": (
        [node("Conv", "x w", "a"), node("Add", "a whole", "y")],
        "y",
        ["nn.conv2d", "add"],
    ),
    "a factor that adds an axis": (
        [node("Conv", "x w", "a"), node("Mul", "a five", "y")],
        "y",
        ["nn.conv2d", "multiply"],
    ),
    "a factor computed at run time": (
        [node("Conv", "x w", "a"), node("Mul", "a v", "y")],
        "y",
        ["nn.conv2d", "multiply"],
    ),
    "a constant less the convolution": (
        [node("Conv", "x w", "a"), node("Sub", "channel a", "y")],
        "y",
        ["nn.conv2d", "subtract"],
    ),
    "a grouped transposed convolution": (
        [
            node("ConvTranspose", "four transposed_grouped", "a", group=2),
            node("Mul", "a scalar", "y"),
        ],
        "y",
        ["nn.conv2d_transpose", "multiply"],
    ),
}


@pytest.mark.parametrize("name", FOLDS)
def test_folds(name: str) -> None:
    nodes, expected = FOLDS[name]
    assert folded(*nodes) == expected


@pytest.mark.parametrize("name", KEPT)
def test_keeps(name: str) -> None:
    nodes, outputs, expected = KEPT[name]
    assert folded(*nodes, outputs=outputs) == expected


def test_what_is_folded_computes_the_same(tmp_path: Any) -> None:
    """All of the above in one model, against onnxruntime.

    Folding changes the order of a few float32 products, hence verify's default tolerance.
    """
    everything: list[onnx.NodeProto] = []
    outputs: list[str] = []
    cases = [(nodes, "y") for nodes, _ in FOLDS.values()]
    cases += [(nodes, names) for nodes, names, _ in KEPT.values()]
    outer = set(INPUTS) | set(WEIGHTS)
    for index, (nodes, names) in enumerate(cases):
        for item in nodes:
            copy = onnx.NodeProto()
            copy.CopyFrom(item)
            copy.input[:] = [n if n in outer else f"{n}_{index}" for n in item.input]
            copy.output[:] = [f"{n}_{index}" for n in item.output]
            everything.append(copy)
        outputs += [f"{n}_{index}" for n in names.split()]
    model = make_model(*tiny(*everything, outputs=" ".join(outputs)))
    wasmgraph.compile(model, tmp_path / "folds.wasm", verify=False)
    report = wasmgraph.verify(tmp_path / "folds.wasm", model)
    assert report.agrees, [str(output) for output in report.outputs if not output.agrees]
