"""One graph under several engines: a table of agreement, and bits that must not differ.

simd128 results are compared bit by bit, since WebAssembly defines every bit of them; only the bits
of a NaN are the engine's choice, so NaNs count as equal.
"""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests.bundles import SCALE_WEIGHTS, scale_bundle
from tests.runtime.test_host_process import HOST
from tests.test_verification import scale_model
from wasmgraph import verify_engines
from wasmgraph.engine_verification import bit_distance
from wasmgraph.errors import LoadError, ToolchainError, VerificationError
from wasmgraph.link import link
from wasmgraph.metadata import dump_metadata
from wasmgraph.runtime.registry import RUNTIMES
from wasmgraph.wasmfile import METADATA_SECTION, custom_section, read_metadata

MODEL = scale_model(SCALE_WEIGHTS)
X = {"x": np.float32([1, 2, 3, 4])}


@pytest.fixture(scope="module")
def scale_wasm(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("scale") / "scale.wasm"
    link(scale_bundle(), path)
    return path


@pytest.fixture
def pretend_node(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A "node" whose outputs are all zeros."""
    host = tmp_path / "node"
    host.write_text(f"#!{sys.executable}\n{HOST.replace('MISBEHAVIOUR', '')}")
    host.chmod(0o755)
    monkeypatch.setenv("WASMGRAPH_NODE", str(host))


def test_every_engine_that_is_here_agrees_to_the_bit(scale_wasm: Path) -> None:
    report = verify_engines(scale_wasm, MODEL, X, seconds=0.01)
    assert [engine.runtime for engine in report.engines] == list(RUNTIMES)
    for engine in report.engines:
        if engine.ran:
            assert engine.agrees, engine
            assert (engine.differing, engine.max_ulp) == ((), 0)
            assert engine.runs >= 3
            assert engine.start_ms > 0
        else:
            assert engine.fix or engine.problem, engine
            assert not engine.failed, engine
    assert report.engines[0].ran
    assert report.agrees
    report.raise_if_disagree()
    assert report.to_json()["engines"][0]["identical"] is True


def test_another_bit_is_a_verification_error(scale_wasm: Path, pretend_node: None) -> None:
    report = verify_engines(scale_wasm, MODEL, X, runtimes=["node"], seconds=0, atol=1e9)
    assert [engine.runtime for engine in report.engines] == ["wasmtime", "node"]
    assert report.engines[1].agrees  # within this tolerance
    assert report.engines[1].differing == ("y",)
    with pytest.raises(VerificationError, match="node differs from wasmtime in 'y'"):
        report.raise_if_disagree()


def test_disagreement_with_onnxruntime_names_the_engine(
    scale_wasm: Path, pretend_node: None
) -> None:
    report = verify_engines(scale_wasm, MODEL, X, runtimes=["node"], seconds=0)
    with pytest.raises(VerificationError, match="node: output 'y'"):
        report.raise_if_disagree()


def test_relaxed_results_may_differ(
    scale_wasm: Path, tmp_path: Path, pretend_node: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    binary = scale_wasm.read_bytes()
    metadata = read_metadata(binary)
    honest = custom_section(METADATA_SECTION, dump_metadata(metadata))
    assert honest in binary
    relaxed = custom_section(METADATA_SECTION, dump_metadata(replace(metadata, simd="relaxed")))
    path = tmp_path / "relaxed.wasm"
    path.write_bytes(binary.replace(honest, relaxed))
    with pytest.raises(LoadError, match="no relaxed SIMD"):
        verify_engines(path, MODEL, X, runtimes=["node"], seconds=0)
    text = (tmp_path / "node").read_text()
    (tmp_path / "node").write_text(text.replace('"relaxed_simd": False', '"relaxed_simd": True'))
    report = verify_engines(path, MODEL, X, runtimes=["node"], seconds=0, atol=1e9)
    assert not report.exact
    assert report.engines[1].differing == ("y",)
    assert report.agrees


def test_an_engine_that_fails_is_in_the_report(
    scale_wasm: Path, tmp_path: Path, pretend_node: None
) -> None:
    text = (tmp_path / "node").read_text()
    fails = "def answer(request, payload): sys.exit(4)\n\ngreet()\nwhile"
    (tmp_path / "node").write_text(text.replace("greet()\nwhile", fails))
    report = verify_engines(scale_wasm, MODEL, X, runtimes=["node"], seconds=0)
    assert report.engines[0].agrees
    assert report.engines[1].failed
    with pytest.raises(VerificationError, match=r"node failed: LoadError: .*exit code 4"):
        report.raise_if_disagree()


def test_an_engine_asked_for_by_name_must_be_here(
    scale_wasm: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WASMGRAPH_WASMER", "/absent")
    with pytest.raises(ToolchainError, match="WASMGRAPH_WASMER"):
        verify_engines(scale_wasm, MODEL, X, runtimes=["wasmer"])
    with pytest.raises(ValueError, match="no runtime"):
        verify_engines(scale_wasm, MODEL, X, runtimes=["v8"])


def _bits(*words: int) -> np.ndarray:
    return np.array(words, np.uint32).view(np.float32)


@pytest.mark.parametrize(
    ("found", "wanted", "distance"),
    [
        (np.float32([1, 2]), np.float32([1, 2]), None),
        (np.float32([1, np.nextafter(np.float32(2), np.float32(3))]), np.float32([1, 2]), 1),
        (np.float32([0.0]), np.float32([-0.0]), 1),
        (_bits(0x7FC00000), _bits(0xFFC00001), None),  # NaNs
        (_bits(0x7FC00000, 0x3F800000), _bits(0xFFC00001, 0x3F800003), 3),
        (_bits(0x7FC00000), _bits(0x3F800000), 2**32 - 1),
        (np.int64([5]), np.int64([2]), 3),
        (np.array([True]), np.array([False]), 1),
        (np.zeros((0, 3)), np.zeros((0, 3)), None),
        (np.float32(1.0).reshape(()), np.float32(1.0).reshape(()), None),
        (np.float32([1]), np.float64([1]), 2**63 - 1),
        (np.float32([[1]]), np.float32([1]), 2**63 - 1),
    ],
)
def test_bits_are_compared(found: np.ndarray, wanted: np.ndarray, distance: int | None) -> None:
    assert bit_distance(found, wanted) == distance


def test_bits_of_narrow_dtypes_are_compared() -> None:
    ml_dtypes = pytest.importorskip("ml_dtypes", reason="ml_dtypes is missing")
    one, two = (np.array([value], ml_dtypes.bfloat16) for value in (1, 2))
    nan = np.array([0x7FC0, 0xFFC1], np.uint16).view(ml_dtypes.bfloat16)
    assert bit_distance(one, one.copy()) is None
    assert bit_distance(one, two) == 1
    assert bit_distance(nan, nan[::-1].copy()) is None
