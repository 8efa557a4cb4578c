"""toolchain/wit/inference.wit and what the component is made from say the same."""

from __future__ import annotations

import re

import pytest

from tests.conftest import CHECKOUT
from wasmgraph.component.interface import DTYPES, ERRORS, FUNCTIONS, MODEL, TYPES
from wasmgraph.component.wrapping import wrap

WIT = CHECKOUT / "toolchain" / "wit" / "inference.wit"


@pytest.fixture(scope="module")
def wit() -> str:
    """The interface without comments, and with one space wherever there is any."""
    text = re.sub(r"//[^\n]*", "", WIT.read_text(encoding="utf-8"))
    return re.sub(r"\s+", " ", text)


def body(wit: str, kind: str, name: str) -> list[str]:
    """The fields or cases of a type, as written there."""
    found = re.search(rf"\b{kind} {name} \{{ (.*?),? \}}", wit)
    assert found, f"no {kind} {name}"
    return re.split(r", (?![^(<]*[)>])", found[1])


def test_package_and_interface(wit: str) -> None:
    package = re.search(r"package (\S+);", wit)
    assert package
    name, _, version = package[1].partition("@")
    assert f"{name}/model@{version}" == MODEL
    assert "world graph { export model; }" in wit


def test_dtypes_in_their_order(wit: str) -> None:
    assert [name.lstrip("%") for name in body(wit, "enum", "dtype")] == list(DTYPES.values())


def test_errors_in_their_order(wit: str) -> None:
    assert body(wit, "variant", "error") == [f"{case}(string)" for case in ERRORS]


@pytest.mark.parametrize("name", [n for n, text in TYPES.items() if text.startswith("(record")])
def test_records(wit: str, name: str) -> None:
    fields = re.findall(r'\(field "([^"]+)" ((?:\{[^}]*\})|[^ ()]+|\(.*?\)+)\)', TYPES[name])
    assert body(wit, "record", name) == [f"{field}: {_wit(kind)}" for field, kind in fields]


def _wit(kind: str) -> str:
    """A type in text form as WIT has it."""
    words = re.findall(r"[^\s(){}]+|[(){}]", kind)
    return _type(words)


def _type(words: list[str]) -> str:
    word = words.pop(0)
    if word == "{":
        name = words.pop(0)
        assert words.pop(0) == "}"
        return name
    if word != "(":
        return word
    name, inner = words.pop(0), []
    while words[0] != ")":
        inner.append(_type(words))
    words.pop(0)
    return f"{name}<{', '.join(inner)}>"


def test_functions(wit: str) -> None:
    assert set(FUNCTIONS) == {"describe", "run"}
    assert "describe: func() -> metadata;" in wit
    expected = "result<list<named-tensor>, error>"
    assert f"run: func(inputs: list<named-tensor>) -> {expected};" in wit


def test_what_is_around_a_module_is_small() -> None:
    assert len(wrap(b"")) < 6000
