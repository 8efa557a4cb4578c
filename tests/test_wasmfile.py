"""Reading wasm binaries of any origin: what is found in good ones; bad ones are LoadErrors."""

from __future__ import annotations

import json
from contextlib import suppress
from typing import Any

import pytest
import wasmtime
from hypothesis import given
from hypothesis import strategies as st

from wasmgraph.errors import LoadError
from wasmgraph.metadata import dump_metadata, load_metadata
from wasmgraph.wasmfile import (
    ABI_FUNCTIONS,
    MAGIC,
    Export,
    Import,
    Memory,
    add_custom_section,
    check_graph,
    custom_section,
    encode_number,
    keep_names,
    parse_wasm,
    read_metadata,
    with_memory_maximum,
)

METADATA: dict[str, Any] = {
    "abi": 1,
    "producer": {"wasmgraph": "0.1.0"},
    "model": {"name": "m.onnx", "sha256": "ab" * 32, "opset": 17, "operators": {"Add": 1}},
    "simd": "simd128",
    "threads": False,
    "inputs": [{"name": "x", "dtype": "float32", "shape": [1, 2]}],
    "outputs": [{"name": "y", "dtype": "int64", "shape": []}],
    "sizes": {"code": 1, "weights": 2, "arena": 3, "io": 4, "wide_weights": 5},
    "kernels": [{"symbol": "add", "description": "add"}],
    "steps": [{"kernel": 0, "nodes": ["Add#0"], "flops": 0, "shares": 1}],
    "dynamic": False,
    "calls": {"Relu": 2},
    "bounds": {"N": 8},
    "rounded": "int8",
}

EVERYTHING = """(module
  (import "m" "f" (func $f (param i32)))
  (import "m" "t" (table 1 2 funcref))
  (import "m" "g" (global (mut i64)))
  (memory (export "memory") 3 60000)
  (func $add (export "add") (param i32) (local.get 0) (call $f))
  (table $t 1 funcref)
  (global (export "c") i32 (i32.const 7))
  (elem (table $t) (i32.const 0) func $add)
  (data (i32.const 8) "hello")
)"""


def wat(text: str) -> bytes:
    return bytes(wasmtime.wat2wasm(text))


def graph_text(imports: str = "", without: str = "", memory: str = "1") -> str:
    functions = (f'(func (export "{n}"))' for n in ABI_FUNCTIONS if n != without)
    return f'(module {imports} (memory (export "memory") {memory}) {"".join(functions)})'


def with_metadata(data: bytes, metadata: object = METADATA) -> bytes:
    return add_custom_section(data, "wasmgraph", json.dumps(metadata).encode())


SMALL_GRAPH = with_metadata(wat(graph_text()))


def test_imports_exports_and_memory_are_found() -> None:
    file = parse_wasm(wat(EVERYTHING))
    assert file.imports == (
        Import("m", "f", "func"),
        Import("m", "t", "table"),
        Import("m", "g", "global"),
    )
    exports = (Export("memory", "memory"), Export("add", "func"), Export("c", "global"))
    assert file.exports == exports
    assert file.memory == Memory(3, 60000, shared=False, is_64bit=False)


def test_an_imported_shared_memory_is_found() -> None:
    file = parse_wasm(wat('(module (import "env" "memory" (memory 1 2 shared)))'))
    assert file.imports == (Import("env", "memory", "memory"),)
    assert file.memory == Memory(1, 2, shared=True, is_64bit=False)


def test_a_64_bit_memory_is_found() -> None:
    file = parse_wasm(wat("(module (memory i64 4294967296))"))
    assert file.memory == Memory(2**32, None, shared=False, is_64bit=True)


def test_section_sizes_add_up_to_the_file() -> None:
    data = with_metadata(wat(EVERYTHING))
    file = parse_wasm(data)
    assert file.nbytes == len(data)
    sizes = file.section_nbytes
    assert {"type", "import", "function", "table", "memory", "global"} < set(sizes)
    assert sizes["custom:wasmgraph"] == len(json.dumps(METADATA))
    overhead = len(data) - sum(sizes.values()) - len(MAGIC)
    assert 0 < overhead < 50


def test_an_added_section_is_found_again() -> None:
    file = parse_wasm(add_custom_section(wat(EVERYTHING), "note", b"\0\xff"))
    assert file.custom["note"] == b"\0\xff"


