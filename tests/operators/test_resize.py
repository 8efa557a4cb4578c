"""Resize in every mode, against onnx's reference evaluator, which computes in float64.

The tolerance is a few units in the last place of sums of up to 64 weighted float32.
"""

from __future__ import annotations

from itertools import product
from typing import Any

import numpy as np
import pytest

from tests.onnx_models import Array, compile_to_bundle, make_model, node
from tests.operators.node_cases import Case, check, fixed, run_cases

RNG = np.random.default_rng(0)
IMAGE = RNG.normal(size=(1, 2, 6, 7)).astype(np.float32)
BYTES = RNG.integers(0, 256, (1, 1, 5, 6)).astype(np.uint8)
COORDINATES = (
    *("half_pixel", "half_pixel_symmetric", "pytorch_half_pixel", "align_corners", "asymmetric"),
)


def scaled(x: Array, scales: list[float], **attributes: Any) -> Case:
    what = f"{x.dtype} by {scales} {attributes}"
    return Case(what, "Resize", (x, None, fixed(scales, "float32")), attributes)


def sized(x: Array, sizes: list[int], **attributes: Any) -> Case:
    return Case(f"to {sizes} {attributes}", "Resize", (x, None, None, fixed(sizes)), attributes)


def cropped(x: Array, region: list[float], **attributes: Any) -> Case:
    attributes["coordinate_transformation_mode"] = "tf_crop_and_resize"
    operands = (x, fixed(region, "float32"), None, fixed([1, 2, 4, 5]))
    return Case(f"cropped {attributes}", "Resize", operands, attributes)


CASES = [
    *(
        scaled(IMAGE, [1, 1, 0.7, 1.3], mode=mode, coordinate_transformation_mode=coordinates)
        for mode, coordinates in product(("nearest", "linear", "cubic"), COORDINATES)
    ),
    *(
        scaled(IMAGE, [1, 1, 0.6, 1.7], mode="nearest", nearest_mode=rounding)
        for rounding in ("round_prefer_ceil", "floor", "ceil")
    ),
    *(sized(IMAGE, [1, 2, 2, 9], mode=mode, antialias=1) for mode in ("linear", "cubic")),
    scaled(IMAGE, [1, 1, 0.6, 0.6], mode="cubic", exclude_outside=1, cubic_coeff_a=-0.5),
    scaled(IMAGE, [1, 1, 0.6, 0.6], mode="linear", antialias=1, exclude_outside=1),
    sized(IMAGE, [3, 9], mode="linear", axes=[2, 3]),
    sized(IMAGE, [9, 3], mode="nearest", axes=[3, 2]),
    scaled(IMAGE, [1.5], mode="cubic", axes=[1]),
    scaled(
        IMAGE, [1, 1, 1 / 6, 1 / 7], mode="linear", coordinate_transformation_mode="align_corners"
    ),
    *(
        sized(IMAGE, [9, 9], mode="linear", axes=[2, 3], keep_aspect_ratio_policy=policy)
        for policy in ("not_larger", "not_smaller")
    ),
    cropped(IMAGE, [0, 0, 0.2, 0.3, 1, 1, 0.7, 0.9], mode="linear"),
    cropped(IMAGE, [0, 0, -0.2, 0.3, 1, 1, 0.7, 1.4], mode="linear", extrapolation_value=9.0),
    cropped(IMAGE, [0, 0, -0.2, 0.3, 1, 1, 0.7, 1.4], mode="nearest", extrapolation_value=9.0),
    scaled(IMAGE.astype(np.float64), [1, 1, 0.7, 1.3], mode="linear"),
    scaled(BYTES, [1, 1, 0.7, 1.3], mode="nearest"),
    scaled(BYTES, [1, 1, 0.7, 1.3], mode="cubic"),
    scaled(IMAGE[0, 0, 0], [2.5], mode="linear"),
    scaled(IMAGE[None], [1, 1, 1, 0.7, 1.3], mode="linear"),
]


@pytest.fixture(scope="module")
def results() -> dict[str, list[Array]]:
    return run_cases(CASES)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_gives_what_the_reference_gives(case: Case, results: dict[str, list[Array]]) -> None:
    check(case, results[str(case)], rtol=5e-6, atol=5e-6)


def test_a_plain_resize_keeps_the_quick_kernel() -> None:
    """Also where the scales are ratios of extents rounded to float32."""
    scales = {"s": np.array([1, 1, 16 / 9, 16 / 9], np.float32)}
    nodes = [node("Resize", ["x", "", "s"], "y", mode="linear")]
    bundle = compile_to_bundle(make_model(nodes, {"x": (1, 4, 9, 9)}, "y", scales))
    assert "resample" not in [kernel.description for kernel in bundle.graph.kernels]
