"""Read an ONNX model, from a file or from memory, and make sure it is one.

What comes out is a checked `ModelProto` with all of its weights inside. Nothing here knows which
operators can be compiled.
"""

from __future__ import annotations

import hashlib
import math
import os
import stat
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
from onnx import external_data_helper

from wasmgraph.errors import ModelError, Obstacle, UnsupportedModelError
from wasmgraph.importer.wellformed import check_wellformed

MAX_WEIGHT_BYTES = 2**31 - 1
"""A wasm32 memory has 4 GiB; rustc and protobuf both stop at 2 GiB of weights in one file."""


@dataclass(frozen=True)
class LoadedModel:
    """A model that parsed and passed ONNX's checker.

    Attributes:
        proto: The model, external data loaded into it.
        name: The file's name, or the graph's where there is no file.
        sha256: Hex digest over the model's bytes and its external data.
    """

    proto: onnx.ModelProto
    name: str
    sha256: str


def load_model(model: str | Path | onnx.ModelProto) -> LoadedModel:
    """Load and check a model.

    Raises:
        ModelError: no such file, not ONNX, invalid, or its external data is missing, lies outside
            the model's folder or has the wrong size.
    """
    if isinstance(model, onnx.ModelProto):
        proto = onnx.ModelProto()
        proto.CopyFrom(model)
        name = proto.graph.name or "model"
        digest = hashlib.sha256(proto.SerializeToString(deterministic=True))
        folder: Path | None = None
    else:
        path = Path(model)
        name = path.name
        data = _read(path)
        digest = hashlib.sha256(data)
        proto = _parse(data, path)
        folder = path.parent
    loaded = 0
    for tensor in _all_tensors(proto):
        if external_data_helper.uses_external_data(tensor):
            _load_external(tensor, folder, name, MAX_WEIGHT_BYTES - loaded)
            loaded += len(tensor.raw_data)
            digest.update(tensor.raw_data)
    _check_tensors(proto, name)
    _check(proto, name)
    return LoadedModel(proto, name, digest.hexdigest())


def _read(path: Path) -> bytes:
    try:
        nbytes = path.stat().st_size
        if nbytes > MAX_WEIGHT_BYTES:
            raise ModelError(
                f"{path} has {nbytes / 2**30:.1f} GiB; a model in one file has less than 2 GiB",
                hint="large weights belong into an external data file",
            )
        return path.read_bytes()
    except OSError as error:
        raise ModelError(f"cannot read {path}: {error.strerror or error}") from error


def _parse(data: bytes, path: Path) -> onnx.ModelProto:
    try:
        proto = onnx.load_model_from_string(data)
    except DecodeError as error:
        raise ModelError(
            f"{path} is not an ONNX model: its bytes do not parse as one",
            hint="the file may be truncated, or a Git LFS pointer instead of the model itself",
        ) from error
    if not proto.HasField("graph") or not proto.ir_version:
        raise ModelError(f"{path} is not an ONNX model: it has no graph")
    return proto


def _all_tensors(proto: onnx.ModelProto) -> list[onnx.TensorProto]:
    tensors = _tensors_of_graph(proto.graph)
    for function in proto.functions:
        tensors.extend(_tensors_of_nodes(function.node))
    return tensors


def _tensors_of_graph(graph: onnx.GraphProto) -> list[onnx.TensorProto]:
    return [*graph.initializer, *_tensors_of_nodes(graph.node)]


def _tensors_of_nodes(nodes: Iterable[onnx.NodeProto]) -> list[onnx.TensorProto]:
    tensors = []
    for node in nodes:
        for attribute in node.attribute:
            if attribute.HasField("t"):
                tensors.append(attribute.t)
            tensors.extend(attribute.tensors)
            for subgraph in [attribute.g] if attribute.HasField("g") else list(attribute.graphs):
                tensors.extend(_tensors_of_graph(subgraph))
    return tensors