def test_a_module_with_an_added_section_is_still_valid() -> None:
    wasmtime.Module.validate(wasmtime.Engine(), add_custom_section(wat(EVERYTHING), "n", b"x"))


def test_names_and_exports_can_be_thinned_out() -> None:
    data = wat(EVERYTHING)
    thin = keep_names(data, exports={"memory", "absent"}, functions={"add"})
    wasmtime.Module.validate(wasmtime.Engine(), thin)
    file = parse_wasm(thin)
    assert file.exports == (Export("memory", "memory"),)
    assert file.custom["name"] == b"\x01\x06\x01\x01\x03add"
    assert "name" not in parse_wasm(keep_names(data, exports=(), functions=())).custom


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "does not begin with"),
        (b"\0as", "does not begin with"),
        (b"model", "does not begin with"),
        (MAGIC[:6], "version 1"),
        (b"\0asm\x0d\0\1\0", "version 1"),
        (MAGIC + b"\1", "ends early"),
        (MAGIC + b"\1\5\0", "ends early"),
        (MAGIC + b"\1\x80\x80\x80\x80\x80\x00", "more than 32 bits"),
        (MAGIC + b"\1\xff\xff\xff\xff\x7f", "more than 32 bits"),
        (MAGIC + b"\x20\0", "unknown section 32"),
        (MAGIC + b"\3\1\0\1\1\0", "out of order"),
        (MAGIC + b"\1\1\0\1\1\0", "out of order"),
        (MAGIC + b"\0\0", "ends early"),
        (MAGIC + b"\0\2\1\xff", "not UTF-8"),
        (MAGIC + b"\0\2\5a", "ends early"),
        (MAGIC + b"\2\2\0\0", "bytes after the section's last entry"),
        (MAGIC + b"\2\5\1\1a\1b", "ends early"),
        (MAGIC + b"\2\7\1\1a\1b\x09\0", "unknown kind 9"),
        (MAGIC + b"\2\x08\1\1a\1b\3\x7f\2", "neither constant nor mutable"),
        (MAGIC + b"\5\3\1\x08\1", "unknown limits 8"),
        (MAGIC + b"\5\5\2\0\1\0\1", "2 memories"),
        (MAGIC + b"\7\x09\2\1a\0\0\1a\0\0", "exported twice"),
        (MAGIC + b"\7\6\xff\xff\xff\xff\x0f\0", "ends early"),
        (MAGIC + (b"\0\x0a\x09wasmgraph") * 2, "two custom sections"),
    ],
)
def test_a_malformed_module_is_a_load_error(data: bytes, message: str) -> None:
    with pytest.raises(LoadError, match=message):
        parse_wasm(data)


@given(st.binary())
def test_random_bytes_are_nothing_but_load_errors(data: bytes) -> None:
    for candidate in (data, MAGIC + data):
        with suppress(LoadError):
            check_graph(candidate)
        with suppress(LoadError):
            keep_names(candidate, {"a"}, {"b"})


@given(st.integers(0, len(SMALL_GRAPH) - 1))
def test_a_truncated_graph_is_a_load_error(end: int) -> None:
    with pytest.raises(LoadError):
        check_graph(SMALL_GRAPH[:end])


