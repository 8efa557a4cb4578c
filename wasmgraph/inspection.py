"""Describe a model, a graph bundle or a graph without running it; which it is, its content says.

Only reads. Whether a model can be compiled is for the importer to say, whether a graph runs for the
runtime.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from wasmgraph.bundle import Buffer, Graph, Kernel, Step, Tensor, read_bundle
from wasmgraph.dynamic.program import calls
from wasmgraph.errors import ModelError

if TYPE_CHECKING:
    import onnx

    from wasmgraph.metadata import KernelInfo, Metadata, StepInfo, TensorInfo

WASM_MAGIC = b"\0asm"
WASM_PAGE = 65536


@dataclass(frozen=True)
class TensorSummary:
    """An input or output.

    Attributes:
        shape: Extents; a dynamic axis of a model is its name, or "?" where it has none.
    """

    name: str
    dtype: str
    shape: tuple[int | str, ...]


@dataclass(frozen=True)
class KernelSummary:
    """A kernel and how often it is called in one run."""

    symbol: str
    description: str
    calls: int


@dataclass(frozen=True)
class StepSummary:
    """One kernel call: the kernel's index and the ONNX nodes it computes."""

    kernel: int
    nodes: tuple[str, ...]


@dataclass(frozen=True)
class MemoryPlan:
    """Where the tensors lie.

    Attributes:
        weights, io, arena: Sizes of the three regions in bytes.
        intermediates: How many tensors share the arena; None for a graph, which does not say.
        intermediate_nbytes: What they would take without sharing; None likewise.
        linear_memory: A graph's memory in bytes when it is instantiated.
        is_fixed: Whether that is all that it can ever have.
    """

    weights: int
    io: int
    arena: int
    intermediates: int | None = None
    intermediate_nbytes: int | None = None
    linear_memory: int | None = None
    is_fixed: bool = False


@dataclass(frozen=True)
class Inspection:
    """What can be said of a file. What its kind does not have is empty or None.

    Attributes:
        kind: What its content is.
        path: The file, or the bundle's folder.
        source: The ONNX model's file name; its own for a model.
        sha256: The ONNX model's digest.
        opset: Its ai.onnx opset.
        operators: ONNX nodes by operator.
        sizes: Bytes by part: of a model "file" and "weights"; of a bundle its three files; of
            a graph "file", "code" (all but the weights) and "weights".
        producer: Versions of what made it, by name.
        calls: How many nodes of a dynamic graph call each operator of the executor.
        bounds: The largest extents of its open axes that have one, by the axis' name.
        rounded: As what a graph's (or bundle's) weights were rounded to be stored smaller.
        wide_weights: Bytes of its weights if every float were a float32; 0 where it does not say.
        abi: The version of the ABI a graph keeps to.
        imports, exports: A graph's, as "module.name" and "name"; a component's interfaces.
        openness: What of the shapes a run decides, and how it copes.
    """

    kind: Literal["model", "bundle", "graph", "component"]
    path: str
    source: str
    sha256: str
    inputs: tuple[TensorSummary, ...]
    outputs: tuple[TensorSummary, ...]
    sizes: Mapping[str, int]
    opset: int | None = None
    operators: Mapping[str, int] = field(default_factory=dict)
    simd: str | None = None
    kernels: tuple[KernelSummary, ...] = ()
    steps: tuple[StepSummary, ...] = ()
    memory: MemoryPlan | None = None
    producer: Mapping[str, str] = field(default_factory=dict)
    calls: Mapping[str, int] = field(default_factory=dict)
    bounds: Mapping[str, int] = field(default_factory=dict)
    rounded: str | None = None
    wide_weights: int = 0
    abi: int | None = None
    imports: tuple[str, ...] = ()
    exports: tuple[str, ...] = ()
    openness: str = ""

    def to_json(self) -> dict[str, Any]:
        """The same as plain JSON types."""
        return asdict(self)


