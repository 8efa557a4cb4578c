"""The metadata in a graph's custom section `wasmgraph`: data classes, and JSON both ways.

It says what a host must know before running anything: inputs, outputs, sizes, what made the graph.
It comes from files of any origin, so everything is checked on reading. Finding the section in a
`.wasm` is `wasmfile`'s business.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from math import prod
from typing import Any, NoReturn, TypeVar

from wasmgraph.bundle import (
    SIMD_LEVELS,
    WEIGHT_FORMATS,
    SimdLevel,
    WeightFormat,
    axes_told,
    batch_told,
)
from wasmgraph.errors import LoadError

ABI_VERSION = 1
DTYPE_NBYTES: Mapping[str, int] = {
    "bool": 1,
    "int8": 1,
    "int16": 2,
    "int32": 4,
    "int64": 8,
    "uint8": 1,
    "uint16": 2,
    "uint32": 4,
    "uint64": 8,
    "float16": 2,
    "bfloat16": 2,
    "float32": 4,
    "float64": 8,
    "float8_e4m3fn": 1,
    "float8_e4m3fnuz": 1,
    "float8_e5m2": 1,
    "float8_e5m2fnuz": 1,
    "float8_e8m0fnu": 1,
    "float4_e2m1fn": 1,
    "int4": 1,
    "uint4": 1,
    "int2": 1,
    "uint2": 1,
}
"""Bytes per element of every dtype that a graph's inputs and outputs can have.

Elements below a byte take the low bits of one each, as in ml_dtypes' arrays."""

NARROW_DTYPES = frozenset(
    [
        *("bfloat16", "float8_e4m3fn", "float8_e4m3fnuz", "float8_e5m2", "float8_e5m2fnuz"),
        *("float8_e8m0fnu", "float4_e2m1fn", "int4", "uint4", "int2", "uint2"),
    ]
)
"""Those of them that numpy lacks and ml_dtypes adds."""

MAX_TENSOR_NBYTES = 2**31 - 1
"""Bytes. Rust and C both want an object's size to fit a signed 32-bit integer."""


@dataclass(frozen=True)
class TensorInfo:
    """An input or output.

    Attributes:
        name: The ONNX name.
        dtype: One of `DTYPE_NBYTES`.
        shape: The extent of every axis, or the name of one that is known at run time only. Inputs
            that share a name share the extent. An output of any rank has the shape ("...",).
    """

    name: str
    dtype: str
    shape: tuple[int | str, ...]

    @property
    def open_axes(self) -> tuple[str, ...]:
        """The names among its extents."""
        return tuple(extent for extent in self.shape if isinstance(extent, str))


@dataclass(frozen=True)
class ModelInfo:
    """The source model: file name, SHA-256 (hex), ai.onnx opset, nodes per operator."""

    name: str
    sha256: str
    opset: int
    operators: Mapping[str, int]


@dataclass(frozen=True)
class Sizes:
    """Bytes: the file without the weights, the weights, scratch memory, inputs and outputs, and
    what the weights would be if every float were a float32 (0 where the file does not say)."""

    code: int
    weights: int
    arena: int
    io: int
    wide_weights: int = 0


@dataclass(frozen=True)
class KernelInfo:
    """A kernel: its symbol (as in the name section) and the operators fused in it."""

    symbol: str
    description: str


@dataclass(frozen=True)
class StepInfo:
    """A kernel call.

    Attributes:
        kernel: Its index.
        nodes: Names of the ONNX nodes it computes.
        flops: Multiplications and additions of the direct algorithm; 0 where it is not a product.
        shares: In how many kernel calls, which may run at the same time.
    """

    kernel: int
    nodes: tuple[str, ...]
    flops: int = 0
    shares: int = 1


@dataclass(frozen=True)
class Metadata:
    """All of it. `producer` maps the name of every tool that made the graph to its version;
    `dynamic` says that the shapes of some tensors are known at run time only, and its nodes run one
    by one; a graph with an open axis that is not dynamic runs once per sample of that batch.
    Of a
    dynamic graph `calls` says how many nodes call each operator of the executor. `bounds` are the
    largest extents of open axes that have one, by the axis' name. `rounded` says as what weights
    were rounded to be stored smaller, if they were."""

    abi: int
    producer: Mapping[str, str]
    model: ModelInfo
    simd: SimdLevel
    threads: bool
    inputs: tuple[TensorInfo, ...]
    outputs: tuple[TensorInfo, ...]
    sizes: Sizes
    kernels: tuple[KernelInfo, ...]
    steps: tuple[StepInfo, ...]
    dynamic: bool = False
    calls: Mapping[str, int] = field(default_factory=dict)
    bounds: Mapping[str, int] = field(default_factory=dict)
    rounded: WeightFormat | None = None

    @property
    def openness(self) -> str:
        """What of the shapes a run decides, and how it copes; empty where all are fixed."""
        names = [name for tensor in self.inputs for name in tensor.open_axes]
        if names and not self.dynamic:
            return batch_told(names[0], self.bounds)
        return f"dynamic ({axes_told(names, self.bounds)})" if self.dynamic else ""


def dump_metadata(metadata: Metadata) -> bytes:
    """The section's bytes: compact JSON in UTF-8; the same metadata always give the same bytes."""
    return json.dumps(asdict(metadata), ensure_ascii=False, separators=(",", ":")).encode()


