"""Real models with their axes left open: one `.wasm` for several sizes, against onnxruntime.

Tolerance: 1e-3 relative and 1e-4 absolute, as everywhere for whole float32 models.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import onnxruntime
import pytest

import wasmgraph
from tests.onnx_models import Array

RNG = np.random.default_rng(0)


def floats(*shape: int) -> Array:
    return RNG.random(shape, np.float32)


def speech(batch: int, samples: int, rate: int) -> dict[str, Array]:
    return {
        "input": floats(batch, samples),
        "state": floats(2, batch, 128),
        "sr": np.array(rate, np.int64),
    }


CASES: Mapping[str, list[dict[str, Array]]] = {
    "silero_vad_16k_op15": [speech(1, 512, 16000), speech(3, 512, 16000)],
    "silero_vad_v6": [speech(1, 576, 16000), speech(2, 288, 8000)],
    "magika_v3_3": [{"bytes": RNG.integers(0, 256, (n, 2048)).astype(np.int32)} for n in (1, 2)],
    "super_resolution_10": [{"input": floats(n, 1, 224, 224)} for n in (1, 2)],
    "tract_bidi_lstm": [
        {"input": RNG.integers(0, 256, shape).astype(np.uint8)} for shape in ((1, 5), (3, 11))
    ],
    "yunet_n_dynamic": [{"input": 255 * floats(1, 3, 64, 96)}, {"input": floats(2, 3, 96, 64)}],
    "ppocr_v2_cls": [{"x": floats(1, 3, 48, 192)}, {"x": floats(2, 3, 48, 96)}],
    "ppocr_v3_det_en": [{"x": floats(1, 3, 64, 96)}, {"x": floats(1, 3, 128, 64)}],
}


@pytest.mark.parametrize("name", sorted(CASES))
def test_one_graph_runs_at_several_sizes(
    name: str, shared_model: Callable[[str], Path], tmp_path: Path
) -> None:
    model = shared_model(f"{name}.onnx")
    target = tmp_path / "graph.wasm"
    # Where a batch is all that is open, the graph for one sample serves it.
    one_by_one = name in ("magika_v3_3", "super_resolution_10")
    assert wasmgraph.compile(model, target, verify=False).dynamic is not one_by_one
    session = onnxruntime.InferenceSession(model)
    with wasmgraph.load(target) as graph:
        for feeds in CASES[name]:
            found = graph.run(feeds)
            for output, expected in zip(found, session.run(list(found), feeds), strict=True):
                np.testing.assert_allclose(found[output], expected, 1e-3, 1e-4, err_msg=output)


@pytest.mark.parametrize("name", ["silero_vad_v6", "silero_vad_16k_op15"])
def test_sizes_to_verify_at_are_found(
    name: str, shared_model: Callable[[str], Path], tmp_path: Path
) -> None:
    """Few lengths suit these models, and only some of their axes are named."""
    report = wasmgraph.compile(shared_model(f"{name}.onnx"), tmp_path / "graph.wasm")
    assert report.verification is not None
    assert report.verification.agrees
