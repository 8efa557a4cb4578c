"""What `doctor` finds on machines that lack something."""

from __future__ import annotations

import re
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest

from wasmgraph import doctor
from wasmgraph.doctor import Finding, examine
from wasmgraph.link import rust


def find(name: str) -> Finding:
    (finding,) = [finding for finding in examine() if finding.name == name]
    return finding


def pretend_version(
    monkeypatch: pytest.MonkeyPatch, distribution: str, version: str | None
) -> None:
    real = metadata.version

    def answer(name: str) -> str:
        if name != distribution:
            return real(name)
        if version is None:
            raise metadata.PackageNotFoundError(name)
        return version

    monkeypatch.setattr(metadata, "version", answer)


def test_this_machine_has_what_the_tests_need() -> None:
    assert [f for f in examine() if f.required and f.status != "ok"] == []


def test_what_is_ok_needs_no_fix_and_what_is_not_has_one(monkeypatch: pytest.MonkeyPatch) -> None:
    pretend_version(monkeypatch, "pillow", None)
    for finding in examine():
        assert (finding.status == "ok") == (finding.fix is None)
        assert finding.detail


def test_rust_cargo_and_linker_are_told_apart_with_their_places() -> None:
    found = rust.find_rust()
    assert find("Rust with a WASI target").detail.startswith(f"{found.version} with {found.target}")
    assert find("cargo").detail == str(found.cargo)
    assert find("linker").detail == str(found.linker)


def test_a_machine_without_rust_is_told_what_to_run(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(rust, "DEBIAN_FOLDER", tmp_path)
    finding = find("Rust with a WASI target")
    assert (finding.status, finding.required) == ("missing", True)
    assert "rustc is not on PATH" in finding.detail
    assert finding.fix == rust.install_command()
    assert find("cargo").status == find("linker").status == "missing"


@pytest.mark.parametrize(
    ("distribution", "name", "version"),
    [
        ("apache-tvm", "TVM", "0.28.0"),
        ("apache-tvm", "TVM", None),
        ("apache-tvm-ffi", "TVM FFI", "0.1.15.post2"),
        ("wasmtime", "Wasmtime", None),
        ("onnx", "ONNX", None),
    ],
)
def test_a_required_package_of_another_version_counts_as_missing(
    monkeypatch: pytest.MonkeyPatch, distribution: str, name: str, version: str | None
) -> None:
    pretend_version(monkeypatch, distribution, version)
    finding = find(name)
    assert (finding.status, finding.required) == ("missing", True)
    assert finding.fix is not None
    assert finding.fix.startswith(f"{sys.executable} -m pip install ")
    assert distribution in finding.fix
    if version:
        assert version in finding.detail


@pytest.mark.parametrize(("distribution", "name"), [("onnxruntime",) * 2, ("pillow", "Pillow")])
def test_an_optional_package_may_be_missing(
    monkeypatch: pytest.MonkeyPatch, distribution: str, name: str
) -> None:
    pretend_version(monkeypatch, distribution, None)
    finding = find(name)
    assert (finding.status, finding.required) == ("optional-missing", False)


def test_the_pins_are_those_of_pyproject() -> None:
    text = (Path(__file__).parents[1] / "pyproject.toml").read_text()
    for distribution, pin in doctor._PINS.items():
        assert f'"{distribution}{pin}"' in text


@pytest.mark.parametrize(
    ("version", "wanted", "holds"),
    [
        ("0.27.0.post1", "==0.27.0.post1", True),
        ("0.27.0", "==0.27.0.post1", False),
        ("48.0.0", ">=48,<51", True),
        ("50.0.1", "<51,>=48", True),
        ("51.0.0", ">=48,<51", False),
        ("51.0.0rc1", ">=48,<51", False),
        ("47.9", ">=48,<51", False),
        ("1.9", ">=1.18", False),
        ("1", "<=1.0", True),
        ("1", "", True),
    ],
)
def test_versions_are_compared_as_numbers(version: str, wanted: str, holds: bool) -> None:
    assert doctor._fulfils(version, wanted) is holds


def test_every_requirement_of_pyproject_can_be_read() -> None:
    text = (Path(__file__).parents[1] / "pyproject.toml").read_text()
    for package in doctor._PACKAGES:
        match = re.search(rf'"{package.distribution}([<>=!~][^"]*)"', text)
        assert match, package
        doctor._fulfils("1.0", match[1])


def test_a_cache_folder_that_cannot_be_made_is_told(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    finding = find("cache folder")
    assert (finding.status, finding.required) == ("optional-missing", False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "not" / "yet" / "there"))
    assert find("cache folder").status == "ok"


def test_neither_tvm_nor_wasmtime_is_imported() -> None:
    program = (
        "import sys; from wasmgraph.doctor import examine; examine()\n"
        "print([name for name in ('tvm', 'tvm_ffi', 'wasmtime', 'onnx') if name in sys.modules])"
    )
    answer = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        check=True,
        cwd=Path(__file__).parents[1],
    )
    assert answer.stdout.strip() == "[]"
