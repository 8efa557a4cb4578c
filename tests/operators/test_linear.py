"""Det against numpy; rtol is a few units in the last place of what float64 rounds to float32."""

from __future__ import annotations

import numpy as np

from tests.onnx_models import make_model, node, run_as_wasm

RNG = np.random.default_rng(0)


def test_determinants() -> None:
    one = RNG.normal(size=(5, 5)).astype(np.float32)
    batch = RNG.normal(size=(2, 3, 4, 4))
    singular = np.ones((3, 3), np.float32)
    nodes = [node("Det", name, f"of_{name}") for name in ("one", "batch", "singular")]
    found = run_as_wasm(
        make_model(
            nodes,
            {"one": one.shape, "batch": ("float64", batch.shape), "singular": (3, 3)},
            {"of_one": (), "of_batch": ("float64", (2, 3)), "of_singular": ()},
        ),
        {"one": one, "batch": batch, "singular": singular},
    )
    np.testing.assert_allclose(found["of_one"], np.linalg.det(one.astype(np.float64)), rtol=1e-6)
    np.testing.assert_allclose(found["of_batch"], np.linalg.det(batch), rtol=1e-12)
    assert found["of_singular"] == 0
