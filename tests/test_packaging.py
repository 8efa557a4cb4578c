"""What leaves this checkout as a wheel or an sdist, and that the wheel links graphs by itself."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).resolve().parents[1]
CRATE = "wasmgraph/_toolchain/executor/"
JAVASCRIPT = "wasmgraph/_toolchain/javascript/"
GO_MODULE = "wasmgraph/_toolchain/go/"


def python(*args: object, cwd: Path, **env: str) -> subprocess.CompletedProcess[str]:
    """Run this Python as a process of its own."""
    return subprocess.run(
        [sys.executable, *map(str, args)],
        cwd=cwd,
        env={**os.environ, **env},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


def build_wheel(source: Path, folder: Path) -> Path:
    """Build a wheel as pip does, or skip where the build's requirements cannot be had."""
    if importlib.util.find_spec("pip") is None:
        pytest.skip("this Python has no pip to build a wheel with")
    done = python("-m", "pip", "wheel", "--no-deps", "-w", folder, source, cwd=folder)
    if done.returncode != 0 and "No matching distribution found for hatchling" in done.stderr:
        pytest.skip("no package index in reach that has hatchling, which builds the wheel")
    assert done.returncode == 0, done.stderr
    [wheel] = folder.glob("*.whl")
    return wheel


def build_sdist(folder: Path) -> Path:
    """Build an sdist, after the wheel has shown that hatchling can be had."""
    # Not just "build": the checkout's folder of that name may stand for the package.
    if importlib.util.find_spec("build.env") is None:
        pytest.skip("the package `build`, of the extra dev, is not installed")
    done = python("-m", "build", "--sdist", "--outdir", folder, CHECKOUT, cwd=folder)
    assert done.returncode == 0, done.stderr
    [sdist] = folder.glob("*.tar.gz")
    return sdist


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel of this checkout."""
    return build_wheel(CHECKOUT, tmp_path_factory.mktemp("wheel"))


@pytest.fixture(scope="module")
def contents(wheel: Path) -> set[str]:
    """The names of the wheel's files."""
    with zipfile.ZipFile(wheel) as archive:
        return set(archive.namelist())


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the wheel installed in it, and nothing else."""
    folder = tmp_path_factory.mktemp("installed")
    target = ("--target", folder, "--no-deps", "--no-index")
    done = python("-m", "pip", "install", *target, wheel, cwd=folder)
    assert done.returncode == 0, done.stderr
    return folder


def test_the_wheel_holds_every_module_and_is_typed(contents: set[str]) -> None:
    modules = {str(p.relative_to(CHECKOUT)) for p in (CHECKOUT / "wasmgraph").rglob("*.py")}
    assert modules <= contents
    assert "wasmgraph/py.typed" in contents


def test_the_wheel_holds_the_crate_with_its_lock_file(contents: set[str]) -> None:
    crate = CHECKOUT / "toolchain" / "executor"
    files = [crate / "Cargo.toml", crate / "Cargo.lock", *(crate / "src").rglob("*.rs")]
    expected = {CRATE + str(path.relative_to(crate)) for path in files}
    assert {name for name in contents if name.startswith(CRATE)} == expected


def test_the_wheel_holds_what_runs_of_the_javascript_package(contents: set[str]) -> None:
    package = CHECKOUT / "toolchain" / "javascript"
    names = ("package.json", "host.html", "host.mjs", "page.mjs", "requests.mjs")
    files = [*(package / name for name in names), *(package / "src").rglob("*")]
    expected = {JAVASCRIPT + str(path.relative_to(package)) for path in files}
    assert {name for name in contents if name.startswith(JAVASCRIPT)} == expected


def test_the_wheel_holds_the_go_module_without_its_tests(contents: set[str]) -> None:
    module = CHECKOUT / "toolchain" / "go"
    files = [module / "go.mod", module / "go.sum", *module.rglob("*.go")]
    paths = {str(path.relative_to(module)) for path in files if "_test" not in path.name}
    assert {name for name in contents if name.startswith(GO_MODULE)} == {
        GO_MODULE + path for path in paths
    }


def test_the_wheel_holds_nothing_else(contents: set[str]) -> None:
    top = {name.split("/")[0] for name in contents}
    assert {name for name in top if not name.endswith(".dist-info")} == {"wasmgraph"}
    suffixes = {Path(name).suffix for name in contents if name.startswith("wasmgraph/")}
    sources = {".py", ".rs", ".js", ".html", ".mjs", ".go"}
    assert suffixes == {*sources, ".typed", ".toml", ".lock", ".json", ".mod", ".sum"}


def test_an_installed_wheel_links_the_bytes_that_the_checkout_links(
    installed: Path, digits_bundle: Path, digits_wasm: Path, tmp_path: Path
) -> None:
    where = python(
        "-c", "import wasmgraph; print(wasmgraph.__file__)", cwd=tmp_path, PYTHONPATH=str(installed)
    )
    assert Path(where.stdout.strip()) == installed / "wasmgraph" / "__init__.py"
    out = tmp_path / "out.wasm"
    link = ("-m", "wasmgraph", "link", digits_bundle, "-o", out)
    done = python(*link, cwd=tmp_path, PYTHONPATH=str(installed))
    assert done.returncode == 0, done.stderr
    assert out.read_bytes() == digits_wasm.read_bytes()


def test_linking_writes_nothing_into_the_installed_package(
    installed: Path, digits_bundle: Path, tmp_path: Path
) -> None:
    def files() -> set[Path]:
        return {p for p in installed.rglob("*") if "__pycache__" not in p.parts}

    before = files()
    link = ("-m", "wasmgraph", "link", digits_bundle, "-o", tmp_path / "out.wasm")
    done = python(*link, cwd=tmp_path, PYTHONPATH=str(installed))
    assert done.returncode == 0, done.stderr
    assert files() == before


def test_the_sdist_builds_the_same_wheel(contents: set[str], tmp_path: Path) -> None:
    sdist = build_sdist(tmp_path)
    with tarfile.open(sdist) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    assert {"LICENSE", "README.md", "toolchain/executor/Cargo.lock"} <= names
    assert not [name for name in names if "target" in Path(name).parts]
    assert not [name for name in names if name.startswith(("tests", "benchmarks"))]
    with zipfile.ZipFile(build_wheel(sdist, tmp_path)) as archive:
        assert set(archive.namelist()) == contents
