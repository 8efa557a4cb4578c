"""Graphs that lie, and honest ones that are strange: what every host here must survive alike.

`HOSTILE` end in an error of a known kind, at loading or in their run, never in a crash or a read
outside their memory. `STRANGE` keep to the ABI in unusual ways, or ask the system for what they are
not to have: they run, and their outputs say that they got nothing. `write_hostile` writes both as
files with a manifest, for tests in other languages.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tests.runtime.wat_graphs import (
    FAILS,
    FUNCTIONS,
    LOOPS_FOREVER,
    WatGraph,
    X,
    returning,
)
from wasmgraph.metadata import TensorInfo, dump_metadata
from wasmgraph.wasmfile import METADATA_SECTION, add_custom_section

Feeds = Mapping[str, np.ndarray[Any, np.dtype[Any]]]

FEEDS: Feeds = {"x": np.arange(4, dtype=np.float32)}
DOUBLED = 2 * FEEDS["x"]
MEMORY_LIMIT = 1 << 20
TIME_LIMIT = 1.0
OUTSIDE = ("65536", "65521", "-1", "-16", "0x7fffffff", "-2147483648")
"""Addresses behind a memory of one page, reaching beyond its end, and where an unchecked sum would
wrap around."""
BADF, FAULT, INVAL, NOTCAPABLE = 8, 21, 28, 76
"""What WASI calls its errors."""


@dataclass(frozen=True)
class HostileGraph:
    """A graph that must end in an error.

    Attributes:
        name: Also its file's, without ".wasm".
        feeds: Inputs to run it with, if it loads.
        kind: Name of the error, as in `wasmgraph.errors`.
        memory, seconds: Limits to load it with, or None.
    """

    name: str
    binary: bytes
    kind: str
    feeds: Feeds
    memory: int | None = None
    seconds: float | None = None


@dataclass(frozen=True)
class StrangeGraph:
    """A graph that must run and give exactly these outputs."""

    name: str
    binary: bytes
    feeds: Feeds
    outputs: Feeds


def _hostile(
    name: str,
    graph: WatGraph | bytes,
    kind: str,
    feeds: Feeds = FEEDS,
    memory: int | None = None,
    seconds: float | None = None,
) -> HostileGraph:
    binary = graph if isinstance(graph, bytes) else graph.binary()
    return HostileGraph(name, binary, kind, feeds, memory, seconds)


def _pointers() -> Iterator[HostileGraph]:
    for address in (*OUTSIDE, "0"):
        for name in ("wg_input", "wg_output"):
            lie = WatGraph({name: returning(name, address)})
            yield _hostile(f"{name}-at-{address}", lie, "InferenceError")
    large = (TensorInfo("x", "float32", (20_000,)),)
    feeds = {"x": np.zeros(20_000, np.float32)}
    yield _hostile("input-larger-than-memory", WatGraph(inputs=large), "InferenceError", feeds)
    huge = (TensorInfo("y", "float32", (2**29 - 1,)),)
    yield _hostile("output-larger-than-memory", WatGraph(outputs=huge), "InferenceError")


OPEN_Y = (TensorInfo("y", "float32", ("rows", 2)),)
ANY_Y = (TensorInfo("y", "float32", ("...",)),)


def giving_shape(rank: int | str, dims: Sequence[int], outputs: Sequence[TensorInfo]) -> WatGraph:
    """A graph that says its output has this rank and these extents."""
    stores = "".join(
        f"(i64.store (i32.add (local.get 1) (i32.const {8 * i})) (i64.const {dim}))"
        for i, dim in enumerate(dims)
    )
    text = f"""(func $wg_output_shape (param i32 i32) (result i32)
        (if (local.get 1) (then {stores})) i32.const {rank})"""
    return WatGraph({"wg_output_shape": text}, outputs=tuple(outputs))


def _shapes() -> Iterator[HostileGraph]:
    lies: dict[str, tuple[int | str, Sequence[int], Sequence[TensorInfo]]] = {
        "rank-2-to-the-31": ("-2147483648", (2, 2), ANY_Y),
        "rank-of-all-ones": ("-1", (2, 2), ANY_Y),
        "rank-33": (33, (1,) * 33, ANY_Y),
        "rank-other-than-said": (1, (4,), OPEN_Y),
        "rank-none-of-two": (0, (), OPEN_Y),
        "extent-negative": (2, (-1, 2), OPEN_Y),
        "extents-negative-both": (2, (-2, -2), ANY_Y),
        "extent-other-than-said": (2, (2, 3), OPEN_Y),
        "extent-2-to-the-62": (2, (2**62, 2), OPEN_Y),
        "extent-2-to-the-32-and-1": (2, (2**32 + 1, 2), OPEN_Y),
        "product-overflows": (4, (2**16,) * 4, ANY_Y),
        "product-wraps-to-four": (2, (2**62 + 1, 4), ANY_Y),
        "product-hidden-by-zero": (3, (0, 2**62, 2**62), ANY_Y),
        "just-behind-memory": (2, (7937, 2), OPEN_Y),
    }
    for name, lie in lies.items():
        yield _hostile(f"shape-{name}", giving_shape(*lie), "InferenceError")
    for address in ("0", "65535", "-8", "-2147483648"):
        honest = giving_shape(2, (2, 2), OPEN_Y)
        functions = {**honest.functions, "wg_alloc": returning("wg_alloc", address)}
        graph = WatGraph(functions, outputs=OPEN_Y)
        yield _hostile(f"shape-written-at-{address}", graph, "InferenceError")
    rows = (TensorInfo("x", "float32", ("rows", 2)),)
    given = {"x": np.zeros((2, 2), np.float32)}
    for address in ("0", "65535", "-8"):
        graph = WatGraph({"wg_alloc": returning("wg_alloc", address)}, inputs=rows)
        yield _hostile(f"input-shape-read-at-{address}", graph, "InferenceError", given)
    far = WatGraph({"wg_input": returning("wg_input", "65530")}, inputs=rows)
    yield _hostile("open-input-outside-memory", far, "InferenceError", given)


def _error_texts() -> Iterator[HostileGraph]:
    texts = [("65530", "7"), ("16", "-1"), ("-1", "1"), ("-1", "-1"), ("16", "0x7fffffff")]
    for address, length in texts:
        functions = {
            "wg_run": FAILS,
            "wg_error": returning("wg_error", address),
            "wg_error_len": returning("wg_error_len", length),
        }
        yield _hostile(f"error-at-{address}-of-{length}", WatGraph(functions), "InferenceError")
    gigantic = {
        "wg_run": FAILS,
        "wg_error": returning("wg_error", "0"),
        "wg_error_len": returning("wg_error_len", 64 * 65536),
    }
    pages = '(memory (export "memory") 64)'
    yield _hostile("error-gigantic", WatGraph(gigantic, memory=pages), "InferenceError")
    for name, text in (
        ("not-utf-8", r"\ff\fe\c0\80bad\ed\a0\80"),
        ("commands", r"\1b[2J\00\07\0d"),
    ):
        data = f'(data (i32.const 16) "{text}")'
        yield _hostile(f"error-{name}", WatGraph({"wg_run": FAILS}, rest=data), "InferenceError")
    for code in ("-1", "-2147483648", "77"):
        fails = WatGraph({"wg_run": f"(func $wg_run (result i32) i32.const {code})"})
        yield _hostile(f"run-returns-{code}", fails, "InferenceError")
    traps = WatGraph({"wg_run": FAILS, "wg_error": "(func $wg_error (result i32) unreachable)"})
    yield _hostile("error-that-traps", traps, "InferenceError")


def _described(**changes: object) -> bytes:
    honest = json.loads(dump_metadata(WatGraph().metadata()))
    return json.dumps({**honest, **changes}).encode()


def _tensor(dtype: object, *shape: object, name: object = "x") -> list[dict[str, object]]:
    return [{"name": name, "dtype": dtype, "shape": list(shape)}]


def _metadata() -> Iterator[HostileGraph]:
    x = _tensor("float32", 4)
    payloads = {
        "empty": b"",
        "not-json": b"{abi: 1}",
        "not-utf-8": b'{"abi": 1, "\xff": 2}',
        "a-list": b"[]",
        "cut-short": _described()[:-9],
        "nested-deeply": b"[" * 200_000,
        "nested-deeply-inside": _described(inputs=None).replace(
            b'"inputs": null', b'"inputs": ' + b'{"a":' * 100_000 + b"1" + b"}" * 100_000
        ),
        "abi-2": _described(abi=2),
        "abi-a-text": _described(abi="1"),
        "no-inputs": _described(inputs=None),
        "inputs-an-object": _described(inputs={"x": x[0]}),
        "input-a-number": _described(inputs=[7]),
        "same-name-twice": _described(inputs=[*x, *x]),
        "name-a-number": _described(inputs=_tensor("float32", 4, name=7)),
        "dtype-unknown": _described(inputs=_tensor("float31", 4)),
        "dtype-of-javascript": _described(inputs=_tensor("constructor", 4)),
        "dtype-a-list": _described(inputs=_tensor(["float32"], 4)),
        "shape-a-number": _described(outputs=[{"name": "y", "dtype": "float32", "shape": 4}]),
        "shape-negative": _described(outputs=_tensor("float32", -4)),
        "shape-fraction": _described(outputs=_tensor("float32", 1.5)),
        "shape-true": _described(outputs=_tensor("float32", True)),
        "shape-null": _described(outputs=_tensor("float32", None)),
        "elements-2-to-the-40": _described(outputs=_tensor("float32", 2**20, 2**20)),
        "elements-2-to-the-64": _described(outputs=_tensor("float32", 2**32, 2**32)),
        "elements-2-to-the-80": _described(outputs=_tensor("float32", 2**80)),
        "elements-hidden-by-zero": _described(outputs=_tensor("float32", 0, 2**62, 2**62)),
        "elements-of-2-gigabytes": _described(outputs=_tensor("float64", 2**28)),
        "rank-33": _described(outputs=_tensor("float32", *([1] * 33))),
        "simd-unknown": _described(simd="avx512"),
        "threads-without-memory": _described(threads=True),
        "threads-a-number": _described(threads=1),
        "sizes-a-text": _described(sizes={"code": "0", "weights": 0, "arena": 0, "io": 0}),
        "step-without-kernel": _described(steps=[{"kernel": 0, "nodes": []}]),
    }
    module = WatGraph().module()
    for name, payload in payloads.items():
        binary = add_custom_section(module, METADATA_SECTION, payload)
        yield _hostile(f"metadata-{name}", binary, "LoadError")
    yield _hostile("metadata-missing", module, "LoadError")
    twice = add_custom_section(WatGraph().binary(), METADATA_SECTION, _described())
    yield _hostile("metadata-twice", twice, "LoadError")
    honest = WatGraph().binary()
    yield _hostile("file-cut-short", honest[: len(honest) // 2], "LoadError")
    yield _hostile("file-empty", b"", "LoadError")
    yield _hostile("file-of-text", b"#!/bin/sh\n", "LoadError")


def _interfaces() -> Iterator[HostileGraph]:
    for name in FUNCTIONS:
        yield _hostile(f"without-{name}", WatGraph({name: None}), "LoadError")
        if name != "_start":
            for label, types in (("i64", "(result i64) i64.const 1"), ("f64", "(param f64)")):
                other = WatGraph({name: f"(func ${name} {types})"})
                yield _hostile(f"{name}-of-{label}", other, "LoadError")
    yield _hostile(
        "wg_run-of-v128", WatGraph({"wg_run": "(func $wg_run (param v128))"}), "LoadError"
    )
    elsewhere = WatGraph({"wg_abi": returning("wg_abi", "2")})
    yield _hostile("abi-function-says-2", elsewhere, "LoadError")
    hidden = WatGraph(memory="(memory 1)")
    yield _hostile("without-memory", hidden, "LoadError")
    fields = {
        "env-secret": '(import "env" "secret" (func (result i32)))',
        "env-global": '(import "env" "secret" (global i32))',
        "env-table": '(import "env" "secret" (table 1 funcref))',
        "wasi-unstable": '(import "wasi_unstable" "fd_write" (func (param i32) (result i32)))',
        "wasi-of-v128": '(import "wasi_snapshot_preview1" "fd_write" (func (param v128)))',
        "wasi-without-it": '(import "wasi_snapshot_preview1" "fd_print" (func (result i32)))',
        "wasi-constructor": '(import "wasi_snapshot_preview1" "constructor" (func))',
    }
    for name, imported in fields.items():
        yield _hostile(f"imports-{name}", WatGraph(imports=imported), "LoadError")
    boom = WatGraph(rest="(func $boom unreachable) (start $boom)")
    yield _hostile("start-traps", boom, "LoadError")
    table = WatGraph(rest="(table 4000000000 funcref)")
    yield _hostile("table-of-four-billion", table, "LoadError")


SPINS = "(loop $again (br $again))"
GROWS = """(func $wg_run (result i32)
    (loop $more (br_if $more (i32.ne (memory.grow (i32.const 1)) (i32.const -1))))
    i32.const 1)"""


def _behaviour() -> Iterator[HostileGraph]:
    traps = {
        "unreachable": "unreachable",
        "division-by-zero": "(drop (i32.div_u (i32.const 1) (i32.const 0)))",
        "a-read-outside": "(drop (i32.load (i32.const -4)))",
        "a-write-outside": "(v128.store (i32.const 65530) (v128.const i64x2 0 0))",
        "endless-recursion": "(drop (call $wg_run))",
        "a-call-of-nothing": "(call_indirect $t (i32.const 3))",
    }
    table = "(table $t 4 funcref)"
    for name, body in traps.items():
        graph = WatGraph({"wg_run": f"(func $wg_run (result i32) {body} i32.const 0)"}, rest=table)
        yield _hostile(f"trap-{name}", graph, "InferenceError")
    leaves = WatGraph(
        {"wg_run": "(func $wg_run (result i32) (call $exit (i32.const 0)) unreachable)"},
        imports='(import "wasi_snapshot_preview1" "proc_exit" (func $exit (param i32)))',
    )
    yield _hostile("leaves-with-code-0", leaves, "InferenceError")
    limit = {"seconds": TIME_LIMIT}
    yield _hostile("loops", WatGraph({"wg_run": LOOPS_FOREVER}), "RunTimeout", **limit)
    starts = WatGraph(rest=f"(func $spin {SPINS}) (start $spin)")
    yield _hostile("loops-in-start", starts, "RunTimeout", **limit)
    spins = f"(func $wg_error (result i32) {SPINS} i32.const 0)"
    yield _hostile(
        "loops-in-error", WatGraph({"wg_run": FAILS, "wg_error": spins}), "RunTimeout", **limit
    )
    said = '(data (i32.const 16) "out of memory")'
    length = returning("wg_error_len", 13)
    grows = WatGraph({"wg_run": GROWS, "wg_error_len": length}, rest=said)
    yield _hostile("grows-to-the-limit", grows, "MemoryLimitExceeded", memory=MEMORY_LIMIT)
    starts_large = WatGraph(memory='(memory (export "memory") 17)')
    yield _hostile(
        "starts-beyond-the-limit", starts_large, "MemoryLimitExceeded", memory=MEMORY_LIMIT
    )


def _strange(name: str, graph: WatGraph, outputs: Feeds, feeds: Feeds = FEEDS) -> StrangeGraph:
    return StrangeGraph(name, graph.binary(), feeds, outputs)


def _odd_places() -> Iterator[StrangeGraph]:
    end = WatGraph({"wg_output": returning("wg_output", "65520")})
    yield _strange("the-last-bytes-of-memory", end, {"y": np.zeros(4, np.float32)})
    odd = WatGraph(
        {
            "wg_input": returning("wg_input", "1027"),
            "wg_output": returning("wg_output", "2049"),
            "wg_run": """(func $wg_run (result i32) (v128.store (i32.const 2049) (f32x4.add
                (v128.load (i32.const 1027)) (v128.load (i32.const 1027)))) i32.const 0)""",
        }
    )
    yield _strange("unaligned-tensors", odd, {"y": DOUBLED})
    honest = giving_shape(2, (2, 2), OPEN_Y)
    scratch = {**honest.functions, "wg_alloc": returning("wg_alloc", "4099")}
    unaligned = WatGraph(scratch, outputs=OPEN_Y)
    yield _strange("unaligned-shape", unaligned, {"y": DOUBLED.reshape(2, 2)})
    for rank, shape in ((0, ()), (1, (0,)), (3, (2, 0, 5))):
        graph = giving_shape(rank, shape, ANY_Y)
        expected = np.zeros(shape, np.float32)
        yield _strange(f"any-rank-{rank}", graph, {"y": expected})
    grows = WatGraph(
        {
            "wg_run": """(func $wg_run (result i32) (drop (memory.grow (i32.const 100)))
                (f32.store (i32.const 6000000) (f32.const 5)) i32.const 0)""",
            "wg_output": returning("wg_output", "6000000"),
        }
    )
    yield _strange("memory-that-moves", grows, {"y": np.float32([5, 0, 0, 0])})
    nowhere = (TensorInfo("y", "float32", (0, 7)),)
    empty = WatGraph({"wg_output": returning("wg_output", "65536")}, outputs=nowhere)
    yield _strange("nothing-at-the-end", empty, {"y": np.zeros((0, 7), np.float32)})
    prototype = WatGraph(inputs=(X,), outputs=(TensorInfo("__proto__", "float32", (4,)),))
    yield _strange("a-name-of-javascript", prototype, {"__proto__": DOUBLED})
    initialized = WatGraph(
        {"wg_output": returning("wg_output", "3072")},
        rest="""(func (export "_initialize") (f32.store (i32.const 3072)
            (f32.add (f32.load (i32.const 3072)) (f32.const 1))))""",
    )
    yield _strange("initialised-once", initialized, {"y": np.float32([1, 0, 0, 0])})


# A WASI function's type and arguments; what it tells would go to 4096, where 64 bytes are kept.
ASKED = {
    "path_open": ("i32 i32 i32 i32 i32 i64 i64 i32 i32", (3, 0, 16, 9, 0, 0, 0, 0, 4096)),
    "fd_read": ("i32 i32 i32 i32", (0, 4160, 1, 4096)),
    "fd_filestat_get": ("i32 i32", (0, 4096)),
    "clock_time_get": ("i32 i64 i32", (0, 0, 4096)),
    "clock_res_get": ("i32 i32", (0, 4096)),
    "random_get": ("i32 i32", (4096, 8)),
    "poll_oneoff": ("i32 i32 i32 i32", (0, 4160, 1, 4096)),
    "sock_accept": ("i32 i32 i32", (3, 0, 4096)),
    "sock_send": ("i32 i32 i32 i32 i32", (3, 4160, 1, 0, 4096)),
    "fd_prestat_dir_name": ("i32 i32 i32", (3, 4096, 8)),
    "path_filestat_get": ("i32 i32 i32 i32 i32", (3, 0, 16, 9, 4096)),
    "proc_raise": ("i32", (9,)),
    "fd_prestat_get": ("i32 i32", (3, 4096)),
    "environ_get": ("i32 i32", (4096, 4104)),
    "args_get": ("i32 i32", (4096, 4104)),
}
ANSWERS = {"fd_prestat_get": BADF, "environ_get": 0, "args_get": 0}
"""What they answer where it is not NOTCAPABLE."""

SEEN = (TensorInfo("code", "int32", (1,)), TensorInfo("seen", "uint8", (64,)))
UNTOUCHED = np.full(64, 0xAA, np.uint8)


def asking(name: str, types: str, arguments: Sequence[int]) -> WatGraph:
    """A graph that calls a WASI function; its outputs are the answer, and what it was told."""
    constants = " ".join(
        f"({kind}.const {value})" for kind, value in zip(types.split(), arguments, strict=True)
    )
    marks = r"\aa" * 64
    return WatGraph(
        {
            "wg_run": f"""(func $wg_run (result i32)
                (i32.store (i32.const 2048) (call $asked {constants})) i32.const 0)""",
            "wg_output": """(func $wg_output (param i32) (result i32)
                (select (i32.const 4096) (i32.const 2048) (local.get 0)))""",
        },
        imports=f"""(import "wasi_snapshot_preview1" "{name}"
            (func $asked (param {types}) (result i32)))""",
        rest=f'(data (i32.const 4096) "{marks}") (data (i32.const 4160) "\\00\\10\\00\\00\\08")',
        outputs=SEEN,
    )


def _code(value: int) -> np.ndarray[Any, np.dtype[Any]]:
    return np.int32([value])


def _asking() -> Iterator[StrangeGraph]:
    for name, (types, arguments) in ASKED.items():
        outputs = {"code": _code(ANSWERS.get(name, NOTCAPABLE)), "seen": UNTOUCHED}
        yield _strange(f"asks-{name}", asking(name, types, arguments), outputs)
    for name in ("environ_sizes_get", "args_sizes_get"):
        seen = UNTOUCHED.copy()
        seen[:8] = 0
        graph = asking(name, "i32 i32", (4096, 4100))
        yield _strange(f"asks-{name}", graph, {"code": _code(0), "seen": seen})
    writes = {
        "to-stdin": ((0, 4160, 1, 4096), BADF),
        "to-a-file": ((3, 4160, 1, 4096), BADF),
        "of-vectors-outside": ((2, 65532, 1, 4096), FAULT),
        "of-vectors-at-minus-8": ((2, -8, 1, 4096), FAULT),
        "of-vectors-without-end": ((2, 4160, -1, 4096), INVAL),
        "counted-outside": ((2, 4160, 1, -1), FAULT),
        "of-a-wild-vector": ((2, 4096, 1, 4120), FAULT),
    }
    for name, (arguments, code) in writes.items():
        graph = asking("fd_write", "i32 i32 i32 i32", arguments)
        yield _strange(f"writes-{name}", graph, {"code": _code(code), "seen": UNTOUCHED})
    for descriptor in (1, 2):
        seen = UNTOUCHED.copy()
        seen[:4] = (8, 0, 0, 0)
        graph = asking("fd_write", "i32 i32 i32 i32", (descriptor, 4160, 1, 4096))
        yield _strange(f"prints-to-{descriptor}", graph, {"code": _code(0), "seen": seen})


HOSTILE: tuple[HostileGraph, ...] = (
    *_pointers(),
    *_shapes(),
    *_error_texts(),
    *_metadata(),
    *_interfaces(),
    *_behaviour(),
)
STRANGE: tuple[StrangeGraph, ...] = (*_odd_places(), *_asking())


def write_hostile(folder: Path) -> Path:
    """Write all of them as `NAME.wasm` and a `manifest.json` beside; the manifest's path.

    Its graphs have "name", "file", "inputs" (each with "name", "dtype", "shape" and "data": its
    bytes, little-endian in C order, as base64), "memory" and "seconds" (limits or null), and either
    "kind" (the error that must come) or "outputs" (like inputs: what must come, bit by bit).
    """
    entries = []
    for graph in (*HOSTILE, *STRANGE):
        (folder / f"{graph.name}.wasm").write_bytes(graph.binary)
        entry = {
            "name": graph.name,
            "file": f"{graph.name}.wasm",
            "inputs": _tensors(graph.feeds),
            "memory": getattr(graph, "memory", None),
            "seconds": getattr(graph, "seconds", None),
        }
        if isinstance(graph, HostileGraph):
            entry["kind"] = graph.kind
        else:
            entry["outputs"] = _tensors(graph.outputs)
        entries.append(entry)
    manifest = folder / "manifest.json"
    manifest.write_text(json.dumps(entries, indent=1))
    return manifest


def _tensors(tensors: Feeds) -> list[dict[str, object]]:
    return [
        {
            "name": name,
            "dtype": array.dtype.name,
            "shape": list(array.shape),
            "data": base64.b64encode(array.tobytes()).decode(),
        }
        for name, array in tensors.items()
    ]