def inspect(path: Path) -> Inspection:
    """Describe what lies at `path`.

    Raises:
        ModelError: nothing is there, or it is neither a model nor a bundle nor WebAssembly.
        LoadError: it is WebAssembly but not a graph.
    """
    if path.is_dir():
        return _inspect_bundle(path)
    try:
        with path.open("rb") as file:
            magic = file.read(len(WASM_MAGIC))
    except OSError as error:
        raise ModelError(f"cannot read {path}: {error.strerror or error}") from error
    return _inspect_graph(path) if magic == WASM_MAGIC else _inspect_model(path)


def _inspect_model(path: Path) -> Inspection:
    from wasmgraph.importer import describe_source
    from wasmgraph.importer.load import load_model  # parses, checks and digests; no TVM

    loaded = load_model(path)
    source = describe_source(loaded)
    graph = loaded.proto.graph
    weights = {tensor.name for tensor in graph.initializer}
    return Inspection(
        kind="model",
        path=str(path),
        source=source.name,
        sha256=source.sha256,
        opset=source.opset,
        operators=source.operators,
        # Before IR version 4 every initializer was listed among the inputs as well.
        inputs=tuple(_summary(value) for value in graph.input if value.name not in weights),
        outputs=tuple(_summary(value) for value in graph.output),
        sizes={"file": path.stat().st_size, "weights": sum(map(_nbytes, graph.initializer))},
        producer={loaded.proto.producer_name: loaded.proto.producer_version}
        if loaded.proto.producer_name
        else {},
    )


def _summary(value: onnx.ValueInfoProto) -> TensorSummary:
    from onnx import helper

    tensor = value.type.tensor_type
    if value.type.WhichOneof("value") != "tensor_type":
        return TensorSummary(value.name, value.type.WhichOneof("value") or "unknown", ())
    dims: list[int | str] = [
        dim.dim_value if dim.HasField("dim_value") else dim.dim_param or "?"
        for dim in tensor.shape.dim
    ]
    name = helper.tensor_dtype_to_np_dtype(tensor.elem_type).name if tensor.elem_type else "unknown"
    return TensorSummary(value.name, name, tuple(dims))


def _nbytes(tensor: onnx.TensorProto) -> int:
    from onnx import numpy_helper

    return int(numpy_helper.to_array(tensor).nbytes)


def _inspect_bundle(folder: Path) -> Inspection:
    bundle = read_bundle(folder)
    graph = bundle.graph
    return Inspection(
        kind="bundle",
        path=str(folder),
        source=graph.source.name,
        sha256=graph.source.sha256,
        opset=graph.source.opset,
        operators=graph.source.operators,
        simd=graph.simd,
        inputs=_tensors(graph.inputs),
        outputs=_tensors(graph.outputs),
        kernels=_kernels(graph.kernels, graph.steps),
        steps=_steps(graph.steps),
        calls={} if graph.dynamic is None else calls(graph.dynamic),
        bounds=graph.bounds,
        memory=memory_plan(graph),
        sizes={
            "graph.json": (folder / "graph.json").stat().st_size,
            "graph.o": len(bundle.object_code),
            **({"tvm.o": len(bundle.tvm_code)} if bundle.tvm_code else {}),
            "graph.params": graph.params_nbytes,
        },
        producer=graph.producer,
        openness=graph.openness,
        rounded=graph.rounded,
        wide_weights=graph.wide_nbytes,
    )


def _inspect_graph(path: Path) -> Inspection:
    from wasmgraph.component.file import check_component, is_component
    from wasmgraph.wasmfile import parse_wasm, read_metadata

    data = path.read_bytes()
    if is_component(data):
        metadata, component = check_component(data)
        shown = _Outside(
            imports=component.imports,
            exports=tuple(component.exports),
            pages=component.memory_pages,
        )
        return _describe_graph(path, "component", metadata, shown, len(data))
    module, metadata = parse_wasm(data), read_metadata(data)
    shown = _Outside(
        imports=tuple(f"{item.module}.{item.name}" for item in module.imports),
        exports=tuple(export.name for export in module.exports),
        pages=module.memory.minimum if module.memory else 0,
        is_fixed=module.memory is not None and module.memory.maximum == module.memory.minimum,
    )
    return _describe_graph(path, "graph", metadata, shown, len(data))


