"""Which models are measured, on which inputs, and the ONNX files that all systems read.

A folder's models are `*.onnx`; `*.arch.onnx` are architectures without weights, which the folder's
own `fill.py` fills. `shapes.json` beside them may say more:

    {"MODEL": {"shapes": {"INPUT": [1, 3, 320, 320]}, "range": [0, 255]}}

Shapes are needed where an axis is open; the range is that of random float inputs (default 0 to 1).
"""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from benchmarks.tensorfiles import Array
from wasmgraph.runtime.base import TensorSpec
from wasmgraph.tensors.random import random_inputs

DEFAULT_MODELS = (
    "squeezenet_fp32",
    "mobilenet_v2",
    "resnet50",
    "vit_tiny",
    "minilm_l6_h384",
    "yolox_nano",
    "nanodet_m_320",
    "scrfd_500m_bnkps",
    "ultraface_rfb320",
    "fastestdet",
    "yunet_n_dynamic",
    "ppocr_v3_det_en",
    "super_resolution_10",
    "magika_v3_3",
    "oww_embedding",
    "basic_pitch_nmp",
    "micro_kws_m",
)
"""What is measured of a folder that holds some of them, unless others are asked for."""

ALL = "all"
ARCHITECTURE = ".arch"


class ModelsError(Exception):
    """A folder, a model or its shapes are not as they should be."""


@dataclass(frozen=True)
class Model:
    """A model to measure.

    Attributes:
        name: Its file's name without the suffixes.
        file: Where it is, weightless or not.
        shapes: Extents of inputs by name.
        range: Of random float inputs: the least and the greatest value.
    """

    name: str
    file: Path
    shapes: Mapping[str, tuple[int, ...]]
    range: tuple[float, float] = (0.0, 1.0)


def find_models(folder: Path, only: Sequence[str] = ()) -> list[Model]:
    """The models of a folder that are to be measured, in the order of `DEFAULT_MODELS`, or `only`.

    Args:
        folder: Where they are.
        only: Names; "all" for every model there is. Without any, those of `DEFAULT_MODELS`, or all
            where none of them is there.

    Raises:
        ModelsError: there is no such model, or none at all.
    """
    files = {
        path.name.removesuffix(".onnx").removesuffix(ARCHITECTURE): path
        for path in sorted(folder.glob("*.onnx"))
    }
    if not files:
        raise ModelsError(f"there is no *.onnx in {folder}")
    missing = [name for name in only if name not in files and name != ALL]
    if missing:
        known = ", ".join(files)
        raise ModelsError(f"{folder} has no model {', '.join(missing)}; there are {known}")
    names = list(only) or [name for name in DEFAULT_MODELS if name in files] or [ALL]
    table = _read_table(folder)
    return [
        _model(name, files[name], table.get(name, {}))
        for name in (files if ALL in names else names)
    ]


def _read_table(folder: Path) -> dict[str, Any]:
    """What is known of models: the table beside this module, the folder's own before it."""
    table: dict[str, Any] = {}
    for file in (Path(__file__).with_name("shapes.json"), folder / "shapes.json"):
        if file.is_file():
            try:
                table.update(json.loads(file.read_text(encoding="utf-8")))
            except ValueError as error:
                raise ModelsError(f"{file} is not a JSON object: {error}") from error
    return table


def _model(name: str, file: Path, entry: Mapping[str, Any]) -> Model:
    low, high = entry.get("range", (0.0, 1.0))
    shapes = {key: tuple(map(int, shape)) for key, shape in entry.get("shapes", {}).items()}
    return Model(name, file, shapes, (float(low), float(high)))


def prepare(model: Model, cache: Path) -> Path:
    """The ONNX file that every system reads: filled, and of our shapes where it fixes others.

    Raises:
        ModelsError: the folder lacks `fill.py`, or the model is invalid.
    """
    try:
        proto = onnx.load(model.file)
    except Exception as error:  # protobuf's and onnx's errors have no common base
        raise ModelsError(f"{model.file} cannot be read: {error}") from error
    filled = f"{ARCHITECTURE}.onnx" in model.file.name
    if not filled and not _fixes_other_shapes(proto, model.shapes):
        return model.file
    if filled:
        proto = _fill(proto, model.file.with_name("fill.py"))
    for value in proto.graph.input:
        if value.name in model.shapes:
            element = value.type.tensor_type.elem_type
            shape = model.shapes[value.name]
            value.CopyFrom(onnx.helper.make_tensor_value_info(value.name, element, shape))
    if model.shapes:
        del proto.graph.value_info[:]
        for value in proto.graph.output:
            value.type.tensor_type.ClearField("shape")
    target = cache / f"{model.name}.onnx"
    target.parent.mkdir(parents=True, exist_ok=True)
    onnx.save(proto, target)
    return target


def _fixes_other_shapes(proto: onnx.ModelProto, shapes: Mapping[str, tuple[int, ...]]) -> bool:
    return any(
        dim.HasField("dim_value") and dim.dim_value != extent
        for value in proto.graph.input
        if value.name in shapes
        for dim, extent in zip(value.type.tensor_type.shape.dim, shapes[value.name], strict=False)
    )


def _fill(proto: onnx.ModelProto, program: Path) -> onnx.ModelProto:
    spec = importlib.util.spec_from_file_location("fill", program)
    if not program.is_file() or spec is None or spec.loader is None:
        raise ModelsError(f"a model without weights needs {program}, which is not there")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    filled = module.fill(proto)
    assert isinstance(filled, onnx.ModelProto)
    return filled


def make_inputs(model: Model, proto: onnx.ModelProto, seed: int = 0) -> dict[str, Array]:
    """Seeded inputs, the same for every system.

    Raises:
        ModelsError: an axis is open and `shapes.json` does not fix it.
    """
    weights = {tensor.name for tensor in proto.graph.initializer}
    specs = [_spec(model, value) for value in proto.graph.input if value.name not in weights]
    low, high = model.range
    return {
        name: np.asarray(array * (high - low) + low, array.dtype)
        if array.dtype.kind == "f"
        else array
        for name, array in random_inputs(specs, seed).items()
    }


def _spec(model: Model, value: onnx.ValueInfoProto) -> TensorSpec:
    tensor = value.type.tensor_type
    dtype = np.dtype(onnx.helper.tensor_dtype_to_np_dtype(tensor.elem_type)).name
    dims = tensor.shape.dim
    shape = model.shapes.get(value.name, tuple(dim.dim_value for dim in dims))
    if len(shape) != len(dims) or any(extent < 1 for extent in shape):
        found = "x".join(dim.dim_param or str(dim.dim_value or "?") for dim in dims)
        raise ModelsError(
            f"input {value.name!r} of {model.name} is {found}: its shape must stand in shapes.json"
        )
    return TensorSpec(value.name, dtype, shape)
