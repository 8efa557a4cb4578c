"""Links a bundle with the executor into one `.wasm`, which is put in place whole or not at all."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Literal

from wasmgraph.atomic import replaced_when_done
from wasmgraph.bundle import Bundle, Graph, Step
from wasmgraph.component.file import check_component
from wasmgraph.component.interface import DESCRIBE, OUT_OF_MEMORY, REALLOC, RUN
from wasmgraph.component.sealing import seal
from wasmgraph.component.wrapping import wrap
from wasmgraph.dynamic.program import calls
from wasmgraph.dynamic.tables import nodes_object
from wasmgraph.errors import ModelError, UnsupportedModelError, WasmgraphError
from wasmgraph.link.consistency import check_description
from wasmgraph.link.description_object import description_object
from wasmgraph.link.executor import executor_archive
from wasmgraph.link.linker import link_module
from wasmgraph.link.metadata_object import metadata_object
from wasmgraph.link.regions_object import write_regions_object
from wasmgraph.link.rust import RustToolchain, find_rust
from wasmgraph.link.threads_object import threads_object
from wasmgraph.metadata import (
    ABI_VERSION,
    KernelInfo,
    Metadata,
    ModelInfo,
    Sizes,
    StepInfo,
    TensorInfo,
    dump_metadata,
)
from wasmgraph.progress import SILENT, Reporter
from wasmgraph.wasmfile import (
    ABI_EXPORTS,
    ABI_FUNCTIONS,
    INITIALIZE,
    METADATA_SECTION,
    OPTIONAL_FUNCTIONS,
    THREAD_FUNCTIONS,
    check_graph,
    custom_section,
    keep_names,
    parse_wasm,
)

PAGE_NBYTES = 65536

Kind = Literal["module", "component"]
"""What a graph is: a module with the graph ABI, or a component of toolchain/wit."""

KINDS: tuple[Kind, ...] = ("module", "component")

_MODULE_FUNCTIONS = (*ABI_FUNCTIONS, *OPTIONAL_FUNCTIONS)
_COMPONENT_FUNCTIONS = (REALLOC, DESCRIBE, RUN)
_MEMORY_NBYTES = 2**32
# The executor's data and the C stack of 1 MiB, rounded up.
_EXECUTOR_NBYTES = 2**21


@dataclass(frozen=True)
class LinkReport:
    """What was written.

    Attributes:
        path: The graph.
        file_nbytes: Its length.
        code_nbytes: All of it but the weights.
        weights_nbytes, arena_nbytes, io_nbytes: The three regions; the last two take no room in
            the file.
    """

    path: Path
    file_nbytes: int
    code_nbytes: int
    weights_nbytes: int
    arena_nbytes: int
    io_nbytes: int


def link(
    bundle: Bundle, out: Path, reporter: Reporter = SILENT, kind: Kind = "module"
) -> LinkReport:
    """Link a bundle into the graph `out`, which is replaced as a whole or left as it was.

    Raises:
        ModelError: the bundle contradicts itself.
        UnsupportedModelError: it needs more memory than 32-bit wasm has, or is for several threads,
            which a component cannot have.
        ToolchainError: Rust is missing or fails, or the object code needs unknown symbols.
        WasmgraphError: `out` cannot be written.
    """
    graph = bundle.graph
    check_description(graph)
    check_kind(kind, threads=graph.threads)
    _check_sizes(bundle)
    with replaced_when_done(out) as unfinished:
        rust = find_rust()
        reporter.log(f"Rust {rust.version} ({rust.rustc}), target {rust.target}")
        with tempfile.TemporaryDirectory(prefix="wasmgraph-link-") as folder:
            data = _build(bundle, rust, Path(folder), reporter, kind)
        data = _with_metadata(data, graph, rust)
        if kind == "component":
            check_component(data)
        else:
            check_graph(data)
        _write(unfinished, data)
    return LinkReport(
        path=out,
        file_nbytes=len(data),
        code_nbytes=len(data) - graph.params_nbytes,
        weights_nbytes=graph.params_nbytes,
        arena_nbytes=graph.arena_nbytes + graph.reserved_nbytes,
        io_nbytes=graph.io_nbytes,
    )


def check_kind(kind: Kind, *, threads: bool) -> None:
    """Check that a graph can be of this kind.

    Raises:
        UnsupportedModelError: a component was asked for, and several threads.
    """
    if kind == "component" and threads:
        raise UnsupportedModelError(
            "a component runs on one thread: components share no memory",
            hint="leave out --threads, or --kind component",
        )


def _build(
    bundle: Bundle, rust: RustToolchain, folder: Path, reporter: Reporter, kind: Kind
) -> bytes:
    """The linked module or the component, before its metadata."""
    threads = bundle.graph.threads
    dynamic = bundle.graph.dynamic
    # A static graph's executor only calls kernels: one serves every SIMD level.
    simd = dynamic is not None and bundle.graph.simd != "none"
    component = kind == "component"
    archive = executor_archive(
        rust,
        reporter,
        folder,
        threads=threads,
        dynamic=dynamic is not None,
        simd=simd,
        component=component,
    )
    objects = {
        "description.o": description_object(bundle.graph),
        "graph.o": bundle.object_code,
        "tvm.o": bundle.tvm_code,
        "threads.o": threads_object() if threads else b"",
        "nodes.o": nodes_object(dynamic, bundle.graph.constants) if dynamic else b"",
        "metadata.o": metadata_object(bundle.graph, _producer(bundle.graph, rust))
        if component
        else b"",
    }
    objects = {name: code for name, code in objects.items() if code}
    for name, code in objects.items():
        (folder / name).write_bytes(code)
    write_regions_object(folder / "regions.o", bundle.graph, bundle.params)
    reporter.log(f"link ({len(bundle.graph.steps)} steps, {len(bundle.params)} weight bytes)")
    names = [*objects, "regions.o"]
    exports = (INITIALIZE, *_COMPONENT_FUNCTIONS) if component else _MODULE_FUNCTIONS
    data = link_module(rust, archive, names, folder, exports, threads=threads)
    if bundle.graph.reserved_nbytes and not component:
        # How much the data take shows only now. What follows them is the C library's to give out.
        # A component's memory also holds copies of what its host passes, which nobody has measured.
        memory = parse_wasm(data).memory
        assert memory is not None
        nbytes = memory.minimum * PAGE_NBYTES + bundle.graph.reserved_nbytes
        data = link_module(
            rust, archive, names, folder, exports, threads=threads, fixed_nbytes=nbytes
        )
    # Profilers want the kernels' names. Those of Rust's functions are 20 to 25 KB, a fifth of the
    # executor, and are of use to nobody who runs a model.
    symbols = {kernel.symbol for kernel in bundle.graph.kernels}
    if not component:
        return keep_names(data, exports=ABI_EXPORTS | set(THREAD_FUNCTIONS), functions=symbols)
    sealed = seal(data, INITIALIZE)
    exports = ("memory", *_COMPONENT_FUNCTIONS)
    return wrap(keep_names(sealed, exports, functions=symbols | {OUT_OF_MEMORY}))


def _with_metadata(data: bytes, graph: Graph, rust: RustToolchain) -> bytes:
    """The graph with its metadata, which give the size of the whole file, themselves included."""
    code = len(data) - graph.params_nbytes
    while True:
        payload = dump_metadata(_metadata(graph, code, rust))
        whole = data + custom_section(METADATA_SECTION, payload)
        # Grows at most by a digit or two, then stays.
        if len(whole) - graph.params_nbytes == code:
            return whole
        code = len(whole) - graph.params_nbytes


def _metadata(graph: Graph, code_nbytes: int, rust: RustToolchain) -> Metadata:
    source = graph.source
    return Metadata(
        abi=ABI_VERSION,
        producer=_producer(graph, rust),
        model=ModelInfo(source.name, source.sha256, source.opset, source.operators),
        simd=graph.simd,
        threads=graph.threads,
        inputs=tuple(TensorInfo(t.name, t.dtype, t.shape) for t in graph.inputs),
        outputs=tuple(TensorInfo(t.name, t.dtype, t.shape) for t in graph.outputs),
        sizes=Sizes(
            code_nbytes,
            graph.params_nbytes,
            graph.arena_nbytes + graph.reserved_nbytes,
            graph.io_nbytes,
            graph.wide_nbytes,
        ),
        kernels=tuple(KernelInfo(k.symbol, k.description) for k in graph.kernels),
        dynamic=graph.dynamic is not None,
        steps=_stages(graph.steps),
        calls={} if graph.dynamic is None else calls(graph.dynamic),
        bounds=graph.bounds,
        rounded=graph.rounded,
    )


def _producer(graph: Graph, rust: RustToolchain) -> dict[str, str]:
    return {**graph.producer, "rustc": rust.version}


def _stages(steps: Sequence[Step]) -> tuple[StepInfo, ...]:
    """What a reader takes for a step: a stage, whose calls do one thing together."""
    stages = (list(calls) for _, calls in groupby(steps, key=lambda step: step.stage))
    return tuple(
        StepInfo(calls[0].kernel, calls[0].nodes, sum(c.flops for c in calls), len(calls))
        for calls in stages
    )


def _check_sizes(bundle: Bundle) -> None:
    graph = bundle.graph
    if len(bundle.params) != graph.params_nbytes:
        raise ModelError(
            f"the bundle has {len(bundle.params)} bytes of weights, "
            f"its graph.json expects {graph.params_nbytes}"
        )
    needed = sum((graph.params_nbytes, graph.io_nbytes, graph.arena_nbytes, graph.reserved_nbytes))
    needed += _EXECUTOR_NBYTES
    if needed > _MEMORY_NBYTES:
        raise UnsupportedModelError(
            f"the graph needs {needed} bytes of memory, 32-bit WebAssembly has {_MEMORY_NBYTES}"
        )


def _write(path: Path, data: bytes) -> None:
    try:
        path.write_bytes(data)
    except OSError as error:
        raise WasmgraphError(f"cannot write {path}: {error.strerror or error}") from error