@dataclass(frozen=True)
class _Outside:
    """What a graph shows without its metadata; its memory in pages of 64 KiB, and whether it can
    never have more."""

    imports: tuple[str, ...]
    exports: tuple[str, ...]
    pages: int
    is_fixed: bool = False


def _describe_graph(
    path: Path,
    kind: Literal["graph", "component"],
    metadata: Metadata,
    shown: _Outside,
    nbytes: int,
) -> Inspection:
    sizes = metadata.sizes
    return Inspection(
        kind=kind,
        path=str(path),
        source=metadata.model.name,
        sha256=metadata.model.sha256,
        opset=metadata.model.opset,
        operators=metadata.model.operators,
        simd=metadata.simd,
        inputs=_tensors(metadata.inputs),
        outputs=_tensors(metadata.outputs),
        kernels=_kernels(metadata.kernels, metadata.steps),
        steps=_steps(metadata.steps),
        calls=metadata.calls,
        bounds=metadata.bounds,
        memory=MemoryPlan(
            weights=sizes.weights,
            io=sizes.io,
            arena=sizes.arena,
            linear_memory=shown.pages * WASM_PAGE,
            is_fixed=shown.is_fixed,
        ),
        sizes={"file": nbytes, "code": sizes.code, "weights": sizes.weights},
        producer=metadata.producer,
        rounded=metadata.rounded,
        wide_weights=sizes.wide_weights,
        abi=metadata.abi if kind == "graph" else None,
        imports=shown.imports,
        exports=shown.exports,
        openness=metadata.openness,
    )


def _tensors(tensors: Sequence[Tensor | TensorInfo]) -> tuple[TensorSummary, ...]:
    return tuple(TensorSummary(t.name, t.dtype, t.shape) for t in tensors)


def _steps(steps: Sequence[Step | StepInfo]) -> tuple[StepSummary, ...]:
    return tuple(StepSummary(step.kernel, step.nodes) for step in steps)


def _kernels(
    kernels: Sequence[Kernel | KernelInfo], steps: Sequence[Step | StepInfo]
) -> tuple[KernelSummary, ...]:
    calls = Counter(step.kernel for step in steps)
    return tuple(
        KernelSummary(kernel.symbol, kernel.description, calls[index])
        for index, kernel in enumerate(kernels)
    )


def memory_plan(graph: Graph) -> MemoryPlan:
    """The three regions, and what sharing the arena saves.

    Every arena buffer that a step writes counts as one intermediate tensor; what several steps of a
    stage write together counts once.
    """
    stages: dict[int, list[Buffer]] = {}
    for step in graph.steps:
        stages.setdefault(step.stage, []).extend(_writes(step))
    written = [extent for buffers in stages.values() for extent in _joined(buffers)]
    return MemoryPlan(
        weights=graph.params_nbytes,
        io=graph.io_nbytes,
        arena=graph.arena_nbytes + graph.reserved_nbytes,
        intermediates=len(written),
        intermediate_nbytes=sum(end - begin for begin, end in written),
    )


def _joined(buffers: Sequence[Buffer]) -> list[tuple[int, int]]:
    """Where buffers in the arena begin and end; those that overlap are one."""
    joined: list[tuple[int, int]] = []
    for buffer in sorted(buffers, key=lambda buffer: buffer.offset):
        begin, end = buffer.offset, buffer.offset + buffer.nbytes
        if buffer.region != "arena":
            continue
        if joined and begin < joined[-1][1]:
            joined[-1] = (joined[-1][0], max(joined[-1][1], end))
        else:
            joined.append((begin, end))
    return joined


def _writes(step: Step) -> tuple[Buffer, ...]:
    return step.buffers[len(step.buffers) - step.writes :]
