"""The graph bundle: what codegen writes, the linker reads and `inspect` shows.

A bundle is a folder of three files, or four:

* `graph.json`: the one description of the graph, as below, readable by a person;
* `graph.params`: the weights, each constant at its `offset`, in the layout the kernels read;
* `graph.o`: a wasm32 object with one C function `int32 kernel(void*, ...)` per kernel;
* `tvm.o`: the same for kernels that TVM generated, where there are any.

This module holds the description's data classes and reads and writes the folder. It knows nothing
of TVM, of linking or of running.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np

from wasmgraph.dynamic.program import DynamicProgram, calls, program_from_json
from wasmgraph.errors import ModelError

BUNDLE_VERSION = 4
ALIGNMENT = 64
"""Bytes. Every tensor starts at a multiple: one x86 cache line, so vector loads never split."""

Region = Literal["params", "io", "arena"]
"""Where bytes live: the weights (read only), the inputs and outputs (never reused), or scratch."""

SimdLevel = Literal["none", "simd128", "relaxed"]
SIMD_LEVELS: tuple[SimdLevel, ...] = ("none", "simd128", "relaxed")

WeightFormat = Literal["f32", "f16", "int8"]
WEIGHT_FORMATS: tuple[WeightFormat, ...] = ("f32", "f16", "int8")
"""How large weights of products may be stored: as float32, as half precision, or as int8 with a
scale per output channel."""


@dataclass(frozen=True)
class Buffer:
    """A run of bytes at a place fixed at compile time.

    Attributes:
        region: Which region it lies in.
        offset: Bytes from the region's start, a multiple of `ALIGNMENT` unless it is a view.
        nbytes: Its length in bytes.
    """

    region: Region
    offset: int
    nbytes: int


@dataclass(frozen=True)
class Tensor:
    """A graph input or output.

    Attributes:
        name: The ONNX name, unchanged.
        dtype: A numpy dtype name, e.g. "float32", "int64", "bool".
        shape: The extent of every axis, or the name of one that is known at run time only. An
            output of which not even the rank is known has the shape ("...",).
        buffer: Where the host writes or reads its bytes (C order, little-endian). An output that
            is a view of an input or a constant points there. None in a dynamic graph; the place
            of one sample where a `Batch` says that the graph runs once for each.
    """

    name: str
    dtype: str
    shape: tuple[int | str, ...]
    buffer: Buffer | None


@dataclass(frozen=True)
class Constant:
    """A weight in `graph.params`.

    Attributes:
        name: The ONNX initializer's name where it is still known, else one of our own.
        dtype: A numpy dtype name.
        shape: As the kernels read it.
        offset: Bytes from the start of `graph.params`.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    offset: int

    @property
    def nbytes(self) -> int:
        """Length in bytes."""
        return int(np.prod(self.shape, dtype=np.int64)) * np.dtype(self.dtype).itemsize


@dataclass(frozen=True)
class Kernel:
    """A compiled function of `graph.o`.

    Attributes:
        symbol: Its C name; it takes one pointer per buffer and returns 0, or -1 when it ran out
            of memory.
        buffers: How many pointers it takes.
        description: The fused operators, e.g. "conv2d + add + relu".
    """

    symbol: str
    buffers: int
    description: str


@dataclass(frozen=True)
class Step:
    """One kernel call.

    Attributes:
        kernel: Index into `Graph.kernels`.
        buffers: One per pointer parameter, in order; the last `writes` of them are written.
        nodes: Names of the ONNX nodes this call computes (an unnamed node is `Op#index`).
        writes: How many trailing buffers are outputs.
        flops: Multiplications and additions of the direct algorithm; 0 where it is not a product.
        stage: Steps of the same stage follow each other and may run at the same time; a stage
            begins when the one before it is done. Stages are numbered from 0, without gaps.
    """

    kernel: int
    buffers: tuple[Buffer, ...]
    nodes: tuple[str, ...]
    writes: int = 1
    flops: int = 0
    stage: int = field(kw_only=True)


@dataclass(frozen=True)
class Source:
    """What the graph was compiled from.

    Attributes:
        name: The model's file name, or its graph's name when it came as a ModelProto.
        sha256: Hex digest of the model's bytes (external data included).
        opset: The model's own ai.onnx opset.
        operators: How many nodes of each operator the model has.
    """

    name: str
    sha256: str
    opset: int
    operators: Mapping[str, int]


@dataclass(frozen=True)
class Share:
    """What one sample of a batch has of a tensor.

    Attributes:
        axis: On which the samples lie one after the other.
        extent: That axis' extent for one sample.
    """

    axis: int
    extent: int


ONE_BY_ONE = "the graph for one sample, run once per sample"


