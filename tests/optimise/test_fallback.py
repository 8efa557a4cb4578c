"""Kernels that TVM generates take memory for what lies between their stages from the plan."""

from __future__ import annotations

import numpy as np
import pytest

from tests.onnx_models import compile_to_bundle, make_model, node, run_as_wasm
from wasmgraph.importer import import_model, load_model
from wasmgraph.optimise import optimise
from wasmgraph.optimise.program import TirKernel

RNG = np.random.default_rng(0)
X = RNG.standard_normal((1, 4, 12, 12)).astype(np.float32)
W = RNG.standard_normal((4, 4, 3, 3)).astype(np.float32)


def test_a_convolution_with_computed_weights_allocates_nothing_when_it_runs() -> None:
    onnxruntime = pytest.importorskip("onnxruntime", reason="the reference is onnxruntime")
    nodes = [
        node("Conv", "x w", "a", pads=[1, 1, 1, 1]),
        node("Conv", "a w", "y", pads=[1, 1, 1, 1]),
    ]
    model = make_model(nodes, {"x": X.shape, "w": W.shape}, "y")
    program = optimise(import_model(load_model(model)))
    calls = [call for call in program.calls if isinstance(call.kernel, TirKernel)]
    # The padded input lies between the stages of each.
    assert [len(call.writes) for call in calls] == [2, 2]
    assert b"AllocWorkspace" not in compile_to_bundle(model).tvm_code
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    (want,) = session.run(None, {"x": X, "w": W})
    # Sums of 36 products of order 1, twice.
    np.testing.assert_allclose(run_as_wasm(model, {"x": X, "w": W})["y"], want, 1e-4, 1e-3)