@given(st.lists(st.integers(0, 8 * len(SMALL_GRAPH) - 1), min_size=1, max_size=4))
def test_flipped_bits_are_nothing_but_load_errors(bits: list[int]) -> None:
    data = bytearray(SMALL_GRAPH)
    for bit in bits:
        data[bit // 8] ^= 1 << bit % 8
    for read in (check_graph, read_metadata, parse_wasm):
        with suppress(LoadError):
            read(bytes(data))
    with suppress(LoadError):
        keep_names(bytes(data), {"memory"}, {"add"})


@given(st.integers(0, 2**32 - 1))
def test_encoded_numbers_are_read_back(value: int) -> None:
    # As the minimum of a memory, which may be any 32-bit number to this parser.
    memory = b"\1\0" + encode_number(value)
    found = parse_wasm(MAGIC + b"\5" + encode_number(len(memory)) + memory).memory
    assert found is not None
    assert found.minimum == value


def test_the_metadata_of_a_graph_are_read() -> None:
    metadata = check_graph(SMALL_GRAPH)
    assert metadata == read_metadata(SMALL_GRAPH)
    assert (metadata.inputs[0].name, metadata.inputs[0].shape) == ("x", (1, 2))
    assert metadata.steps[0].nodes == ("Add#0",)
    assert json.loads(dump_metadata(metadata)) == METADATA


def test_metadata_are_written_compactly() -> None:
    metadata = load_metadata(json.dumps(METADATA).encode())
    expected = json.dumps(METADATA, separators=(",", ":")).encode()
    assert dump_metadata(metadata) == expected


def test_keys_of_a_later_version_are_left_alone() -> None:
    assert read_metadata(with_metadata(MAGIC, {**METADATA, "later": 1})).abi == 1


def test_a_module_without_metadata_is_no_graph() -> None:
    with pytest.raises(LoadError, match="no graph"):
        check_graph(wat(graph_text()))


def changed(path: str, value: object) -> dict[str, Any]:
    """The metadata with one value replaced, e.g. at "inputs.0.dtype"; `...` removes it."""
    metadata = json.loads(json.dumps(METADATA))
    *parents, last = (int(key) if key.isdigit() else key for key in path.split("."))
    record = metadata
    for key in parents:
        record = record[key]
    if value is ...:
        del record[last]
    else:
        record[last] = value
    return metadata


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("abi", "1"),
        ("abi", 1.0),
        ("abi", True),
        ("producer", []),
        ("producer.wasmgraph", 1),
        ("model", ...),
        ("model.name", None),
        ("model.sha256", "ab" * 31),
        ("model.sha256", "xy" * 32),
        ("model.opset", -1),
        ("model.operators.Add", "1"),
        ("simd", "avx"),
        ("threads", 0),
        ("inputs", {}),
        ("inputs.0", []),
        ("inputs.0.name", ...),
        ("inputs.0.dtype", "complex64"),
        ("inputs.0.dtype", []),
        ("inputs.0.shape", 3),
        ("inputs.0.shape", [-1]),
        ("inputs.0.shape", [True]),
        ("inputs.0.shape", [1.5]),
        ("inputs.0.shape", [None]),
        ("dynamic", 0),
        ("rounded", "int4"),
        ("inputs.0.shape", [2**31]),
        ("inputs.0.shape", [2**62, 0]),
        ("inputs.0.shape", [2**70]),
        ("inputs.0.shape", [1] * 33),
        ("outputs", [METADATA["outputs"][0]] * 2),
        ("sizes.code", ...),
        ("sizes.arena", -1),
        ("kernels.0.symbol", 1),
        ("steps.0.kernel", 1),
        ("steps.0.nodes", "Add#0"),
        ("steps.0.nodes", [1]),
    ],
)
def test_metadata_that_are_not_as_they_should_be_are_a_load_error(path: str, value: object) -> None:
    with pytest.raises(LoadError, match="metadata"):
        read_metadata(with_metadata(MAGIC, changed(path, value)))


def test_another_abi_version_is_a_load_error() -> None:
    with pytest.raises(LoadError, match="ABI version 2, this wasmgraph knows 1"):
        check_graph(with_metadata(MAGIC, {"abi": 2}))


@pytest.mark.parametrize(
    "payload", [b"", b"{", b"\xff", b"[]", b"1" * 5000, b"[" * 100000, b'{"abi":NaN}']
)
def test_a_payload_that_is_no_object_is_a_load_error(payload: bytes) -> None:
    with pytest.raises(LoadError, match="metadata"):
        load_metadata(payload)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda items: st.lists(items) | st.dictionaries(st.text(), items),
)


@given(st.sampled_from(sorted(METADATA)), JSON)
def test_any_json_in_any_place_is_nothing_but_a_load_error(key: str, value: object) -> None:
    with suppress(LoadError):
        load_metadata(json.dumps({**METADATA, key: value}).encode())


@pytest.mark.parametrize(
    ("imports", "message"),
    [
        ('(import "env" "f" (func))', "imports the func 'f' of 'env'"),
        (
            '(import "wasi_snapshot_preview1" "g" (global i32))',
            "imports the global 'g' of 'wasi_snapshot_preview1'",
        ),
        ('(import "wasi_unstable" "fd_write" (func))', "the func 'fd_write' of 'wasi_unstable'"),
    ],
)
def test_a_foreign_import_is_a_load_error_that_names_it(imports: str, message: str) -> None:
    with pytest.raises(LoadError, match=message):
        check_graph(with_metadata(wat(graph_text(imports))))