def _load_external(tensor: onnx.TensorProto, folder: Path | None, model: str, room: int) -> None:
    """Read one tensor's external data, which must lie in the model's own folder.

    Args:
        room: How many bytes of weights the model may still have. Many tensors may name the same
            bytes of one file.
    """
    entries = {entry.key: entry.value for entry in tensor.external_data}
    location = entries.get("location", "")
    if folder is None:
        raise ModelError(
            f"{model}: the weights of {tensor.name!r} are in the external file {location!r}, "
            "which a ModelProto in memory does not carry",
            hint="load it with onnx.load(path), which reads external data, or pass the path",
        )
    path = folder / location
    try:
        inside = Path(os.path.realpath(path)).is_relative_to(os.path.realpath(folder))
        if not location or not inside:
            raise ModelError(
                f"{model}: the external data of {tensor.name!r} is at {location!r}, outside the "
                "model's folder"
            )
        offset = int(entries.get("offset", 0))
        if not stat.S_ISREG(path.stat().st_mode):
            raise ValueError("it is no file with data")  # opening a pipe would wait for a writer
        with path.open("rb") as file:
            available = os.fstat(file.fileno()).st_size - offset
            length = int(entries.get("length", available))
            if offset < 0 or length < 0:
                raise ValueError("negative offset or length")
            if available < length:
                raise ValueError(f"it ends before the {length} bytes at offset {offset}")
            _check_nbytes(tensor, length, f"{model}: the stored tensor {tensor.name!r}")
            if length > room:
                raise _too_heavy(model, MAX_WEIGHT_BYTES - room + length)
            file.seek(offset)
            data = file.read(length)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise ModelError(
            f"{model}: cannot read the external data of {tensor.name!r} from {str(path)!r}: "
            f"{reason}",
            hint="external data files must be kept beside the .onnx file",
        ) from error
    tensor.raw_data = data
    tensor.ClearField("external_data")
    tensor.data_location = onnx.TensorProto.DEFAULT


def _check_tensors(proto: onnx.ModelProto, name: str) -> None:
    """Refuse tensors whose declared and stored sizes differ, before anything allocates them."""
    total = 0
    for tensor in _all_tensors(proto):
        total += tensor.ByteSize()
        what = f"{name}: the stored tensor {tensor.name!r}"
        if tensor.HasField("raw_data"):
            _check_nbytes(tensor, len(tensor.raw_data), what)
        elif tensor.data_type in _TYPED_FIELDS:
            field, per_element = _TYPED_FIELDS[tensor.data_type]
            expected, found = _elements(tensor, what) * per_element, len(getattr(tensor, field))
            if found != expected:
                raise ModelError(
                    f"{what} of shape {list(tensor.dims)} needs {expected} numbers in {field}, "
                    f"the file has {found}"
                )
    if total > MAX_WEIGHT_BYTES:
        raise _too_heavy(name, total)


def _check_nbytes(tensor: onnx.TensorProto, found: int, what: str) -> None:
    elements = _elements(tensor, what)
    if tensor.data_type not in _ITEM_BITS:
        return
    expected = (elements * _ITEM_BITS[tensor.data_type] + 7) // 8
    if found != expected:
        raise ModelError(
            f"{what} of shape {list(tensor.dims)} needs {expected} bytes, the file has {found}"
        )


def _elements(tensor: onnx.TensorProto, what: str) -> int:
    if any(dim < 0 for dim in tensor.dims):
        raise ModelError(f"{what} has a negative dimension")
    return math.prod(tensor.dims)


def _too_heavy(name: str, nbytes: int) -> ModelError:
    return ModelError(
        f"{name} has {nbytes / 2**30:.1f} GiB of weights; a graph can hold less than 2 GiB"
    )