@dataclass(frozen=True)
class Batch:
    """That the kernels are for one sample, and the graph runs once for every sample of a batch.

    Attributes:
        axis: The name of the batch axis.
        inputs, outputs: Per tensor what one sample has of it; None where all have the whole.
    """

    axis: str
    inputs: tuple[Share | None, ...]
    outputs: tuple[Share | None, ...]


def batch_told(axis: str, bounds: Mapping[str, int]) -> str:
    """How a graph serves a batch of any size, in a report's words."""
    most = f" up to {bounds[axis]}" if axis in bounds else ""
    return f"batch axis {axis!r}{most}: {ONE_BY_ONE}"


def axes_told(names: Sequence[str], bounds: Mapping[str, int]) -> str:
    """Which axes of a dynamic graph are open, in a report's words."""
    axes = [f"{n} up to {bounds[n]}" if n in bounds else n for n in dict.fromkeys(names)]
    return f"open axes {', '.join(axes)}" if axes else "sizes that depend on data"


@dataclass(frozen=True)
class Graph:
    """The whole description, as in `graph.json`.

    Attributes:
        producer: Versions of what made it, by name ("wasmgraph", "apache-tvm", "onnx").
        params_nbytes, io_nbytes, arena_nbytes: Sizes of the three regions in bytes.
        threads: Whether it was compiled to run on several threads.
        dynamic: What a graph runs instead of steps where shapes are known at run time only.
        bounds: The largest extents of open axes that have one, by the axis' name.
        reserved_nbytes: What the memory holds besides all regions and can never exceed, for what a
            run allocates, where every open axis has a bound; else 0, and the memory grows.
        batch: How a graph for one sample serves batches of any size.
        whole_batch: Why a dynamic graph of which only a batch's axis is open is none of that kind.
        rounded: As what the model's weights were rounded to be stored smaller; None where they are
            the model's own.
        wide_nbytes: What `params_nbytes` would be if every float were a float32.
    """

    source: Source
    producer: Mapping[str, str]
    simd: SimdLevel
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    constants: tuple[Constant, ...]
    kernels: tuple[Kernel, ...]
    steps: tuple[Step, ...]
    params_nbytes: int
    io_nbytes: int
    arena_nbytes: int
    threads: bool = False
    dynamic: DynamicProgram | None = None
    bounds: Mapping[str, int] = field(default_factory=dict)
    reserved_nbytes: int = 0
    batch: Batch | None = None
    whole_batch: str = ""
    rounded: WeightFormat | None = None
    wide_nbytes: int = 0
    version: int = field(default=BUNDLE_VERSION)

    @property
    def call_counts(self) -> tuple[int, int]:
        """How many distinct kernels it has, and how many calls of them; of a dynamic graph how many
        operators of the executor, and how many nodes."""
        if self.dynamic is None:
            return len(self.kernels), len(self.steps)
        counts = calls(self.dynamic)
        return len(counts), sum(counts.values())

    @property
    def openness(self) -> str:
        """What of the shapes a run decides, and how it copes; empty where all are fixed."""
        names = [d for tensor in self.inputs for d in tensor.shape if isinstance(d, str)]
        if self.batch is not None:
            return batch_told(self.batch.axis, self.bounds)
        if self.dynamic is None:
            return ""
        what = axes_told(names, self.bounds)
        reason = f"; not sample by sample: {self.whole_batch}" if self.whole_batch else ""
        return f"dynamic ({what}){reason}; fixed shapes (--shape) run faster"


@dataclass(frozen=True)
class Bundle:
    """A graph with its object code and weights, in memory.

    Attributes:
        graph: The description.
        object_code: `graph.o`.
        params: `graph.params`.
        tvm_code: `tvm.o`, empty where TVM generated no kernel.
    """

    graph: Graph
    object_code: bytes
    params: bytes
    tvm_code: bytes = b""


