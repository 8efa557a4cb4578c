"""The hand-made object file: what the linker makes of it is tested in test_module and test_abi."""

from __future__ import annotations

from pathlib import Path

from tests import bundles
from wasmgraph.bundle import Graph
from wasmgraph.link.regions_object import write_regions_object
from wasmgraph.wasmfile import parse_wasm


def graph(params_nbytes: int, io_nbytes: int, arena_nbytes: int) -> Graph:
    sizes = {"params_nbytes": params_nbytes, "io_nbytes": io_nbytes, "arena_nbytes": arena_nbytes}
    return bundles.make_graph((), (), (), (), operators={}, **sizes)


def test_it_is_a_module_with_a_symbol_per_region(tmp_path: Path) -> None:
    write_regions_object(tmp_path / "o", graph(3, 64, 128), b"abc")
    data = (tmp_path / "o").read_bytes()
    file = parse_wasm(data)
    assert [(i.module, i.name, i.kind) for i in file.imports] == [
        ("env", "__linear_memory", "memory")
    ]
    for region in ("params", "io", "arena"):
        assert f"wasmgraph_{region}".encode() in file.custom["linking"]
    assert b"abc" in data


def test_a_region_of_no_bytes_has_no_symbol(tmp_path: Path) -> None:
    write_regions_object(tmp_path / "o", graph(0, 64, 0), b"")
    linking = parse_wasm((tmp_path / "o").read_bytes()).custom["linking"]
    assert b"wasmgraph_io" in linking
    assert b"wasmgraph_params" not in linking
    assert b"wasmgraph_arena" not in linking


def test_zeros_take_no_room_on_the_disk(tmp_path: Path) -> None:
    write_regions_object(tmp_path / "o", graph(0, 1 << 20, 1 << 30), b"")
    info = (tmp_path / "o").stat()
    assert info.st_size > 1 << 30
    assert info.st_blocks * 512 < 1 << 20