def test_functions_of_wasi_may_be_imported() -> None:
    imports = '(import "wasi_snapshot_preview1" "proc_exit" (func (param i32)))'
    assert check_graph(with_metadata(wat(graph_text(imports)))).abi == 1


@pytest.mark.parametrize("name", ABI_FUNCTIONS)
def test_a_missing_export_is_a_load_error_that_names_it(name: str) -> None:
    with pytest.raises(LoadError, match=f"export the func '{name}', it exports nothing"):
        check_graph(with_metadata(wat(graph_text(without=name))))


def test_an_export_of_another_kind_is_a_load_error() -> None:
    glob = '(global (export "wg_run") i32 (i32.const 0)))'
    with pytest.raises(LoadError, match="export the func 'wg_run', it exports a global"):
        check_graph(with_metadata(wat(graph_text(without="wg_run")[:-1] + glob)))
    initialize = graph_text()[:-1] + glob.replace("wg_run", "_initialize")
    with pytest.raises(LoadError, match="export the func '_initialize', it exports a global"):
        check_graph(with_metadata(wat(initialize)))


@pytest.mark.parametrize("memory", ["i64 1", "1 2 shared"])
def test_a_memory_of_another_kind_is_a_load_error(memory: str) -> None:
    with pytest.raises(LoadError, match="32-bit and not shared"):
        check_graph(with_metadata(wat(graph_text(memory=memory))))


THREADED = {**METADATA, "threads": True}
OWN = '(memory (export "memory") 1)'
SHARED = '(import "env" "memory" (memory 1 2 shared))'
WORK = '(func (export "wg_work")) (func (export "wg_stop"))'


@pytest.mark.parametrize(
    ("metadata", "text", "message"),
    [
        (METADATA, SHARED + WORK, "imports the memory 'memory' of 'env'"),
        (THREADED, OWN + WORK, "should be imported, 32-bit and shared"),
        (THREADED, SHARED.replace("env", "host") + WORK, "the memory 'memory' of 'host'"),
        (THREADED, SHARED, "export the func 'wg_work', it exports nothing"),
    ],
)
def test_memory_is_shared_where_the_graph_is_for_threads_and_only_there(
    metadata: dict[str, object], text: str, message: str
) -> None:
    functions = "".join(f'(func (export "{name}"))' for name in ABI_FUNCTIONS)
    with pytest.raises(LoadError, match=message):
        check_graph(with_metadata(wat(f"(module {text} {functions})"), metadata))


def test_a_section_is_not_added_to_what_is_no_module() -> None:
    with pytest.raises(LoadError):
        add_custom_section(b"text", "note", b"")


GROWS = """(module (memory (export "memory") {limits})
  (func (export "grow") (param i32) (result i32) (memory.grow (local.get 0))))"""


@pytest.mark.parametrize(
    ("limits", "pages", "most"),
    [("2", 5, 5), ("2 9", 5, 5), ("2 3", 5, 3), ("2", 2, 2), ("0", 0, 0), ("2", 300, 300)],
)
def test_a_memory_can_be_given_a_maximum_that_engines_keep(
    limits: str, pages: int, most: int
) -> None:
    original = wat(GROWS.format(limits=limits)) + custom_section("kept", b"as it is")
    bounded = with_memory_maximum(original, pages)
    before, after = parse_wasm(original), parse_wasm(bounded)
    assert after.memory is not None
    assert after.memory.maximum == most
    assert (after.exports, after.custom) == (before.exports, before.custom)
    engine = wasmtime.Engine()
    store = wasmtime.Store(engine)
    exports = wasmtime.Instance(store, wasmtime.Module(engine, bounded), []).exports(store)
    minimum = after.memory.minimum
    assert exports["grow"](store, most - minimum + 1) == -1
    assert exports["grow"](store, most - minimum) == minimum


def test_a_maximum_below_what_a_memory_begins_with_is_refused() -> None:
    with pytest.raises(LoadError, match="begins with 2 pages, allowed are 1"):
        with_memory_maximum(wat(GROWS.format(limits="2")), 1)


def test_a_module_without_a_memory_of_its_own_stays_as_it_is() -> None:
    for text in ("(module)", '(module (import "env" "memory" (memory 1)))'):
        assert with_memory_maximum(wat(text), 3) == wat(text)
