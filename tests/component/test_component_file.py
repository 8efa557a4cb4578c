"""What a component is from the outside: made, described and told apart without running it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import wasmtime
from wasmtime import component

import wasmgraph
from tests import bundles
from wasmgraph.bundle import read_bundle
from wasmgraph.component.file import check_component, component_sections, parse_component
from wasmgraph.component.interface import DESCRIBE, MODEL, REALLOC, RUN
from wasmgraph.component.wrapping import wrap
from wasmgraph.errors import LoadError, UnsupportedModelError
from wasmgraph.link import link
from wasmgraph.wasmfile import METADATA_SECTION, custom_section, parse_wasm, read_metadata


def core_module(data: bytes) -> bytes:
    """The one core module of a component."""
    (section,) = (s for s in component_sections(data) if s.number == 1)
    return data[section.contents : section.end]


def test_it_imports_nothing_and_exports_the_interface(digits_component: Path) -> None:
    shown = parse_component(digits_component.read_bytes())
    assert shown.imports == ()
    assert shown.exports == {MODEL: "instance"}
    assert [memory.shared for memory in shown.memories] == [False]


def test_wasmtime_sees_the_same(digits_component: Path) -> None:
    engine = wasmtime.Engine()
    found = component.Component(engine, digits_component.read_bytes()).type
    assert found.imports(engine) == {}
    model = found.exports(engine)[MODEL].ty
    assert isinstance(model, component.ComponentInstanceType)
    assert {"describe", "run", "tensor", "error", "metadata"} < set(model.exports(engine))


def test_its_module_imports_nothing_either(digits_component: Path) -> None:
    module = parse_wasm(core_module(digits_component.read_bytes()))
    assert module.imports == ()
    assert {item.name for item in module.exports} == {"memory", REALLOC, DESCRIBE, RUN}
    assert METADATA_SECTION not in module.custom


def test_its_metadata_are_the_modules(digits_component: Path, digits_wasm: Path) -> None:
    ours, _ = check_component(digits_component.read_bytes())
    theirs = read_metadata(digits_wasm.read_bytes())
    assert (ours.inputs, ours.outputs, ours.kernels) == (
        theirs.inputs,
        theirs.outputs,
        theirs.kernels,
    )
    assert (ours.model, ours.producer, ours.steps) == (theirs.model, theirs.producer, theirs.steps)
    assert ours.sizes.code + ours.sizes.weights == digits_component.stat().st_size


def test_it_is_smaller_than_the_module(digits_component: Path, digits_wasm: Path) -> None:
    """It has no command line."""
    assert digits_component.stat().st_size < digits_wasm.stat().st_size


def test_the_same_bundle_gives_the_same_bytes(digits_bundle: Path, tmp_path: Path) -> None:
    bundle = read_bundle(digits_bundle)
    for name in ("a.wasm", "b.wasm"):
        link(bundle, tmp_path / name, kind="component")
    assert (tmp_path / "a.wasm").read_bytes() == (tmp_path / "b.wasm").read_bytes()


def test_several_threads_are_refused(digits_onnx: Path, tmp_path: Path) -> None:
    with pytest.raises(UnsupportedModelError, match="one thread"):
        wasmgraph.compile(digits_onnx, tmp_path / "x.wasm", kind="component", threads=True)
    bundle = bundles.add_bundle()
    bundle = replace(bundle, graph=replace(bundle.graph, threads=True))
    with pytest.raises(UnsupportedModelError, match="one thread"):
        link(bundle, tmp_path / "x.wasm", kind="component")


def test_another_kind_is_refused(digits_onnx: Path, tmp_path: Path) -> None:
    with pytest.raises(wasmgraph.errors.InputError, match="'modul'"):
        wasmgraph.compile(digits_onnx, tmp_path / "x.wasm", kind="modul")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("rest", "expected"),
    [
        (b"\x0d\0", "unknown section"),
        (b"\x0b\x09\1", "ends early"),
        (b"\0\2\1\xff", "not UTF-8"),
        (b"\x0b\2\1\7", "unknown kind"),
        (b"\x0b\4\1\0\0\6", "unknown sort"),
        (custom_section(METADATA_SECTION, b"") * 2, "two custom sections"),
    ],
)
def test_what_is_malformed_is_refused(rest: bytes, expected: str) -> None:
    empty = b"\0asm\x0d\0\1\0"
    with pytest.raises(LoadError, match=expected):
        check_component(empty + rest)


def test_a_module_is_put_into_a_component_as_it_is() -> None:
    module = bytes(wasmtime.wat2wasm('(module (memory (export "memory") 3))'))
    whole = wrap(module)
    assert core_module(whole) == module
    assert [memory.minimum for memory in parse_component(whole).memories] == [3]
