"""Real models, from file to agreement with onnxruntime; skipped where the files are not there.

A few quick ones run with every `make test`, all of them with `make test-models`.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import onnx
import pytest

import wasmgraph
from tests.onnx_models import Array
from tests.test_compiler import assert_reproducible
from wasmgraph.runtime.base import TensorSpec
from wasmgraph.tensors.random import random_input
from wasmgraph.wasmfile import parse_wasm

MAX_CODE_BYTES = 600_000
"""Beyond the weights; a floor that the project set itself."""

Shapes = Mapping[str, tuple[int, ...]]


def zero_to(limit: float) -> Callable[[TensorSpec, Array], Array]:
    """Uniform floats below `limit`, or all integers below it."""

    def scaled(spec: TensorSpec, unit: Array) -> Array:
        if unit.dtype.kind == "f":
            return (unit * limit).astype(unit.dtype)
        rng = np.random.default_rng(0)
        return rng.integers(0, int(limit), spec.shape).astype(unit.dtype)

    return scaled


def normalised_and_divided(_: TensorSpec, unit: Array) -> Array:
    """A picture normalised with mean 0.5 and deviation 0.25, then divided by 255.

    SINet was trained so. Far outside of that range its activations reach 1e9, where onnxruntime
    does not agree with itself.
    """
    return ((unit * 4 - 2) / 255).astype(unit.dtype)


def as_is(_: TensorSpec, unit: Array) -> Array:
    """Uniform in [0, 1), small integers: see `wasmgraph.tensors.random`."""
    return unit


@dataclass(frozen=True)
class Model:
    """A model, the extents of its open axes, and the range that its inputs are in."""

    name: str
    shapes: Shapes = field(default_factory=dict)
    values: Callable[[TensorSpec, Array], Array] = as_is
    quick: bool = False
    architecture: bool = False


MODELS = (
    Model("squeezenet_fp32", quick=True),
    Model("squeezenet_fp16"),
    Model("mnist8", values=zero_to(255), quick=True),
    Model("ultraface_rfb320", quick=True),
    Model("yunet_n_dynamic", {"input": (1, 3, 320, 320)}, zero_to(255)),
    Model("scrfd_500m_bnkps", {"input.1": (1, 3, 320, 320)}),
    Model("nanodet_m_320"),
    Model("yolox_nano", values=zero_to(255)),
    Model("fastestdet"),
    Model("sinet_portrait", values=normalised_and_divided),
    Model("super_resolution_10", {"input": (1, 1, 224, 224)}),
    Model("ppocr_v3_det_en", {"x": (1, 3, 640, 640)}),
    Model("ppocr_v2_cls", {"x": (1, 3, 48, 192)}),
    Model("fsanet_headpose"),
    Model("magika_v3_3", {"bytes": (1, 2048)}, zero_to(256)),
    Model("micro_kws_m", quick=True),
    Model("oww_embedding", {"input_1": (1, 76, 32, 1)}, quick=True),
    Model("basic_pitch_nmp", {"serving_default_input_2:0": (1, 43844, 1)}),
    Model("brainseg3d", {"input": (1, 1, 64, 64, 64)}),
    Model("dtln_1", quick=True),
    Model("gtcrn_stream"),
    Model("tract_bidi_lstm", {"input": (2, 20)}, zero_to(256)),
    Model("resnet50", architecture=True),
    Model("mobilenet_v2", architecture=True),
    Model("minilm_l6_h384", architecture=True),
    Model("vit_tiny", architecture=True),
)


def filled(architecture: Path, target: Path) -> Path:
    """The architecture with the seeded random weights that its own script makes."""
    spec = importlib.util.spec_from_file_location("fill", architecture.with_name("fill.py"))
    assert spec is not None
    assert spec.loader is not None
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    onnx.save(script.fill(onnx.load(architecture)), target)
    return target


def find(model: Model, shared_model: Callable[[str], Path], tmp_path: Path) -> Path:
    if not model.architecture:
        return shared_model(f"{model.name}.onnx")
    shared_model("fill.py")
    return filled(shared_model(f"{model.name}.arch.onnx"), tmp_path / f"{model.name}.onnx")


@pytest.mark.parametrize(
    "model",
    [
        pytest.param(model, id=model.name, marks=() if model.quick else pytest.mark.models)
        for model in MODELS
    ],
)
def test_agrees_with_onnxruntime(
    model: Model, shared_model: Callable[[str], Path], tmp_path: Path
) -> None:
    """|a - b| <= 1e-4 + 1e-3 |b| for every element: float32 sums in another order."""
    path = find(model, shared_model, tmp_path)
    report = wasmgraph.compile(path, tmp_path / "out.wasm", model.shapes, verify=False)
    with wasmgraph.load(report.path, timeout=300) as graph:
        assert {t.name: t.shape for t in graph.inputs if t.name in model.shapes} == model.shapes
        inputs = {t.name: model.values(t, random_input(t, seed=0)) for t in graph.inputs}
        agreement = wasmgraph.verify(graph, path, inputs, rtol=1e-3, atol=1e-4)
    assert agreement.agrees, "\n".join(str(o) for o in agreement.outputs if not o.agrees)
    assert all(output.non_finite == 0 for output in agreement.outputs)
    assert report.sizes["code"] <= MAX_CODE_BYTES
    imports = parse_wasm(report.path.read_bytes()).imports
    assert {item.module for item in imports} == {"wasi_snapshot_preview1"}


@pytest.mark.models
@pytest.mark.parametrize("name", ["minilm_l6_h384", "vit_tiny", "mobilenet_v2"])
def test_what_onnxruntime_optimised_takes_no_more_steps(
    name: str, shared_model: Callable[[str], Path], tmp_path: Path
) -> None:
    import onnxruntime

    path = find(Model(name, architecture=True), shared_model, tmp_path)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
    options.graph_optimization_level = level
    options.optimized_model_filepath = str(tmp_path / "optimised.onnx")
    onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    steps = wasmgraph.compile(path, tmp_path / "plain.wasm", verify=False).steps
    report = wasmgraph.compile(
        options.optimized_model_filepath, tmp_path / "optimised.wasm", verify=False
    )
    assert report.steps <= steps
    with wasmgraph.load(report.path, timeout=300) as graph:
        wasmgraph.verify(graph, path).raise_if_disagree()


@pytest.mark.models
def test_style_transfer_of_crops_and_scaled_images(
    shared_model: Callable[[str], Path], tmp_path: Path
) -> None:
    """fns_mosaic normalises what lies close together, far from zero. For inputs of 0 to 1
    onnxruntime is up to 0.4 from a float64 reference of at most 265, and the graph up to 0.2: that
    they agree takes what rounding alone does to onnxruntime's outputs.
    """
    path = shared_model("fns_mosaic.onnx")
    report = wasmgraph.compile(path, tmp_path / "out.wasm", {"inputImage": (1, 3, 720, 720)})
    assert report.verification is not None
    (output,) = report.verification.outputs
    assert output.agrees
    assert output.rounding > 0
    with wasmgraph.load(report.path, timeout=300) as graph:
        agreement = wasmgraph.verify(graph, path, input_range=(0, 255), rtol=0, atol=2.5e-4 * 255)
    agreement.raise_if_disagree()
    assert agreement.outputs[0].rounding == 0


def test_the_same_model_gives_the_same_bytes(
    shared_model: Callable[[str], Path], tmp_path: Path
) -> None:
    assert_reproducible(shared_model("micro_kws_m.onnx"), tmp_path)