def load_metadata(payload: bytes) -> Metadata:
    """Parse the section's bytes. Unknown keys are left alone: a later wasmgraph may add some.

    Raises:
        LoadError: not JSON, another ABI version, or a field is missing, mistyped or out of range.
    """
    try:
        data = json.loads(payload.decode())
    except (ValueError, RecursionError) as error:
        raise LoadError(f"the graph's metadata is not JSON: {error}") from error
    top = _record(data, "metadata")
    abi = _count(top, "abi")
    if abi != ABI_VERSION:
        raise LoadError(
            f"the graph has ABI version {abi}, this wasmgraph knows {ABI_VERSION}",
            hint="use the wasmgraph that compiled it, or compile the model again",
        )
    simd = _text(top, "simd")
    if simd not in SIMD_LEVELS:
        _fail("simd", f"one of {', '.join(SIMD_LEVELS)}", simd)
    kernels = _items(top, "kernels", _kernel)
    steps = _items(top, "steps", _step)
    for step in steps:
        if step.kernel >= len(kernels):
            _fail("steps", f"an index below {len(kernels)}", step.kernel)
    return Metadata(
        abi=abi,
        producer=_mapping(top, "producer", _text),
        model=_model(_record(top.get("model"), "model")),
        simd=simd,
        threads=_boolean(top, "threads"),
        inputs=_tensors(top, "inputs"),
        outputs=_tensors(top, "outputs"),
        sizes=_sizes(_record(top.get("sizes"), "sizes")),
        kernels=kernels,
        steps=steps,
        dynamic=_boolean(top, "dynamic") if "dynamic" in top else False,
        calls=_mapping(top, "calls", _count) if "calls" in top else {},
        bounds=_mapping(top, "bounds", _count) if "bounds" in top else {},
        rounded=_rounded(top.get("rounded")),
    )


Item = TypeVar("Item")
Record = Mapping[str, Any]


def _fail(key: str, expected: str, found: object) -> NoReturn:
    shown = repr(found)
    shown = shown if len(shown) <= 60 else shown[:57] + "..."
    raise LoadError(f"the graph's metadata: {key!r} should be {expected}, not {shown}")


def _record(value: object, key: str) -> Record:
    if not isinstance(value, dict):
        _fail(key, "an object", value)
    return value


def _text(record: Record, key: str) -> str:
    value = record.get(key)
    if not isinstance(value, str):
        _fail(key, "a string", value)
    return value


def _boolean(record: Record, key: str) -> bool:
    value = record.get(key)
    if not isinstance(value, bool):
        _fail(key, "true or false", value)
    return value


def _count(record: Record, key: str) -> int:
    value = record.get(key)
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < 2**63:
        _fail(key, "a count", value)
    return value


def _items(record: Record, key: str, convert: Callable[[Record], Item]) -> tuple[Item, ...]:
    value = record.get(key)
    if not isinstance(value, list):
        _fail(key, "a list", value)
    return tuple(convert(_record(item, key)) for item in value)


def _mapping(record: Record, key: str, convert: Callable[[Record, str], Item]) -> dict[str, Item]:
    value = _record(record.get(key), key)
    return {name: convert(value, name) for name in value}


def _model(record: Record) -> ModelInfo:
    sha256 = _text(record, "sha256")
    if len(sha256) != 64 or not set(sha256) <= set("0123456789abcdef"):
        _fail("sha256", "64 hexadecimal digits", sha256)
    operators = _mapping(record, "operators", _count)
    return ModelInfo(_text(record, "name"), sha256, _count(record, "opset"), operators)


def _sizes(record: Record) -> Sizes:
    wide = _count(record, "wide_weights") if "wide_weights" in record else 0
    code, weights, arena, io = (_count(record, k) for k in ("code", "weights", "arena", "io"))
    return Sizes(code, weights, arena, io, wide)


def _rounded(value: object) -> WeightFormat | None:
    if value is not None and value not in WEIGHT_FORMATS:
        _fail("rounded", f"null or one of {', '.join(WEIGHT_FORMATS)}", value)
    return value


def _kernel(record: Record) -> KernelInfo:
    return KernelInfo(_text(record, "symbol"), _text(record, "description"))


def _step(record: Record) -> StepInfo:
    nodes = record.get("nodes")
    if not isinstance(nodes, list) or not all(isinstance(node, str) for node in nodes):
        _fail("nodes", "a list of strings", nodes)
    flops = _count(record, "flops") if "flops" in record else 0
    shares = _count(record, "shares") if "shares" in record else 1
    return StepInfo(_count(record, "kernel"), tuple(nodes), flops, shares)


def _tensors(record: Record, key: str) -> tuple[TensorInfo, ...]:
    tensors = _items(record, key, _tensor)
    names = [tensor.name for tensor in tensors]
    if len(set(names)) != len(names):
        _fail(key, "tensors of different names", names)
    return tensors


def _tensor(record: Record) -> TensorInfo:
    dtype = _text(record, "dtype")
    if dtype not in DTYPE_NBYTES:
        _fail("dtype", f"one of {', '.join(DTYPE_NBYTES)}", dtype)
    shape = record.get("shape")
    if not isinstance(shape, list):
        _fail("shape", "a list", shape)
    extents = tuple(
        extent if isinstance(extent, str) else _count({"shape": extent}, "shape")
        for extent in shape
    )
    tensor = TensorInfo(_text(record, "name"), dtype, extents)
    known = [extent for extent in extents if isinstance(extent, int)]
    # Bounded without its zeros too, or numpy refuses the shape.
    if prod(filter(None, known)) * DTYPE_NBYTES[dtype] > MAX_TENSOR_NBYTES or len(extents) > 32:
        _fail("shape", f"at most {MAX_TENSOR_NBYTES} bytes on 32 axes", shape)
    return tensor