def _item_bits() -> dict[int, int]:
    bits = {}
    for data_type in onnx.TensorProto.DataType.values():
        if data_type in (onnx.TensorProto.UNDEFINED, onnx.TensorProto.STRING):
            continue
        label = onnx.TensorProto.DataType.Name(data_type)
        if label.endswith(("INT4",)) or label == "FLOAT4E2M1":
            bits[data_type] = 4
        elif label.endswith("INT2"):
            bits[data_type] = 2
        else:
            dtype = onnx.helper.tensor_dtype_to_np_dtype(data_type)
            bits[data_type] = np.dtype(dtype).itemsize * 8
    return bits


_ITEM_BITS = _item_bits()

_TYPED_FIELDS = {
    onnx.TensorProto.DataType.Value(data_type): (field, count)
    for field, count, data_types in (
        ("float_data", 1, ("FLOAT",)),
        ("float_data", 2, ("COMPLEX64",)),
        ("double_data", 1, ("DOUBLE",)),
        ("double_data", 2, ("COMPLEX128",)),
        ("int64_data", 1, ("INT64",)),
        ("uint64_data", 1, ("UINT32", "UINT64")),
        (
            "int32_data",
            1,
            ("INT32", "INT16", "INT8", "UINT16", "UINT8", "BOOL", "FLOAT16", "BFLOAT16"),
        ),
        ("string_data", 1, ("STRING",)),
    )
    for data_type in data_types
}
"""Where a tensor without raw bytes keeps its numbers, and how many of them make an element. Types
that are packed more tightly are left to whoever reads them."""


def _check(proto: onnx.ModelProto, name: str) -> None:
    if proto.graph.sparse_initializer:
        raise UnsupportedModelError(
            f"{name} cannot be compiled, it has sparse initializers:",
            hint="store them as dense ones",
            obstacles=[
                Obstacle(sparse.values.name, "", "a sparse initializer")
                for sparse in proto.graph.sparse_initializer
            ],
        )
    if not proto.graph.output:
        raise ModelError(f"{name} is not a valid ONNX model: its graph has no outputs")
    outputs = Counter(value.name for value in proto.graph.output)
    twice = next((output for output, times in outputs.items() if times > 1), None)
    if twice is not None:
        raise ModelError(f"{name} is not a valid ONNX model: it lists the output {twice!r} twice")
    check_wellformed(proto, name)
    try:
        onnx.checker.check_model(_for_checker(proto))
    except onnx.checker.ValidationError as error:
        text = str(error)
        # Unknown operators are reported by the importer, all of them at once.
        if "No Op registered" in text or "No opset import for domain" in text:
            return
        reason = text.split("\n\n==> Context", maxsplit=1)[0].strip().replace("\n", " ")
        raise ModelError(f"{name} is not a valid ONNX model: {reason}") from error
    except (ValueError, RuntimeError) as error:
        raise ModelError(f"{name} is not a valid ONNX model: {error}") from error


def _for_checker(proto: onnx.ModelProto, limit: int = 4096) -> onnx.ModelProto:
    """A copy for the checker, in which large initializers are empty and every value has a shape.

    The checker takes serialised bytes; copying the weights would double the memory for nothing,
    as their sizes were checked already. And it insists on a shape for inputs and outputs, where
    onnxruntime and exporters are content without; what is missing is inferred or asked for later.
    """
    copy = onnx.ModelProto()
    for field, value in proto.ListFields():
        if field.name != "graph":
            _copy_field(copy, field.name, value)
    for field, value in proto.graph.ListFields():
        if field.name != "initializer":
            _copy_field(copy.graph, field.name, value)
    for tensor in proto.graph.initializer:
        if tensor.ByteSize() <= limit:
            copy.graph.initializer.append(tensor)
        else:
            copy.graph.initializer.add(
                name=tensor.name, data_type=tensor.data_type, dims=[0], raw_data=b""
            )
    for value in [*copy.graph.input, *copy.graph.output]:
        if value.type.HasField("tensor_type"):
            value.type.tensor_type.shape.SetInParent()
    return copy


def _copy_field(target: object, name: str, value: object) -> None:
    field = getattr(target, name)
    if hasattr(field, "MergeFrom"):
        field.MergeFrom(value)
    else:
        setattr(target, name, value)