def write_bundle(bundle: Bundle, folder: Path) -> None:
    """Write the files; the folder is made if need be.

    Raises:
        OSError: the folder cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "graph.o").write_bytes(bundle.object_code)
    if bundle.tvm_code:
        (folder / "tvm.o").write_bytes(bundle.tvm_code)
    else:
        (folder / "tvm.o").unlink(missing_ok=True)
    (folder / "graph.params").write_bytes(bundle.params)
    (folder / "graph.json").write_text(dump_graph(bundle.graph), encoding="utf-8")


def read_bundle(folder: Path) -> Bundle:
    """Read a bundle back.

    Raises:
        ModelError: a file is missing or the description is not one of this version.
    """
    try:
        text = (folder / "graph.json").read_text(encoding="utf-8")
        object_code = (folder / "graph.o").read_bytes()
        params = (folder / "graph.params").read_bytes()
        tvm = folder / "tvm.o"
        tvm_code = tvm.read_bytes() if tvm.exists() else b""
    except (OSError, UnicodeDecodeError) as error:
        raise ModelError(
            f"{folder} is not a graph bundle: {error}",
            hint="a bundle is the folder that `wasmgraph compile --bundle DIR` writes",
        ) from error
    graph = load_graph(text, str(folder / "graph.json"))
    if len(params) != graph.params_nbytes:
        raise ModelError(
            f"{folder / 'graph.params'} holds {len(params)} bytes, "
            f"graph.json expects {graph.params_nbytes}"
        )
    return Bundle(graph, object_code, params, tvm_code)


def dump_graph(graph: Graph) -> str:
    """The text of `graph.json`: the same graph always gives the same text."""
    return json.dumps(asdict(graph), indent=1, ensure_ascii=False) + "\n"


def load_graph(text: str, where: str) -> Graph:
    """Parse `graph.json`; `where` names it in errors.

    Raises:
        ModelError: not JSON, another version, or a field is missing or has the wrong type.
    """
    try:
        data = json.loads(text)
        if data["version"] != BUNDLE_VERSION:
            raise ModelError(
                f"{where} has bundle version {data['version']}, this wasmgraph reads "
                f"{BUNDLE_VERSION}",
                hint="compile the model again with this version",
            )
        return _graph_from_json(data)
    except (
        *(ValueError, KeyError, TypeError, AttributeError),
        *(OverflowError, RecursionError),  # an infinite offset; brackets a thousand deep
    ) as error:
        raise ModelError(f"{where} is not a graph description: {error!r}") from error


def _graph_from_json(data: dict[str, Any]) -> Graph:
    def buffer(item: dict[str, Any]) -> Buffer:
        if item["region"] not in ("params", "io", "arena"):
            raise ValueError(f"unknown region {item['region']!r}")
        return Buffer(item["region"], int(item["offset"]), int(item["nbytes"]))

    def tensor(item: dict[str, Any]) -> Tensor:
        place = None if item["buffer"] is None else buffer(item["buffer"])
        return Tensor(item["name"], item["dtype"], tuple(item["shape"]), place)

    if data["simd"] not in SIMD_LEVELS:
        raise ValueError(f"unknown SIMD level {data['simd']!r}")
    if not isinstance(data["threads"], bool):
        raise ValueError(f"threads is {data['threads']!r}, not true or false")
    if data["rounded"] not in (None, *WEIGHT_FORMATS):
        raise ValueError(f"weights are rounded to {data['rounded']!r}")
    _check_stages([s["stage"] for s in data["steps"]])
    return Graph(
        source=Source(**data["source"]),
        producer=data["producer"],
        simd=data["simd"],
        inputs=tuple(map(tensor, data["inputs"])),
        outputs=tuple(map(tensor, data["outputs"])),
        constants=tuple(
            Constant(c["name"], c["dtype"], tuple(c["shape"]), c["offset"])
            for c in data["constants"]
        ),
        kernels=tuple(Kernel(**k) for k in data["kernels"]),
        steps=tuple(
            Step(
                s["kernel"],
                tuple(map(buffer, s["buffers"])),
                tuple(s["nodes"]),
                s["writes"],
                s["flops"],
                stage=s["stage"],
            )
            for s in data["steps"]
        ),
        params_nbytes=data["params_nbytes"],
        io_nbytes=data["io_nbytes"],
        arena_nbytes=data["arena_nbytes"],
        threads=data["threads"],
        dynamic=None if data["dynamic"] is None else program_from_json(data["dynamic"]),
        bounds=dict(data["bounds"]),
        reserved_nbytes=int(data["reserved_nbytes"]),
        batch=None if data.get("batch") is None else _batch_from_json(data["batch"]),
        whole_batch=str(data.get("whole_batch", "")),
        rounded=data["rounded"],
        wide_nbytes=int(data["wide_nbytes"]),
    )


def _batch_from_json(data: dict[str, Any]) -> Batch:
    def share(item: dict[str, Any] | None) -> Share | None:
        return None if item is None else Share(int(item["axis"]), int(item["extent"]))

    return Batch(
        data["axis"], tuple(map(share, data["inputs"])), tuple(map(share, data["outputs"]))
    )


def _check_stages(stages: Sequence[int]) -> None:
    """Whether they are numbered from 0 on, in order and without gaps."""
    before = -1
    for number, stage in enumerate(stages):
        if type(stage) is not int or not max(before, 0) <= stage <= before + 1:
            raise ValueError(f"step {number} is of stage {stage!r}, after one of stage {before}")
        before = stage
