"""What relocations come to once the linker has filled them in."""

from __future__ import annotations

import struct
from pathlib import Path

import wasmtime

from wasmgraph.assembler import opcodes as op
from wasmgraph.assembler.object_file import (
    PLACEHOLDER,
    Code,
    Data,
    Fill,
    Relocation,
    write_linked_object,
)
from wasmgraph.link import find_rust
from wasmgraph.link.processes import run_in_group


def linked(
    folder: Path, objects: dict[str, bytes], export: str
) -> tuple[wasmtime.Store, wasmtime.InstanceExports]:
    """An instance of a module made of these objects."""
    rust = find_rust()
    for name, data in objects.items():
        (folder / name).write_bytes(data)
    flavor = ["-flavor", "wasm"] if "rust-lld" in rust.linker.name else []
    options = ["--no-entry", "--fatal-warnings", f"--export={export}", "-o", "out.wasm"]
    status, said = run_in_group([str(rust.linker), *flavor, *options, *objects], folder, None)
    assert status == 0, said
    engine = wasmtime.Engine()
    store = wasmtime.Store(engine)
    module = wasmtime.Module(engine, (folder / "out.wasm").read_bytes())
    return store, wasmtime.Instance(store, module, []).exports(store)


def constant(value: int) -> bytes:
    assert 0 <= value < 64
    return bytes([op.I32_CONST, value])


def test_a_call_reaches_a_function_of_another_object(tmp_path: Path) -> None:
    body = b"\0" + constant(7) + constant(5) + bytes([op.CALL])
    calls = Relocation(Fill.CALL, len(body), "difference")
    caller = Code("caller", 0, body + PLACEHOLDER + bytes([op.END]), (calls,))
    subtract = bytes([op.LOCAL_GET, 0, op.LOCAL_GET, 1, op.SCALAR["i32.sub"], op.END])
    objects = {
        "a.o": write_linked_object([caller], called={"difference": 2}),
        "b.o": write_linked_object([Code("difference", 2, b"\0" + subtract)]),
    }
    store, exports = linked(tmp_path, objects, "caller")
    assert exports["caller"](store) == 2


def test_addresses_in_code_and_data_are_those_of_the_data(tmp_path: Path) -> None:
    # Two words: the address of the second, and 42. The function follows the first to the second.
    words = Data(
        "words", struct.pack("<II", 0, 42), 16, (Relocation(Fill.ADDRESS_I32, 0, "words", 4),)
    )
    body = b"\0" + bytes([op.I32_CONST])
    start = Relocation(Fill.ADDRESS_SLEB, len(body), "words")
    load = bytes([op.I32_LOAD, 2, 0])
    code = Code("follow", 0, body + PLACEHOLDER + load + load + bytes([op.END]), (start,))
    store, exports = linked(tmp_path, {"a.o": write_linked_object([code], [words])}, "follow")
    assert exports["follow"](store) == 42


def test_addends_from_2_gib_on_lead_to_the_same_address(tmp_path: Path) -> None:
    body = b"\0" + bytes([op.I32_CONST])
    far = Relocation(Fill.ADDRESS_SLEB, len(body), "byte", 0x9000_0000)
    code = Code("far", 0, body + PLACEHOLDER + bytes([op.END]), (far,))
    near = Code(
        "near",
        0,
        body + PLACEHOLDER + bytes([op.END]),
        (Relocation(Fill.ADDRESS_SLEB, len(body), "byte"),),
    )
    both = Code(
        "distance",
        0,
        b"\0"
        + bytes([op.CALL])
        + PLACEHOLDER
        + bytes([op.CALL])
        + PLACEHOLDER
        + bytes([op.SCALAR["i32.sub"], op.END]),
        (Relocation(Fill.CALL, 2, "far"), Relocation(Fill.CALL, 8, "near")),
    )
    data = [Data("byte", b"x", 1)]
    made = write_linked_object([code, near, both], data)
    store, exports = linked(tmp_path, {"a.o": made}, "distance")
    assert exports["distance"](store) % 2**32 == 0x9000_0000
