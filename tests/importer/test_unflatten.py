"""Products that onnxruntime's optimiser flattened."""

from __future__ import annotations

import numpy as np
import pytest

from tests.onnx_models import Array, make_network, node, operators
from wasmgraph.importer.network import Network
from wasmgraph.importer.normalise import normalise

RNG = np.random.default_rng(2)


def flattened(result: tuple[int, ...], transposed: int = 0, outputs: str = "y") -> Network:
    """(2, 3, 4) by way of (6, 4) and (6, 8) to `result`."""
    weights: dict[str, Array] = {
        "w": RNG.normal(size=(8, 4) if transposed else (4, 8)).astype(np.float32),
        "b": RNG.normal(size=8).astype(np.float32),
        "rows": np.array([-1, 4]),
        "back": np.array(result),
    }
    network = make_network(
        [
            node("Reshape", "x rows", "f"),
            node("Gemm", "f w b", "p", transB=transposed),
            node("Reshape", "p back", "y"),
        ],
        {"x": (2, 3, 4)},
        outputs,
        weights,
    )
    normalise(network)
    return network


@pytest.mark.parametrize("result", [(2, 3, 8), (3, 2, 8), (1, 6, 8)])
@pytest.mark.parametrize("transposed", [0, 1])
def test_rows_are_split_before_the_product(transposed: int, result: tuple[int, ...]) -> None:
    network = flattened(result, transposed)
    assert operators(network) == ["Reshape", "Reshape", "MatMul", "Add"]
    rows, weights = network.nodes[2].input
    assert network.types[rows].shape == (*result[:-1], 4)
    assert network.weights[weights].shape == (4, 8)


def test_rows_that_are_broken_up_stay() -> None:
    assert operators(flattened((2, 3, 2, 4))) == ["Reshape", "Gemm", "Reshape"]


def test_a_product_that_is_an_output_stays() -> None:
    assert "Gemm" in operators(flattened((2, 3, 8), outputs="y p"))
