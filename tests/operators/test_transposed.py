"""ConvTranspose that is given its output's shape, against the same with its padding in numbers."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tests.onnx_models import make_model, node, run_as_wasm

RNG = np.random.default_rng(0)
X = RNG.normal(size=(1, 2, 4, 4)).astype(np.float32)
W = RNG.normal(size=(2, 3, 3, 3)).astype(np.float32)

CASES = {
    "odd padding, more of it first": (
        {"output_shape": [8, 6]},
        {"pads": [1, 2, 0, 1]},
    ),
    "odd padding, more of it last": (
        {"output_shape": [8, 6], "auto_pad": "SAME_UPPER"},
        {"pads": [0, 1, 1, 2]},
    ),
    "zeros at the end": ({"output_shape": [10, 10]}, {"output_padding": [1, 1]}),
}


@pytest.mark.parametrize("what", CASES)
def test_the_shape_is_reached_by_padding(what: str) -> None:
    by_shape, by_padding = CASES[what]

    def transposed(output: str, attributes: dict[str, Any]) -> Any:
        return node("ConvTranspose", "x w", output, strides=[2, 2], **attributes)

    model = make_model(
        [transposed("y", by_shape), transposed("z", by_padding)], {"x": X.shape}, "y z", {"w": W}
    )
    found = run_as_wasm(model, {"x": X})
    assert found["y"].shape == (1, 3, *by_shape["output_shape"])
    np.testing.assert_array_equal(found["y"], found["z"])
